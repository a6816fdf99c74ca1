"""One call, told by a reservation, its settle, an event, a span and a callback, in all 120 orders.

It is one call in all of them, and counts once in every budget: in those which match what only the
reservation names, too.
"""

import threading
import time
from collections.abc import Callable
from itertools import permutations
from typing import Final, NamedTuple

import pytest
from django.db import connection

from common.json_bodies import JsonObject
from metering.audit.ledger import audit_tenant
from metering.intake.committer import PROCESS_COMMITTER
from metering.intake.ingest import commit_jobs
from metering.models import Budget, BudgetWindow, Reservation, ReservationState, UsageEvent
from tests.factories import Account, make_budget, windows_of
from tests.metering.reports import (
    EVENTS,
    RESERVATIONS,
    callback_payload,
    post,
    post_callback,
    post_span,
    span_body,
)

MODEL: Final = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
USAGE: Final = {
    "input_tokens": 4,
    "cache_read_input_tokens": 8845,
    "cache_creation_input_tokens": 6,
    "output_tokens": 193,
}
# At 3,000 nano-dollars for an input token, 300 read from the cache, 3,750 written, 15,000 output.
COST_NANOS: Final = 5_583_000
TOKENS: Final = 4 + 8845 + 6 + 193
NAMES: Final = ("reserve", "settle", "event", "span", "callback")
ORDERS: Final = list(permutations(NAMES))


class Budgets(NamedTuple):
    """The five in which each call must count once."""

    tenant: Budget
    team: Budget
    agent: Budget
    session: Budget
    request: Budget


def make_budgets(account: Account) -> Budgets:
    def per(*names: str) -> Budget:
        return make_budget(account, cost_usd=1_000_000, period="lifetime", per=list(names))

    return Budgets(
        make_budget(account, cost_usd=1_000_000),
        per("team"),
        per("agent"),
        per("session"),
        # Only calls that reach a level are counted singly, and this one reaches it.
        make_budget(
            account,
            cost_usd=None,
            limit_cost_nanos=COST_NANOS,
            levels=[(100, "none")],
            period="lifetime",
            per=["request"],
        ),
    )


class Telling:
    """Tells of one call by each way, in the order that is asked for."""

    def __init__(self, account: Account, number: int, *, names_reservation: bool) -> None:
        self.account = account
        self.id = f"{number:03}"
        self.names_reservation = names_reservation
        self.reservation: str | None = None
        self.waits_for_reservation = False
        self.faults: list[str] = []
        self.at_nanos = time.time_ns() - 5 * 10**9

    @property
    def who(self) -> dict[str, str]:
        return {name: f"{name}-{self.id}" for name in ("team", "agent", "session")}

    def tell(self, order: tuple[str, ...]) -> None:
        ways: dict[str, Callable[[], None]] = {
            "reserve": self.reserve,
            "settle": self.settle,
            "event": self.event,
            "span": self.span,
            "callback": self.callback,
        }
        for name in order:
            ways[name]()

    def reserve(self) -> None:
        asked = {**MODEL, **self.who, "amount_usd": "0.06"}
        answer = post(self.account, RESERVATIONS, asked)
        assert answer.status == 201, answer
        self.reservation = answer.body["id"]
        if self.waits_for_reservation:
            self.settle()

    def settle(self) -> None:
        """A settle that comes before its reservation is sent as soon as that exists."""
        if self.reservation is None:
            self.waits_for_reservation = True
            return
        path = f"{RESERVATIONS}/{self.reservation}/settle"
        body = {
            **MODEL,
            "id": f"settle-{self.id}",
            "response_id": self._response,
            "usage": USAGE,
            "task": f"task-{self.id}",
        }
        answer = post(self.account, path, body)
        if answer.status != 200:
            self.faults.append(f"the settle is answered {answer.status}")
        elif answer.body["cost_usd"] != "0.005583":
            self.faults.append(f"the settle is answered {answer.body['cost_usd']} USD")

    def event(self) -> None:
        body: JsonObject = {
            **MODEL,
            "id": f"event-{self.id}",
            "source": "client",
            "response_id": self._response,
            "input_tokens": 8855,
            "output_tokens": 193,
            "customer": f"customer-{self.id}",
        }
        if self.names_reservation and self.reservation is not None:
            body["reservation"] = self.reservation
        answer = post(self.account, EVENTS, body)
        assert (answer.status, answer.body["rejected"]) == (200, 0), answer

    def span(self) -> None:
        """As an instrumentation makes it: it knows the response and counts no cached input."""
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "gen_ai.response.id": self._response,
            "gen_ai.usage.input_tokens": 8855,
            "gen_ai.usage.output_tokens": 193,
        }
        number = int(self.id)
        body = span_body(
            attributes,
            trace=f"{number + 1:032x}",
            span=f"{number + 1:016x}",
            at_nanos=self.at_nanos,
        )
        assert post_span(self.account, body).status == 200

    def callback(self) -> None:
        payload = callback_payload(
            response_id=self._response,
            model="claude-sonnet-4-5",
            input_tokens=8855,
            output_tokens=193,
            cache_read_tokens=8845,
            cache_write_tokens=6,
            at_nanos=self.at_nanos,
            request_tags=[f"feature:feature-{self.id}"],
        )
        answer = post_callback(self.account, payload)
        assert (answer.status, answer.body["rejected"]) == (200, 0), answer

    @property
    def _response(self) -> str:
        return f"msg_{self.id}"


