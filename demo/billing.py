"""Plans, customers and statements of the demo, made through the public API once its calls are in.

A period of the plan that begins with the subscription ended a week ago, so its statement has usage;
those of the plans which follow the calendar have fees or a minimum at the least.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from dateutil.relativedelta import relativedelta

from demo.calls import Call
from demo.client import Answer, Client, JsonObject
from demo.configuration import items, make_missing, remark
from demo.spend import spend_by

STARTER: Final = "Starter"
GROWTH: Final = "Growth"
SCALE: Final = "Scale"
# On which plan the customers who spend most are, in that order. The first outgrew its plan.
ORDER: Final = (
    *(STARTER, GROWTH, GROWTH, SCALE, GROWTH, SCALE),
    *(SCALE, STARTER, GROWTH, STARTER, SCALE, STARTER),
)
CLOSED_FOR: Final = timedelta(days=7)
LAST_SAFE_DAY: Final = 28
MONTHS_BACK: Final = 2
CITIES: Final = (
    ("12 Harbor Way\nPortland, OR 97209", "US", ()),
    ("Lindenstr. 8\n10969 Berlin", "DE", (("VAT", "19"),)),
    ("40 King Street\nBristol BS1 4DZ", "GB", (("VAT", "20"),)),
    ("311 Pine Avenue\nNew York, NY 10013", "US", (("Sales tax", "8.875"),)),
)
# Whose payment fails, and who has not paid yet.
PAYING: Final = {3: "+declined", 5: "+later"}
TOKENS: Final = {"kind": "usage", "metric": "tokens", "model": "graduated", "per": 1_000_000}
REFUND: Final = "Goodwill for the outage of the ticket answers"


def bill(client: Client, *, calls: Sequence[Call], end: datetime, load: str) -> list[str]:
    """Make what is not there yet and close what is over; return a sentence for what failed."""
    spent = spend_by([call for call in calls if call.customer], lambda call: call.customer)
    keys = sorted(spent, key=lambda key: (-spent[key], str(key)))[: len(ORDER)]
    customers = list(map(str, keys))
    parties = [party(key, number) for number, key in enumerate(customers)]
    for path, key, bodies in (
        ("/v1/plans", "name", plans()),
        ("/v1/customers", "key", parties),
    ):
        if failed := make_missing(client, path=path, key=key, bodies=bodies, load=load):
            return failed
    # These name the plans by their ids.
    on_plans = list(subscriptions(client, customers, end))
    for path, key, bodies in (
        ("/v1/subscriptions", "customer", on_plans),
        ("/v1/credits", "reference", credit(customers[1:3], end)),
    ):
        if failed := make_missing(client, path=path, key=key, bodies=bodies, load=load):
            return failed
    return [*close(client, end), *revise(client, end, load)]


def plans() -> list[JsonObject]:
    """Return a plan for small customers, one by use, and one by cost."""
    return [
        {
            "name": STARTER,
            "charges": [
                {"name": "Platform fee", "kind": "flat", "amount": "19", "when": "advance"},
                {
                    "name": "Requests",
                    "kind": "usage",
                    "metric": "requests",
                    "model": "per_unit",
                    "unit_amount": "0.004",
                    "included_units": "2000",
                },
            ],
        },
        {"name": GROWTH, "anchor": "subscription", "charges": growth("10", "8")},
        {
            "name": SCALE,
            "minimum_amount": "5",
            "charges": [
                {
                    "name": "Models and tools",
                    "kind": "usage",
                    "metric": "cost",
                    "model": "cost_plus",
                    "percent": "60",
                    "markups": [{"provider": "deepseek", "percent": "50"}],
                }
            ],
        },
    ]


def growth(first: str, further: str) -> list[JsonObject]:
    """Return the charges of the plan by use, at these amounts for a million tokens."""
    tiers = [{"up_to": "2000000", "unit_amount": first}, {"up_to": None, "unit_amount": further}]
    return [
        {"name": "Tokens", **TOKENS, "tiers": tiers},
        {
            "name": "Requests",
            "kind": "usage",
            "metric": "requests",
            "model": "package",
            "package_size": 1000,
            "package_amount": "1",
        },
    ]


def party(key: str, number: int) -> JsonObject:
    """Return a customer with what is printed on its statements. The fake Stripe knows by the tag
    of an address who does not pay.
    """
    address, country, taxes = CITIES[number % len(CITIES)]
    mailbox = f"billing{PAYING.get(number, '')}"
    return {
        "key": key,
        "name": key.replace("-", " ").title(),
        "billing": {"address": address, "country": country, "email": f"{mailbox}@{key}.example"},
        "tax_rates": [{"name": name, "percent": percent} for name, percent in taxes],
    }


def subscriptions(client: Client, customers: Sequence[str], end: datetime) -> Iterator[JsonObject]:
    """Yield who is on which plan, so that two periods of each are over."""
    ids = {plan.get("name"): plan.get("id") for plan in items(client.get("/v1/plans?limit=100"))}
    closed = (end - CLOSED_FOR).replace(hour=0, minute=0, second=0, microsecond=0)
    own = closed.replace(day=min(closed.day, LAST_SAFE_DAY)) - relativedelta(months=MONTHS_BACK)
    calendar = closed.replace(year=end.year, month=end.month, day=1)
    calendar -= relativedelta(months=MONTHS_BACK)
    for key, plan in zip(customers, ORDER, strict=False):
        starts_at = own if plan == GROWTH else calendar
        yield {"customer": key, "plan": str(ids[plan]), "starts_at": starts_at.isoformat()}


def credit(customers: Sequence[str], end: datetime) -> list[JsonObject]:
    """Return credit that was paid for, and a gift that expires."""
    expires_at = (end + timedelta(days=90)).isoformat()
    further: list[JsonObject] = [
        {"amount": "40", "kind": "paid", "reference": "Payment 2041"},
        {
            "amount": "10",
            "kind": "promotional",
            "reference": "Welcome credit",
            "priority": 10,
            "expires_at": expires_at,
        },
    ]
    return [{"customer": key, **grant} for key, grant in zip(customers, further, strict=False)]


def close(client: Client, end: datetime) -> list[str]:
    """Finalize what is over; void one statement, finalize its period again, and give back a part
    of another.
    """
    failed = list(finalize(client, end))
    if failed or items(client.get("/v1/statements?state=void")):
        return failed
    final = items(client.get("/v1/statements?state=final&limit=100"))
    billed = [statement for statement in final if Decimal(statement["taxable"]) > 1]
    if not billed:
        return []
    path = f"/v1/statements/{billed[0]['id']}/void"
    if not (answer := client.post(path, {})).is_success:
        return [remark(path, str(billed[0]["number"]), answer)]
    failed = list(finalize(client, end))
    note = {"statement": billed[-1]["number"], "amount": "1.00", "reason": REFUND}
    answer = client.post("/v1/credit-notes", note, idempotency_key=f"demo-{REFUND}")
    return failed if answer.is_success else [*failed, remark("/v1/credit-notes", REFUND, answer)]


def finalize(client: Client, end: datetime) -> Iterator[str]:
    """Make the drafts final whose period is over, the oldest first."""
    drafts = items(client.get("/v1/statements?state=draft&limit=100"))
    over = [row for row in drafts if datetime.fromisoformat(row["period_end"]) <= end]
    for draft in sorted(over, key=lambda row: (row["period_end"], row["id"])):
        path = f"/v1/statements/{draft['id']}/finalise"
        # A company's own model has no price, and is given away.
        answer = client.post(path, {"accept_unpriced": draft["unpriced"]})
        if not answer.is_success:
            yield remark(path, str(draft["customer"]), answer)


def revise(client: Client, end: datetime, load: str) -> list[str]:
    """Cut the price of tokens from a day of the period that is closed: the next statements have
    adjustments.
    """
    lines = [
        plan for plan in items(client.get("/v1/plans?limit=100")) if plan.get("name") == GROWTH
    ]
    if not lines or len(lines[0]["versions"]) > 1:
        return []
    path = f"/v1/plans/{lines[0]['id']}/versions"
    since = (end - CLOSED_FOR - timedelta(days=2)).replace(hour=0, minute=0)
    body = {"from": since.isoformat(), "charges": growth("9.50", "7.60")}
    answer: Answer = client.post(path, body, idempotency_key=f"demo-{load}-{path}")
    return [] if answer.is_success else [remark(path, GROWTH, answer)]
