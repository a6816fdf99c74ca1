"""Breakers as rows: opened once, whatever happens at once; closed by hand, by a probe, by time."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.json_bodies import JsonObject
from metering.configuration.breakers import (
    close_breaker,
    create_breaker,
    delete_breaker,
    update_breaker,
)
from metering.core.amounts import Amounts
from metering.core.dimensions import MATCHABLE
from metering.limits.breakers import (
    BreakerChange,
    ReportedCall,
    feed_breakers,
    forget_idle_states,
    forget_probes,
    read_breaker_rules,
    try_probe,
)
from metering.limits.breakers.feed import cause_of
from metering.limits.breakers.states import open_groups
from metering.limits.halts import lift_halt
from metering.limits.limit_reductions import (
    end_limit_reduction,
    open_limit_reduction,
    read_limit_reductions,
)
from metering.models import Breaker, BreakerState, Decision, Halt, LimitReduction
from tenants.models import AuditEntry
from tests.factories import NANOS, Account, make_account

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RESEARCHER = '["researcher",""]'


def values(**dimensions: str) -> tuple[str, ...]:
    return tuple({"status": "success", **dimensions}.get(name, "") for name in MATCHABLE)


def reported(
    usd: str = "0",
    *,
    tokens: int = 0,
    at: datetime | None = None,
    reservation: UUID | None = None,
    **dimensions: str,
) -> ReportedCall:
    return ReportedCall(
        at=at or NOW,
        amounts=Amounts(int(float(usd) * NANOS), tokens, 1, 0),
        values=values(**{"agent": "researcher", **dimensions}),
        reservation=str(reservation) if reservation else None,
    )


def feed(account: Account, *calls: ReportedCall, seconds: float = 0) -> list[BreakerChange]:
    now = NOW + timedelta(seconds=seconds)
    with account.scope():
        rules = read_breaker_rules(account.tenant.id)
        return feed_breakers(tenant_id=account.tenant.id, rules=rules, calls=calls, now=now)


def make_breaker(account: Account, **fields: object) -> Breaker:
    fields = {"name": "Research", "cost_nanos_per_minute": 10 * NANOS, **fields}
    with account.scope():
        return create_breaker(tenant=account.tenant, actor="tests", **fields)


def halts(account: Account) -> list[Halt]:
    with account.scope():
        return list(Halt.objects.filter(tenant=account.tenant).order_by("id"))


def decisions(account: Account) -> list[tuple[str, str]]:
    with account.scope():
        rows = Decision.objects.filter(tenant=account.tenant).order_by("id")
        return [(row.decision, row.reasons[0]["detail"]) for row in rows]


def state_of(account: Account, group_key: str = RESEARCHER) -> BreakerState:
    with account.scope():
        return BreakerState.objects.get(tenant=account.tenant, group_key=group_key)


def try_(account: Account, halt_id: int, *, seconds: float, probe_id: UUID | None = None) -> bool:
    with account.scope(), connection.cursor() as cursor:
        return try_probe(
            cursor,
            tenant_id=account.tenant.id,
            halt_id=halt_id,
            reservation_id=probe_id or uuid4(),
            now=NOW + timedelta(seconds=seconds),
        )


def in_threads(runs: Sequence[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_one_that_opens_halts_its_group_and_says_why(account: Account) -> None:
    breaker = make_breaker(account, match={"team": ["growth", "sales"]})
    spent: JsonObject = {"team": "growth", "feature": "email"}
    assert feed(account, reported("6", **spent), reported("20", team="other")) == []
    (change,) = feed(account, reported("6.4", **spent))
    (halt,) = halts(account)
    why = "spent $12.40 in 60 s, limit $10.00 a minute"
    assert (change.transition, change.halt_id, change.why) == ("open", halt.id, why)
    assert halt.kind == "breaker"
    assert halt.match == {"team": ["growth", "sales"], "agent": "researcher", "feature": "email"}
    assert halt.reason == f"The breaker 'Research' opened: {why}."
    assert (halt.breaker_id, halt.group_key) == (breaker.id, '["researcher","email"]')
    state = state_of(account, halt.group_key)
    assert (state.opened_at, state.why, state.halt_id) == (NOW, why, halt.id)
    with account.scope():
        decision = Decision.objects.get(tenant=account.tenant)
    assert (decision.decision, decision.code, decision.agent) == (
        "open",
        "breaker_open",
        "researcher",
    )
    assert decision.dimensions == {"agent": "researcher", "feature": "email"}
    assert decision.reasons == [
        {
            "breaker": breaker.id,
            "name": "Research",
            "group": {"agent": "researcher", "feature": "email"},
            "mode": "enforce",
            "action": "halt",
            "halt": halt.id,
            "detail": why,
        }
    ]


def test_a_call_without_an_agent_is_watched_and_halted_as_such(account: Account) -> None:
    make_breaker(account)
    feed(account, reported("11", agent=""))
    assert halts(account)[0].match == {"agent": None, "feature": None}


def test_it_opens_once_and_others_go_on(account: Account) -> None:
    make_breaker(account)
    assert len(feed(account, reported("11"), reported("11"), reported("1", agent="writer"))) == 1
    assert feed(account, reported("11"), reported("9", agent="writer"), seconds=1) == []
    assert len(halts(account)) == 1
    assert [decision for decision, _ in decisions(account)] == ["open"]


def test_failures_count_by_the_status_of_calls(account: Account) -> None:
    make_breaker(account, cost_nanos_per_minute=None, error_percent=50, error_min_calls=4)
    assert feed(account, *[reported(status=each) for each in ("error", "success", "error")]) == []
    (change,) = feed(account, reported(status="cancelled"))
    assert change.why == "2 of 4 calls failed in 60 s, 50%, limit 50%"


def test_what_is_usual_is_kept_between_transactions(account: Account) -> None:
    make_breaker(account, cost_nanos_per_minute=None, tokens_times=10, usual_min_calls=3)
    for _ in range(3):
        assert feed(account, reported(tokens=4_000)) == []
    (change,) = feed(account, reported(tokens=40_000), seconds=300)
    assert change.why == "a call used 40,000 tokens, 10 times the usual 4,000, limit 10 times"
    state = state_of(account)
    assert (state.usual_calls, state.usual_tokens) == (3, 12_000)


def test_calls_count_when_they_become_known_and_history_does_not(account: Account) -> None:
    make_breaker(account)
    assert feed(account, reported("50", at=NOW - timedelta(minutes=61))) == []
    assert len(feed(account, reported("50", at=NOW - timedelta(minutes=59)))) == 1


def test_many_that_report_at_once_lose_nothing_and_open_it_once(account: Account) -> None:
    make_breaker(account, per=["agent"], cost_nanos_per_minute=79 * NANOS)
    opened: list[BreakerChange] = []

    def run(number: int) -> None:
        order = Random(number)
        for _ in range(20):
            # Several groups in one transaction, in any order.
            agents = list("abcdef")
            order.shuffle(agents)
            opened.extend(feed(account, *[reported("1", agent=agent) for agent in agents]))

    in_threads([partial(run, number) for number in range(4)])
    assert sorted(change.group_key for change in opened) == [f'["{each}"]' for each in "abcdef"]
    assert {change.why for change in opened} == {"spent $80.00 in 60 s, limit $79.00 a minute"}
    assert len(halts(account)) == 6


@pytest.mark.parametrize("mode", ["shadow", "warn"])
def test_where_it_does_not_act_it_records_the_same_and_closes_by_itself(
    account: Account, mode: str
) -> None:
    make_breaker(account, mode=mode, cool_down_seconds=60)
    feed(account, reported("11"))
    feed(account, reported("11"), seconds=59)
    assert [decision for decision, _ in decisions(account)] == ["open"]
    feed(account, reported("1"), seconds=60)
    assert [decision for decision, _ in decisions(account)] == ["open", "close"]
    assert halts(account) == []
    assert state_of(account).opened_at is None


def test_one_with_a_percent_tightens_budgets_instead_of_stopping(account: Account) -> None:
    breaker = make_breaker(account, limit_percent=40, close="trial", cool_down_seconds=60)
    feed(account, reported("11"))
    with account.scope(), connection.cursor() as cursor:
        (limit_reduction,) = read_limit_reductions(cursor, account.tenant.id)
    assert limit_reduction.limit_percent == 40
    assert limit_reduction.reason == (
        "The breaker 'Research' opened: spent $11.00 in 60 s, limit $10.00 a minute."
    )
    assert limit_reduction.matches(values(agent="researcher"))
    assert not limit_reduction.matches(values(agent="researcher", feature="email"))
    assert halts(account) == []
    feed(account, reported("1"), seconds=60)
    with account.scope(), connection.cursor() as cursor:
        assert read_limit_reductions(cursor, account.tenant.id) == ()
        ended = LimitReduction.objects.get(tenant=account.tenant)
    assert (ended.cause, ended.ended_at is None) == (f"breaker:{breaker.id}:{RESEARCHER}", False)


def test_a_tightening_is_one_for_a_cause(account: Account, stranger: Account) -> None:
    new: JsonObject = {"tenant_id": account.tenant.id, "match": {}, "reason": "odd"}
    with account.scope():
        assert open_limit_reduction(**new, limit_percent=50, cause="anomaly:1") is not None
        assert open_limit_reduction(**new, limit_percent=60, cause="anomaly:1") is None
    with stranger.scope(), connection.cursor() as cursor:
        assert not end_limit_reduction(tenant_id=account.tenant.id, cause="anomaly:1")
        assert read_limit_reductions(cursor, account.tenant.id) == ()
    with account.scope():
        assert end_limit_reduction(tenant_id=account.tenant.id, cause="anomaly:1")
        assert not end_limit_reduction(tenant_id=account.tenant.id, cause="anomaly:1")


def test_the_cause_of_a_long_group_fits_and_is_its_own() -> None:
    causes = {cause_of(7, f'["{letter * 600}"]') for letter in "ab"}
    assert len(causes) == 2
    assert all(len(cause) <= 500 for cause in causes)


def test_it_costs_nothing_where_no_breaker_matches(account: Account) -> None:
    tenant_id = account.tenant.id
    with account.scope(), CaptureQueriesContext(connection) as queries:
        assert feed_breakers(tenant_id=tenant_id, rules=(), calls=[reported("11")]) == []
        read_breaker_rules(tenant_id)
        assert len(queries) == 1
    make_breaker(account, match={"team": "growth"})
    with account.scope():
        rules = read_breaker_rules(tenant_id)
        with CaptureQueriesContext(connection) as queries:
            assert feed_breakers(tenant_id=tenant_id, rules=rules, calls=[reported("11")]) == []
            assert len(queries) == 0


def test_a_halt_that_a_person_lifts_closes_it_and_it_counts_from_nothing(
    account: Account,
) -> None:
    make_breaker(account)
    feed(account, reported("11"))
    with account.scope():
        lift_halt(halt=halts(account)[0], actor="finance")
    assert feed(account, reported("9"), seconds=1) == []
    assert len(feed(account, reported("2"), seconds=2)) == 1
    first, second = halts(account)
    assert (first.lifted_by, second.lifted_at) == ("finance", None)
    assert state_of(account).halt_id == second.id


def test_a_probe_closes_it(account: Account) -> None:
    make_breaker(account, close="trial", cool_down_seconds=60)
    feed(account, reported("11"))
    (halt,) = halts(account)
    probe_id = uuid4()
    assert not try_(account, halt.id, seconds=59.9)
    assert try_(account, halt.id, seconds=60, probe_id=probe_id)
    assert feed(account, reported("1", reservation=uuid4()), seconds=61) == []
    (change,) = feed(account, reported("1", reservation=probe_id), seconds=62)
    assert (change.transition, change.halt_id) == ("close", halt.id)
    lifted = halts(account)[0]
    assert lifted.lifted_by == "breaker Research"
    assert lifted.version > halt.version
    state = state_of(account)
    assert (state.opened_at, state.halt_id, state.probe_id) == (None, None, None)
    assert [decision for decision, _ in decisions(account)] == ["open", "close"]


def test_a_probe_that_fails_keeps_the_halt_and_begins_the_cool_down_anew(
    account: Account,
) -> None:
    make_breaker(account, close="trial", cool_down_seconds=60)
    feed(account, reported("11"))
    (halt,) = halts(account)
    probe_id = uuid4()
    assert try_(account, halt.id, seconds=60, probe_id=probe_id)
    (change,) = feed(account, reported(reservation=probe_id, status="error"), seconds=70)
    assert (change.transition, change.why) == ("open", "the probe failed")
    assert [each.lifted_at for each in halts(account)] == [None]
    assert not try_(account, halt.id, seconds=129)
    assert try_(account, halt.id, seconds=130)


def test_a_probe_is_for_one_call_and_over_after_the_cool_down_or_when_given_up(
    account: Account,
) -> None:
    make_breaker(account, close="trial", cool_down_seconds=60)
    feed(account, reported("11"))
    (halt,) = halts(account)
    probe_id = uuid4()
    assert try_(account, halt.id, seconds=60, probe_id=probe_id)
    assert not try_(account, halt.id, seconds=119)
    with account.scope(), connection.cursor() as cursor:
        forget_probes(cursor, account.tenant.id, [probe_id])
    assert try_(account, halt.id, seconds=119)
    assert try_(account, halt.id, seconds=179)


def test_of_two_that_ask_at_once_one_is_the_probe_and_the_other_does_not_wait(
    account: Account,
) -> None:
    make_breaker(account, close="trial", cool_down_seconds=60)
    feed(account, reported("11"))
    (halt,) = halts(account)
    is_taken, has_asked = threading.Event(), threading.Event()
    let_through: list[bool] = []

    def first() -> None:
        with account.scope():
            let_through.append(try_(account, halt.id, seconds=60))
            is_taken.set()
            assert has_asked.wait(10)

    def second() -> None:
        assert is_taken.wait(10)
        let_through.append(try_(account, halt.id, seconds=60))
        has_asked.set()

    in_threads([first, second])
    assert let_through == [True, False]
    assert not try_(account, halt.id, seconds=60)


def test_there_is_no_probe_for_a_breaker_closed_by_hand_nor_for_strangers(
    account: Account, stranger: Account
) -> None:
    make_breaker(account, close="hand", cool_down_seconds=1)
    make_breaker(account, close="trial", per=["user"], cool_down_seconds=1)
    feed(account, reported("11", user="u"))
    by_hand, by_probe = halts(account)
    assert not try_(account, by_hand.id, seconds=1000)
    assert not try_(stranger, by_probe.id, seconds=1000)
    with account.scope():
        lift_halt(halt=by_probe, actor="finance")
    assert not try_(account, by_probe.id, seconds=1000)


def test_it_is_closed_by_hand_for_one_group_or_for_all(account: Account) -> None:
    breaker = make_breaker(account)
    feed(account, *[reported("11", agent=each) for each in ("a", "b", "c")])
    with account.scope():
        assert close_breaker(breaker=breaker, actor="ann", group_key='["b",""]') == ['["b",""]']
        assert close_breaker(breaker=breaker, actor="ann", group_key='["b",""]') == []
        assert [each.lifted_by for each in halts(account)] == ["", "ann", ""]
        assert len(close_breaker(breaker=breaker, actor="ann")) == 2
    assert [each.lifted_by for each in halts(account)] == ["ann"] * 3
    assert decisions(account)[3:] == [("close", "closed by ann")] * 3
    # From an empty minute.
    assert feed(account, reported("9", agent="b"), seconds=1) == []
    with account.scope():
        entries = AuditEntry.objects.filter(object_type="breaker", action="close").order_by("id")
        assert [entry.changes["groups"][1] for entry in entries] == [
            [{"agent": "b", "feature": ""}],
            [{"agent": "a", "feature": ""}, {"agent": "c", "feature": ""}],
        ]


def test_a_change_of_a_threshold_keeps_it_open_and_of_what_it_does_closes_it(
    account: Account,
) -> None:
    breaker = make_breaker(account)
    feed(account, reported("11"))
    version = halts(account)[0].version
    with account.scope():
        update_breaker(
            breaker=breaker,
            actor="ann",
            changes={"cost_nanos_per_minute": 50 * NANOS, "close": "trial"},
        )
    (halt,) = halts(account)
    assert halt.lifted_at is None
    # Processes read the halt again: it lets a probe through now.
    assert halt.version > version
    with account.scope():
        update_breaker(breaker=breaker, actor="ann", changes={"mode": "shadow"})
    assert halts(account)[0].lifted_by == "ann"
    with account.scope():
        assert not BreakerState.objects.filter(tenant=account.tenant).exists()
        entry = AuditEntry.objects.filter(object_type="breaker", action="update").latest("id")
    assert entry.changes == {"mode": ["enforce", "shadow"]}


def test_a_removed_breaker_leaves_nothing_halted(account: Account) -> None:
    breaker = make_breaker(account)
    tight = make_breaker(account, limit_percent=50)
    feed(account, reported("11"))
    with account.scope():
        delete_breaker(breaker=breaker, actor="ann")
        delete_breaker(breaker=tight, actor="ann")
        assert not Breaker.objects.filter(tenant=account.tenant).exists()
        assert not BreakerState.objects.filter(tenant=account.tenant).exists()
        assert not LimitReduction.objects.filter(tenant=account.tenant, ended_at=None).exists()
    assert halts(account)[0].lifted_by == "ann"


def test_open_groups_are_those_that_are_still_open(account: Account) -> None:
    by_hand = make_breaker(account, per=["agent"])
    shadow = make_breaker(account, per=["agent"], mode="shadow", cool_down_seconds=60)
    feed(account, reported("11", agent="a"), reported("11", agent="b"))
    with account.scope():
        lift_halt(halt=halts(account)[0], actor="finance")
    ids = [by_hand.id, shadow.id]
    for seconds, expected in (
        (59, {by_hand.id: ['["b"]'], shadow.id: ['["a"]', '["b"]']}),
        (60, {by_hand.id: ['["b"]']}),
    ):
        with account.scope(), connection.cursor() as cursor:
            now = NOW + timedelta(seconds=seconds)
            result = open_groups(cursor, account.tenant.id, ids, now=now)
        assert {
            breaker_id: [group.group_key for group in groups]
            for breaker_id, groups in result.items()
        } == expected


def test_groups_that_are_no_longer_seen_are_forgotten_unless_open(account: Account) -> None:
    make_breaker(account)
    feed(account, reported("11", agent="open"), reported("1", agent="gone"))
    feed(account, reported("1", agent="here"), seconds=3600)
    before = int(NOW.timestamp()) + 3600
    with account.scope(), connection.cursor() as cursor:
        assert forget_idle_states(cursor, before_second=before, limit=10) == 1
        states = BreakerState.objects.filter(tenant=account.tenant).order_by("group_key")
        assert [state.group_key for state in states] == ['["here",""]', '["open",""]']


def test_tenants_have_breakers_of_their_own(account: Account) -> None:
    other = make_account()
    make_breaker(account)
    make_breaker(other)
    feed(account, reported("11"))
    assert feed(other, reported("9")) == []
    assert (len(halts(account)), len(halts(other))) == (1, 0)
