"""Hostile bodies: always a problem with a code, never a failure, and never a good event lost.

Each goes both ways: to the plain handler as the web process calls it (a bare WSGI call), and
through Django's views.
"""

import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from common.api.parsing import StrictJSONParser
from common.json_bodies import JsonObject
from metering.models import UsageEvent
from tests.cases import each_case
from tests.factories import Account, make_event
from tests.metering.api.caller import Answer, Caller, caller
from tests.wsgi import application

Send = Callable[..., Answer]
HOT = ("/v1/events", "/v1/traces", "/v1/integrations/litellm")
MANAGED = ("/v1/budgets", "/v1/prices", "/v1/keys", "/v1/teams", "/v1/prices/rerate")
REPORTED = ("/v1/outcomes", "/v1/corrections")
LARGE = ("/v1/traces", "/v1/integrations/litellm")
MEBIBYTE = 1 << 20


def call_wsgi(
    account: Account,
    path: str,
    body: bytes | io.RawIOBase,
    *,
    content_type: str = "application/json",
    length: int | None = None,
    **headers: str,
) -> Answer:
    """POST as the web server does, to the application of the web process."""
    stream = io.BytesIO(body) if isinstance(body, bytes) else body
    size = len(body) if isinstance(body, bytes) else length
    environ: JsonObject = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(size),
        "wsgi.input": stream,
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "HTTP_HOST": "localhost",
        "HTTP_AUTHORIZATION": f"Bearer {account.api_key}",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    if "transfer_encoding" in headers:
        del environ["CONTENT_LENGTH"]
    result: JsonObject = {}

    def start_response(status: str, response_headers: list[tuple[str, str]]) -> None:
        result["status"] = int(status.split(maxsplit=1)[0])
        result["headers"] = dict(response_headers)

    answered = application(environ, start_response)
    try:
        content = b"".join(answered)
    finally:
        if hasattr(answered, "close"):
            answered.close()
    kind = result["headers"]["Content-Type"]
    return Answer(result["status"], json.loads(content) if "json" in kind else content, kind)


@pytest.fixture(params=["plain handler", "Django view"])
def send(request: pytest.FixtureRequest, account: Account) -> Send:
    """Posts a body, by either way."""
    if request.param == "plain handler":
        return lambda path, body, **options: call_wsgi(account, path, body, **options)
    api = caller(account)
    return lambda path, body, **options: api.send("POST", path, body, **options)


def stored_ids(account: Account) -> set[str]:
    with account.scope():
        return set(
            UsageEvent.objects.filter(tenant=account.tenant).values_list("sent_id", flat=True)
        )


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


BROKEN_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "malformed_json"),
    "spaces": (b"  \n ", "malformed_json"),
    "half an object": (b'{"id": "a"', "malformed_json"),
    "not JSON": (b"hello", "malformed_json"),
    "two values": (b'{"id": "a"} {"id": "b"}', "malformed_json"),
    "NaN": (b'{"id": "a", "input_tokens": NaN}', "malformed_json"),
    "Infinity": (b'[{"id": "a", "input_tokens": -Infinity}]', "malformed_json"),
    "half a surrogate pair": (b'{"id": "\\ud800", "input_tokens": 1}', "malformed_json"),
    "invalid UTF-8": (b'{"id": "\xff\xfe", "input_tokens": 1}', "invalid_utf8"),
    "UTF-16": ('{"id": "a"}'.encode("utf-16"), "invalid_utf8"),
    "deep object": (nested(33), "too_deep"),
    "very deep object": (nested(100_000), "too_deep"),
    "very deep array": (b"[" * 500_000, "too_deep"),
    "deep behind a string of quotes": (
        b'{"x":"' + b'\\"' * 1000 + b'","a":' + nested(40) + b"}",
        "too_deep",
    ),
}


# JSON whose depth telemetry and callbacks do not look into.
ONLY_DEEP = ("deep object", "very deep object", "deep behind a string of quotes")


