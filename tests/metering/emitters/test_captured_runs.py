"""What real emitters sent is booked alike in any order, any split and any number of times, and it
is what the providers served.

Only the bodies for `/v1/traces` and `/v1/integrations/litellm` are sent: logs and metrics have no
address yet. Most recordings lie beside the repository; where they are not, their tests are skipped.
SPENDGATE_FULL_ORDERS=1 tries 50 random orders of each instead of 5.
"""

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Final

import msgspec
import pytest
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.intake.committer import PROCESS_COMMITTER
from metering.intake.ingest import commit_jobs
from metering.snapshot import read_configuration
from metering.usage.shapes import Tokens, normalise_usage
from tests.factories import Account, make_account
from tests.metering.emitters.outcomes import Call, Outcome, outcome_at_once, outcome_of
from tests.metering.emitters.pieces import at_random, in_order_of_end
from tests.metering.emitters.recordings import Recording, captured, framework, replayed, truth_of
from tests.metering.emitters.untold import UNTOLD
from tests.metering.usage.decoders.test_otlp_recorded import RECORDED, UNTOLD_WRITES, expected
from tests.seed import dice

pytestmark = pytest.mark.django_db(transaction=True)

IS_FULL: Final = os.environ.get("SPENDGATE_FULL_ORDERS") == "1"
ORDERS: Final = 50 if IS_FULL else 5

# Each captured run, with how many calls failed in it and how many tools were called.
CAPTURED: Final[Mapping[str, tuple[int, int]]] = {
    "python-otel/oai-v2b": (1, 0),
    "python-otel/lc-ls": (1, 2),
    "python-otel/lc-oi": (1, 2),
    "python-otel/pyd-simple": (0, 2),
    "python-otel/two-oib": (1, 0),
    "vercel-ai-6.0.326/va-legacy": (1, 2),
    "claude-code/cc-tool": (0, 1),
    "claude-code/cc-err429-answered-200": (1, 0),
    "codex/cx-small-answered-200": (0, 0),
    "gemini-cli/gm-answered-200": (0, 0),
    "litellm/ll-gen": (1, 0),
    "litellm/llp4": (1, 0),
}
# What every answered model call of a run must be charged to. An empty value: whoever it is.
WHOSE: Final[Mapping[str, Mapping[str, str]]] = {
    "python-otel/lc-ls": {"session": "s-77", "user": "u-77", "agent": ""},
    "python-otel/lc-oi": {"session": "s-77", "user": "u-77", "agent": ""},
    "python-otel/pyd-simple": {"agent": "", "session": ""},
    "vercel-ai-6.0.326/va-legacy": {
        "agent": "va-agent",
        "session": "va-sess",
        "user": "va-user",
        "team": "growth",
    },
    "claude-code/cc-tool": {"session": "4ccfc91f-e8db-4987-b18c-1b32d26359d9", "team": "platform"},
    "codex/cx-small-answered-200": {"session": "01a22801-84a9-7272-ba37-c7ded6edf567"},
    "gemini-cli/gm-answered-200": {
        "agent": "gemini-cli",
        "session": "b0d8c9e5-89f8-4232-89cf-8ed7579ab7f4",
    },
}
# The calls of frameworks: input and output of each, and how many tools were called. `beeai` names
# no tokens; its calls are counted without a price.
FRAMEWORK_CALLS: Final[Mapping[str, tuple[list[tuple[int, int]], int]]] = {
    "agno-2025-06-11": ([(163, 20), (663, 225)], 1),
    "autogen-2025-06-06": ([(41, 3)], 0),
    "beeai-2025-08-01": ([(0, 0)] * 5, 3),
    "claude-agent-2025-12-22": ([(5, 53), (5, 56), (5, 94), (19, 29)], 2),
    "crewai-2025-07-11": ([(190, 164)], 0),
    "csharp-agent-with-gemini-2026-03-09": ([(2497, 200), (2546, 47), (3004, 167)], 2),
    "google-adk-2025-08-28": ([(28, 3), (39, 6)], 1),
    "google-gemini-2025-08-01": ([(6, 2055)], 0),
    "koog-2025-08-26": ([(47, 106), (168, 19)], 2),
    "langgraph-js-2025-10-30": ([(142, 24), (179, 99)], 0),
    "langgraph-python-2025-08-22": ([(60, 15), (108, 51)], 0),
    "llamaindex-2025-06-05": ([(13, 81)], 0),
    "microsoft-agent-2025-12-17": ([(77, 86), (216, 20)], 1),
    "openai-agents-2025-09-30": ([(55, 15), (85, 29)], 1),
    "pydantic-ai-2025-06-06": ([(31, 96)], 0),
    "pydantic-ai-tools-2025-06-06": ([(31, 96)], 0),
    "pydantic-ai-tools-2025-12-04": ([(131, 69), (265, 73), (417, 53), (502, 14)], 3),
    "pydantic-ai-with-gemini-2025-12-24": ([(40, 159)], 0),
    "vercel-aisdk-2025-11-17": ([(62, 85)], 1),
    "vertex-ai-2025-08-01": ([(5, 2018)], 0),
}
DIALECTS: Final = (("logfire",), ("openllmetry",), ("logfire", "openllmetry"))

