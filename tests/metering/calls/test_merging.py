"""Which calls reports tell of, and what each call is: figures by hand, and in any order."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.calls.merging import calls_of, contradiction, merge
from metering.calls.report import Report, report_as_text, report_from_text
from metering.models import Authority, Completeness, Route
from metering.usage.decoders.native import EventBody
from metering.usage.event_keys import key_of_id, key_of_response, key_of_span
from metering.usage.shapes import Tokens

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
ROUTES = {
    Authority.CLIENT_USAGE: Route.SETTLE,
    Authority.CLIENT: Route.NATIVE,
    Authority.CALLBACK: Route.LITELLM,
    Authority.SPAN_USAGE: Route.OTLP,
    Authority.SPAN: Route.OTLP,
}


def report(
    id_: str,
    tokens: Tokens | None = None,
    *,
    authority: Authority = Authority.CLIENT,
    after_seconds: float = 0,
    completeness: Completeness = Completeness.COMPLETE,
    **told: Any,
) -> Report:
    """A report of a response of OpenAI's, unless told otherwise."""
    told = {"source": "tests", "model": "gpt-5-nano", "response_id": "chatcmpl-1", **told}
    body = EventBody(id=id_, **{name: value for name, value in told.items() if value is not ...})
    return Report(
        key=key_of_id(body.source or "", id_),
        fingerprint=key_of_id("fingerprint", id_),
        body=body,
        at=NOON + timedelta(seconds=after_seconds),
        tokens=tokens or Tokens(100, 20),
        authority=authority.value,
        completeness=completeness.value,
        route=ROUTES[authority].value,
        response_key=key_of_response(body.response_id),
        span_key=key_of_span(body.trace, body.span) if body.trace and body.span else None,
    )


def merged_tokens(*reports: Report) -> Tokens:
    """The tokens of the one call, which must be the same whatever the order."""
    result = set()
    for order in itertools.permutations(reports):
        (call,) = calls_of(order)
        merged = merge(call.reports)
        result.add((merged.tokens, merged.body.model, merged.completeness))
    ((tokens, _, _),) = result
    return tokens


def test_the_final_figure_replaces_the_preliminary_one() -> None:
    first, final = report("a", Tokens(300, 1)), report("b", Tokens(300, 510), after_seconds=5)
    assert merged_tokens(first, final) == Tokens(300, 510)


def test_what_one_source_sees_of_the_cache_and_another_of_searches_is_kept() -> None:
    blind = report("a", Tokens(12_971, 193, web_searches=1))
    seeing = report(
        "b", Tokens(12_971, 193, 0, 12_963, 5), authority=Authority.SPAN, source="otlp:x"
    )
    assert merged_tokens(blind, seeing) == Tokens(12_971, 193, 0, 12_963, 5, web_searches=1)


def test_a_source_that_leaves_the_cache_out_of_the_input_tells_of_the_same_call() -> None:
    whole = report("a", Tokens(8_855, 193, 8_851))
    rest = report("b", Tokens(4, 193), authority=Authority.CALLBACK, source="litellm")
    assert merged_tokens(whole, rest) == Tokens(8_855, 193, 8_851)


def test_a_miscount_of_one_is_decided_by_who_is_believed() -> None:
    exact = report("a", Tokens(13, 16), authority=Authority.SPAN_USAGE, source="otlp:x")
    miscounted = report("b", Tokens(13, 17), authority=Authority.SPAN, source="otlp:x")
    assert merged_tokens(exact, miscounted) == Tokens(13, 16)


def test_a_part_that_does_not_fit_into_its_whole_is_left_out() -> None:
    first = report("a", Tokens(100, 20))
    second = report("b", Tokens(90, 20, 0, 0, 0, 15), authority=Authority.SPAN, source="otlp:x")
    assert merged_tokens(first, second) == Tokens(100, 20, reasoning_tokens=15)


def test_missing_usage_is_filled_and_a_failure_without_usage_is_known() -> None:
    missing = report("a", Tokens(), completeness=Completeness.MISSING)
    assert merge([missing]).completeness == Completeness.MISSING
    failed = report("b", Tokens(), authority=Authority.SPAN, source="otlp:x", status="error")
    (call,) = calls_of([missing, failed])
    assert merge(call.reports).completeness == Completeness.COMPLETE
    assert merged_tokens(missing, report("c")) == Tokens(100, 20)


def test_the_more_telling_source_wins_and_the_others_fill_what_it_left_out() -> None:
    settle = report("a", authority=Authority.CLIENT_USAGE, team="growth")
    callback = report("b", authority=Authority.CALLBACK, source="litellm", team="x", user="u")
    span = report("c", authority=Authority.SPAN, source="otlp:x", user="v", session="s")
    for order in itertools.permutations((settle, callback, span)):
        (call,) = calls_of(order)
        body = merge(call.reports).body
        told = (body.id, body.source, body.team, body.user, body.session)
        assert told == ("a", "tests", "growth", "u", "s")


def test_trace_span_and_parent_are_taken_from_one_report() -> None:
    client = report("a", trace="of-the-client")
    span = report(
        "b", authority=Authority.SPAN, source="otlp:x", trace="t", span="s", parent_span="p"
    )
    (call,) = calls_of([client, span])
    body = merge(call.reports).body
    assert (body.trace, body.span, body.parent_span) == ("t", "s", "p")


