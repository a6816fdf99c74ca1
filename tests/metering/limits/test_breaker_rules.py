"""What a breaker decides, call by call, without a database."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from metering.limits.breakers import BreakerRule, Call, GroupState, Transition
from metering.models import Breaker
from tests.factories import NANOS

NOW = datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC)


def rule(**fields: object) -> BreakerRule:
    return BreakerRule.of(Breaker(id=7, name="Research", per=["agent"], **fields))


def call(seconds: float = 0, *, usd: float = 0, tokens: int = 0, is_error: bool = False) -> Call:
    return Call(NOW + timedelta(seconds=seconds), int(usd * NANOS), tokens, is_error)


def feed(state: GroupState, by: BreakerRule, *calls: Call) -> list[Transition | None]:
    return [state.feed(by, each) for each in calls]


def test_it_opens_for_more_than_the_limit_within_any_sixty_seconds() -> None:
    state, by = GroupState(), rule(cost_nanos_per_minute=10 * NANOS)
    transitions = feed(
        state, by, call(0, usd=6), call(30, usd=4), call(61.5, usd=6), call(80, usd=0.004)
    )
    assert transitions == [None, None, None, Transition.OPENED]
    assert state.why == "spent $10.01 in 60 s, limit $10.00 a minute"
    assert state.opened_at == NOW + timedelta(seconds=80)


def test_amounts_below_a_dollar_are_told_exactly() -> None:
    state, by = GroupState(), rule(cost_nanos_per_minute=2_500_000)
    assert feed(state, by, call(usd=0.0025), call(usd=0.000001)) == [None, Transition.OPENED]
    assert state.why == "spent $0.002501 in 60 s, limit $0.0025 a minute"


def test_it_opens_for_failures_once_there_are_enough_calls() -> None:
    state, by = GroupState(), rule(error_percent=50, error_min_calls=4)
    failed = call(is_error=True)
    assert feed(state, by, failed, failed, failed) == [None, None, None]
    assert feed(state, by, call()) == [Transition.OPENED]
    assert state.why == "3 of 4 calls failed in 60 s, 75%, limit 50%"


def test_failures_that_are_over_a_minute_old_count_no_more() -> None:
    state, by = GroupState(), rule(error_percent=50, error_min_calls=2)
    transitions = feed(
        state, by, call(is_error=True), call(61, is_error=False), call(62), call(63, is_error=True)
    )
    assert transitions == [None, None, None, None]


def test_a_call_far_above_the_usual_opens_it_and_is_not_learned() -> None:
    state, by = GroupState(), rule(tokens_times=10, usual_min_calls=3)
    assert feed(state, by, call(tokens=4_000), call(tokens=0), call(tokens=90_000)) == [None] * 3
    state.usual_calls, state.usual_tokens = 3, 12_000
    assert feed(state, by, call(tokens=39_999), call(tokens=0)) == [None, None]
    state.usual_calls, state.usual_tokens = 3, 12_000
    assert feed(state, by, call(tokens=52_000)) == [Transition.OPENED]
    assert state.why == "a call used 52,000 tokens, 13 times the usual 4,000, limit 10 times"
    assert (state.usual_calls, state.usual_tokens) == (3, 12_000)


def test_what_is_usual_follows_the_calls_of_late() -> None:
    state, by = GroupState(), rule(tokens_times=100)
    feed(state, by, *[call(tokens=100)] * 1000)
    assert (state.usual_calls, state.usual_tokens) == (1000, 100_000)
    feed(state, by, *[call(tokens=900)] * 1000)
    assert state.usual_calls < 1000
    assert 600 < state.usual_tokens // state.usual_calls < 800


def test_by_hand_it_stays_open_and_counts_nothing() -> None:
    state, by = GroupState(), rule(cost_nanos_per_minute=1, close="hand", cool_down_seconds=1)
    assert feed(state, by, call(usd=1), call(500, usd=1)) == [Transition.OPENED, None]
    assert not state.may_probe(by, NOW + timedelta(days=1))
    state.close()
    assert state.minute.sum("nanos") == 0
    assert feed(state, by, call(501)) == [None]


def test_where_it_does_not_act_it_closes_by_itself_and_may_open_again() -> None:
    for mode in ("shadow", "warn"):
        by = rule(cost_nanos_per_minute=NANOS, mode=mode, cool_down_seconds=300)
        state = GroupState()
        transitions = feed(
            state, by, call(usd=2), call(299, usd=2), call(300, usd=1), call(301, usd=1)
        )
        assert transitions == [Transition.OPENED, None, Transition.CLOSED, Transition.OPENED], mode


def test_one_that_tightens_closes_by_itself_unless_a_person_is_to_close_it() -> None:
    for close, transition in (("trial", Transition.CLOSED), ("hand", None)):
        by = rule(cost_nanos_per_minute=NANOS, limit_percent=50, close=close)
        assert feed(GroupState(), by, call(usd=2), call(300)) == [Transition.OPENED, transition]


def test_a_probe_is_due_after_the_cool_down_one_at_a_time() -> None:
    state, by = GroupState(), rule(cost_nanos_per_minute=NANOS, close="trial", cool_down_seconds=60)
    assert not state.may_probe(by, NOW + timedelta(hours=1))
    feed(state, by, call(usd=2))
    assert not state.may_probe(by, NOW + timedelta(seconds=59.9))
    assert state.may_probe(by, NOW + timedelta(seconds=60))
    state.probe_id, state.probe_at = uuid4(), NOW + timedelta(seconds=60)
    assert not state.may_probe(by, NOW + timedelta(seconds=119))
    assert state.may_probe(by, NOW + timedelta(seconds=120))


def test_a_probe_that_goes_well_closes_it_and_others_do_not() -> None:
    state, by = GroupState(), rule(cost_nanos_per_minute=NANOS, close="trial", cool_down_seconds=60)
    feed(state, by, call(usd=2))
    assert state.feed(by, call(70, usd=0.1)) is None
    assert state.feed(by, call(70, usd=0.1), is_probe=True) is Transition.CLOSED
    assert (state.opened_at, state.why, state.minute.sum("nanos")) == (None, "", NANOS // 10)


def on_probe(by: BreakerRule) -> GroupState:
    """Open since NOW, with a probe under way for a minute later."""
    state = GroupState()
    feed(state, by, call(usd=2))
    state.probe_id, state.probe_at = uuid4(), NOW + timedelta(seconds=60)
    return state


def test_a_probe_that_fails_or_trips_begins_the_cool_down_anew() -> None:
    by = rule(cost_nanos_per_minute=NANOS, close="trial", cool_down_seconds=60)
    for probe, why in (
        (call(70, is_error=True), "the probe failed"),
        (call(70, usd=1.5), "spent $1.50 in 60 s, limit $1.00 a minute"),
    ):
        state = on_probe(by)
        assert state.feed(by, probe, is_probe=True) is Transition.OPENED
        assert (state.why, state.probe_id) == (why, None)
        assert not state.may_probe(by, NOW + timedelta(seconds=129))
        assert state.may_probe(by, NOW + timedelta(seconds=130))