RUNS: Final[Mapping[str, Callable[[], Recording]]] = {
    **{run: partial(captured, run) for run in CAPTURED},
    **{name: partial(framework, name) for name in FRAMEWORK_CALLS},
    **{"+".join(some): partial(replayed, *some) for some in DIALECTS},
}
every_run = pytest.mark.parametrize("run", RUNS)


@cache
def whole(run: str) -> Outcome:
    """What is booked when the bodies come as they were sent."""
    return outcome_of(RUNS[run]().bodies)


def assert_same(result: Outcome, wanted: Outcome) -> None:
    """The same calls, cost, and cost by agent, session, user, team and model; then whatever else
    is stored.
    """
    assert Counter(map(repr, result.calls)) == Counter(map(repr, wanted.calls))
    assert result.cost_nanos == wanted.cost_nanos
    assert result.cost_by == wanted.cost_by
    assert result == wanted


# What the providers served.


@pytest.mark.parametrize("run", CAPTURED)
def test_a_captured_run_is_booked_as_it_was_served(catalogue: None, run: str) -> None:
    served, told = list(_told(run)), told_ids(run)
    result, (failed, tools) = whole(run), CAPTURED[run]
    assert Counter(_found_key(call, told) for call in result.answered) == Counter(
        _served_key(call, told) for call in served
    )
    assert (result.failed, result.tools) == (failed, tools)
    assert result.cost_nanos == sum(_cost_nanos(make_account(), call) for call in served)


@pytest.mark.parametrize("run", WHOSE)
def test_every_call_of_a_run_is_charged_to_whom_its_spans_name(catalogue: None, run: str) -> None:
    for call in whole(run).answered:
        for name, value in WHOSE[run].items():
            assert call.whose[name], (name, call)
            assert value in ("", call.whose[name]), (name, call)


@pytest.mark.parametrize(
    ("run", "models"),
    [
        ("python-otel/oai-v2b", ["gpt-5-nano"]),
        ("python-otel/two-oib", ["claude-sonnet-4", "gpt-5-nano"]),
    ],
)
def test_what_a_parent_names_is_its_childrens_alone(
    catalogue: None, run: str, models: list[str]
) -> None:
    parent = {"agent": "researcher", "session": "conv-1", "user": "u-1", "team": "growth"}
    nobody = dict.fromkeys(parent, "")
    result = []
    for call in whole(run).answered:
        whose = {name: call.whose[name] for name in parent}
        assert whose in (parent, nobody)
        if whose == parent:
            result.append(_undated(call.model))
    assert sorted(result) == models


@pytest.mark.parametrize("name", FRAMEWORK_CALLS)
def test_a_frameworks_trace_is_booked_as_it_was_served(catalogue: None, name: str) -> None:
    calls, tools = FRAMEWORK_CALLS[name]
    result = whole(name)
    used = sorted((call.input, call.output) for call in result.answered)
    assert (used, result.tools, result.failed) == (calls, tools, 0)


@pytest.mark.parametrize("dialects", DIALECTS)
def test_replayed_calls_are_booked_as_they_were_served(
    catalogue: None, dialects: tuple[str, ...]
) -> None:
    result, calls = whole("+".join(dialects)), _replayed_calls(is_whole="logfire" in dialects)
    assert len(result.answered) == len(result.calls) == len(calls)
    untold = 0
    for call in result.answered:
        true = calls[str(call.response_id)]
        if dialects == ("openllmetry",) and call.provider == "openai":
            untold += true.cache_write_tokens > 0
            true = msgspec.structs.replace(true, cache_write_tokens=0)
        assert (call.input, call.output) == (true.input_tokens, true.output_tokens)
        assert call.cache_read == true.cache_read_tokens
        assert call.cache_write == true.cache_write_tokens
        assert call.reasoning == true.reasoning_tokens
    assert untold == (UNTOLD_WRITES if dialects == ("openllmetry",) else 0)


