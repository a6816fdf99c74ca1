"""When a session's calls count as a loop, and which honest work does not."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from alerts.loops import CALLS_MAX, Call, Finding, Kind, SessionVerdict, Strength, judge
from bench import loops as recorded
from tests.seed import dice

BLANK = recorded.BLANK


def says(output: str | None = None, **fields: Any) -> Call:
    """A model call."""
    usual = {"agent": "a", "input_tokens": 1000, "output_tokens": 50, "output_hash": output}
    return BLANK._replace(**{**usual, **fields})


def uses(arguments: str | None, result: str | None = None, **fields: Any) -> Call:
    """A tool call."""
    usual = {"agent": "a", "operation": "tool", "model": "", "tool": "search"}
    return BLANK._replace(
        **{**usual, "tool_arguments_hash": arguments, "output_hash": result, **fields}
    )


def fails(arguments: str | None = None, reason: str = "timeout", **fields: Any) -> Call:
    return uses(arguments, status="error", error_type=reason, **fields)


def timed(calls: Iterable[Call], *, seconds: float = 5.0, cost_nanos: int = 100) -> list[Call]:
    return [
        call._replace(at=number * seconds, step=number, cost_nanos=cost_nanos)
        for number, call in enumerate(calls)
    ]


def talk(outputs: Sequence[Call], grown: Sequence[int]) -> list[Call]:
    """Calls of one conversation, whose input grows by turns by these tokens."""
    context = 1000
    calls = []
    for number, call in enumerate(outputs):
        context += grown[number % len(grown)]
        calls.append(call._replace(input_tokens=context))
    return calls


def verdict_on(calls: Iterable[Call], **timing: Any) -> SessionVerdict:
    verdict = judge(timed(calls, **timing))
    assert verdict is not None
    return verdict


def loops(calls: Iterable[Call], **timing: Any) -> list[Kind]:
    """The kinds of what makes these calls a loop."""
    verdict = judge(timed(calls, **timing))
    result = (
        [finding.kind for finding in verdict.findings if finding.strength is Strength.LOOP]
        if verdict
        else []
    )
    assert bool(result) == bool(verdict and verdict.is_loop)
    return result


def suspicions(calls: Iterable[Call], **timing: Any) -> list[Kind]:
    """What is noticed of calls that are no loop."""
    verdict = judge(timed(calls, **timing))
    assert verdict is None or not verdict.is_loop
    return [finding.kind for finding in verdict.findings] if verdict else []


def different(count: int) -> list[Call]:
    """Model calls with nothing in common but the agent."""
    return [says(f"o{number}", input_tokens=900 + 200 * number) for number in range(count)]


# Nothing to say


@pytest.mark.parametrize("calls", [[], [says("x")], different(40)])
def test_says_nothing_of_calls_that_all_differ(calls: list[Call]) -> None:
    assert judge(timed([call._replace(input_tokens=5000) for call in calls])) is None


# Model calls


def test_the_same_output_to_the_same_input_is_a_loop_at_the_fifth_time() -> None:
    assert suspicions([says("x")] * 4) == [Kind.REPEATED_CALL]
    assert loops([says("x")] * 5) == [Kind.REPEATED_CALL]


def test_in_a_session_of_a_dozen_calls_the_third_time_is_enough() -> None:
    again = [
        says("x"),
        says("y", input_tokens=50),
        says("x"),
        says("z", input_tokens=50),
        says("x"),
    ]
    assert suspicions([*different(6), *again]) == [Kind.REPEATED_CALL]
    verdict = verdict_on([*different(7), *again])
    assert verdict.findings[0][:6] == (Kind.REPEATED_CALL, Strength.LOOP, 9, 11, 11, 2)


def test_equal_sizes_stand_for_equal_outputs_where_no_hash_is_sent() -> None:
    other = says(output_tokens=300)
    assert loops([other, says()] * 1 + [says()] * 4) == [Kind.REPEATED_CALL]
    assert judge(timed(says(output_tokens=50 + 40 * number) for number in range(20))) is None


def test_short_answers_are_alike_by_nature() -> None:
    assert judge(timed([says("yes", output_tokens=1)] * 40)) is None
    assert judge(timed([says(output_tokens=19)] * 40)) is None


def test_a_conversation_that_goes_round_is_a_loop() -> None:
    around = [says("try", output_tokens=100), says("check", output_tokens=200)] * 4
    result = verdict_on(talk(around, grown=[15, 800])).findings[0]
    assert result[:6] == (Kind.CYCLE, Strength.LOOP, 3, 6, 7, 5)
    assert result.words == "5 of 5 model calls gave 2 outputs again with nothing changed."
    assert loops(talk([each._replace(output_hash=None) for each in around], grown=[15, 800])) == [
        Kind.CYCLE
    ]


@pytest.mark.parametrize("length", [4, 5, 6, 10, 15])
def test_a_cycle_of_alike_sizes_is_a_loop_once_hashes_prove_a_second_round(length: int) -> None:
    pick = dice("cycle", length)
    cycle = [says(f"o{number}", output_tokens=pick.randint(48, 52)) for number in range(length)]
    result = length + max(length, 6)
    assert loops((cycle * 3)[:result]) == [Kind.CYCLE]
    assert loops((cycle * 3)[: result - 1]) == []
    assert loops(talk(cycle * 3, grown=[200])[: result + 1]) == [Kind.CYCLE]
    # The same answers in any order are a batch's.
    items = [pick.choice(cycle)._replace(input_tokens=pick.randint(900, 1100)) for _ in range(99)]
    assert loops(items) == []


def test_a_long_cycle_of_many_sizes_is_a_loop_without_hashes_too() -> None:
    cycle = [says(output_tokens=60 + 37 * number) for number in range(12)]
    assert loops(cycle * 2) == [Kind.CYCLE]
    assert loops((cycle * 2)[:-1]) == []


def test_the_same_words_after_something_else_was_read_are_no_loop() -> None:
    steps = [says("next page" if number % 2 else f"page {number}") for number in range(30)]
    assert suspicions(talk(steps, grown=[100, 300, 700, 1500, 3100])) == [Kind.GROWING_CONTEXT]


def test_a_batch_of_nearly_equal_calls_is_no_loop() -> None:
    pick = dice("batch")
    sizes = [(pick.randint(990, 999), pick.randint(50, 59)) for _ in range(CALLS_MAX)]
    rows = [says(input_tokens=before, output_tokens=after) for before, after in sizes]
    assert judge(timed(rows)) is None


def test_outputs_in_a_row_that_a_similarity_hash_calls_alike_are_a_loop() -> None:
    near = [f"simhash:{0xABCDEF0123456789 ^ bits:016x}" for bits in (0, 1, 6, 0x700, 0x1800)]
    assert loops(talk([says(each) for each in near], grown=[10, 500])) == [Kind.SIMILAR_OUTPUTS]
    far = [
        f"simhash:{0xABCDEF0123456789 ^ bits:016x}" for bits in (0, 0xF, 0xFF0, 0xFF000, 0xF00000)
    ]
    assert judge(timed(talk([says(each) for each in far], grown=[10, 500]))) is None


def test_one_stuck_agent_is_found_among_many_that_work() -> None:
    crew = [
        says(f"{agent}-{turn}", agent=f"worker {agent}") for turn in range(5) for agent in range(9)
    ]
    stuck = [says("x", agent="stuck")]
    calls = [each for turn in range(5) for each in (*crew[turn * 9 : turn * 9 + 9], *stuck)]
    assert loops(calls) == [Kind.REPEATED_CALL]


def test_agents_that_take_turns_are_no_loop() -> None:
    turns = [
        says(f"o{number}", agent=("lead", "coder", "tester")[number % 3]) for number in range(60)
    ]
    assert judge(timed(turns)) is None


def test_a_canned_answer_now_and_then_is_no_loop() -> None:
    said = ["no code to run" if each % 3 == 2 else f"o{each}" for each in range(10)]
    turns = talk([says(each, output_tokens=20 + 9 * len(each)) for each in said], grown=[200])
    assert suspicions(turns) == [Kind.REPEATED_CALL]


# Tool calls


def test_the_same_tool_with_the_same_arguments_is_suspect_from_three_of_five() -> None:
    assert suspicions([uses("q"), uses("r"), uses("q"), uses("s"), uses("q")]) == [
        Kind.REPEATED_CALL
    ]
    assert judge(timed([uses("q"), uses("r"), uses("s"), uses("q"), uses("t"), uses("q")])) is None


def test_the_same_tool_call_four_times_in_a_row_is_a_loop() -> None:
    assert suspicions([uses("q")] * 3) == [Kind.REPEATED_CALL]
    assert loops([uses("q")] * 4) == [Kind.REPEATED_CALL]


def test_model_calls_in_between_do_not_hide_repeated_tool_calls() -> None:
    calls = [each for number in range(4) for each in (says(f"o{number}"), uses("q"))]
    result = verdict_on(calls).findings[0]
    assert result[:6] == (Kind.REPEATED_CALL, Strength.LOOP, 3, 7, 7, 3)
    assert (
        result.words
        == "3 of 3 tool calls repeat earlier ones with the same arguments, mostly search."
    )


@pytest.mark.parametrize(
    ("length", "calls"), [(2, 6), (3, 9), (4, 10), (5, 11), (6, 12), (8, 14), (15, 30)]
)
def test_a_cycle_of_tool_calls_is_a_loop_by_its_second_or_third_round(
    length: int, calls: int
) -> None:
    cycle = [uses(f"q{number}") for number in range(length)] * 3
    assert loops(cycle[:calls])
    assert loops(cycle[: calls - 1]) == []


def test_one_tool_over_many_things_is_no_loop() -> None:
    calls = [
        each for number in range(40) for each in (says(f"o{number}"), uses(f"q{number}", "ok"))
    ]
    assert judge(timed(calls)) is None


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(1.0, "changes"), (30.0, None), (30.0, "pending")],
    ids=["result-changes", "waits", "waits-and-nothing-changes"],
)
def test_polling_is_no_loop(seconds: float, result: str | None) -> None:
    polls = [
        uses("job", f"{number} %" if result == "changes" else result, tool="status")
        for number in range(30)
    ]
    assert loops(polls, seconds=seconds) == []


def test_asking_for_a_poll_in_the_same_words_is_no_loop_while_results_change() -> None:
    asked = talk([says("is the job done?")] * 20, grown=[60])
    calls = [each for number, ask in enumerate(asked) for each in (ask, uses("job", f"{number} %"))]
    assert loops(calls) == []
    stuck = [each for ask in asked for each in (ask, uses("job", "0 %"))]
    assert Kind.REPEATED_CALL in loops(stuck)


def test_running_the_same_test_after_each_edit_is_no_loop() -> None:
    calls = [each for number in range(20) for each in (uses(f"edit {number}"), uses("run tests"))]
    assert suspicions(calls) == [Kind.REPEATED_CALL]


def test_the_same_result_five_times_of_ten_is_a_loop_though_other_calls_come_between() -> None:
    calls = [
        each for number in range(5) for each in (uses(f"edit {number}"), uses("run", "1 failed"))
    ]
    assert loops(calls) == [Kind.REPEATED_CALL]


# Waiting in vain


@pytest.mark.parametrize("seconds", [31.0, 300.0, 3600.0])
def test_the_same_call_with_the_same_result_forty_times_is_a_loop_at_any_pace(
    seconds: float,
) -> None:
    assert loops([uses("job", "pending")] * 40, seconds=seconds) == [Kind.REPEATED_CALL]
    assert loops([uses("job", "pending")] * 39, seconds=seconds) == []
    asked = [each for number in range(40) for each in (says(f"o{number}"), uses("job", "pending"))]
    assert loops(asked, seconds=seconds) == [Kind.REPEATED_CALL]
    assert Kind.FAILING_RETRIES in loops([fails(tool="")] * 40, seconds=seconds)
    assert loops([fails()] * 39, seconds=seconds) == []


@pytest.mark.parametrize(("seconds", "calls"), [(30.0, 10), (60.0, 14), (300.0, 23), (3600.0, 38)])
def test_waiting_that_costs_money_is_a_loop_sooner_and_later_the_longer_it_pauses(
    seconds: float, calls: int
) -> None:
    waits = [uses("job", "pending")] * calls
    assert loops(waits, seconds=seconds, cost_nanos=20_000_000) == [Kind.REPEATED_CALL]
    assert loops(waits[1:], seconds=seconds, cost_nanos=20_000_000) == []


def test_cheap_waiting_beside_work_that_costs_is_no_loop() -> None:
    work = [each._replace(cost_nanos=10**9, output_tokens=50) for each in timed(different(9))]
    waits = [uses("job", "pending", at=100.0 + 60 * each, cost_nanos=10**5) for each in range(150)]
    verdict = judge([*work, *waits])
    assert verdict is None or not verdict.is_loop


def test_whatever_is_new_begins_a_wait_anew() -> None:
    waits = [uses("job", "pending")] * 39
    assert loops([*waits, uses("job", "running"), *waits[1:]], seconds=60.0) == []
    assert loops([*waits, uses("other job", "done"), *waits], seconds=60.0) == []


def test_a_result_that_varies_at_one_length_takes_twice_as_many() -> None:
    stamped = [
        each
        for number in range(40)
        for each in (says(f"o{number}"), uses("q", f"at {number}", output_tokens=57))
    ]
    assert loops(stamped[:40], cost_nanos=10_000_000) == [Kind.REPEATED_CALL]
    assert loops(stamped[:39], cost_nanos=10_000_000) == []
    assert Kind.REPEATED_CALL in suspicions(stamped[:20])
    grows = [each._replace(output_tokens=57 + number) for number, each in enumerate(stamped)]
    assert loops(grows, cost_nanos=10_000_000) == []


# Failures


def test_five_failures_of_one_call_for_one_reason_are_a_loop() -> None:
    assert suspicions([fails("q")] * 4) == [Kind.REPEATED_CALL, Kind.FAILING_RETRIES]
    assert Kind.FAILING_RETRIES in loops([fails("q")] * 5)


def test_failures_without_arguments_to_compare_take_eight() -> None:
    assert suspicions([fails()] * 7) == [Kind.FAILING_RETRIES]
    assert loops([fails()] * 8) == [Kind.FAILING_RETRIES]
    assert loops([says(status="error", error_type="overloaded")] * 8) == [Kind.FAILING_RETRIES]


@pytest.mark.parametrize(
    "calls",
    [
        [fails(f"q{number}") for number in range(20)],
        [fails("q", reason) for reason in ("timeout", "refused")] * 2,
        [*[fails()] * 7, uses(None), *[fails()] * 7],
    ],
    ids=["different-calls", "different-reasons", "success-in-between"],
)
def test_other_failures_are_no_loop(calls: list[Call]) -> None:
    assert loops(calls) == []


def test_retries_that_wait_are_no_loop() -> None:
    assert loops([fails("q")] * 20, seconds=30.0) == []


# Suspicions


def test_one_tool_over_four_fifths_of_the_latest_calls_is_suspect() -> None:
    other = uses(None, tool="read")
    assert judge(timed([*[other] * 4, *[uses(None)] * 16])) is None
    assert suspicions([*[other] * 3, *[uses(None)] * 17]) == [Kind.DOMINANT_TOOL]


def test_one_tool_and_steps_that_are_all_alike_are_a_loop_together() -> None:
    pick = dice("alike")
    steps = talk([says(output_tokens=pick.randint(48, 52)) for _ in range(12)], grown=[299, 301])
    calls = [each for step in steps for each in (step, uses(None))]
    assert suspicions(steps) == [Kind.NO_PROGRESS]
    assert suspicions([uses(None)] * 12) == [Kind.DOMINANT_TOOL]
    assert loops(calls) == [Kind.NO_PROGRESS, Kind.DOMINANT_TOOL]


def test_a_context_that_only_grows_to_four_times_is_suspect_and_wastes_nothing() -> None:
    calls = talk(different(12), grown=[300, 500])
    verdict = verdict_on([each._replace(input_tokens=each.input_tokens) for each in calls])
    assert [each.kind for each in verdict.findings] == [Kind.GROWING_CONTEXT]
    assert (verdict.is_loop, verdict.wasted_nanos) == (False, 0)
    compacted = [*calls[:8], says("summary", input_tokens=900), *calls[8:]]
    assert judge(timed(compacted)) is None


# Verdicts


def test_the_order_of_arrival_makes_no_difference() -> None:
    calls = timed([*different(7), *[says("x")] * 5])
    shuffled = dice("arrival").sample(calls, len(calls))
    assert judge(shuffled) == judge(calls)
    at_once = [call._replace(at=0.0) for call in calls]
    assert judge(at_once[::-1]) == judge(at_once)


def test_what_was_wasted_is_what_was_spent_since_the_first_repeat() -> None:
    calls = timed([*different(3), *[says("x")] * 5])
    priced = [call._replace(cost_nanos=10**number) for number, call in enumerate(calls)]
    verdict = judge(priced)
    assert verdict is not None
    assert (verdict.cost_nanos, verdict.wasted_nanos) == (11_111_111, 11_110_000)
    result: Finding = verdict.findings[0]
    assert (result.first_repeat, result.began_at, result.cost_nanos) == (4, 20.0, 11_110_000)


def test_an_hour_more_costs_what_the_latest_twenty_calls_cost_in_their_time() -> None:
    calls = timed([says("x")] * 30, seconds=7.0, cost_nanos=1_000_000_001)
    verdict = verdict_on([says("x")] * 30, seconds=7.0, cost_nanos=1_000_000_001)
    # 19 gaps of 7 seconds: 3600 / 7 calls an hour, rounded half up at the end.
    assert verdict.projected_nanos_per_hour == (1_000_000_001 * 3600 * 2 + 7) // 14
    assert verdict.nanos_per_call == 1_000_000_001
    at_once = judge([call._replace(at=0.0) for call in calls])
    assert at_once is not None
    assert at_once.projected_nanos_per_hour is None


def test_a_loop_that_was_left_behind_is_no_longer_going_on() -> None:
    looped = [says("x")] * 5
    assert verdict_on([*looped, *different(9)]).is_ongoing
    verdict = verdict_on([*looped, *different(10)])
    assert (verdict.is_loop, verdict.is_ongoing) == (True, False)
    others = [each._replace(agent="b") for each in different(30)]
    assert verdict_on([*looped, *others]).is_ongoing


def test_the_latest_calls_alone_are_judged() -> None:
    assert (
        judge(timed([*[says("x")] * 5, *[uses(f"q{number}") for number in range(CALLS_MAX)]]))
        is None
    )


# Recorded sessions


needs_recordings = pytest.mark.skipif(
    not recorded.DATA.is_dir(), reason="needs ../shared/data beside the checkout"
)
each_way = pytest.mark.parametrize("seen", recorded.WAYS.values(), ids=list(recorded.WAYS))


@needs_recordings
@each_way
def test_recorded_loops_are_found_before_the_money_doubles(
    seen: Callable[[Call], Call],
) -> None:
    flags = recorded.flagged(recorded.lmcache(), seen)
    assert Counter(each.session.label for each in flags) == {"loop": 4, "suspect": 2}
    for flag in flags:
        if flag.session.label == "loop":
            assert recorded.cost_ratio(flag.session.calls, flag.position) <= 2


def test_polling_and_classification_are_no_loops() -> None:
    sessions = recorded.made_up(seeds=1, calls_each=60)
    for seen in recorded.WAYS.values():
        assert recorded.flagged(sessions, seen) == []


@needs_recordings
@each_way
def test_recorded_conversations_and_orchestration_are_no_loops(
    seen: Callable[[Call], Call],
) -> None:
    assert recorded.flagged([*recorded.tau_bench(), *recorded.who_and_when()], seen) == []
