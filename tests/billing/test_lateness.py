"""However late usage comes, is corrected, priced again or given to another customer: what all
statements charge for a period is what an independent computation charges for its usage, rounded
once.

The other computation takes the calls one after the other as they happened, each at the prices of
its time, and knows nothing of statements.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import pytest
import time_machine
from django.utils import timezone

from billing.customers import update_customer
from billing.drafts import drafts_of
from billing.models import Customer, Plan, Statement, StatementLine, StatementState
from billing.plans import add_version
from billing.statements import finalize, void
from billing.terms import Terms
from common.json_bodies import JsonObject
from metering.intake.corrections import correct_event
from metering.intake.rerate import rerate
from metering.jobs.tasks import roll_up
from metering.models import TenantPrice
from metering.usage.decoders.native import EventBody
from tenants.scope import change_configuration, tenant_scope
from tests.billing.scene import make_customer, make_plan, month_start, put_on
from tests.factories import Account, make_event, send
from tests.seed import dice

ZONES: Final = (
    *("UTC", "Asia/Kolkata", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "America/New_York", "Europe/Berlin"),
)
STEPS: Final = 30
PACKAGE: Final = 3
VOLUME_BOUND: Final = 6
MODEL: Final = "house-model"
# A customer, and the local year and month of a period.
Period = tuple[int, int, int]


@dataclass
class Call:
    """A call as it stands now."""

    id: str
    at: datetime
    customer: str
    team: str
    tokens: int


@dataclass(frozen=True)
class Prices:
    """What a version of the plan asks."""

    starts_at: datetime
    token: Decimal
    package: Decimal
    few: Decimal
    many: Decimal
    percent: Decimal

    def charges(self) -> list[JsonObject]:
        usage = {"kind": "usage"}
        tiers = [
            {"up_to": str(VOLUME_BOUND), "unit_amount": str(self.few)},
            {"up_to": None, "unit_amount": str(self.many)},
        ]
        return [
            {
                **usage,
                "name": "Tokens",
                "metric": "input_tokens",
                "model": "per_unit",
                "unit_amount": str(self.token),
                "per": 1000,
            },
            {
                **usage,
                "name": "Packages",
                "metric": "requests",
                "model": "package",
                "package_size": PACKAGE,
                "package_amount": str(self.package),
            },
            {**usage, "name": "Calls", "metric": "requests", "model": "volume", "tiers": tiers},
            {
                **usage,
                "name": "Cost",
                "metric": "cost",
                "model": "cost_plus",
                "percent": str(self.percent),
            },
        ]


@dataclass
class World:
    """Two customers on one plan, what happens to them, and what that must cost."""

    account: Account
    chances: Random
    zone: str
    plan: Plan = field(init=False)
    customers: dict[str, Customer] = field(default_factory=dict)
    versions: list[Prices] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    # When the provider's price of a million tokens began, in whole dollars.
    costs: list[tuple[datetime, int]] = field(default_factory=list)
    teams: dict[str, str] = field(default_factory=lambda: {"blue": "a", "red": "b"})
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.begin = month_start(2)
        self.set_cost(self.begin - timedelta(days=400))
        self.versions.append(self.prices(self.begin))
        self.plan = make_plan(
            self.account, *self.versions[0].charges(), timezone=self.zone, interval="month"
        )
        for key in ("a", "b"):
            self.customers[key] = make_customer(self.account, key)
            put_on(self.account, self.customers[key], self.plan, self.begin)
        self.link()

    # What happens.

    def use(self) -> None:
        calls = [self.call() for _ in range(self.chances.randrange(1, 4))]
        for call in calls:
            with time_machine.travel(call.at + timedelta(days=1), tick=False):
                answer = send(self.account, [self.event(call)])
            assert answer["accepted"] == 1, answer
        self.calls += calls

    def void_call(self) -> None:
        if self.calls:
            call = self.calls.pop(self.chances.randrange(len(self.calls)))
            self.correct(call, None, call.at + timedelta(days=1))

    def amend_call(self) -> None:
        """Replace a call by one with other tokens, of an earlier time, perhaps of another."""
        if self.calls:
            call = self.chances.choice(self.calls)
            now = call.at + timedelta(days=1)
            call.at = max(self.begin, call.at - timedelta(hours=self.chances.randrange(200)))
            call.tokens = self.chances.randrange(1, 99_999)
            call.customer = self.chances.choice(["a", "b", ""])
            self.correct(call, msgspec.convert(self.event(call), EventBody), now)

    def price_again(self) -> None:
        starts_at = self.moment()
        self.set_cost(starts_at)
        rerate(tenant_id=self.account.tenant.id, from_=starts_at, to=timezone.now())

    def finalize_one(self) -> None:
        if drafts := self.statements(StatementState.DRAFT):
            # Also before the period is over.
            begun = [each for each in drafts if each.period_start < timezone.now()]
            chosen = self.chances.choice(begun or drafts)
            finalize(self.account.tenant.id, chosen.id, actor="tests")

    def void_one(self) -> None:
        if final := self.statements(StatementState.FINAL):
            void(self.account.tenant.id, self.chances.choice(final).id, actor="tests")

    def change_plan(self) -> None:
        starts_at = self.moment()
        if starts_at > self.versions[-1].starts_at:
            self.versions.append(self.prices(starts_at))
            terms = msgspec.convert({"charges": self.versions[-1].charges()}, Terms)
            with self.account.scope():
                add_version(self.plan, actor="tests", starts_at=starts_at, terms=terms)

    def move_team(self) -> None:
        team = self.chances.choice(sorted(self.teams))
        self.teams[team] = "b" if self.teams[team] == "a" else "a"
        self.link()

    def roll_up(self) -> None:
        roll_up()

    # How it is done.

    def moment(self) -> datetime:
        """Any time so far, often within minutes of a midnight of the plan."""
        span = timezone.now() - self.begin - timedelta(days=2)
        at = self.begin + span * self.chances.random()
        if self.chances.random() < 0.3:
            midnight = datetime(at.year, at.month, at.day, tzinfo=ZoneInfo(self.zone))
            at = midnight + timedelta(minutes=self.chances.randrange(-5, 5))
        return max(self.begin, at).astimezone(UTC)

    def prices(self, starts_at: datetime) -> Prices:
        amounts = [Decimal(self.chances.randrange(1, 10**6)).scaleb(-5) for _ in range(5)]
        return Prices(starts_at, *amounts)

    def call(self) -> Call:
        customer = self.chances.choice(["a", "b", ""])
        team = self.chances.choice(["blue", "red"])
        tokens = self.chances.randrange(1, 99_999)
        return Call(f"call-{next(self.numbers)}", self.moment(), customer, team, tokens)

    def event(self, call: Call) -> JsonObject:
        return make_event(
            id=call.id,
            time=call.at.isoformat(),
            customer=call.customer or ...,
            team=call.team,
            model=MODEL,
            agent="runner",
            input_tokens=call.tokens,
            output_tokens=0,
        )

    def correct(self, call: Call, replacement: EventBody | None, now: datetime) -> None:
        with time_machine.travel(now, tick=False):
            correct_event(
                tenant_id=self.account.tenant.id,
                source="tests",
                sent_id=call.id,
                replacement=replacement,
                reason="tests",
                actor="tests",
            )

    def set_cost(self, starts_at: datetime) -> None:
        dollars = self.chances.randrange(1, 50)
        self.costs.append((starts_at, dollars))
        with self.account.scope():
            change_configuration(self.account.tenant.id)
            TenantPrice.objects.create(
                tenant=self.account.tenant,
                model=MODEL,
                effective_from=starts_at,
                rates={
                    "input_tokens": {"nanos": str(dollars * 10**9), "per": 10**6},
                    "output_tokens": {"nanos": "0", "per": 10**6},
                },
            )

    def link(self) -> None:
        with self.account.scope():
            for customer in self.customers.values():
                update_customer(customer, actor="tests", changes={"links": []})
            for key, customer in self.customers.items():
                teams = [team for team, owner in self.teams.items() if owner == key]
                links = [{"dimension": "team", "value": team} for team in teams]
                update_customer(customer, actor="tests", changes={"links": links})

    def statements(self, state: str) -> list[Statement]:
        with self.account.scope():
            rows = Statement.objects.filter(state=state).select_related("customer")
            return list(rows.order_by("id"))

    # What it must come to.

    def expected(self) -> dict[Period, tuple[int, dict[str, Fraction]]]:
        """Cents and quantities of each customer and period, from the calls alone."""
        by_period: defaultdict[Period, list[Call]] = defaultdict(list)
        for call in sorted(self.calls, key=lambda each: each.at):
            owner = self.customers[call.customer or self.teams[call.team]].id
            by_period[self.period(owner, call.at)].append(call)
        return {period: self.rated(calls) for period, calls in by_period.items()}

    def period(self, customer_id: int, at: datetime) -> Period:
        local = at.astimezone(ZoneInfo(self.zone))
        return customer_id, local.year, local.month

    def rated(self, calls: Sequence[Call]) -> tuple[int, dict[str, Fraction]]:
        total, cost = Fraction(0), Fraction(0)
        for number, call in enumerate(calls):
            prices = [each for each in self.versions if each.starts_at <= call.at][-1]
            total += Fraction(call.tokens, 1000) * Fraction(prices.token)
            if number % PACKAGE == 0:
                total += Fraction(prices.package)
            total += Fraction(prices.few if len(calls) <= VOLUME_BOUND else prices.many)
            dollars = max(each for each in self.costs if each[0] <= call.at)[1]
            spent = Fraction(call.tokens * dollars, 10**6)
            cost += spent
            total += spent * (1 + Fraction(prices.percent) / 100)
        quantities = {
            "Tokens": Fraction(sum(call.tokens for call in calls)),
            "Packages": Fraction(len(calls)),
            "Calls": Fraction(len(calls)),
            "Cost": cost,
        }
        return int(total * 100 + Fraction(1, 2)), quantities

    def charged(self) -> dict[Period, tuple[int, dict[str, Fraction]]]:
        """The same from the lines of final statements, and from what drafts have on them now."""
        cents: defaultdict[Period, int] = defaultdict(int)
        quantities: defaultdict[Period, defaultdict[str, Fraction]]
        quantities = defaultdict(lambda: defaultdict(Fraction))

        def add(statement: Statement, name: str, quantity: Fraction, amount: int) -> None:
            period = self.period(statement.customer_id, statement.period_start)
            cents[period] += amount
            quantities[period][name] += quantity

        with tenant_scope(self.account.tenant.id, is_snapshot=True):
            for row in StatementLine.objects.filter(
                statement__state=StatementState.FINAL
            ).select_related("statement", "adjusts"):
                of_statement = row.adjusts or row.statement
                add(of_statement, row.name, Fraction(row.quantity), row.amount)
            drafts = Statement.objects.filter(state=StatementState.DRAFT)
            for draft in drafts_of(drafts.select_related("customer")).values():
                for line in draft.lines:
                    of_statement = line.adjusts or draft.statement
                    add(of_statement, line.name, line.quantity, line.amount)
        return {
            period: (cents[period], dict(quantities[period]))
            for period in cents
            if cents[period] or any(quantities[period].values())
        }


@pytest.mark.parametrize("zone", ZONES)
def test_what_is_charged_for_a_period_is_its_usage_rated_once(account: Account, zone: str) -> None:
    chances = dice("lateness", zone)
    world = World(account, chances, zone)
    steps = [
        *(world.use,) * 6,
        *(world.finalize_one,) * 4,
        *(world.void_call, world.amend_call, world.amend_call, world.price_again),
        *(world.void_one, world.change_plan, world.move_team, world.roll_up, world.roll_up),
    ]
    for _ in range(STEPS):
        chances.choice(steps)()
    world.use()
    assert world.charged() == world.expected()
    roll_up()
    for statement in world.statements(StatementState.DRAFT):
        finalize(account.tenant.id, statement.id, actor="tests")
    assert world.charged() == world.expected()