def test_a_time_that_was_told_is_believed_before_one_of_arrival() -> None:
    settle = report("a", after_seconds=9)
    span = report("b", authority=Authority.SPAN, source="otlp:x", time=NOON)
    (call,) = calls_of([settle, span])
    assert merge(call.reports).at == NOON


CONTRADICTIONS = {
    "two reservations": (report("a", reservation="r-1"), report("b", reservation="r-2")),
    "two responses": (
        report("a", trace="t", span="s"),
        report("b", trace="t", span="s", response_id="chatcmpl-2"),
    ),
    "two providers": (
        report("a", provider="openai", model=...),
        report("b", provider="mistral", model=...),
    ),
    "far apart": (report("a"), report("b", after_seconds=6 * 3600 + 1)),
    "two models": (report("a"), report("b", model="claude-sonnet-4-5")),
    "one is a tool call": (
        report("a"),
        report("b", Tokens(), operation="tool", tool="search", model=...),
    ),
    "other usage": (report("a", Tokens(100, 50)), report("b", Tokens(80, 30), after_seconds=5)),
    "two events of a reservation": (
        report("a", response_id=..., reservation="r"),
        report("b", response_id=..., reservation="r"),
    ),
}


@pytest.mark.parametrize("reason", CONTRADICTIONS)
def test_what_contradicts_is_another_call_in_either_order(reason: str) -> None:
    first, second = CONTRADICTIONS[reason]
    assert contradiction(first, second) == contradiction(second, first) == reason
    for order in ((first, second), (second, first)):
        calls = calls_of(order)
        assert [call.is_conflict for call in calls] == [False, True]
        assert [call.reports[0].body.id for call in calls] == ["a", "b"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("gpt-5", "gpt-5-nano"),
        ("gpt-4o", "gpt-4o-mini"),
        ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
        ("claude-sonnet-4-5", "claude-opus-4-1"),
    ],
)
def test_different_models_of_a_family_contradict(first: str, second: str) -> None:
    reports = report("a", model=first), report("b", model=second)
    assert contradiction(*reports) == "two models"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("openrouter", "openai/gpt-5-nano"), ("openai", "gpt-5-nano")),
        (("groq", "openai/gpt-oss-20b"), ("openai", "openai/gpt-oss-20b")),
        (
            ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            ("anthropic", "claude-sonnet-4-5-20250929"),
        ),
        (("azure", "gpt-4o"), ("openai", "gpt-4o-2024-08-06")),
    ],
)
def test_a_resellers_spelling_contradicts_nothing(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    reports = [
        report(id_, provider=provider, model=model)
        for id_, (provider, model) in zip("ab", (first, second), strict=True)
    ]
    assert contradiction(*reports) is None


def test_growing_usage_and_an_alias_of_the_model_contradict_nothing() -> None:
    growing = report("a", Tokens(80, 30)), report("b", Tokens(100, 50), after_seconds=5)
    assert contradiction(*growing) is None
    alias = report("a", model="our-fast-deployment")
    assert contradiction(alias, report("b", model="claude-sonnet-4-5")) is None
    dated = report("a", model="gpt-5-nano-2025-08-07")
    assert contradiction(dated, report("b")) is None


def test_a_report_that_bridges_two_calls_makes_them_one() -> None:
    by_response = report("a")
    by_span = report("b", response_id=..., trace="t", span="s", source="b")
    assert len(calls_of([by_response, by_span])) == 2
    bridge = report("c", trace="t", span="s", authority=Authority.SPAN, source="otlp:x")
    assert len(calls_of([by_response, by_span, bridge])) == 1


def test_a_stored_report_is_read_as_it_was_written() -> None:
    whole = report("a", Tokens(9, 8, 7, 0, 0, 3, extra={"x": 1.5}), time=NOON, cost_usd="0.1")
    assert report_from_text(report_as_text(whole)) == whole


REPORTS = st.lists(
    st.builds(
        lambda number, response, span, reservation, tokens, authority, after, team: report(
            f"id-{number}",
            tokens,
            authority=authority,
            after_seconds=after,
            source=f"source-{number % 2}",
            response_id=response,
            **({"trace": "t", "span": span} if span is not ... else {}),
            reservation=reservation,
            team=team,
        ),
        st.integers(0, 10_000),
        st.sampled_from(["r-1", "r-2", ...]),
        st.sampled_from(["s-1", "s-2", ...]),
        st.sampled_from(["h-1", "h-2", ...]),
        st.builds(Tokens, st.integers(0, 9), st.integers(0, 9)),
        st.sampled_from(list(ROUTES)),
        st.integers(0, 7 * 3600),
        st.sampled_from(["x", "y", ...]),
    ),
    max_size=7,
    unique_by=lambda each: each.key,
)


@given(REPORTS, st.randoms())
def test_the_calls_are_a_function_of_the_set_of_reports(reports: list[Report], random: Any) -> None:
    shuffled = random.sample(reports, len(reports))
    calls = calls_of(reports)
    assert calls == calls_of(shuffled)
    assert sorted(each.key for call in calls for each in call.reports) == sorted(
        each.key for each in reports
    )
    for call in calls:
        pairs = itertools.combinations(call.reports, 2)
        assert all(contradiction(first, second) is None for first, second in pairs)
