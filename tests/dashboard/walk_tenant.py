"""A tenant in which every page has something to show, some of it named to do harm."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.test import Client

from alerts.delivery.requests import test_channel as send_test
from billing.collection.credentials import configure_collection, set_credentials
from billing.coupons import create_coupon
from billing.credit_notes import create_credit_note
from billing.customers import update_customer
from billing.models import AccountState, Customer, CustomerLink, InvoiceStep, StripeInvoice
from billing.plans import add_version, terms_of
from billing.reconciliation.runs import start_reconciliation
from billing.tasks_reconciliation import reconcile
from dashboard.billing.reconciliation import KINDS
from metering.jobs.tasks import run_simulations
from metering.models import Simulation
from tenants.invitations import invite
from tenants.models import Team, User
from tenants.password_resets import make_reset_token
from tenants.roles import Role
from tests.alerts.scene import make_channel
from tests.billing.bills import import_for, openai_bucket, openai_page
from tests.billing.credit_scene import charge, make_grant, make_wallet
from tests.billing.scene import PER_REQUEST, make_customer, make_plan, month_start, put_on
from tests.dashboard.budgets.test_form import fill, post
from tests.dashboard.settings.test_pages import make_price, make_window
from tests.dashboard.test_enforcement_pages import make_breaker, make_halt, make_raise, record
from tests.dashboard.test_incident_pages import delivery_of, make_incident
from tests.factories import Account, finish_jobs, make_budget, make_event, send
from tests.metering.api.caller import caller

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
AGENT = "scout-7"
# Of the team that the engineer of the walk is in.
TEAM = "growth"


def furnish(account: Account, owner: Client) -> dict[str, object]:
    """Fill the tenant; answer what stands for the parameters of addresses, by their names."""
    make_team(account)
    _report(account)
    return {
        **_limits(account, owner),
        **_alerts(account),
        **_settings(account, owner),
        **_billing(account),
    }


def make_team(account: Account) -> Team:
    with account.scope():
        team, _ = Team.objects.get_or_create(tenant=account.tenant, name=TEAM)
    return team


def _report(account: Account) -> None:
    """Three weeks of a session a day with a repeated call and an error, and names that do harm."""
    now = datetime.now(UTC)
    events = []
    for day in range(21):
        at = now - timedelta(days=day, minutes=30)
        for step in range(3):
            events.append(
                make_event(
                    id=f"call-{day}-{step}",
                    time=(at + timedelta(seconds=step)).isoformat(),
                    session=f"run-{day}",
                    trace=f"trace-{day}",
                    span=f"span-{day}-{step}",
                    parent_span=f"span-{day}-0" if step else ...,
                    agent=AGENT if step else "writer",
                    team=TEAM if day % 3 else "research",
                    customer=f"customer {day % 4}",
                    feature="search",
                    user=f"user-{day % 5}",
                    input_tokens=1000 * (step + 1),
                    latency_ms=700,
                    status="error" if day % 5 == step else "ok",
                )
            )
    events.append(make_event(agent=HOSTILE, team="x" * 200, cost_usd="1", session="run-0"))
    events.append(make_event(model="unheard-of", provider="nobody", team=TEAM))
    send(account, events)
    finish_jobs()
    api = caller(account)
    today = now.date().isoformat()
    api.post("/v1/unit-counts", {"name": "tickets solved", "day": today, "count": 4})
    api.post("/v1/annotations", {"text": HOSTILE})


def _limits(account: Account, owner: Client) -> dict[str, object]:
    everything = make_budget(
        account, name="Everything", cost_usd=2, levels=[(70, "none"), (100, "block")]
    )
    make_budget(account, name=HOSTILE, per=["agent"], match={"team": TEAM}, period="day")
    waiting = make_raise(account, everything, agent=None, reason=HOSTILE)
    made = make_halt(account, agent="someone-else")
    breaker = make_breaker(account)
    record(account, {}, {"dimensions": {"agent": HOSTILE, "session": "run-0"}})
    post(owner, fill(owner), "/budgets/preview")
    run_simulations()
    with account.scope():
        previewed = Simulation.objects.latest("id")
    return {
        "budget_id": everything.id,
        "raise_id": waiting.id,
        "halt_id": made.id,
        "breaker_id": breaker.id,
        "kind": "breakers",
        "rule_id": breaker.id,
        "simulation_id": previewed.id,
    }


def _alerts(account: Account) -> dict[str, object]:
    channel = make_channel(account, "slack")
    incident = make_incident(account, title=HOSTILE, match={"team": TEAM, "agent": HOSTILE})
    delivery = delivery_of(account)
    with account.scope():
        tested = send_test(channel=channel, actor="tests")
    return {
        "channel_id": channel.id,
        "incident_id": incident.id,
        "delivery_id": delivery.id,
        "test_state": tested.id,
    }


def _billing(account: Account) -> dict[str, object]:
    """Two plans with every kind of charge, and a customer who pays more than it costs, one who pays
    less, one in another currency, and one with a name that does harm.
    """
    fee = {"name": "Fee", "kind": "flat", "amount": "40", "when": "advance"}
    small = make_plan(account, {**fee, "amount": "0.0001"}, name=HOSTILE)
    large = make_plan(account, fee, *CHARGES, name="Growth", bounds={"minimum_amount": "10"})
    abroad = make_plan(account, fee, name="Europe", currency="EUR")
    keys = {"customer 0": large, "customer 1": small, "customer 2": abroad, HOSTILE: large}
    made = {}
    for key, plan in keys.items():
        customer = make_customer(account, key=key, name=key, currency=plan.currency, **PARTY)
        made[key] = put_on(account, customer, plan, month_start(1))
    first = made["customer 0"]
    with account.scope():
        add_version(
            large, actor="tests", starts_at=month_start(0), terms=terms_of(large.versions.get())
        )
        link = {"dimension": "agent", "value": HOSTILE}
        update_customer(first.customer, actor="tests", changes={"links": [link]})
        link_id = CustomerLink.objects.get(customer=first.customer, value=HOSTILE).id
    billed = {
        "customer_id": first.customer_id,
        "plan_id": large.id,
        "subscription_id": first.id,
        "link_id": link_id,
    }
    return billed | _credit(account, first.customer) | _compared(account)


def _credit(account: Account, billed: Customer) -> dict[str, object]:
    """Credit of every kind, a wallet, and a statement with a credit note that Stripe failed to
    collect.
    """
    own: Any = {"tenant": account.tenant, "actor": "tests"}
    customer = make_customer(account, key="prepaid", name=HOSTILE)
    soon = datetime.now(UTC) + timedelta(days=9)
    grant = make_grant(account, customer, 50_000, reference=HOSTILE, expires_at=soon)
    make_grant(account, billed, 1_000, kind="promotional", priority=9)
    statement = charge(account, billed, 1_190, taxes=(("VAT", "19", 190),))
    with account.scope():
        create_credit_note(statement, actor="tests", reason=HOSTILE, amount=300)
        coupon = create_coupon(**own, customer=billed, name=HOSTILE, percent=Decimal("12.5"))
        set_credentials(**own, api_key="sk_test_walk", webhook_secret="whsec_walk")
        configure_collection(**own, collects=True)
        payer = billed.stripe_accounts.create(
            tenant=account.tenant, is_live=False, state=AccountState.OVERDUE
        )
        StripeInvoice.objects.create(
            tenant=account.tenant,
            statement=statement,
            account=payer,
            is_live=False,
            stripe_id="in_walk",
            step=InvoiceStep.DONE,
            status="open",
            has_payment_failed=True,
            problem=HOSTILE,
        )
    return {
        "grant_id": grant.id,
        "wallet_id": make_wallet(account, customer).id,
        "coupon_id": coupon.id,
        "statement_id": statement.id,
    }


def _compared(account: Account) -> dict[str, object]:
    """A bill that differs from usage."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    import_for(account, openai_page(openai_bucket(day, [("gpt-4o, input", "12.5")])))
    with account.scope():
        run = start_reconciliation(
            tenant=account.tenant, actor="tests", first_day=day, last_day=day, kinds=list(KINDS)
        )
    while reconcile():
        pass
    return {"run_id": run.id}