@each_case("name", BROKEN_BODIES)
def test_a_body_that_is_no_json_is_a_400_with_a_code(
    account: Account, name: str, send: Send
) -> None:
    body, code = BROKEN_BODIES[name]
    answer = send("/v1/events", body)
    assert (answer.status, answer.code) == (400, code)
    if name not in (*ONLY_DEEP, "Infinity"):  # which costs the payload in the array alone
        answer = send("/v1/integrations/litellm", body)
        assert (answer.status, answer.code) == (400, code.replace("too_deep", "malformed_json"))
    for path in (*MANAGED, *REPORTED):
        answer = send(path, body)
        assert answer.status == 400, path
        assert answer.code
    assert stored_ids(account) == set()


@pytest.mark.parametrize(
    "name", sorted(BROKEN_BODIES.keys() - {"nothing", "half a surrogate pair", *ONLY_DEEP})
)
def test_a_broken_otlp_body_is_a_400(send: Send, name: str) -> None:
    body, _ = BROKEN_BODIES[name]
    for kind in ("application/json", "application/x-protobuf"):
        answer = send("/v1/traces", body, content_type=kind)
        assert answer.status == 400, kind
        assert answer.code


@pytest.mark.parametrize("name", ONLY_DEEP)
def test_depth_that_nobody_looks_into_refuses_no_telemetry(send: Send, name: str) -> None:
    body, _ = BROKEN_BODIES[name]
    assert send("/v1/traces", body).status == 200
    alone = send("/v1/integrations/litellm", body)
    assert (alone.status, alone.body["errors"][0]["code"]) == (422, "missing_field")


