"""Random reports of random calls, in random orders, against a model that is not the service's.

What is stored, and every balance, is the same in any order, with repeats, with holds that expire
meanwhile and prices that change meanwhile; corrections leave every balance provable.
SPENDGATE_MERGE_EXAMPLES says how many examples each test tries.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from common.errors import NotFound
from common.json_bodies import JsonObject
from metering.audit.ledger import audit_tenant
from metering.intake.corrections import AlreadyCorrected, correct_event
from metering.intake.rerate import rerate
from metering.models import Budget, Reservation, TenantPrice, UsageEvent
from metering.usage.decoders.native import EventBody
from tenants.scope import change_configuration
from tests.factories import NANOS, Account, make_account, make_budget, windows_of
from tests.metering.api.caller import caller
from tests.metering.merging_model import (
    CALLBACK,
    DIMENSIONS,
    MODEL,
    SPAN,
    USAGE,
    CallFacts,
    Rates,
    Report,
    calls,
    expected_calls,
)
from tests.metering.reports import (
    EVENTS,
    RESERVATIONS,
    callback_payload,
    post,
    post_callback,
    post_span,
    span_body,
)

EXAMPLES: Final = int(os.environ.get("SPENDGATE_MERGE_EXAMPLES", "15"))
# Each example needs tenants of its own, so looking for the smallest one that fails takes minutes:
# SPENDGATE_SHRINK=1 does it.
IS_SHRUNK: Final = os.environ.get("SPENDGATE_SHRINK") == "1"
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[phase for phase in Phase if IS_SHRUNK or phase not in (Phase.shrink, Phase.explain)],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Anthropic's prices, and the tenant's own once they were changed.
CATALOGUE: Final = Rates(3_000, 15_000, 300, 3_750)
OVERRIDE: Final = Rates(2_000, 10_000, 200, 2_500)
PER_MILLION: Final = 1_000_000
# Which budgets there are: what they match, what they are per, and how long their windows last.
BUDGETS: Final[Sequence[tuple[dict[str, str], list[str], str]]] = (
    ({}, [], "lifetime"),
    ({}, ["team"], "lifetime"),
    ({}, ["agent"], "hour"),
    ({}, ["session", "customer"], "lifetime"),
    ({"team": "team-0-client"}, ["user"], "lifetime"),
    ({"agent": "agent-1-0"}, [], "day"),
)


@dataclass
class World:
    """A tenant to whom reports are sent, and what it was told so far."""

    call_facts: Sequence[CallFacts]
    at_nanos: int
    # Whether all that is told must be taken. What was corrected may be told no more.
    is_strict: bool = True
    account: Account = field(default_factory=make_account)
    budgets: list[Budget] = field(default_factory=list)
    reservations: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for match, per, period in BUDGETS:
            made = make_budget(
                self.account, cost_usd=1_000_000, match=match, per=per, period=period
            )
            self.budgets.append(made)
        # Every call is counted singly.
        make_budget(
            self.account,
            cost_usd=None,
            limit_cost_nanos=1,
            levels=[(1, "none")],
            per=["request"],
            period="lifetime",
        )

    # What may happen.

    def reserve(self, call: int) -> None:
        reserved = self.call_facts[call].reserved
        if reserved is None or call in self.reservations:
            return
        who = {name: f"{name}-{call}-client" for name in reserved}
        body = {"provider": "anthropic", "model": MODEL, "amount_usd": "0.02", **who}
        answer = post(self.account, RESERVATIONS, body)
        assert answer.status == 201, answer
        self.reservations[call] = answer.body["id"]

    def expire(self, call: int) -> None:
        if call in self.reservations:
            past = datetime.now(UTC) - timedelta(seconds=1)
            with self.account.scope():
                rows = Reservation.objects.filter(id=self.reservations[call])
                rows.update(expires_at=past)

    def change_prices(self) -> None:
        """Everything is priced anew, and what comes later at the new prices too."""
        names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        with self.account.scope():
            change_configuration(self.account.tenant.id)
            TenantPrice.objects.create(
                tenant=self.account.tenant,
                model=MODEL,
                effective_from=datetime.now(UTC) - timedelta(days=2),
                rates={
                    name: {"nanos": str(rate * PER_MILLION), "per": PER_MILLION}
                    for name, rate in zip(names, OVERRIDE, strict=True)
                },
            )
        now = datetime.now(UTC)
        rerate(
            tenant_id=self.account.tenant.id,
            from_=now - timedelta(days=1),
            to=now + timedelta(hours=1),
        )

    def tell(self, report: Report) -> None:
        if report.has_reservation:
            self.reserve(report.call)
        if report.authority == CALLBACK:
            self._call_back(report)
        elif report.authority == SPAN:
            self._send_span(report)
        else:
            self._send_event(report)

    # The ways of telling.

    def _dimensions(self, report: Report) -> dict[str, str]:
        call_facts = self.call_facts[report.call]
        return {name: call_facts.value(name, report) for name in sorted(report.dimensions)}

    def _ended_at_nanos(self, report: Report) -> int:
        """A preliminary figure is older than the final one."""
        return self.at_nanos - (60 * NANOS if report.is_preliminary else 0)

    def _send_event(self, report: Report) -> None:
        used = self.call_facts[report.call].used(report)
        call, ended_at = report.call, self._ended_at_nanos(report)
        body: JsonObject = {
            "id": f"report-{call}-{report.number}",
            "source": f"client-{report.number}",
            "time": datetime.fromtimestamp(ended_at // NANOS, UTC).isoformat(),
            "provider": "anthropic",
            "model": f"{MODEL}-20250929" if report.is_dated else MODEL,
            **self._dimensions(report),
        }
        if report.authority == USAGE:
            body["usage"] = {
                "input_tokens": used.input - used.cache_read - used.cache_write,
                "cache_read_input_tokens": used.cache_read,
                "cache_creation_input_tokens": used.cache_write,
                "output_tokens": used.output,
            }
        else:
            body |= {"input_tokens": used.input, "output_tokens": used.output}
            if report.tells_cache:
                body["cache_read_tokens"] = used.cache_read
                body["cache_write_tokens"] = used.cache_write
        names: dict[str, JsonObject] = {
            "response": {"response_id": f"msg_{call}"},
            "request": {"request_id": f"req_{call}"},
            "span": {"trace": f"{call + 1:032x}", "span": f"{call + 1:016x}"},
            "reservation": {"reservation": self.reservations.get(call)},
        }
        for name in report.names:
            body |= names[name]
        if report.is_settle:
            del body["reservation"]
            answer = post(self.account, f"{RESERVATIONS}/{self.reservations[call]}/settle", body)
            assert answer.status == 200 or not self.is_strict, answer
        else:
            answer = post(self.account, EVENTS, body)
            if answer.body["errors"]:
                codes = {error["code"] for error in answer.body["errors"]}
                assert not self.is_strict, answer
                assert codes == {"id_conflict"}, answer

    def _send_span(self, report: Report) -> None:
        used, call = self.call_facts[report.call].used(report), report.call
        attributes: JsonObject = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": MODEL,
            "gen_ai.response.model": f"{MODEL}-20250929" if report.is_dated else MODEL,
            "gen_ai.usage.input_tokens": used.input,
            "gen_ai.usage.output_tokens": used.output,
        }
        if report.has_response:
            attributes["gen_ai.response.id"] = f"msg_{call}"
        if report.tells_cache:
            attributes["gen_ai.usage.cache_read.input_tokens"] = used.cache_read
            attributes["gen_ai.usage.cache_creation.input_tokens"] = used.cache_write
        for name, value in self._dimensions(report).items():
            attributes[f"spendgate.{name}"] = value
        body = span_body(
            attributes,
            trace=f"{call + 1:032x}",
            span=f"{call + 1:016x}",
            at_nanos=self._ended_at_nanos(report),
        )
        assert post_span(self.account, body) == post_span(self.account, body)

    def _call_back(self, report: Report) -> None:
        used = self.call_facts[report.call].used(report)
        payload = callback_payload(
            response_id=f"msg_{report.call}",
            model=MODEL,
            input_tokens=used.input,
            output_tokens=used.output,
            cache_read_tokens=used.cache_read,
            cache_write_tokens=used.cache_write,
            at_nanos=self.at_nanos,
        )
        payload["metadata"]["spend_logs_metadata"] = self._dimensions(report)
        answer = post_callback(self.account, payload)
        assert (answer.status, answer.body["errors"]) == (200, []), answer

    # What is there then.

    def events(self) -> list[UsageEvent]:
        with self.account.scope():
            return list(UsageEvent.objects.filter(tenant=self.account.tenant, is_void=False))

    def balances(self) -> Counter[tuple[int, str, datetime]]:
        """What is spent by budget, group and start of the window."""
        spent: Counter[tuple[int, str, datetime]] = Counter()
        for number, budget in enumerate(self.budgets):
            for window in windows_of(self.account, budget):
                if window.spent_requests:
                    spent[(number, window.group_key, window.starts_at)] = window.spent_nanos
        return spent

    def recomputed(self) -> Counter[tuple[int, str, datetime]]:
        """The same, from the events: a settled one counts where its reservation holds."""
        with self.account.scope():
            reservations = {str(each.id): each for each in Reservation.objects.all()}
        spent: Counter[tuple[int, str, datetime]] = Counter()
        for each in self.events():
            own = {name: getattr(each, name) for name in DIMENSIONS}
            held, at = reservations.get(str(each.reservation_id)), each.time
            for number, (match, per, period) in enumerate(BUDGETS):
                values, moment = own, at
                if held is not None:
                    reserved = self._reserved(str(held.id))
                    if matches(reserved, match):
                        values, moment = reserved, held.created_at
                if matches(values, match):
                    group = json.dumps([values[name] for name in per], separators=(",", ":"))
                    starts_at = self._starts_at(number, period, moment)
                    # A budget counts from the beginning of the period that it was made in.
                    if starts_at < self.budgets[number].counts_from:
                        continue
                    spent[(number, group, starts_at)] += each.cost_nanos or 0
        return spent

    def _reserved(self, reservation: str) -> dict[str, str]:
        (call,) = [call for call, id_ in self.reservations.items() if id_ == reservation]
        reserved = self.call_facts[call].reserved or frozenset()
        named = {name: f"{name}-{call}-client" for name in reserved}
        return {name: named.get(name, "") for name in DIMENSIONS}

    def _starts_at(self, number: int, period: str, moment: datetime) -> datetime:
        if period == "lifetime":
            return min(
                (window.starts_at for window in windows_of(self.account, self.budgets[number])),
                default=moment,
            )
        hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return hour.replace(hour=0) if period == "day" else hour


def matches(values: dict[str, str], match: dict[str, str]) -> bool:
    return all(values[name] == value for name, value in match.items())


@dataclass(frozen=True)
class Step:
    """Something that happens to a world."""

    name: str
    subject: Any = None

    def take(self, world: World) -> None:
        if self.name == "change_prices":
            world.change_prices()
        else:
            getattr(world, self.name)(self.subject)


def steps_of(call_facts: Sequence[CallFacts], draw: Callable[[Any], Any]) -> list[Step]:
    """All reports, some of them again, reservations, expiries and a change of prices, in a random
    order.
    """
    reports = [report for call in call_facts for report in call.reports]
    again = draw(st.lists(st.sampled_from(reports), max_size=3))
    steps = [Step("tell", report) for report in (*reports, *again)]
    for call, fact in enumerate(call_facts):
        if fact.reserved is not None:
            steps += [Step("reserve", call), Step("expire", call)]
    steps.append(Step("change_prices"))
    shuffled: list[Step] = draw(st.permutations(steps))
    return shuffled


def told(world: World) -> Counter[tuple[Any, ...]]:
    """The stored calls, as the model has them."""
    return Counter(
        (
            *(getattr(each, name) for name in DIMENSIONS),
            each.input_tokens,
            each.output_tokens,
            each.cache_read_tokens,
            each.cache_write_tokens,
            each.cost_nanos,
            each.reservation_id is not None,
        )
        for each in world.events()
    )


@given(call_facts=calls(), data=st.data())
@bounded
def test_any_order_of_any_reports_is_what_the_model_says(
    account: Account, call_facts: list[CallFacts], data: st.DataObject
) -> None:
    at_nanos = time.time_ns() - 5 * NANOS
    wanted = Counter(call.key(OVERRIDE) for call in expected_calls(call_facts))
    event(f"{len(wanted)} calls of {sum(len(call.reports) for call in call_facts)} reports")
    worlds = [World(call_facts, at_nanos), World(call_facts, at_nanos)]
    for world in worlds:
        steps = steps_of(call_facts, data.draw)
        audited = data.draw(st.sampled_from(steps), label="audited after")
        for step in steps:
            step.take(world)
            if step == audited:
                assert audit_tenant(world.account.tenant.id) == []
        assert audit_tenant(world.account.tenant.id) == []
        assert told(world) == wanted
        assert world.balances() == world.recomputed()
    first, second = worlds
    assert first.balances() == second.balances()


@given(call_facts=calls(), data=st.data())
@bounded
def test_corrections_in_between_leave_every_balance_provable(
    account: Account, call_facts: list[CallFacts], data: st.DataObject
) -> None:
    world = World(call_facts, time.time_ns() - 5 * NANOS, is_strict=False)
    reports = [report for call in call_facts for report in call.reports]
    for step in steps_of(call_facts, data.draw):
        step.take(world)
        if data.draw(st.booleans(), label="is corrected"):
            correct(world, data.draw(st.sampled_from(reports)), data.draw(st.booleans()))
        drifts = audit_tenant(world.account.tenant.id)
        assert not drifts, "\n".join(map(str, drifts))
    assert world.balances() == world.recomputed()


def correct(world: World, report: Report, is_replaced: bool) -> None:
    """Void or replace the call that a report was of, if it is known by that report's id."""
    sent_id, source = f"report-{report.call}-{report.number}", f"client-{report.number}"
    new = {"model": MODEL, "provider": "anthropic", "input_tokens": 10, "output_tokens": 3}
    replacement = EventBody(id=sent_id, source=source, **new) if is_replaced else None  # type: ignore[arg-type]
    try:
        correct_event(
            tenant_id=world.account.tenant.id,
            source=source,
            sent_id=sent_id,
            replacement=replacement,
            reason="a test",
            actor="tests",
        )
    except (NotFound, AlreadyCorrected):
        event("nothing to correct")