PARTY: Final = {
    "address": f"1 Main Street\n{HOSTILE}",
    "country": "DE",
    "email": "pay@example.com",
    "tax_rates": [{"name": "VAT", "percent": "19"}],
}
TIERS: Final = [{"up_to": "10", "unit_amount": "1", "flat_amount": "2"}, {"up_to": None}]
CHARGES: Final = (
    PER_REQUEST,
    {**PER_REQUEST, "name": "Tiers", "model": "graduated", "unit_amount": None, "tiers": TIERS},
    {**PER_REQUEST, "name": "Volume", "model": "volume", "unit_amount": None, "tiers": TIERS},
    {
        **PER_REQUEST,
        "name": "Packages",
        "model": "package",
        "unit_amount": None,
        "package_size": 100,
        "package_amount": "5",
        "included_units": "10",
        "filter": {"agent": [HOSTILE, AGENT]},
    },
    {
        **PER_REQUEST,
        "name": "Cost",
        "metric": "cost",
        "model": "cost_plus",
        "unit_amount": None,
        "percent": "20",
        "markups": [{"percent": "30", "model": "gpt-5"}],
    },
)


def _settings(account: Account, owner: Client) -> dict[str, object]:
    price = make_price(account)
    window = make_window(account)
    owner.post("/reports/views/save", {"name": "Mine", "query": "", "readers": "tenant"})
    with account.scope():
        user = User.objects.get(email=account.email)
        member = user.memberships.get(tenant=account.tenant)
        invited = invite(
            tenant=account.tenant,
            email="new@example.com",
            role=Role.VIEWER,
            actor="tests",
            actor_role=Role.OWNER,
        )
    return {
        "member_id": member.id,
        "team_id": make_team(account).id,
        "price_id": price.id,
        "window_id": window.id,
        "invitation": invited.token,
        "invitation_id": invited.invitation.id,
        "session": "run-1",
        "trace": "trace-1",
        "source": "tests",
        "sent_id": "call-1-1",
        "new_password": make_reset_token(user),
    }
