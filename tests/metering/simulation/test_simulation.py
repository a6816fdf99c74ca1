"""What if: small periods replayed call by call, and what real reservations would have done."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.json_bodies import JsonObject
from metering.budgets.index import BudgetIndex
from metering.budgets.rules import BudgetRule, LevelRule, LimitIncreaseRule
from metering.core.amounts import Amounts
from metering.core.dimensions import MATCHABLE
from metering.core.match import POSITION
from metering.core.periods import EPOCH
from metering.limits.breakers import BreakerRule
from metering.limits.routes import RouteTable
from metering.models import Breaker, Budget
from metering.pricing.book import PriceBook
from metering.pricing.schedule import Catalogue
from metering.simulation.breaker_replay import BreakerReplay
from metering.simulation.budget_replay import BudgetReplay
from metering.simulation.calls import Call, Earlier
from metering.simulation.outcome import LevelOutcome
from metering.snapshot import Configuration
from metering.usage.decoders.otlp.dimension_keys import USUAL
from tests.factories import NANOS

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)  # a Wednesday
BLOCK = ((100, "block"),)
FIVE_USD = (5 * NANOS, 0, 0, 0, 0)


def values(**dimensions: str) -> tuple[str, ...]:
    return tuple(
        {"operation": "llm", "status": "success", **dimensions}.get(name, "") for name in MATCHABLE
    )


def call(
    minutes: float = 0,
    *,
    usd: float = 1,
    tokens: int = 100,
    is_tool: bool = False,
    is_error: bool = False,
    is_unpriced: bool = False,
    **dimensions: str,
) -> Call:
    """A call so many minutes after noon, of one dollar and 100 tokens, unless told otherwise."""
    nanos = 0 if is_unpriced else round(usd * NANOS)
    amounts = Amounts(nanos, tokens, 0 if is_tool else 1, 1 if is_tool else 0)
    checked = amounts._replace(cost_nanos=1) if is_unpriced else amounts
    at = NOON + timedelta(minutes=minutes)
    return Call(at, values(**dimensions), amounts, checked, is_unpriced, is_error)


def rule(
    *,
    usd: float | None = None,
    levels: Sequence[tuple[Any, ...]] = BLOCK,
    raises: Sequence[LimitIncreaseRule] = (),
    **fields: object,
) -> BudgetRule:
    """A daily budget; a level is (percent, action, nanos a minute, tokens a minute)."""
    fields = {"name": "b", "period": "day", "counts_from": EPOCH, **fields}
    if usd is not None:
        fields["limit_cost_nanos"] = round(usd * NANOS)
    rules = [LevelRule(percent, action, (), *rates) for percent, action, *rates in levels]
    return BudgetRule(Budget(**fields), rules, raises)


def configured(*, unpriced_policy: str = "allow") -> Configuration:
    return Configuration(
        tenant_id=1,
        version=1,
        prices=PriceBook(catalogue=Catalogue([])),
        budgets=BudgetIndex(tenant_id=1, version=1, rules=[]),
        trusts_given_costs=True,
        dimension_keys=USUAL,
        unpriced_policy=unpriced_policy,
        assumed_rates=None,
        routes=RouteTable(),
        rate_limits=(),
        breakers=(),
    )


def replay(
    by: BudgetRule, calls: Iterable[Call], *, unpriced_policy: str = "allow", **options: Any
) -> BudgetReplay:
    replayed = BudgetReplay(by, configured(unpriced_policy=unpriced_policy), **options)
    for each in calls:
        replayed.ask(each)
    return replayed


def answer(replayed: BudgetReplay | BreakerReplay) -> JsonObject:
    spelled: Any = replayed.group_answer
    outcome = replayed.tally.outcome(levels=[], assumptions=[], group_answer=spelled)
    built: JsonObject = msgspec.to_builtins(outcome)
    return built


def outcome(by: BudgetRule, calls: Sequence[Call], **options: Any) -> list[bool]:
    """Which of the calls would have been made."""
    replayed = replay(by, (), **options)
    made = []
    for each in calls:
        before = replayed.tally.refused_calls
        replayed.ask(each)
        made.append(replayed.tally.refused_calls == before)
    return made


def test_what_is_refused_is_not_spent_so_later_calls_find_room() -> None:
    calls = [call(0, usd=6), call(1, usd=5), call(2, usd=3), call(3, usd=1.5), call(4, usd=1)]
    replayed = replay(rule(usd=10), calls)
    assert answer(replayed) == {
        "calls": 5,
        "cost_usd": "16.5",
        "would_have_cost_usd": "10",
        "saved_usd": "6.5",
        "refused": {"calls": 2, "cost_usd": "6.5", "tokens": 200},
        "throttled": 0,
        "downgraded": 0,
        "unpriced": 0,
        "first_refusal_at": "2026-11-18T12:01:00Z",
        "groups": [
            {
                "group": {},
                "calls": 5,
                "refused": 2,
                "saved_usd": "6.5",
                "first_refused_at": "2026-11-18T12:01:00Z",
                "lockout_at": None,
            }
        ],
        "days": [
            {
                "date": "2026-11-18",
                "cost_usd": "16.5",
                "would_have_cost_usd": "10",
                "refused": 2,
            }
        ],
        "levels": [],
        "opened": 0,
        "openings": [],
        "assumptions": [],
    }
    assert replayed.level_outcomes() == [LevelOutcome(100, "block", 1)]


def test_money_is_exact_to_the_nano_dollar() -> None:
    calls = [call(minute, usd=0.1) for minute in range(10)]
    assert outcome(rule(usd=1), calls) == [True] * 10
    beyond = call(10)._replace(amounts=Amounts(1, 0, 1, 0), checked=Amounts(1, 0, 1, 0))
    assert outcome(rule(usd=1), [*calls, beyond])[-1] is False


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"limit_tokens": 250}, [call(0), call(1), call(2), call(3, tokens=50)]),
        ({"limit_requests": 2}, [call(0), call(1), call(2), call(3, is_tool=True)]),
        (
            {"limit_tool_calls": 2},
            [call(0, is_tool=True), call(1, is_tool=True), call(2, is_tool=True), call(3)],
        ),
        ({"usd": 9, "limit_tokens": 250}, [call(0), call(1), call(2), call(3, tokens=50)]),
    ],
)
def test_each_part_of_a_limit_refuses(fields: JsonObject, calls: list[Call]) -> None:
    assert outcome(rule(**fields), calls) == [True, True, False, True]


def test_a_period_rolls_over_in_its_time_zone() -> None:
    # Midnight in Berlin is 23:00 UTC.
    calls = [call(0), call(659, usd=2), call(660, usd=2), call(661)]
    assert outcome(rule(usd=2, timezone="Europe/Berlin"), calls) == [True, False, True, False]
    days = answer(replay(rule(usd=2, timezone="Europe/Berlin"), calls))["days"]
    assert [(day["date"], day["cost_usd"], day["refused"]) for day in days] == [
        ("2026-11-18", "3", 1),
        ("2026-11-19", "3", 1),
    ]


def test_groups_are_judged_apart_and_shown_by_what_they_save() -> None:
    calls = [
        *(call(0, agent="a"), call(1, agent="b", usd=3), call(2, agent="b", usd=2)),
        *(call(3, agent="a", usd=9), call(4, agent="c"), call(5)),
    ]
    shown = answer(replay(rule(usd=3, per=["agent"]), calls))
    assert [
        (group["group"], group["refused"], group["saved_usd"]) for group in shown["groups"]
    ] == [
        ({"agent": "a"}, 1, "9"),
        ({"agent": "b"}, 1, "2"),
    ]
    assert shown["saved_usd"] == "11"


def test_only_what_matches_counts_and_a_missing_value_is_a_group() -> None:
    by = rule(usd=1, match={"team": "growth"}, per=["agent"])
    calls = [call(0, team="growth"), call(1, team="other"), call(2, team="growth"), call(3)]
    replayed = replay(by, calls)
    assert (replayed.tally.calls, replayed.tally.refused_calls) == (2, 1)
    assert answer(replayed)["groups"][0]["group"] == {"agent": ""}


def test_a_lockout_halts_its_group_until_the_window_ends() -> None:
    by = rule(usd=10, levels=[(100, "lockout")], per=["agent"])
    calls = [
        *(call(0, agent="a", usd=8), call(1, agent="a", usd=3), call(2, agent="a", usd=0)),
        *(call(3, agent="b"), call(12 * 60, agent="a")),
    ]
    assert outcome(by, calls) == [True, False, False, True, True]
    (group,) = answer(replay(by, calls))["groups"]
    assert group["lockout_at"] == "2026-11-18T12:01:00Z"


def test_what_is_spent_up_to_a_lockout_level_locks_out_too() -> None:
    by = rule(usd=10, levels=[(100, "lockout")])
    replayed = replay(by, [call(0, usd=10), call(1, usd=0)])
    assert replayed.tally.refused_calls == 1
    assert answer(replayed)["groups"][0]["lockout_at"] == "2026-11-18T12:00:00Z"


def test_a_level_that_holds_refuses_and_one_that_only_tells_does_not() -> None:
    levels = [(50, "none"), (80, "hold"), (100, "block")]
    replayed = replay(rule(usd=10, levels=levels), [call(0, usd=6), call(1, usd=3), call(2, usd=2)])
    assert (replayed.tally.refused_calls, replayed.tally.saved_nanos) == (1, 3 * NANOS)
    crossed = [level.crossed for level in replayed.level_outcomes()]
    assert crossed == [1, 1, 0]


def test_a_throttle_lets_through_what_its_minute_has_room_for() -> None:
    # From 5 dollars on, 2 dollars a minute.
    by = rule(usd=20, levels=[(25, "throttle", 2 * NANOS), (100, "block")])
    calls = [
        *(call(0, usd=5), call(1, usd=1), call(1.2, usd=1), call(1.4, usd=0.5)),
        *(call(2.5, usd=2), call(2.6, usd=2)),
    ]
    assert outcome(by, calls) == [True, True, True, False, True, False]
    tally = replay(by, calls).tally
    assert (tally.throttled, tally.refused_calls, tally.saved_nanos) == (2, 2, 2_500_000_000)


def test_a_throttle_without_a_rate_spreads_what_is_left_over_the_rest_of_the_window() -> None:
    # At 12:00, 6 of 12 dollars are left for 720 minutes.
    by = rule(usd=12, levels=[(50, "throttle"), (100, "block")])
    calls = [call(0, usd=6), call(0.5, usd=0.008), call(0.6, usd=0.001), call(2, usd=0.008)]
    assert outcome(by, calls) == [True, True, False, True]


def test_a_downgrade_counts_and_saves_nothing_without_a_cheaper_model() -> None:
    by = rule(usd=10, levels=[(50, "downgrade"), (100, "block")])
    tally = replay(by, [call(0, usd=5), call(1, usd=4), call(2, usd=2)]).tally
    assert (tally.downgraded, tally.downgraded_in_vain) == (1, 1)
    assert (tally.refused_calls, tally.saved_nanos) == (1, 2 * NANOS)


def test_a_cheaper_model_saves_the_difference_and_leaves_room() -> None:
    def halved(each: Call) -> Call:
        amounts = each.amounts._replace(cost_nanos=each.amounts.cost_nanos // 2)
        return each._replace(amounts=amounts, checked=amounts)

    by = rule(usd=10, levels=[(50, "downgrade"), (100, "block")])
    calls = [call(0, usd=5), call(1, usd=4), call(2, usd=6), call(3, usd=2)]
    tally = replay(by, calls, cheaper=halved).tally
    assert (tally.downgraded, tally.downgraded_in_vain, tally.refused_calls) == (2, 0, 1)
    # 2 and 3 saved by the model; a half of 2 has no room, as 5 + 2 + 3 are spent.
    assert tally.saved_nanos == 7 * NANOS


def test_a_cheaper_model_may_be_none_of_the_budgets_business() -> None:
    def other(each: Call) -> Call:
        changed = list(each.values)
        changed[POSITION["model"]] = "small"
        amounts = each.amounts._replace(cost_nanos=NANOS)
        return each._replace(values=tuple(changed), amounts=amounts, checked=amounts)

    by = rule(usd=10, match={"model": "large"}, levels=[(50, "downgrade"), (100, "block")])
    calls = [call(minute, usd=5, model="large") for minute in range(4)]
    tally = replay(by, calls, cheaper=other).tally
    assert (tally.downgraded, tally.refused_calls, tally.saved_nanos) == (3, 0, 12 * NANOS)


def test_a_rolling_window_lets_go_of_what_is_older_than_its_period() -> None:
    by = rule(usd=2, period="hour", is_rolling=True)
    calls = [call(0), call(30), call(59), call(60), call(61), call(62)]
    assert outcome(by, calls) == [True, True, False, False, True, False]
    # It fell below its level at 13:01, and reached it again.
    assert replay(by, calls).level_outcomes()[0].crossed == 2


def test_what_a_period_leaves_unused_is_carried_over() -> None:
    by = rule(
        usd=10, has_rollover=True, rollover_max_percent=50, counts_from=NOON - timedelta(hours=12)
    )
    day = 24 * 60
    calls = [
        *(call(0, usd=2), call(1, usd=9)),
        # 8 were left, of which 5 are carried over.
        *(call(day, usd=15), call(day + 1, usd=0.1)),
        # Nothing was left of 15.
        *(call(2 * day, usd=10), call(2 * day + 1, usd=0.1)),
        # Nobody spent anything for a day: what it left is carried over.
        call(4 * day, usd=15),
    ]
    assert outcome(by, calls) == [True, False, True, False, True, False, True]


def test_seconds_count_from_the_first_call_of_the_window() -> None:
    by = rule(limit_seconds=120, per=["session"], period="lifetime")
    calls = [
        call(0, session="s"),
        call(1.9, session="s"),
        call(1.95, session="t"),
        call(2, session="s"),
        call(3, session="t"),
    ]
    assert outcome(by, calls) == [True, True, True, False, True]


def test_each_single_call_is_judged_by_itself() -> None:
    by = rule(usd=2, per=["request"])
    assert outcome(by, [call(0, usd=2), call(1, usd=2.1), call(2)]) == [True, False, True]
    assert replay(by, [call(0, usd=2), call(1, usd=2)]).level_outcomes()[0].crossed == 2


def test_a_call_without_a_price_is_refused_where_the_policy_is_to() -> None:
    calls = [call(0, is_unpriced=True), call(1)]
    assert outcome(rule(usd=10), calls) == [True, True]
    assert outcome(rule(usd=10), calls, unpriced_policy="refuse") == [False, True]
    assert outcome(rule(limit_tokens=900), calls, unpriced_policy="refuse") == [True, True]
    watching = rule(usd=10, levels=[(100, "none")])
    assert outcome(watching, calls, unpriced_policy="refuse") == [True, True]
    assert replay(rule(usd=10), calls).tally.unpriced == 1


def test_a_raise_counts_while_it_is_in_force() -> None:
    raised = LimitIncreaseRule(1, '["a"]', NOON, NOON + timedelta(minutes=10), *FIVE_USD)
    by = rule(usd=10, per=["agent"], raises=[raised])
    calls = [call(0, usd=15, agent="a"), call(1, usd=11, agent="b"), call(11, agent="a")]
    assert outcome(by, calls) == [True, False, False]


def test_a_lockout_of_a_rolling_window_ends_when_the_window_falls_below_its_level() -> None:
    by = rule(usd=10, period="hour", is_rolling=True, levels=[(50, "none"), (100, "lockout")])
    calls = [call(0, usd=6), call(30, usd=5), call(31, usd=0), call(62, usd=1), call(63, usd=5)]
    # What was refused at 12:30 asked for too much; at 13:01 the 6 dollars have left, and with them
    # the level of 50%.
    assert outcome(by, calls) == [True, False, False, True, True]


def test_a_lockout_of_a_rolling_window_lasts_no_longer_than_its_period() -> None:
    by = rule(usd=10, period="hour", is_rolling=True, levels=[(100, "lockout")])
    calls = [call(0, usd=1), call(50, usd=11), call(62, usd=1), call(109, usd=1), call(110, usd=1)]
    assert outcome(by, calls) == [True, False, False, False, True]


def test_a_limit_increase_ends_a_lockout_and_its_end_makes_another() -> None:
    raised = LimitIncreaseRule(
        1, "", NOON + timedelta(minutes=5), NOON + timedelta(minutes=10), *FIVE_USD
    )
    by = rule(usd=10, levels=[(100, "lockout")], raises=[raised])
    calls = [call(0, usd=10), call(1, usd=1), call(6, usd=2), call(11, usd=0)]
    replayed = replay(by, calls)
    assert outcome(by, calls) == [True, False, True, False]
    assert replayed.level_outcomes()[0].crossed == 2
    asked_too_much = [call(0, usd=9), call(1, usd=2), call(2, usd=1), call(6, usd=2)]
    assert outcome(by, asked_too_much) == [True, False, False, True]


def test_what_was_spent_before_counts_and_may_lock_out_at_once() -> None:
    by = rule(usd=10, levels=[(90, "none"), (100, "lockout")], per=["agent"], period="month")
    replayed = replay(by, ())
    for agent, usd in (("a", 9), ("b", 12)):
        amounts = Amounts(usd * NANOS, 0, 1, 0)
        at = NOON - timedelta(days=3)
        replayed.remember(Earlier(at, at, values(agent=agent), amounts))
    replayed.begin(NOON)
    for each in (call(0, agent="a"), call(1, agent="a"), call(2, agent="b", usd=0)):
        replayed.ask(each)
    tally = replayed.tally
    assert (tally.calls, tally.cost_nanos, tally.refused_calls) == (3, 2 * NANOS, 2)
    assert [level.crossed for level in replayed.level_outcomes()] == [2, 2]
    lockouts = {each["group"]["agent"]: each["lockout_at"] for each in answer(replayed)["groups"]}
    assert lockouts == {"a": "2026-11-18T12:00:00Z", "b": "2026-11-18T12:00:00Z"}


def test_a_budget_that_does_not_act_only_counts_its_crossings() -> None:
    by = rule(usd=2, levels=[(50, "none"), (100, "lockout")], mode="warn")
    replayed = replay(by, [call(minute) for minute in range(5)])
    assert (replayed.tally.refused_calls, replayed.tally.saved_nanos) == (0, 0)
    assert [level.crossed for level in replayed.level_outcomes()] == [1, 1]


@st.composite
def periods(draw: st.DrawFn) -> list[Call]:
    steps = draw(st.lists(st.integers(0, 400), min_size=1, max_size=40))
    minute, calls = 0, []
    for step in steps:
        minute += step
        calls.append(
            call(
                minute,
                usd=draw(st.integers(0, 3_000)) / 1000,
                agent=draw(st.sampled_from("ab")),
            )
        )
    return calls


@given(
    calls=periods(),
    period=st.sampled_from(["hour", "day", "month", "lifetime"]),
    is_rolling=st.booleans(),
    per=st.sampled_from([[], ["agent"]]),
    action=st.sampled_from(["block", "lockout", "hold", "throttle", "downgrade"]),
)
@settings(max_examples=30, deadline=None)
def test_a_limit_of_at_least_what_was_spent_refuses_and_saves_nothing(
    calls: list[Call], period: str, is_rolling: bool, per: list[str], action: str
) -> None:
    spent = sum(each.amounts.cost_nanos for each in calls)
    # A lockout level is reached by what is spent, so its limit must be a little more.
    limit = spent + (1 if action == "lockout" else 0)
    by = rule(
        limit_cost_nanos=limit,
        period=period,
        per=per,
        is_rolling=is_rolling and period != "lifetime",
        levels=[(100, action)],
    )
    tally = replay(by, calls).tally
    assert (tally.calls, tally.cost_nanos) == (len(calls), spent)
    assert (tally.refused_calls, tally.saved_nanos, tally.throttled) == (0, 0, 0)


@given(calls=periods(), limit_usd=st.integers(0, 20), per=st.sampled_from([[], ["agent"]]))
@settings(max_examples=30, deadline=None)
def test_no_window_spends_more_than_its_limit(
    calls: list[Call], limit_usd: int, per: list[str]
) -> None:
    by = rule(usd=limit_usd, per=per)
    made = [each for each, is_made in zip(calls, outcome(by, calls), strict=True) if is_made]
    spent: dict[Any, int] = {}
    for each in made:
        key = (by.group(each.values), by.clock.span(each.at))
        spent[key] = spent.get(key, 0) + each.amounts.cost_nanos
    assert all(nanos <= limit_usd * NANOS for nanos in spent.values())
    shown = replay(by, calls).tally
    assert shown.cost_nanos - shown.saved_nanos == sum(spent.values())


def breaker(**fields: object) -> BreakerRule:
    return BreakerRule.of(Breaker(name="b", per=["agent"], **fields))


def watch(by: BreakerRule, calls: Iterable[Call]) -> BreakerReplay:
    replayed = BreakerReplay(by)
    for each in calls:
        replayed.ask(each)
    return replayed


def test_a_breaker_stops_its_group_from_the_call_that_opens_it() -> None:
    by = breaker(cost_nanos_per_minute=2 * NANOS, close="hand")
    calls = [call(minute / 10, agent="a") for minute in range(5)] + [call(1, agent="b")]
    shown = answer(watch(by, calls))
    # The third call opened it: it had been made.
    assert (shown["refused"]["calls"], shown["saved_usd"], shown["opened"]) == (2, "2", 1)
    assert shown["openings"] == [
        {
            "at": "2026-11-18T12:00:12Z",
            "group": {"agent": "a"},
            "why": "spent $3.00 in 60 s, limit $2.00 a minute",
        }
    ]
    assert shown["first_refusal_at"] == "2026-11-18T12:00:18Z"


def test_a_probe_closes_a_breaker_after_its_cool_down_or_opens_it_again() -> None:
    by = breaker(error_percent=50, error_min_calls=2, close="trial", cool_down_seconds=600)
    calls = [
        *(call(0, agent="a", is_error=True), call(0.1, agent="a", is_error=True)),
        *(call(5, agent="a"), call(11, agent="a", is_error=True), call(12, agent="a")),
        *(call(22, agent="a"), call(23, agent="a")),
    ]
    shown = answer(watch(by, calls))
    assert (shown["opened"], shown["refused"]["calls"]) == (2, 2)
    assert shown["openings"][1]["why"] == "the probe failed"


def test_a_breaker_that_tightens_refuses_nothing_itself() -> None:
    by = breaker(cost_nanos_per_minute=NANOS, limit_percent=50)
    shown = answer(watch(by, [call(minute / 10, agent="a") for minute in range(5)]))
    assert (shown["refused"]["calls"], shown["opened"]) == (0, 1)


def test_a_breaker_in_shadow_is_replayed_as_if_it_acted() -> None:
    by = breaker(cost_nanos_per_minute=NANOS, mode="shadow")
    assert watch(by, [call(0), call(0.1), call(0.2)]).tally.refused_calls == 1


def test_a_breaker_knows_the_minute_before_and_what_is_usual() -> None:
    fast = BreakerReplay(breaker(cost_nanos_per_minute=2 * NANOS))
    fast.remember(call(0, usd=5, agent="a"))
    fast.ask(call(0.5, usd=0.1, agent="a"))
    assert fast.tally.opened == 1
    large = BreakerReplay(breaker(tokens_times=10, usual_min_calls=2))
    for minute in (0, 1):
        large.remember(call(minute, agent="a"))
    large.ask(call(2, tokens=1000, agent="a"))
    assert large.tally.opened == 1