BAD_EVENTS: dict[str, tuple[JsonObject | bytes, str]] = {
    "negative tokens": ({"input_tokens": -1}, "invalid_value"),
    "fractions of tokens": ({"input_tokens": 1.5}, "invalid_value"),
    "more tokens than there can be": ({"input_tokens": 2**53 + 1}, "invalid_value"),
    "a number of 5,000 digits": (
        b'{"id": "bad", "input_tokens": ' + b"9" * 5000 + b"}",
        "invalid_value",
    ),
    "a number beyond all floats": (b'{"id": "bad", "input_tokens": 1e999}', "invalid_value"),
    "tokens as text": ({"input_tokens": "many"}, "invalid_value"),
    "tokens as truth": ({"input_tokens": True}, "invalid_value"),
    "an id that is a number": ({"id": 5}, "invalid_value"),
    "no id": ({"id": ...}, "missing_field"),
    "an empty id": ({"id": ""}, "invalid_value"),
    "a name of 300 characters": ({"agent": "a" * 300}, "invalid_value"),
    "an empty dimension": ({"team": ""}, "invalid_value"),
    "a dimension that is a list": ({"team": ["growth"]}, "invalid_value"),
    "NUL in a name": ({"customer": "a\x00b"}, "invalid_value"),
    "NUL in a tag": ({"tags": {"a\x00": "b"}}, "invalid_value"),
    "NUL in a usage object": (
        {
            "usage": {"input_tokens": 1, "output_tokens": 1, "x": "\x00"},
            "input_tokens": ...,
            "output_tokens": ...,
        },
        "invalid_value",
    ),
    "the year 9999": ({"time": "9999-12-31T23:59:59Z"}, "time_out_of_range"),
    "the year 9999 at the edge of time": (
        {"time": "9999-12-31T23:59:59-14:00"},
        "time_out_of_range",
    ),
    "the year 1": ({"time": "0001-01-01T00:00:00+14:00"}, "time_out_of_range"),
    "a time without a zone": ({"time": "2026-11-21T12:00:00"}, "invalid_value"),
    "a time that is none": ({"time": "yesterday"}, "invalid_value"),
    "a negative cost": ({"cost_usd": "-1"}, "invalid_value"),
    "a cost that is no number": ({"cost_usd": "NaN"}, "invalid_value"),
    "an endless cost": ({"cost_usd": "1e9999999"}, "invalid_value"),
    "an unknown field": ({"colour": "red"}, "unknown_field"),
    "an unknown operation": ({"operation": "guess"}, "invalid_value"),
    "33 tags": ({"tags": {f"t{n}": "v" for n in range(33)}}, "invalid_value"),
    "tags that nest": ({"tags": {"a": {"b": "c"}}}, "invalid_value"),
    "a usage that nobody knows": (
        {"usage": {"pages": 4}, "input_tokens": ..., "output_tokens": ...},
        "unknown_usage",
    ),
    "more read from the cache than sent": ({"cache_read_tokens": 5000}, "inconsistent_tokens"),
    "an array in the array": (b"[1, 2]", "invalid_value"),
    "null": (b"null", "invalid_value"),
    "a string": (b'"event"', "invalid_value"),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_a_bad_event_is_refused_and_its_neighbours_are_stored(
    account: Account, send: Send, name: str
) -> None:
    bad, code = BAD_EVENTS[name]
    raw = bad if isinstance(bad, bytes) else json.dumps(make_event(**{"id": "bad", **bad})).encode()
    good = [json.dumps(make_event(id=f"good-{number}")).encode() for number in (1, 2)]
    alone = send("/v1/events", b"[" + raw + b"]")
    assert (alone.status, alone.code) == (422, "all_rejected")
    assert (alone.body["accepted"], alone.body["rejected"]) == (0, 1)
    assert [error["code"] for error in alone.body["errors"]] == [code]
    among = send("/v1/events", b"[" + good[0] + b"," + raw + b"," + good[1] + b"]")
    assert among.status == 200, among.body
    assert (among.body["accepted"], among.body["rejected"]) == (2, 1)
    (error,) = among.body["errors"]
    assert (error["index"], error["code"]) == (1, code)
    assert error["detail"]
    assert stored_ids(account) == {"good-1", "good-2"}


def test_a_line_that_is_no_json_loses_no_other_line(account: Account, send: Send) -> None:
    lines = [
        json.dumps(make_event(id="good-1")).encode(),
        b'{"id": "bad", ',
        b"\xff\xfe",
        b'{"id": "bad", "input_tokens": NaN}',
        nested(50),
        b'{"id": "\\udfff", "input_tokens": 1}',
        b"",
        json.dumps(make_event(id="good-2", agent="\u2028 \U0001f680")).encode(),
    ]
    answer = send("/v1/events", b"\n".join(lines), content_type="application/x-ndjson")
    assert answer.status == 200, answer.body
    assert (answer.body["accepted"], answer.body["rejected"]) == (2, 5)
    assert stored_ids(account) == {"good-1", "good-2"}


def test_a_gzip_bomb_costs_no_more_than_the_limit(account: Account, send: Send) -> None:
    bomb = gzip.compress(b"[" + b" " * (200 * MEBIBYTE), compresslevel=9)
    assert len(bomb) < MEBIBYTE
    for path in (*HOT, *MANAGED, *REPORTED):
        tracemalloc.start()
        answer = send(path, bomb, Content_Encoding="gzip")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (answer.status, answer.code) == (413, "too_large"), path
        assert peak < (100 if path in LARGE else 40) * MEBIBYTE


def test_gzip_that_is_none_or_ends_early_is_a_400(account: Account, send: Send) -> None:
    whole = gzip.compress(json.dumps([make_event(id="good")]).encode())
    for body in (b"not gzip", whole[:-4], whole + b"rest", b""):
        answer = send("/v1/events", body, Content_Encoding="gzip")
        assert (answer.status, answer.code) == (400, "malformed_gzip"), body
    assert stored_ids(account) == set()
    assert send("/v1/events", whole, Content_Encoding="gzip").body["accepted"] == 1
    odd = send("/v1/events", whole, Content_Encoding="br")
    assert (odd.status, odd.code) == (415, "unsupported_media_type")


def test_gzip_in_very_many_members_is_refused_before_all_are_read(
    account: Account, send: Send
) -> None:
    event = json.dumps(make_event(id="good")).encode()
    pieces = [gzip.compress(event[begin : begin + 1]) for begin in range(len(event))]
    assert send("/v1/events", b"".join(pieces), Content_Encoding="gzip").body["accepted"] == 1
    for path in ("/v1/events", "/v1/traces", "/v1/budgets"):
        refused = send(path, gzip.compress(b"") * 100_000, Content_Encoding="gzip")
        assert (refused.status, refused.code) == (400, "malformed_gzip"), path
        assert "4,096" in refused.body["detail"]


class EndlessSpaces(io.RawIOBase):
    """A body of some size that is nowhere in memory."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return b" " * size


def test_a_body_of_100_mb_is_read_to_its_end_and_refused(account: Account) -> None:
    for path in (*HOT, "/v1/budgets", "/v1/corrections"):
        stream = EndlessSpaces(100 * MEBIBYTE)
        tracemalloc.start()
        answer = call_wsgi(account, path, stream, length=100 * MEBIBYTE)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (answer.status, answer.code) == (413, "too_large"), path
        # A client that is still sending would see a broken pipe instead of the answer.
        assert stream.left == 0
        assert peak < 60 * MEBIBYTE


def test_a_body_in_chunks_without_a_length_is_read(account: Account) -> None:
    made = call_wsgi(account, "/v1/teams", b'{"name": "growth"}', transfer_encoding="chunked")
    assert (made.status, made.body["name"]) == (201, "growth")
    sent = json.dumps(make_event()).encode()
    assert call_wsgi(account, "/v1/events", sent, transfer_encoding="chunked").body["accepted"] == 1
    for path in ("/v1/teams", "/v1/events"):
        stream = EndlessSpaces(100 * MEBIBYTE)
        assert call_wsgi(account, path, stream, transfer_encoding="chunked").code == "too_large"
        assert stream.left == 0


def test_a_body_of_the_largest_size_is_taken(account: Account, send: Send) -> None:
    event = json.dumps(make_event(id="good")).encode()
    body = event + b" " * (10 * MEBIBYTE - len(event))
    assert send("/v1/events", body).body["accepted"] == 1
    assert send("/v1/events", body + b" ").code == "too_large"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_large_batch_of_telemetry_is_taken_up_to_64_mib(account: Account, encoding: str) -> None:
    def send(body: bytes) -> Answer:
        headers: JsonObject = {} if encoding == "identity" else {"content_encoding": encoding}
        return call_wsgi(account, "/v1/integrations/litellm", body, **headers)

    def payload(number: int) -> bytes:
        words = {"id": f"call-{number}", "call_type": "completion", "status": "success"}
        used = {"prompt_tokens": 5, "completion_tokens": 1, "model": "gpt-4o"}
        prompt = {"messages": [{"role": "user", "content": "word " * 60_000}]}
        return json.dumps(words | used | prompt).encode()

    body = b"[" + b",".join(payload(number) for number in range(200)) + b"]"
    assert 57 * MEBIBYTE < len(body) < 64 * MEBIBYTE
    sent = gzip.compress(body, compresslevel=1) if encoding == "gzip" else body
    tracemalloc.start()
    answer = send(sent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status, answer.body.get("accepted")) == (200, 200)
    assert peak < len(body) + 32 * MEBIBYTE
    body += b" " * (64 * MEBIBYTE + 1 - len(body))
    sent = gzip.compress(body, compresslevel=1) if encoding == "gzip" else body
    answer = send(sent)
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_deflated_body_is_read_with_and_without_its_header(account: Account, send: Send) -> None:
    raw = zlib.compressobj(wbits=-15)
    ways: list[Callable[[bytes], bytes]] = [
        zlib.compress,
        lambda body: raw.compress(body) + raw.flush(),
    ]
    for number, compress in enumerate(ways):
        body = json.dumps([make_event(id=f"deflated-{number}")]).encode()
        sent = compress(body)
        answer = send("/v1/events", sent, Content_Encoding="deflate")
        assert answer.body["accepted"] == 1
        for broken in (sent[:-6], sent + b"rest", b"", b"not deflate"):
            refused = send("/v1/events", broken, Content_Encoding="deflate")
            assert (refused.status, refused.code) == (400, "malformed_deflate"), broken
    assert stored_ids(account) == {"deflated-0", "deflated-1"}


def test_other_names_of_the_same_types_are_understood(account: Account, send: Send) -> None:
    body = json.dumps(make_event(id="one")).encode()
    assert send("/v1/events", body, content_type="text/json").body["accepted"] == 1
    answer = send("/v1/traces", b"", content_type="application/protobuf")
    assert (answer.status, answer.content_type) == (200, "application/x-protobuf")


def test_a_body_of_logs_at_the_address_of_traces_says_where_it_belongs(send: Send) -> None:
    body = b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1"}]}]}]}'
    answer = send("/v1/traces", body)
    assert answer.status == 200
    assert answer.body["partialSuccess"]["rejectedSpans"] == "0"
    assert "/v1/logs" in answer.body["partialSuccess"]["errorMessage"]


def test_a_body_of_metrics_in_protobuf_is_told_apart_as_well(account: Account) -> None:
    metric = ExportMetricsServiceRequest()
    point = metric.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens")
    point.sum.data_points.add(as_int=5)
    body, kind = metric.SerializeToString(), "application/x-protobuf"
    answer = call_wsgi(account, "/v1/traces", body, content_type=kind)
    assert answer.status == 200
    told = ExportTraceServiceResponse.FromString(answer.body)
    assert "/v1/metrics" in told.partial_success.error_message


def test_an_event_in_binary_mode_needs_no_content_type(account: Account) -> None:
    event = make_event()
    del event["id"], event["source"]
    headers: JsonObject = {
        "ce_specversion": "1.0",
        "ce_id": "one",
        "ce_source": "/svc",
        "ce_type": "call",
    }
    body = json.dumps(event).encode()
    answer = call_wsgi(account, "/v1/events", body, content_type="", **headers)
    assert answer.body["accepted"] == 1, answer.body
    assert stored_ids(account) == {"one"}


def test_openmeters_clients_post_to_their_own_address(account: Account) -> None:
    event = {
        "specversion": "1.0",
        "id": "one",
        "source": "svc",
        "type": "tokens",
        "subject": "acme",
        "data": {"tokens": "120", "type": "input", "model": "gpt-4o", "provider": "openai"},
    }
    kind = "application/cloudevents-batch+json"
    body = json.dumps([event]).encode()
    assert call_wsgi(account, "/api/v1/events", body, content_type=kind).body["accepted"] == 1
    with account.scope():
        stored = UsageEvent.objects.get(tenant=account.tenant)
    assert (stored.input_tokens, stored.output_tokens, stored.customer) == (120, 0, "acme")


@pytest.mark.parametrize("path", MANAGED)
def test_a_body_of_too_many_members_is_refused_before_they_are_made(
    account: Account, path: str
) -> None:
    body = json.dumps({f"f{number}": number for number in range(400_000)}).encode()
    api = caller(account)
    api.post(path, b"{")
    tracemalloc.start()
    answer = api.post(path, body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status, answer.code) == (400, "too_many_members")
    assert peak < 4 * len(body)


def test_what_a_body_held_is_let_go_of_with_its_answer(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when Python next looks for cycles, which a web process has it do rarely."""
    parsed: list[Any] = []
    parse = StrictJSONParser.parse

    def keep(*args: Any, **named: Any) -> object:
        parsed.append(parse(*args, **named))
        return parsed[-1]

    monkeypatch.setattr(StrictJSONParser, "parse", keep)
    api = caller(account)
    made = {"name": "b", "period": "day", "limit": {"cost_usd": "5"}}
    for body, status in (({"colour": 1}, 400), (["colour"], 400), (made, 201)):
        assert api.post("/v1/budgets", body).status == status
    assert parsed == [{}, [], {}]


def test_too_many_events_are_a_413(account: Account, send: Send) -> None:
    answer = send("/v1/events", b"[" + b"{}," * 10_000 + b"{}]")
    assert (answer.status, answer.code) == (413, "too_many_events")
    answer = send("/v1/events", b"{}\n" * 10_001, content_type="application/x-ndjson")
    assert (answer.status, answer.code) == (413, "too_many_events")


def test_an_empty_array_is_fine(send: Send) -> None:
    answer = send("/v1/events", b"[]")
    assert (answer.status, answer.body["accepted"]) == (200, 0)


def test_a_content_type_that_is_not_understood_is_a_415(send: Send) -> None:
    for path in (*HOT, *MANAGED, *REPORTED):
        for kind in ("text/plain", "application/xml", "", "application/jsonx"):
            answer = send(path, b"{}", content_type=kind)
            assert (answer.status, answer.code) == (415, "unsupported_media_type"), (path, kind)


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


WRONG_FORMS: list[object] = [[], [1], "text", 5, None, True, {"name": {"a": 1}}, {"name": "\ud800"}]
WRONG_NAMES: list[object] = [
    "a\x00b",
    "n" * 300,
    "",
    5,
    ["a"],
    {"a": "b"},
    None,
    True,
    1e308,
    10**400,
]


def test_configuration_of_the_wrong_form_is_a_400(api: Caller) -> None:
    for path in (*MANAGED, *REPORTED):
        for body in WRONG_FORMS:
            answer = api.post(path, body)
            assert answer.status == 400, (path, body, answer.body)
            assert answer.code


def test_a_wrong_name_is_a_400(api: Caller) -> None:
    for name in WRONG_NAMES:
        for path, body in {
            "/v1/budgets": {"name": name, "period": "month", "limit": {"tokens": 5}},
            "/v1/teams": {"name": name},
            "/v1/keys": {"name": name, "scopes": ["read"]},
            "/v1/prices": {"tool": name, "call_usd": "1"},
        }.items():
            answer = api.post(path, body)
            assert answer.status == 400, (path, name, answer.body)
            assert answer.code


def test_text_that_only_looks_like_nul_is_taken(api: Caller) -> None:
    assert api.post("/v1/teams", b'{"name": "a\\\\u0000b"}').body["name"] == "a\\u0000b"


WRONG_PARAMETERS = [
    "/v1/events?team=%00",
    "/v1/events?filter[team]=%00",
    "/v1/events?filter[%00]=a",
    "/v1/events?cursor=%00",
    "/v1/events?cursor=%FF%FE",
    "/v1/events?from=9999-12-31T23:59:59-14:00",
    "/v1/events?to=0001-01-01T00:00:00%2B14:00",
    "/v1/events?limit=99999999999999999999",
    "/v1/usage?from=9999-12-31T23:59:59-14:00",
    "/v1/usage?timezone=%00",
    "/v1/usage?timezone=../../etc/passwd",
    "/v1/usage?group_by=%00",
    "/v1/usage?cursor=W10",
    "/v1/export/focus.csv?month=9999-12",
    "/v1/export/focus.csv?month=%00",
    "/v1/budgets?cursor=%00",
    "/v1/prices?catalogue=true&model=%00",
    "/v1/prices?catalogue=true&model=a&at=9999-12-31T23:59:59-14:00",
    "/v1/audit-log?actor=%00",
    "/v1/audit-log?object_id=%ED%A0%80%00",
    f"/v1/audit-log?actor={'a' * 5000}%00",
]


def test_a_wrong_parameter_is_a_400(api: Caller) -> None:
    for path in WRONG_PARAMETERS:
        answer = api.get(path)
        assert answer.status == 400, (path, answer.body)
        assert answer.code


UNKNOWN_ADDRESSES = [
    "/v1/traces/%00",
    "/v1/traces/%FF",
    f"/v1/traces/{'t' * 3000}",
    "/v1/sessions/%00",
    f"/v1/budgets/{10**18}",
    f"/v1/budgets/{'9' * 5000}",
    f"/v1/budgets/{10**18}/windows",
    f"/v1/prices/-{10**17}",
    f"/v1/prices/{'9' * 5000}",
    "/v1/prices/-",
    "/v1/prices/0",
    "/v1/%00",
    "/v1/../admin",
]


def test_an_address_that_finds_nothing_is_a_404(api: Caller) -> None:
    for path in UNKNOWN_ADDRESSES:
        answer = api.get(path)
        assert (answer.status, answer.code) == (404, "not_found"), path