@pytest.mark.parametrize("names_reservation", [False, True], ids=["by response", "by reservation"])
@pytest.mark.parametrize("first", NAMES)
def test_a_call_counts_once_in_every_budget_in_whatever_order_it_is_told(
    account: Account, first: str, names_reservation: bool
) -> None:
    budgets = make_budgets(account)
    faults, told = [], 0
    for number, order in enumerate(ORDERS):
        if order[0] != first:
            continue
        told += 1
        telling = Telling(account, number, names_reservation=names_reservation)
        telling.tell(order)
        result = faults_of(account, budgets, telling, told=told)
        faults += [f"{' → '.join(order)}: {fault}" for fault in result]
    assert told == 24
    assert faults == []
    assert audit_tenant(account.tenant.id) == []


def test_a_call_counts_once_when_it_is_told_in_all_ways_at_once(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each body in a transaction of its own, as if each came to another process.
    monkeypatch.setattr(PROCESS_COMMITTER, "submit", lambda job: commit_jobs(job.tenant_id, [job]))
    budgets = make_budgets(account)
    faults = []
    for number in range(12):
        telling = Telling(account, number, names_reservation=True)
        telling.reserve()
        tell_at_once(telling)
        faults += faults_of(account, budgets, telling, told=number + 1)
    assert faults == []
    assert audit_tenant(account.tenant.id) == []


def tell_at_once(telling: Telling) -> None:
    """Everything but the reservation, each twice, by threads that wait for one another."""
    ways = [telling.settle, telling.event, telling.span, telling.callback] * 2
    barrier = threading.Barrier(len(ways))

    def tell(way: Callable[[], None]) -> None:
        barrier.wait()
        way()
        connection.close()

    threads = [threading.Thread(target=tell, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def faults_of(account: Account, budgets: Budgets, telling: Telling, *, told: int) -> list[str]:
    """What is wrong after a call was told, of which nothing else has the names."""
    faults = [*telling.faults]
    for name, budget in budgets._asdict().items():
        windows = windows_of(account, budget)
        if sum(each.spent_nanos for each in windows) != told * COST_NANOS:
            result = sum(each.spent_nanos for each in windows) - (told - 1) * COST_NANOS
            faults.append(f"{name} holds {result:,} for it, not {COST_NANOS:,}")
        if any(each.reserved_nanos or each.reserved_requests for each in windows):
            faults.append(f"{name} still reserves")
        if name in telling.who:
            own = [each for each in windows if each.group_key == f'["{telling.who[name]}"]']
            if [amounts(each) for each in own] != [(COST_NANOS, TOKENS, 1)]:
                faults.append(f"the window of {telling.who[name]} is {[*map(amounts, own)]}")
    if sum(each.spent_requests for each in windows_of(account, budgets.request)) != told:
        faults.append("it is not one request")
    return faults + faults_of_event(account, telling)


def amounts(window: BudgetWindow) -> tuple[int, int, int]:
    return (window.spent_nanos, window.spent_tokens, window.spent_requests)


def faults_of_event(account: Account, telling: Telling) -> list[str]:
    """What is wrong with the one event that the call is stored as."""
    with account.scope():
        events = list(UsageEvent.objects.filter(tenant=account.tenant, is_void=False))
        (reservation,) = Reservation.objects.filter(id=str(telling.reservation))
    events = [event for event in events if telling.id in (event.response_id or "")]
    if len(events) != 1:
        return [f"it is {len(events)} events"]
    (event,) = events
    wanted = {
        **telling.who,
        "cost_nanos": COST_NANOS,
        "input_tokens": 8855,
        "output_tokens": 193,
        "cache_read_tokens": 8845,
        "cache_write_tokens": 6,
        "customer": f"customer-{telling.id}",
        "feature": f"feature-{telling.id}",
        "task": f"task-{telling.id}",
        "trace": f"{int(telling.id) + 1:032x}",
        "reservation_id": reservation.id,
    }
    faults = [
        f"{name} is {getattr(event, name)!r}, not {value!r}"
        for name, value in wanted.items()
        if getattr(event, name) != value
    ]
    if reservation.state != ReservationState.SETTLED:
        faults.append(f"its reservation is {ReservationState(reservation.state).label}")
    return faults
