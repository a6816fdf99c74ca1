"""CloudEvents in all three modes end in the same event."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from common.errors import EventRejected, MalformedBody, TooManyEvents
from common.json_bodies import JsonObject
from metering.usage.decoders.cloudevents import decode_batch, decode_binary, decode_structured
from metering.usage.decoders.native import Decoded, EventBody

DATA = {"provider": "openai", "model": "gpt-4o", "input_tokens": 3, "output_tokens": 4}
ENVELOPE: JsonObject = {
    "specversion": "1.0",
    "type": "ai.call",
    "id": "e-1",
    "source": "/research",
    "time": "2026-11-21T12:00:00Z",
    "subject": "acme",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "data": DATA,
}
EVENT = EventBody(
    id="e-1",
    source="/research",
    time=datetime(2026, 11, 21, 12, tzinfo=UTC),
    customer="acme",
    provider="openai",
    model="gpt-4o",
    input_tokens=3,
    output_tokens=4,
)


def structured(**changes: object) -> Decoded:
    (item,) = decode_structured(json.dumps(ENVELOPE | changes).encode())
    return item


def without(*names: str) -> JsonObject:
    return {name: value for name, value in ENVELOPE.items() if name not in names}


def test_the_envelope_names_the_event() -> None:
    assert structured() == EVENT
    assert structured(
        data=DATA | {"id": "other", "source": "x", "time": "2020-01-01T00:00:00Z"}
    ) == (EVENT)


def test_data_may_tell_the_time_that_the_envelope_leaves_out() -> None:
    body = without("time") | {"data": DATA | {"time": "2026-11-20T00:00:00Z"}}
    (event,) = decode_structured(json.dumps(body).encode())
    assert isinstance(event, EventBody)
    assert event.time == datetime(2026, 11, 20, tzinfo=UTC)


def test_the_subject_is_the_customer_unless_data_names_one() -> None:
    event = structured(data=DATA | {"customer": "beta"})
    assert isinstance(event, EventBody)
    assert event.customer == "beta"
    assert structured(data=DATA | {"customer": None}) == EVENT


def test_data_in_base64_is_read() -> None:
    encoded = base64.b64encode(json.dumps(DATA).encode()).decode()
    (event,) = decode_structured(json.dumps(without("data") | {"data_base64": encoded}).encode())
    assert event == EVENT


def test_a_batch_keeps_its_good_events() -> None:
    bad = [
        ENVELOPE | {"specversion": "0.3"},
        ENVELOPE | {"id": 7},
        ENVELOPE | {"id": ""},
        without("source"),
        without("specversion"),
        without("data"),
        ENVELOPE | {"data": None},
        ENVELOPE | {"data": [1]},
        ENVELOPE | {"data": DATA | {"colour": "red"}},
        ENVELOPE | {"time": "yesterday"},
        ENVELOPE | {"subject": "x" * 300},
        ENVELOPE | {"subject": "a\x00b"},
        ENVELOPE | {"datacontenttype": "text/xml"},
        without("data") | {"data_base64": "%%%"},
        without("data") | {"data_base64": base64.b64encode(b"{'").decode()},
        without("data") | {"data_base64": base64.b64encode(b'{"a": NaN}').decode()},
        without("data") | {"data_base64": base64.b64encode(b"[" * 5000).decode()},
        7,
    ]
    first, *middle, last = decode_batch(json.dumps([ENVELOPE, *bad, ENVELOPE]).encode())
    assert first == last == EVENT
    codes = [(item.code, item.pointer) for item in middle if isinstance(item, EventRejected)]
    assert codes == [
        ("invalid_value", "/specversion"),
        ("invalid_value", "/id"),
        ("missing_field", "/id"),
        ("missing_field", "/source"),
        ("missing_field", "/specversion"),
        ("missing_field", "/data"),
        ("invalid_value", "/data"),
        ("invalid_value", "/data"),
        ("unknown_field", "/colour"),
        ("invalid_value", "/time"),
        ("invalid_value", "/customer"),
        ("invalid_value", None),
        ("invalid_value", "/datacontenttype"),
        ("invalid_value", "/data_base64"),
        ("invalid_value", "/data_base64"),
        ("invalid_value", "/data_base64"),
        ("invalid_value", "/data_base64"),
        ("invalid_value", None),
    ]


def test_an_empty_batch_is_no_event() -> None:
    assert decode_batch(b"[]") == []


def test_a_batch_has_a_limit() -> None:
    with pytest.raises(TooManyEvents):
        decode_batch(b"[" + b",".join([b"{}"] * 10_001) + b"]")


def test_binary_mode_reads_the_headers() -> None:
    headers = {
        "Ce-Id": "e-1",
        "CE-Source": "%2Fresearch",
        "ce-specversion": "1.0",
        "ce-type": "ai.call",
        "ce-time": "2026-11-21T12:00:00Z",
        "ce-subject": "acme",
        "Content-Type": "application/json",
    }
    assert decode_binary(headers, json.dumps(DATA).encode()) == [EVENT]


def test_binary_mode_names_what_is_missing() -> None:
    (item,) = decode_binary({"ce-id": "1", "ce-specversion": "1.0"}, b"{}")
    assert isinstance(item, EventRejected)
    assert (item.code, item.pointer, item.event_id) == ("missing_field", "/source", "1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b'{"id": NaN}', "malformed_json"),
        (b'{"id": "\\ud800"}', "malformed_json"),
        (b'{"id": "\xff"}', "invalid_utf8"),
        (b'{"data":' + b"[" * 40 + b"]" * 40 + b"}", "too_deep"),
    ],
)
def test_what_is_no_json_fails_the_body(body: bytes, code: str) -> None:
    headers = {"ce-id": "1", "ce-source": "s", "ce-specversion": "1.0"}
    reads: list[Callable[[], list[Decoded]]] = [
        lambda: decode_structured(body),
        lambda: decode_binary(headers, body),
    ]
    if body:  # else the batch is empty, which is fine
        reads.append(lambda: decode_batch(b"[" + body + b"]"))
    for read in reads:
        with pytest.raises(MalformedBody) as caught:
            read()
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "counts", "tags"),
    [
        ({"tokens": 120, "type": "input", "model": "gpt-4o"}, (120, 0), None),
        ({"tokens": "120", "type": "prompt", "model": "gpt-4o"}, (120, 0), None),
        (
            {"tokens": 7, "type": "output", "region": "eu", "retry": 2},
            (0, 7),
            {"region": "eu", "retry": 2},
        ),
        ({"tokens": 7, "type": "Completion", "nested": {"a": 1}}, (0, 7), None),
    ],
)
def test_openmeters_data_count_one_kind_of_token(
    data: JsonObject, counts: tuple[int, int], tags: JsonObject | None
) -> None:
    event = structured(data=data)
    assert isinstance(event, EventBody)
    assert (event.input_tokens, event.output_tokens) == counts
    assert (event.tags, event.model, event.customer) == (tags, data.get("model"), "acme")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"tokens": 120, "model": "gpt-4o"}, '"type": "input"'),
        ({"tokens": 120, "type": "system"}, '"type": "input"'),
        ({"tokens": 120, "type": "input", "output_tokens": 3}, "input_tokens"),
        ({"tokens": 120, "type": "input", "usage": {"input_tokens": 120}}, "input_tokens"),
        ({"tokens": "many", "type": "input"}, "no number of tokens"),
        ({"tokens": -1, "type": "input"}, "no number of tokens"),
        ({"tokens": 10**400, "type": "input"}, "no number of tokens"),
    ],
)
def test_tokens_of_which_nobody_knows_the_kind_are_refused(data: JsonObject, word: str) -> None:
    item = structured(data=data)
    assert isinstance(item, EventRejected)
    assert (item.code, item.event_id, item.source) == ("invalid_value", "e-1", "/research")
    assert word in item.detail


HEADERS = {"ce-specversion": "1.0", "ce-id": "e-1", "ce-source": "/research", "ce-type": "call"}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("Z%C3%BCrich", "Zürich"),
        ("Zürich".encode().decode("latin-1"), "Zürich"),
        ("Z\xfcrich", "Z\xfcrich"),
        ("東京", "東京"),
    ],
)
def test_a_source_beyond_ascii_is_read_however_it_came(sent: str, expected: str) -> None:
    (event,) = decode_binary(HEADERS | {"ce-source": sent}, json.dumps(DATA).encode())
    assert isinstance(event, EventBody)
    assert event.source == expected


def test_a_source_that_a_server_could_not_hand_on_is_explained() -> None:
    (item,) = decode_binary(HEADERS | {"ce-source": ""}, json.dumps(DATA).encode())
    assert isinstance(item, EventRejected)
    assert (item.code, item.event_id, item.pointer) == ("missing_field", "e-1", "/source")
    assert "percent-encoded" in item.detail
