"""Traces recorded from real instrumentations: the tokens are those of the providers.

The recordings lie beside the repository, where they are not, these tests are skipped.
"""

import ast
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import EventRejected
from common.json_bodies import JsonObject
from metering.usage.decoders.native import EventBody, decode_json
from metering.usage.shapes import Tokens, normalise_usage
from tests.metering.usage.decoders.spans import (
    Attributes,
    Export,
    decode_otlp_json,
    decode_otlp_protobuf,
)

DATA = Path(__file__).parents[4].parent / "shared" / "data"
RECORDED = DATA / "otlp_genai"
FRAMEWORKS = DATA / "langfuse_framework_traces"
FIELDS = tuple(name for name in Tokens.__struct_fields__ if name != "extra")

needs_recordings = pytest.mark.skipif(
    not RECORDED.exists(), reason="The recorded traces are not beside the repository."
)
needs_frameworks = pytest.mark.skipif(
    not FRAMEWORKS.exists(), reason="The traces of frameworks are not beside the repository."
)

# The calls that write to OpenAI's cache, which openllmetry's spans do not tell.
UNTOLD_WRITES = 3


def tokens(event: EventBody) -> Tokens:
    if event.usage is not None:
        return normalise_usage(event.usage, provider=event.provider)
    return msgspec.convert({name: getattr(event, name) or 0 for name in FIELDS}, Tokens)


def expected() -> dict[str, Tokens]:
    """The providers' own counts by response, without the steps that are billed beside it."""
    calls = {}
    for line in (RECORDED / "expected_usage.jsonl").read_text().splitlines():
        call = json.loads(line)
        usage = {key: value for key, value in call["usage"].items() if key != "iterations"}
        calls[call["response_id"]] = normalise_usage(usage, provider=None)
    return calls


def read_protobuf(dialect: str) -> Iterator[EventBody | EventRejected]:
    for path in sorted(RECORDED.glob(f"{dialect}-*.pb.gz")):
        yield from decode_otlp_protobuf(
            gzip.decompress(path.read_bytes()), trusts_given_costs=False
        )


def read_json(dialect: str) -> Iterator[EventBody | EventRejected]:
    with gzip.open(RECORDED / f"{dialect}.otlp.jsonl.gz") as lines:
        for line in lines:
            yield from decode_otlp_json(line, trusts_given_costs=False)


def stored(*reports: Iterator[EventBody | EventRejected]) -> dict[tuple[str, str], EventBody]:
    """What remains of these reports when a provider's response counts once, the first report."""
    events: dict[tuple[str, str], EventBody] = {}
    for report in reports:
        for item in report:
            assert isinstance(item, EventBody)
            assert item.provider is not None
            assert item.response_id is not None
            events.setdefault((item.provider, item.response_id), item)
    return events


@needs_recordings
@pytest.mark.parametrize("dialect", ["logfire", "openllmetry"])
@pytest.mark.parametrize("read", [read_protobuf, read_json])
@pytest.mark.parametrize("times", [1, 3])
def test_each_call_has_the_providers_tokens_once(
    dialect: str, read: Callable[[str], Iterator[EventBody | EventRejected]], times: int
) -> None:
    calls = expected()
    events = stored(*(read(dialect) for _ in range(times)))
    assert {response for _, response in events} == set(calls)
    assert len(events) == 80
    untold = 0
    for (_, response), event in events.items():
        result, true = tokens(event), calls[response]
        if dialect == "openllmetry" and event.provider == "openai" and true.cache_write_tokens:
            true = msgspec.structs.replace(true, cache_write_tokens=0)
            untold += 1
        for name in FIELDS:
            if name in ("input_audio_tokens", "output_audio_tokens") and event.usage is None:
                continue  # no instrumentation tells audio but in the provider's own object
            if name == "web_searches" and event.usage is None:
                continue
            assert getattr(result, name) == getattr(true, name), (response, name)
    assert untold == (UNTOLD_WRITES if dialect == "openllmetry" else 0)


@needs_recordings
def test_both_dialects_and_native_reports_tell_of_the_same_calls() -> None:
    native = []
    for line in (RECORDED / "expected_usage.jsonl").read_text().splitlines():
        call = json.loads(line)
        provider = call["host"].removeprefix("api.").removesuffix(".com")
        native.append(
            {
                "id": call["response_id"],
                "provider": provider,
                "model": call["model"],
                "response_id": call["response_id"],
                "usage": call["usage"],
            }
        )
    reports = [read_json("logfire"), read_protobuf("openllmetry")]
    events = stored(*reports, iter(decode_json(json.dumps(native).encode())))
    assert len(events) == 80
    assert all(event.source == "otlp:replay-logfire" for event in events.values())


