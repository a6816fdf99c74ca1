"""The same calls reported by several instrumentations and by the client: counted once, over the
real handlers.

The recordings lie beside the repository; where they are not, these tests are skipped.
"""

import gzip
import json
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from common.json_bodies import JsonObject
from metering.api import fast_path
from metering.models import UsageEvent
from metering.usage.shapes import normalise_usage
from tests.factories import Account, make_budget, windows_of
from tests.metering.requests import request_of
from tests.metering.usage.decoders.test_otlp_recorded import RECORDED, needs_recordings

pytestmark = [pytest.mark.django_db(transaction=True), needs_recordings]

DIALECTS = ("logfire", "openllmetry")
# One moment for the whole run: a span that is sent again has the same times.
AN_HOUR_AGO_NS = time.time_ns() - 3600 * 10**9


def shifted(body: bytes) -> bytes:
    """The export as if it had been recorded an hour ago."""
    request = ExportTraceServiceRequest.FromString(body)
    spans = [
        span
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    last = max(span.end_time_unix_nano for span in spans)
    shift = AN_HOUR_AGO_NS - last
    for span in spans:
        # A minute between the first and the last keeps every span within the allowed time.
        span.start_time_unix_nano = max(
            span.start_time_unix_nano + shift, last + shift - 60 * 10**9
        )
        span.end_time_unix_nano = max(span.end_time_unix_nano + shift, span.start_time_unix_nano)
    return request.SerializeToString()


def export(account: Account, dialect: str) -> int:
    """Send a dialect's recorded exports; answers how many spans were rejected."""
    rejected = 0
    for path in sorted(RECORDED.glob(f"{dialect}-*.pb.gz")):
        body = gzip.compress(shifted(gzip.decompress(path.read_bytes())))
        headers = {
            **account.headers,
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
        }
        answer = fast_path.run(fast_path.handle_traces(request_of(headers, body)))
        assert answer.status == 200, answer.body
        partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
        rejected += partial.rejected_spans
    return rejected


def post_natively(account: Account) -> JsonObject:
    events = []
    for line in (RECORDED / "expected_usage.jsonl").read_text().splitlines():
        call = json.loads(line)
        usage = {key: value for key, value in call["usage"].items() if key != "iterations"}
        events.append(
            {
                "id": f"native-{call['response_id']}",
                "provider": call["host"].removeprefix("api.").removesuffix(".com"),
                "model": call["model"],
                "response_id": call["response_id"],
                "usage": usage,
            }
        )
    headers = {**account.headers, "Content-Type": "application/json"}
    answer = fast_path.run(
        fast_path.handle_events(request_of(headers, json.dumps(events).encode()))
    )
    assert answer.status == 200, answer.body
    body: JsonObject = json.loads(answer.body)
    return body


def stored_totals(account: Account) -> dict[str, tuple[int, int]]:
    with account.scope():
        events = UsageEvent.objects.filter(tenant=account.tenant)
        return {
            str(event.response_id): (event.input_tokens, event.output_tokens) for event in events
        }


def wanted_totals() -> dict[str, tuple[int, int]]:
    """What the provider charged, with the steps beside an answer that one instrumentation tells."""
    calls = map(json.loads, (RECORDED / "expected_usage.jsonl").read_text().splitlines())
    used = {call["response_id"]: normalise_usage(call["usage"], provider=None) for call in calls}
    return {name: (each.input_tokens, each.output_tokens) for name, each in used.items()}


@pytest.mark.parametrize("first", [*DIALECTS, "native"])
def test_each_call_counts_once_however_often_and_by_whomever_it_is_told(
    account: Account, first: str
) -> None:
    budget = make_budget(account)
    if first == "native":
        assert post_natively(account)["accepted"] == 80
    order = sorted(DIALECTS, key=lambda dialect: dialect != first)
    for dialect in order * 3:
        assert export(account, dialect) == 0
    assert post_natively(account)["duplicates"] == 80
    assert stored_totals(account) == wanted_totals()
    (window,) = windows_of(account, budget)
    assert window.spent_requests == 80
    assert window.spent_tokens == sum(map(sum, wanted_totals().values()))
