"""Spans that real software sent: each tells what its provider's server counted, or less.

What was captured lies beside the repository; where it does not, these tests are skipped.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EventRejected
from common.json_bodies import JsonObject
from metering.usage.decoders.otlp.json_mapping import read_json
from metering.usage.decoders.otlp.protobuf import read_protobuf
from metering.usage.decoders.otlp.span_fields import call_fields
from metering.usage.decoders.otlp.span_kinds import kind_of
from metering.usage.decoders.otlp.spans import Span
from metering.usage.decoders.otlp.token_counts import count_tokens

CAPTURED = Path(__file__).parents[4].parent / "shared" / "data" / "emitters" / "captured"

needs_captured = pytest.mark.skipif(
    not CAPTURED.exists(), reason="What real software sent is not beside the repository."
)

FIELDS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cr": "cache_read_tokens",
    "cw": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
    "web": "web_searches",
}
# What an instrumentation itself leaves out, by run and scope.
UNTOLD = {
    ("python-otel/oai-v2b", "opentelemetry.instrumentation.openai_v2"): {"cr", "reasoning"},
    ("python-otel/lc-oi", "com.anthropic.sdk.python"): {"web"},
    ("python-otel/lc-ls", "com.anthropic.sdk.python"): {"web"},
    ("python-otel/pyd-simple", "com.anthropic.sdk.python"): {"web"},
}
# How many spans tell of an answer by its id, and of those how many broke off.
RUNS = {
    "python-otel/lc-ls": (16, 0),
    "python-otel/lc-oi": (16, 0),
    "python-otel/oai-v2b": (8, 0),
    "python-otel/pyd-simple": (18, 0),
    "python-otel/two-oib": (23, 1),
    "vercel-ai-6.0.326/va-legacy": (12, 0),
}


def spans(run: str) -> Iterator[Span]:
    for path in sorted((CAPTURED / run).glob("*.traces.*")):
        body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for item in read_protobuf(body) if ".pb" in path.name else read_json(body):
            assert not isinstance(item, EventRejected)
            yield item


def truth(run: str) -> dict[str, JsonObject]:
    meta = json.loads((CAPTURED / run / "meta.json").read_text())
    return {call["id"]: call for call in meta["truth"] if call["id"]}


@needs_captured
@pytest.mark.parametrize("run", RUNS)
def test_each_span_tells_what_the_provider_counted(run: str) -> None:
    served = truth(run)
    compared = broken_off = 0
    for span in spans(run):
        if kind_of(span.attributes, span.name) not in ("llm", "embedding"):
            continue
        fields = call_fields(span)
        call = served.get(str(fields["response_id"]))
        counted = count_tokens(span.attributes, str(fields["provider"]))
        if call is None or counted is None:
            continue
        untold = UNTOLD.get((run, span.scope), set())
        if fields["is_estimate"]:
            broken_off += 1
            untold = untold | {"output"}
        told = {key: getattr(counted.tokens, field) for key, field in FIELDS.items()}
        assert told == {key: call.get(key, 0) for key in FIELDS} | {
            key: told[key] for key in untold
        }
        if fields["request_id"] is not None:
            assert fields["request_id"] == call["request_id"]
        compared += 1
    assert (compared, broken_off) == RUNS[run]


@needs_captured
def test_claude_code_names_the_request_and_not_the_answer() -> None:
    meta = json.loads((CAPTURED / "claude-code/cc-tool/meta.json").read_text())
    served = {call["request_id"]: call for call in meta["truth"]}
    calls = [span for span in spans("claude-code/cc-tool") if "ttft_ms" in span.attributes]
    for span in calls:
        fields = call_fields(span)
        counted = count_tokens(span.attributes, "anthropic")
        assert counted is not None
        call = served[str(fields["request_id"])]
        assert fields["response_id"] is None
        assert counted.tokens.output_tokens == call["output"]
        assert counted.tokens.cache_write_tokens == call["cw"]
    assert len(calls) == 2


@needs_captured
def test_codex_tells_usage_and_model_in_two_spans() -> None:
    result = {span.name: span for span in spans("codex/cx-small-answered-200") if span.attributes}
    turn = result["session_task.turn"]
    assert (kind_of(turn.attributes, turn.name), call_fields(turn)["model"]) == (
        "around",
        "gpt-5.5",
    )
    calls = [
        counted
        for span in spans("codex/cx-small-answered-200")
        if kind_of(span.attributes, span.name) == "llm"
        and (counted := count_tokens(span.attributes, None))
    ]
    assert [(each.tokens.input_tokens, each.tokens.output_tokens) for each in calls] == [(13, 7)]


@needs_captured
def test_a_streamed_call_of_gemini_cli_is_a_call_without_usage() -> None:
    (span,) = spans("gemini-cli/gm-answered-200")
    assert kind_of(span.attributes, span.name) == "llm"
    assert count_tokens(span.attributes, None) is None
    assert call_fields(span)["model"] == "gemini-2.5-flash"