def parsed(field: object) -> Any:
    """Langfuse's exports hold JSON, and sometimes Python's way of writing it."""
    if not isinstance(field, str):
        return field or {}
    try:
        return json.loads(field)
    except ValueError:
        return ast.literal_eval(field)


# These did not record counts: Langfuse counted words itself.
UNCOUNTED = frozenset({"openinference.instrumentation.agno", "openinference.instrumentation.beeai"})


def attributes_of(observation: JsonObject) -> Attributes:
    """The span's attributes, with what Langfuse moved out of them put back."""
    metadata = parsed(observation["metadata"])
    attributes: Attributes = parsed(metadata.get("attributes"))
    usage = observation["usageDetails"] or {}
    if not attributes:
        kept = {
            "langfuse.observation.type": observation["type"].lower(),
            "langfuse.observation.model.name": observation["model"],
            "langfuse.observation.usage_details": json.dumps(usage) if usage else None,
        }
        return {key: value for key, value in kept.items() if value}
    scope = parsed(metadata.get("scope")).get("name")
    has_counts = any("usage" in key or "token_count" in key for key in attributes)
    if observation["type"] == "GENERATION" and not has_counts and scope not in UNCOUNTED:
        attributes["gen_ai.usage.input_tokens"] = usage.get("input", 0)
        attributes["gen_ai.usage.output_tokens"] = usage.get("output", 0)
    # Instrumentations write objects as JSON; Langfuse has read them.
    return {
        key: json.dumps(value) if isinstance(value, dict | list) else value
        for key, value in attributes.items()
        if value is not None
    }


def framework_export(name: str) -> Export:
    pattern = f"{name}*" if name[-1].isdigit() else f"{name}-20*"
    path = sorted(FRAMEWORKS.glob(pattern))[0]
    observations = json.loads(gzip.decompress(path.read_bytes()))["observations"]
    numbers = {each["id"]: number for number, each in enumerate(observations, start=1)}
    made = Export()
    for each in observations:
        parent = numbers.get(each["parentObservationId"], 0)
        made.add(attributes_of(each), parent=parent, name=each["name"])
    return made


@needs_frameworks
@pytest.mark.parametrize(
    ("framework", "calls", "tools"),
    [
        ("agno", [(163, 20), (663, 225)], 1),
        ("autogen", [(41, 3)], 0),
        ("claude-agent", [(5, 53), (5, 56), (5, 94), (19, 29)], 2),
        ("crewai", [(190, 164)], 0),
        ("csharp-agent-with-gemini", [(2497, 200), (2546, 47), (3004, 167)], 2),
        ("google-adk", [(28, 3), (39, 6)], 1),
        ("google-gemini", [(6, 2055)], 0),
        ("koog", [(47, 106), (168, 19)], 2),
        ("langgraph-js", [(142, 24), (179, 99)], 0),
        ("langgraph-python", [(60, 15), (108, 51)], 0),
        ("llamaindex", [(13, 81)], 0),
        ("microsoft-agent", [(77, 86), (216, 20)], 1),
        ("openai-agents", [(55, 15), (85, 29)], 1),
        ("pydantic-ai", [(31, 96)], 0),
        ("pydantic-ai-tools-2025-06", [(31, 96)], 0),
        ("pydantic-ai-tools-2025-12", [(131, 69), (265, 73), (417, 53), (502, 14)], 3),
        ("pydantic-ai-with-gemini", [(40, 159)], 0),
        ("vercel-aisdk", [(62, 85)], 1),
        # Its total shows 1,173 tokens of reasoning that the completion leaves out.
        ("vertex-ai", [(5, 2018)], 0),
    ],
)
def test_a_frameworks_calls_count_and_its_agents_do_not(
    framework: str, calls: list[tuple[int, int]], tools: int
) -> None:
    events = framework_export(framework).events()
    used = [tokens(event) for event in events if event.operation == "llm"]
    assert sorted((each.input_tokens, each.output_tokens) for each in used) == calls
    assert sum(event.operation == "tool" for event in events) == tools


@needs_frameworks
def test_calls_that_name_no_tokens_are_calls_whose_usage_is_missing() -> None:
    events = framework_export("beeai").events()
    assert sum(event.is_usage_missing is True for event in events) == 5
