"""Small OTLP exports, sent through the real handler."""

import json
import time

from common.json_bodies import JsonObject
from metering.api import fast_path
from tests.factories import Account
from tests.metering.requests import request_of

TRACE = "a" * 32
# One moment for the whole run: a span that is sent again has the same times.
BEGAN_NS = time.time_ns() - 60 * 10**9


def chat_span(  # noqa: PLR0913 - what a span may tell
    number: int,
    *,
    trace: str = TRACE,
    parent: int | None = None,
    kind: str = "chat",
    tokens: tuple[int, int] | None = (1_000, 100),
    response_id: str | None = "r-1",
    seconds: int = 1,
    **dimensions: str,
) -> JsonObject:
    """A span of a call of 1,000 input and 100 output tokens, unless told otherwise. A span of an
    agent has no usage.
    """
    attributes: JsonObject = {f"spendgate.{name}": value for name, value in dimensions.items()}
    if kind == "agent":
        attributes["gen_ai.operation.name"] = "invoke_agent"
    else:
        attributes |= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
        }
        if response_id is not None:
            attributes["gen_ai.response.id"] = response_id
        if tokens is not None:
            attributes["gen_ai.usage.input_tokens"] = tokens[0]
            attributes["gen_ai.usage.output_tokens"] = tokens[1]
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent is not None else "",
        "name": kind,
        "startTimeUnixNano": str(BEGAN_NS + number * 10**6),
        "endTimeUnixNano": str(BEGAN_NS + seconds * 10**9 + number * 10**6),
        "attributes": [{"key": key, "value": _value(value)} for key, value in attributes.items()],
    }


def _value(value: object) -> JsonObject:
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def export_spans(account: Account, spans: list[JsonObject], *, scope: str = "tests") -> JsonObject:
    """Send spans in one export; answers how many were rejected, and the message."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "tests"}}]}
    group = {"resource": resource, "scopeSpans": [{"scope": {"name": scope}, "spans": spans}]}
    headers = {**account.headers, "Content-Type": "application/json"}
    body = json.dumps({"resourceSpans": [group]}).encode()
    answer = fast_path.run(fast_path.handle_traces(request_of(headers, body)))
    assert answer.status == 200, answer.body
    partial = json.loads(answer.body).get("partialSuccess", {})
    return {
        "rejected": int(partial.get("rejectedSpans", 0)),
        "message": partial.get("errorMessage", ""),
    }
