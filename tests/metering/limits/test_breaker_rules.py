"""What a breaker decides, call by call, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from metering.limits.breakers import BreakerRule, Call, Turn, Watch
from metering.models import Breaker
from tests.factories import NANOS

NOW = datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC)


def rule(**fields: Any) -> BreakerRule:
    return BreakerRule.of(Breaker(id=7, name="Research", per=["agent"], **fields))


def call(seconds: float = 0, *, usd: float = 0, tokens: int = 0, is_error: bool = False) -> Call:
    return Call(NOW + timedelta(seconds=seconds), int(usd * NANOS), tokens, is_error)


def feed(watch: Watch, by: BreakerRule, *calls: Call) -> list[Turn | None]:
    return [watch.feed(by, one) for one in calls]


def test_it_opens_for_more_than_the_limit_within_any_sixty_seconds() -> None:
    watch, by = Watch(), rule(cost_nanos_per_minute=10 * NANOS)
    turns = feed(watch, by, call(0, usd=6), call(30, usd=4), call(61.5, usd=6), call(80, usd=0.004))
    assert turns == [None, None, None, Turn.OPENED]
    assert watch.why == "spent $10.01 in 60 s, limit $10.00 a minute"
    assert watch.opened_at == NOW + timedelta(seconds=80)


def test_amounts_below_a_dollar_are_told_exactly() -> None:
    watch, by = Watch(), rule(cost_nanos_per_minute=2_500_000)
    assert feed(watch, by, call(usd=0.0025), call(usd=0.000001)) == [None, Turn.OPENED]
    assert watch.why == "spent $0.002501 in 60 s, limit $0.0025 a minute"


def test_it_opens_for_failures_once_there_are_enough_calls() -> None:
    watch, by = Watch(), rule(error_percent=50, error_min_calls=4)
    failed = call(is_error=True)
    assert feed(watch, by, failed, failed, failed) == [None, None, None]
    assert feed(watch, by, call()) == [Turn.OPENED]
    assert watch.why == "3 of 4 calls failed in 60 s, 75 %, limit 50 %"


def test_failures_that_are_over_a_minute_old_count_no_more() -> None:
    watch, by = Watch(), rule(error_percent=50, error_min_calls=2)
    turns = feed(
        watch, by, call(is_error=True), call(61, is_error=False), call(62), call(63, is_error=True)
    )
    assert turns == [None, None, None, None]


def test_a_call_far_above_the_usual_opens_it_and_is_not_learned() -> None:
    watch, by = Watch(), rule(tokens_times=10, usual_min_calls=3)
    assert feed(watch, by, call(tokens=4_000), call(tokens=0), call(tokens=90_000)) == [None] * 3
    watch.usual_calls, watch.usual_tokens = 3, 12_000
    assert feed(watch, by, call(tokens=39_999), call(tokens=0)) == [None, None]
    watch.usual_calls, watch.usual_tokens = 3, 12_000
    assert feed(watch, by, call(tokens=52_000)) == [Turn.OPENED]
    assert watch.why == "a call used 52,000 tokens, 13 times the usual 4,000, limit 10 times"
    assert (watch.usual_calls, watch.usual_tokens) == (3, 12_000)


def test_what_is_usual_follows_the_calls_of_late() -> None:
    watch, by = Watch(), rule(tokens_times=100)
    feed(watch, by, *[call(tokens=100)] * 1000)
    assert (watch.usual_calls, watch.usual_tokens) == (1000, 100_000)
    feed(watch, by, *[call(tokens=900)] * 1000)
    assert watch.usual_calls < 1000
    assert 600 < watch.usual_tokens // watch.usual_calls < 800


def test_by_hand_it_stays_open_and_counts_nothing() -> None:
    watch, by = Watch(), rule(cost_nanos_per_minute=1, close="hand", cool_down_seconds=1)
    assert feed(watch, by, call(usd=1), call(500, usd=1)) == [Turn.OPENED, None]
    assert not watch.may_try(by, NOW + timedelta(days=1))
    watch.close()
    assert watch.minute.sum("nanos") == 0
    assert feed(watch, by, call(501)) == [None]


def test_where_it_does_not_act_it_closes_by_itself_and_may_open_again() -> None:
    for mode in ("shadow", "warn"):
        by = rule(cost_nanos_per_minute=NANOS, mode=mode, cool_down_seconds=300)
        watch = Watch()
        turns = feed(watch, by, call(usd=2), call(299, usd=2), call(300, usd=1), call(301, usd=1))
        assert turns == [Turn.OPENED, None, Turn.CLOSED, Turn.OPENED], mode


def test_one_that_tightens_closes_by_itself_unless_a_person_is_to_close_it() -> None:
    for close, turn in (("trial", Turn.CLOSED), ("hand", None)):
        by = rule(cost_nanos_per_minute=NANOS, limit_percent=50, close=close)
        assert feed(Watch(), by, call(usd=2), call(300)) == [Turn.OPENED, turn]


def test_a_trial_is_due_after_the_cool_down_one_at_a_time() -> None:
    watch, by = Watch(), rule(cost_nanos_per_minute=NANOS, close="trial", cool_down_seconds=60)
    assert not watch.may_try(by, NOW + timedelta(hours=1))
    feed(watch, by, call(usd=2))
    assert not watch.may_try(by, NOW + timedelta(seconds=59.9))
    assert watch.may_try(by, NOW + timedelta(seconds=60))
    watch.trial_id, watch.trial_at = uuid4(), NOW + timedelta(seconds=60)
    assert not watch.may_try(by, NOW + timedelta(seconds=119))
    assert watch.may_try(by, NOW + timedelta(seconds=120))


def test_a_trial_that_goes_well_closes_it_and_others_do_not() -> None:
    watch, by = Watch(), rule(cost_nanos_per_minute=NANOS, close="trial", cool_down_seconds=60)
    feed(watch, by, call(usd=2))
    assert watch.feed(by, call(70, usd=0.1)) is None
    assert watch.feed(by, call(70, usd=0.1), is_trial=True) is Turn.CLOSED
    assert (watch.opened_at, watch.why, watch.minute.sum("nanos")) == (None, "", NANOS // 10)


def on_trial(by: BreakerRule) -> Watch:
    """Open since NOW, with a trial under way for a minute later."""
    watch = Watch()
    feed(watch, by, call(usd=2))
    watch.trial_id, watch.trial_at = uuid4(), NOW + timedelta(seconds=60)
    return watch


def test_a_trial_that_fails_or_trips_begins_the_cool_down_anew() -> None:
    by = rule(cost_nanos_per_minute=NANOS, close="trial", cool_down_seconds=60)
    for trial, why in (
        (call(70, is_error=True), "the trial call failed"),
        (call(70, usd=1.5), "spent $1.50 in 60 s, limit $1.00 a minute"),
    ):
        watch = on_trial(by)
        assert watch.feed(by, trial, is_trial=True) is Turn.OPENED
        assert (watch.why, watch.trial_id) == (why, None)
        assert not watch.may_try(by, NOW + timedelta(seconds=129))
        assert watch.may_try(by, NOW + timedelta(seconds=130))
