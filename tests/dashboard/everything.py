"""A tenant with one of everything that pages show, and the addresses of all pages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.urls import reverse
from django.urls.resolvers import RoutePattern, URLPattern

from alerts.models import Delivery, IncidentKind
from alerts.settings import create_maintenance_window
from billing.coupons import create_coupon
from billing.credit_notes import create_credit_note
from billing.customers import update_customer
from billing.models import CustomerLink, Drift, Reconciliation
from billing.reconciliation.results import KindResult
from common.json_bodies import JsonObject
from dashboard import urls
from dashboard.models import Cadence, Readers, ReportSchedule, SavedView
from metering.configuration.breakers import create_breaker
from metering.configuration.prices import Validity, add_price, add_tool_price
from metering.core.match import group_key
from metering.limits.halts import halt
from metering.limits.limit_increases import Added, IncreaseAsk, ask_for_increase
from metering.models import Annotation, Route, Simulation, SourceOutcome
from metering.rollups import roll_up
from metering.usage.sources import PROCESS_RECORDER, Tally, record_reports
from tenants.invitations import invite
from tenants.keys import create_api_key
from tenants.models import Membership, Team, User
from tenants.roles import Role
from tests.alerts.examples import make_anomaly, make_incident
from tests.alerts.scene import make_channel
from tests.billing.credit_scene import charge, make_grant, make_wallet
from tests.billing.scene import PER_REQUEST, make_customer, make_plan, month_start, put_on
from tests.factories import NANOS, Account, make_budget, make_event, send


def addresses() -> Iterator[tuple[str, list[str]]]:
    """The name of every page, and of what its address is made."""
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        assert isinstance(pattern.pattern, RoutePattern)
        yield pattern.name or str(pattern.pattern), list(pattern.pattern.converters)


def address_of(name: str, parts: list[str], objects: JsonObject) -> str:
    """The address of a page for these objects. A new kind of object belongs into `fill`."""
    if name == "enforcement":
        return "/enforcement"
    if name.endswith("_rule"):
        objects = {**objects, "kind": "breakers", "rule_id": objects["breaker_id"]}
    return reverse(f"dashboard:{name}", args=[objects[part] for part in parts])


def fill(
    account: Account, text: str, *, team: str, cost_usd: str, limit_usd: int = 20
) -> JsonObject:
    """Make one of everything, all of one team's and with one text where a text can stand; answer
    what addresses name it by.
    """
    at = datetime.now(UTC)
    usage = {
        **dict.fromkeys(("agent", "feature", "customer", "user", "session", "trace"), text),
        "team": team,
        "time": at.isoformat(),
        "tags": {"note": text},
    }
    call = make_event(**usage, id=f"call {text}"[:200], source=text, cost_usd=cost_usd)
    send(account, [call, make_event(**usage, model=f"model {text}"[:200]), make_event(**usage)])
    name, match = f"budget {text}"[:200], {"team": team}
    budget = make_budget(account, name=name, match=match, per=["agent"], cost_usd=limit_usd)
    channel = make_channel(account, name=f"channel {text}"[:200])
    fields = {"cost_nanos": round(float(cost_usd) * NANOS), "window_start": at.isoformat()}
    incident = make_incident(
        account,
        kind=IncidentKind.ANOMALY,
        cause=f"loop:{text}",
        title=f"incident {text}"[:200],
        summary=f"${cost_usd} {text}",
        match={"team": team},
        facts=fields,
        excess_nanos=fields["cost_nanos"],
    )
    make_anomaly(account, incident, dimension="team", value=team)
    counted: Any = {"reports": 3, "code": "unknown_field", "sample": text, "detail": text}
    record_reports(account.tenant.id, [Tally(text, Route.OTLP, SourceOutcome.REJECTED, **counted)])
    PROCESS_RECORDER.flush()
    with account.scope():
        roll_up(tenant_id=account.tenant.id)
        objects = _rules(account, text, team=team, at=at)
        objects |= _people(account, text, team=team)
        objects |= _billing(account, text)
        ask = IncreaseAsk(
            add=Added(cost_nanos=limit_usd * NANOS),
            reason=text,
            ends_at=at + timedelta(hours=5),
            group_key=group_key([text]),
        )
        return objects | {
            "raise_id": ask_for_increase(budget=budget, actor=text[:200], ask=ask).id,
            "budget_id": budget.id,
            "channel_id": channel.id,
            "incident_id": incident.id,
            "delivery_id": Delivery.objects.filter(incident=incident).latest("id").id,
            "session": text,
            "trace": text,
            "source": text,
            "sent_id": call["id"],
            "kind": "model",
            "token": "no-such-token",
            "session_id": "no-such-session",
            "simulation_id": Simulation.objects.create(
                tenant=account.tenant, proposal={}, from_at=at, to_at=at, actor=text[:200]
            ).id,
        }


def _rules(account: Account, text: str, *, team: str, at: datetime) -> JsonObject:
    """What limits, prices and explains usage."""
    own: Any = {"tenant": account.tenant, "actor": "tests"}
    valid = Validity(effective_from=at - timedelta(days=1), note=text)
    rates = {"input_tokens": {"nanos": str(NANOS), "per": 1_000_000}}
    price = add_price(**own, model=f"priced {text}"[:200], rates=rates, validity=valid)
    add_tool_price(**own, tool=f"tool {text}"[:200], call_nanos=NANOS, validity=valid)
    Annotation.objects.create(tenant=account.tenant, text=text, match={"team": team}, time=at)
    window = create_maintenance_window(
        **own,
        match={"team": team},
        starts_at=at,
        ends_at=at + timedelta(hours=5),
        reason=text,
    )
    stop: Any = {"match": {"team": team, "agent": text}, "reason": text}
    return {
        "price_id": price.id,
        "window_id": window.id,
        "halt_id": halt(**own, **stop).id,
        "breaker_id": create_breaker(
            **own,
            name=f"breaker {text}"[:200],
            match={"team": team},
            per=["agent"],
            cost_nanos_per_minute=1_000_000_000 * NANOS,
        ).id,
    }


def _billing(account: Account, text: str) -> JsonObject:
    """A customer with a further link, on a plan, with statements."""
    name = f"billed {text}"[:200]
    customer = make_customer(account, key=text[:200], name=name, address=text[:1000])
    plan = make_plan(account, {**PER_REQUEST, "name": name}, name=name)
    subscription = put_on(account, customer, plan, month_start(1))
    link = {"dimension": "feature", "value": name}
    with account.scope():
        update_customer(customer, actor="tests", changes={"links": [link]})
    billed = {
        "customer_id": customer.id,
        "plan_id": plan.id,
        "subscription_id": subscription.id,
        "link_id": CustomerLink.objects.get(customer=customer, value=name).id,
    }
    return billed | _credit(account, text)


def _credit(account: Account, text: str) -> JsonObject:
    """A customer who paid ahead, whose calls are held to it, with a coupon and a credit note; and
    a comparison that found a difference.
    """
    own: Any = {"tenant": account.tenant, "actor": "tests"}
    customer = make_customer(account, key=f"paid {text}"[:200], name=f"ahead {text}"[:200])
    grant = make_grant(account, customer, 100, reference=text[:200])
    statement = charge(account, customer, 50)
    create_credit_note(statement, actor="tests", reason=text[:1000], amount=1)
    wallet = make_wallet(account, customer)
    coupon = create_coupon(**own, customer=customer, name=text[:200], percent=Decimal(10))
    day = datetime.now(UTC).date()
    run = Reconciliation.objects.create(
        **own,
        first_day=day,
        last_day=day,
        kinds=["providers"],
        state="done",
        threshold_percent=1,
        threshold_nanos=0,
        results={"providers": KindResult(drifts=1).stored()},
    )
    Drift.objects.create(
        tenant=account.tenant,
        reconciliation=run,
        kind="providers",
        day=day,
        provider="openai",
        model=text[:200],
        unit="USD",
        expected=1,
        found=2,
        difference=1,
    )
    return {
        "grant_id": grant.id,
        "wallet_id": wallet.id,
        "coupon_id": coupon.id,
        "statement_id": statement.id,
        "run_id": run.id,
    }


def _people(account: Account, text: str, *, team: str) -> JsonObject:
    """Who has access, and what they keep."""
    tenant = account.tenant
    owner = User.objects.get(email=account.email)
    group, _ = Team.objects.get_or_create(tenant=tenant, name=team)
    invited = invite(
        tenant=tenant,
        email=f"invited-{group.id}@example.com",
        role=Role.VIEWER,
        actor="tests",
        actor_role=Role.OWNER,
    )
    key, _ = create_api_key(tenant=tenant, name=text[:200], actor="tests", created_by=owner)
    view = SavedView.objects.create(
        tenant=tenant, owner=owner, name=text[:100], query="", readers=Readers.TEAM, team=group
    )
    schedule = ReportSchedule.objects.create(
        tenant=tenant,
        view=view,
        owner=owner,
        cadence=Cadence.DAILY,
        hour=7,
        is_limited=False,
        next_due_at=datetime.now(UTC) + timedelta(days=1),
    )
    return {
        "team_id": group.id,
        "member_id": Membership.objects.get(tenant=tenant, user=owner).id,
        "invitation_id": invited.invitation.id,
        "key_id": key.id,
        "view_id": view.id,
        "schedule_id": schedule.id,
    }