# What contradicts is another call.

FULL: Final[JsonObject] = {"provider": "anthropic", "model": MODEL, "response_id": "msg_1"}


def contradictions() -> dict[str, list[JsonObject]]:
    now = datetime.now(UTC) - timedelta(minutes=1)
    first = {**FULL, "id": "one", "time": now.isoformat(), "input_tokens": 900}
    first["output_tokens"] = 90
    second = {**first, "id": "two"}
    earlier = (now - timedelta(hours=6, minutes=1)).isoformat()
    tool = {"operation": "tool", "tool": "search", "provider": "anthropic", "id": "two"}
    by_request = {"request_id": "req_1"}
    return {
        "another family": [first, {**second, "model": "claude-opus-4-1"}],
        "six hours apart": [first, {**second, "time": earlier}],
        "less of both, later": [
            {**first, "time": (now - timedelta(seconds=30)).isoformat()},
            {**second, "input_tokens": 800, "output_tokens": 80},
        ],
        "two responses": [
            {**first, **by_request},
            {**second, **by_request, "response_id": "msg_2"},
        ],
        "a tool": [
            {**first, "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "span": "00f067aa0ba902b7"},
            {**tool, "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "span": "00f067aa0ba902b7"},
        ],
    }


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("kind", contradictions())
def test_what_contradicts_is_another_call_and_is_shown_as_such(
    account: Account, kind: str, is_reversed: bool
) -> None:
    budget = make_budget(account, period="lifetime")
    reports = contradictions()[kind]
    for report in reversed(reports) if is_reversed else reports:
        answer = post(account, EVENTS, report)
        assert (answer.status, answer.body["errors"]) == (200, []), answer
        assert (answer.body["accepted"], answer.body["merged"]) == (1, 0), answer
    with account.scope():
        events = list(UsageEvent.objects.filter(tenant=account.tenant))
    assert len(events) == 2
    (window,) = windows_of(account, budget)
    assert window.spent_nanos == sum(each.cost_nanos or 0 for each in events)
    assert window.spent_requests + window.spent_tool_calls == 2


def test_contradictions_are_listed(account: Account) -> None:
    for number, reports in enumerate(contradictions().values()):
        for report in reports:
            names = {
                name: f"{report[name]}-{number}"
                for name in ("id", "response_id", "request_id")
                if name in report
            }
            post(account, EVENTS, {**report, **names})
    post(account, EVENTS, {"id": "alone", "model": MODEL, "input_tokens": 1, "output_tokens": 1})
    api = caller(account)
    assert len(api.get("/v1/events").body["data"]) == 2 * len(contradictions()) + 1
    answer = api.get("/v1/events", conflicts="true")
    assert answer.status == 200, answer
    shown = answer.body["data"]
    assert {each["id"].rpartition("-")[2] for each in shown} == {"0", "1", "2", "3", "4"}
    assert all(each["conflict"] for each in shown)


# Reports that may contradict one another in every way, by few names.
wild_reports = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["s1", "s2", "s3"]),
            "provider": st.just("anthropic"),
            "model": st.sampled_from([MODEL, f"{MODEL}-20250929", "claude-opus-4-1"]),
            "hours": st.sampled_from([0, 4, 8]),
            "seconds": st.integers(0, 200),
            "input_tokens": st.sampled_from([900, 1000]),
            "output_tokens": st.sampled_from([1, 90, 100]),
            "response_id": st.sampled_from(["msg_1", "msg_2"]),
        },
        optional={
            "request_id": st.sampled_from(["req_1", "req_2"]),
            "span": st.sampled_from(["1" * 16, "2" * 16]),
            "team": st.sampled_from(["a", "b", "c"]),
            "agent": st.sampled_from(["a", "b", "c"]),
        },
    ),
    min_size=4,
    max_size=7,
)


