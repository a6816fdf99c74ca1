"""Reports of one call in every way it can be told, posted through the service's own handlers."""

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from common.json_bodies import JsonObject
from metering.api import fast_path
from metering.api.fast_reservations import find_endpoint
from tests.factories import Account
from tests.metering.emitters.pieces import JSON, LITELLM, PROTOBUF, TRACES
from tests.metering.requests import request_of
from tests.metering.usage.decoders.spans import Attributes, Export

SECOND_NANOS: Final = 10**9
EVENTS: Final = "/v1/events"
RESERVATIONS: Final = "/v1/reservations"


@dataclass
class Posted:
    """What the service answered."""

    status: int
    body: Any


def post(account: Account, path: str, body: Any, *, content_type: str = JSON) -> Posted:
    """Post a body, bytes as they are and everything else as JSON."""
    endpoint = find_endpoint("POST", path)
    assert endpoint is not None, path
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {**account.headers, "Content-Type": content_type}
    answer = fast_path.run(endpoint.begin(request_of(headers, content)))
    kind = answer.headers.get("Content-Type", "")
    return Posted(answer.status, json.loads(answer.body) if "json" in kind else answer.body)


def span_body(
    attributes: Attributes,
    *,
    trace: str,
    span: str,
    parent: str = "",
    at_nanos: int | None = None,
    **resource: object,
) -> bytes:
    """An export of one span that lasted a second and ended at `at_nanos`."""
    made = Export("opentelemetry.instrumentation.openai_v2", **resource)
    made.add(attributes, trace=trace)
    each = made.span(1)
    ended_at_nanos = at_nanos or time.time_ns()
    each.span_id, each.parent_span_id = bytes.fromhex(span), bytes.fromhex(parent)
    each.start_time_unix_nano = ended_at_nanos - SECOND_NANOS
    each.end_time_unix_nano = ended_at_nanos
    return made.protobuf()


def post_span(account: Account, body: bytes) -> Posted:
    return post(account, TRACES, body, content_type=PROTOBUF)


def post_callback(account: Account, payload: JsonObject) -> Posted:
    return post(account, LITELLM, [payload])


def callback_payload(  # noqa: PLR0913 - what a payload is made of
    *,
    response_id: str,
    model: str,
    input_tokens: int,
    output_tokens: int,
    at_nanos: int,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
    **fields: object,
) -> JsonObject:
    """LiteLLM's payload of an Anthropic call; cached input is inside the prompt."""
    at = at_nanos / SECOND_NANOS
    return {
        "id": response_id,
        "litellm_call_id": f"litellm-{response_id}",
        "call_type": "acompletion",
        "status": "success",
        "custom_llm_provider": "anthropic",
        "model": model,
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "startTime": at - 1,
        "endTime": at,
        "metadata": {
            "usage_object": {
                "prompt_tokens": input_tokens,
                "completion_tokens": output_tokens,
                "cache_read_input_tokens": cache_read_tokens,
                "cache_creation_input_tokens": cache_write_tokens,
                "prompt_tokens_details": {
                    "cached_tokens": cache_read_tokens,
                    "cache_creation_tokens": cache_write_tokens,
                },
            }
        },
        "response": {"id": response_id},
        **fields,
    }
