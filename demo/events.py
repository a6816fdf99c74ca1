"""Write the demo's calls as events, partly with the providers' own usage objects.

The same count, seed and end give the same events, ids included, so that a load that is repeated or
resumed stores nothing twice.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge

import numpy as np

from demo.agents import agent_calls
from demo.calls import Call, epoch_ms
from demo.client import JsonObject
from demo.customers import customer_calls
from demo.developers import developer_calls, recorded_requests

AGENT_SHARE = 0.06
DEVELOPER_SHARE = 0.06

# What sends the calls of each data set.
SOURCES = {
    "servegen": "app-gateway",
    "lmcache_agent_traces": "agent-runtime",
    "azure_llm_2023": "completion-service",
}
LOAD = re.compile(r"(?P<seed>\d+)-(?P<count>\d+)-(?P<end>\d{8}T\d{4}Z)-.+")
END_FORMAT = "%Y%m%dT%H%MZ"


def demo_events(*, count: int, seed: int, end: datetime) -> Iterator[JsonObject]:
    """Yield exactly `count` events of the fortnight before `end`, oldest first."""
    load = load_name(count=count, seed=seed, end=end)
    for call in demo_calls(count=count, seed=seed, end=end):
        yield event_of(call, load=load)


def demo_calls(*, count: int, seed: int, end: datetime) -> Iterator[Call]:
    """Yield the calls behind `demo_events`."""
    agents_random, developers_random, customers_random = (
        np.random.default_rng([seed, stream]) for stream in range(3)
    )
    end_ms = epoch_ms(end)
    agents = agent_calls(at_most=int(count * AGENT_SHARE), end_ms=end_ms, random=agents_random)
    developers = min(int(count * DEVELOPER_SHARE), recorded_requests())
    return merge(
        customer_calls(
            count=count - len(agents) - developers, end_ms=end_ms, random=customers_random
        ),
        developer_calls(count=developers, end_ms=end_ms, random=developers_random),
        agents,
        key=lambda call: call.time_ms,
    )


def load_name(*, count: int, seed: int, end: datetime) -> str:
    """Return how the ids of one load's events begin: other loads never conflict."""
    return f"{seed}-{count}-{end.astimezone(UTC).strftime(END_FORMAT)}"


def end_of_load(event: JsonObject, *, count: int, seed: int) -> datetime | None:
    """Return the end of an earlier load of the same events, None for any other event."""
    is_ours = event.get("source") in SOURCES.values()
    parts = LOAD.fullmatch(str(event.get("id"))) if is_ours else None
    if not parts or (parts["seed"], parts["count"]) != (str(seed), str(count)):
        return None
    return datetime.strptime(parts["end"], END_FORMAT).replace(tzinfo=UTC)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def event_of(call: Call, *, load: str) -> JsonObject:
    """Return an event as the ingest contract has it; fields without a value are left out."""
    event: JsonObject = {
        "id": f"{load}-{call.id}",
        "source": SOURCES[call.dataset],
        "time": (EPOCH + timedelta(milliseconds=call.time_ms)).isoformat(),
        "team": call.team,
        "agent": call.agent,
        "user": call.user,
        "feature": call.feature,
        "status": call.status,
        "latency_ms": call.latency_ms,
        "tags": {"environment": "production", "dataset": call.dataset, "latency": "modelled"},
    }
    if call.is_handoff:
        event["tags"]["handoff"] = "modelled"
    for name in OPTIONAL:
        value = getattr(call, name)
        if value is not None:
            event[name] = value
    if call.model is None:
        event["operation"] = "tool"
        return event
    event["provider"] = call.model.provider
    event["model"] = call.model.name
    event.update(tokens_of(call, usage_format=call.model.usage_format))
    return event


OPTIONAL = (
    "customer",
    "session",
    "task",
    "trace",
    "span",
    "parent_span",
    "step",
    "tool",
    "tool_arguments_hash",
    "output_hash",
    "prefix_hash",
    "error_type",
    "time_to_first_token_ms",
)


def tokens_of(call: Call, *, usage_format: str) -> JsonObject:
    """Return token counts as flat fields or as the provider's own usage object."""
    if call.input_tokens is None or usage_format == "flat":
        return flat_tokens(call)
    return {"usage": USAGE_BY_FORMAT[usage_format](call, call.input_tokens)}


def flat_tokens(call: Call) -> JsonObject:
    """Return all input and output; a count that was not recorded is left out, not zero."""
    tokens = {"output_tokens": call.output_tokens}
    if call.input_tokens is not None:
        tokens["input_tokens"] = call.input_tokens
    if call.reasoning_tokens:
        tokens["reasoning_tokens"] = call.reasoning_tokens
    return tokens


def anthropic_usage(call: Call, input_tokens: int) -> JsonObject:
    """Return counts as Anthropic has them: cache reads and writes beside the input, not in it."""
    return {
        "input_tokens": input_tokens - call.cache_read_tokens - call.cache_write_tokens,
        "cache_creation_input_tokens": call.cache_write_tokens,
        "cache_read_input_tokens": call.cache_read_tokens,
        "output_tokens": call.output_tokens,
    }


def openai_usage(call: Call, input_tokens: int) -> JsonObject:
    """Return counts as OpenAI has them: cache reads in the prompt."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": call.output_tokens,
        "total_tokens": input_tokens + call.output_tokens,
        "prompt_tokens_details": {"cached_tokens": call.cache_read_tokens},
    }


def google_usage(call: Call, input_tokens: int) -> JsonObject:
    return {
        "promptTokenCount": input_tokens,
        "candidatesTokenCount": call.output_tokens,
        "totalTokenCount": input_tokens + call.output_tokens,
    }


USAGE_BY_FORMAT = {
    "anthropic": anthropic_usage,
    "openai": openai_usage,
    "google": google_usage,
}