@given(reports=wild_reports, data=st.data())
@bounded
def test_what_contradicts_is_told_apart_alike_in_any_order(
    account: Account, reports: list[JsonObject], data: st.DataObject
) -> None:
    now = datetime.now(UTC) - timedelta(minutes=5)
    bodies = [wild_body(number, report, now) for number, report in enumerate(reports)]
    result = []
    for _ in range(3):
        tenant = make_account()
        budget = make_budget(tenant, per=["team"], period="lifetime")
        for body in data.draw(st.permutations(bodies)):
            answer = post(tenant, EVENTS, body)
            assert (answer.status, answer.body["errors"]) == (200, []), answer
        assert audit_tenant(tenant.tenant.id) == []
        result.append((stored_apart(tenant), spent_by_group(tenant, budget)))
    assert result[0] == result[1] == result[2]


def wild_body(number: int, report: JsonObject, now: datetime) -> JsonObject:
    body = {**report, "id": f"event-{number}"}
    at = now - timedelta(hours=body.pop("hours"), seconds=body.pop("seconds"))
    trace = {"trace": "1" * 32} if "span" in body else {}
    return {**body, **trace, "time": at.isoformat()}


def stored_apart(account: Account) -> Counter[tuple[object, ...]]:
    names = (
        *("model", "input_tokens", "output_tokens", "team", "agent", "response_id"),
        *("time", "is_conflict", "cost_nanos", "source", "sent_id"),
    )
    with account.scope():
        rows = UsageEvent.objects.filter(tenant=account.tenant, is_void=False)
        return Counter(rows.values_list(*names))


def spent_by_group(account: Account, budget: Budget) -> dict[str, int]:
    windows = windows_of(account, budget)
    return {window.group_key: window.spent_nanos for window in windows if window.spent_nanos}


@pytest.mark.parametrize("is_reversed", [False, True])
def test_two_reservations_are_two_calls_whatever_they_share(
    account: Account, is_reversed: bool
) -> None:
    """Else a used response id would escape a budget."""
    budget = make_budget(account, per=["team"])
    asked = {"provider": "anthropic", "model": MODEL, "amount_usd": "0.06"}
    held = [post(account, RESERVATIONS, {**asked, "team": team}).body["id"] for team in ("a", "b")]
    usage = {"input_tokens": 900, "output_tokens": 90}
    for reservation in reversed(held) if is_reversed else held:
        body = {**FULL, "id": f"settle-{reservation}", **usage}
        answer = post(account, f"{RESERVATIONS}/{reservation}/settle", body)
        assert (answer.status, answer.body["cost_usd"]) == (200, "0.00405")
    assert {window.group_key: window.spent_nanos for window in windows_of(account, budget)} == {
        '["a"]': 4_050_000,
        '["b"]': 4_050_000,
    }