def _replayed_calls(*, is_whole: bool) -> dict[str, Tokens]:
    """What the replayed calls used; `is_whole` with what advisors and compactions used beside it,
    of which logfire tells and openllmetry does not.
    """
    calls = expected()
    if is_whole:
        for line in (RECORDED / "expected_usage.jsonl").read_text().splitlines():
            call = json.loads(line)
            calls[call["response_id"]] = normalise_usage(call["usage"], provider=None)
    return calls


def _told(run: str) -> Iterator[JsonObject]:
    """The calls that were served, as far as the run tells of them."""
    for call in truth_of(run):
        told: JsonObject | None = {"web": 0, "is_priced": True, **call}
        for untold in UNTOLD.get(run, ()):
            if not untold.ends or str(call["id"]).endswith(untold.ends):
                told = (
                    None if told is None or untold.instead is None else {**told, **untold.instead}
                )
        if told is not None:
            yield told


def told_ids(run: str) -> set[str]:
    """The ids by which a run's bodies tell the provider's responses: plain ones, and such as
    LiteLLM wraps in its own.
    """
    bodies = captured(run).bodies
    text = b"".join(body.content for body in bodies).decode(errors="ignore")
    wrapped = re.findall(r"resp_(bGl0ZWxsb[A-Za-z0-9+/=]+)", text)
    text += " ".join(base64.b64decode(each).decode() for each in wrapped)
    # Claude Code has the id of the request in place of the response's.
    names = ("id", "request_id") if run.startswith("claude-code") else ("id",)
    return {
        call[name] for call in truth_of(run) for name in names if call[name] and call[name] in text
    }


Key = tuple[Any, ...]


def _served_key(call: Mapping[str, Any], told: set[str]) -> Key:
    names = ("input", "output", "cr", "cw", "reasoning", "web")
    ids = [call[name] for name in ("id", "request_id") if call[name] in told]
    return (*(call[name] for name in names), _undated(call["model"]), ids[0] if ids else None)


def _found_key(call: Call, told: set[str]) -> Key:
    used = (call.input, call.output, call.cache_read, call.cache_write, call.reasoning)
    ids = [each for each in (call.response_id, call.request_id) if each in told]
    return (*used, call.web_searches, _undated(call.model), ids[0] if ids else None)


def _undated(model: str) -> str:
    """Some tell which version of a model answered, some only which model was asked for."""
    return re.sub(r"-20\d{2}-?\d{2}-?\d{2}$", "", model)


PROVIDERS: Final = {"chat": "openai", "responses": "openai", "gemini": "google"}


def _cost_nanos(account: Account, call: Mapping[str, Any]) -> int:
    """What a call costs by the catalogue, from what its provider counted."""
    if not call["is_priced"]:
        return 0
    with account.scope():
        prices = read_configuration(account.tenant.id).prices
    is_embedding = call["output"] == 0
    rating = prices.rate(
        provider=PROVIDERS.get(call["wire"], call["wire"]),
        model=call["model"],
        at=timezone.now(),
        tokens=Tokens(
            input_tokens=call["input"],
            output_tokens=call["output"],
            cache_read_tokens=call["cr"],
            cache_write_tokens=call["cw"],
            reasoning_tokens=call["reasoning"],
            web_searches=call["web"] or 0,
        ),
        service_tier=None,
        tool=None,
        operation="embedding" if is_embedding else "llm",
    )
    assert rating.source == "catalogue"
    return rating.cost_nanos


# The same, however it is sent.


@every_run
def test_one_span_an_export_in_order_of_their_ends_is_booked_alike(
    catalogue: None, run: str
) -> None:
    assert_same(outcome_of(in_order_of_end(RUNS[run]().pieces)), whole(run))


@every_run
def test_every_body_three_times_is_booked_alike(catalogue: None, run: str) -> None:
    bodies = RUNS[run]().bodies
    assert_same(outcome_of([*bodies] * 3), whole(run))
    assert_same(outcome_of([body for body in bodies for _ in range(3)]), whole(run))


@every_run
def test_random_orders_and_splits_are_booked_alike(catalogue: None, run: str) -> None:
    pieces = RUNS[run]().pieces
    for number in range(ORDERS):
        assert_same(outcome_of(at_random(pieces, dice(run, number))), whole(run))


@pytest.mark.parametrize(
    "run", ["python-otel/lc-ls", "python-otel/pyd-simple", "claude-code/cc-tool", "litellm/llp4"]
)
def test_several_exporters_at_once_are_booked_alike(
    catalogue: None, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = whole(run)
    # Each body in a transaction of its own, as if each came to another process.
    monkeypatch.setattr(PROCESS_COMMITTER, "submit", lambda job: commit_jobs(job.tenant_id, [job]))
    bodies = at_random(RUNS[run]().pieces, dice(run, "at once"))
    assert_same(outcome_at_once([*bodies, *bodies], threads=6), wanted)
