"""The service's own format: every bad input has a code, and none takes a good event with it."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EventRejected, MalformedBody, MeteringError, TooManyEvents
from metering.usage.decoders.native import EventBody, decode_json, decode_ndjson

GOOD = b'{"id": "good", "input_tokens": 3, "output_tokens": 4}'
FULL = {
    "id": "call-1",
    "source": "research-svc",
    "time": "2026-11-21T12:00:00.123Z",
    "provider": "anthropic",
    "model": "claude-sonnet-4-5",
    "usage": {"input_tokens": 4, "cache_read_input_tokens": 8845, "output_tokens": 193},
    "team": "growth",
    "customer": "acme",
    "parent_span": None,
    "step": 3,
    "operation": "llm",
    "status": "success",
    "tags": {"environment": "prod", "try": 2, "ratio": 0.5, "cold": False, "note": None},
}


def one(body: bytes) -> EventBody | EventRejected:
    (item,) = decode_json(body)
    return item


def rejected(body: bytes) -> EventRejected:
    item = one(body)
    assert isinstance(item, EventRejected)
    return item


def malformed(body: bytes) -> MalformedBody:
    with pytest.raises(MalformedBody) as caught:
        decode_json(body)
    return caught.value


def nested(depth: int) -> bytes:
    """An event whose JSON is exactly this many levels deep."""
    inner = depth - 2
    return b'{"id": "a", "usage": ' + b'{"a": ' * inner + b"{}" + b"}" * inner + b"}"


def test_an_event_is_read_with_all_its_fields() -> None:
    event = one(json.dumps(FULL).encode())
    assert isinstance(event, EventBody)
    assert event.time == datetime(2026, 11, 21, 12, 0, 0, 123_000, tzinfo=UTC)
    assert event.usage == FULL["usage"]
    assert event.tags == FULL["tags"]
    assert (event.team, event.customer, event.step) == ("growth", "acme", 3)


def test_an_empty_array_is_no_event() -> None:
    assert decode_json(b" [] ") == []


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ('"input_tokens": -1', "invalid_value", "/input_tokens"),
        ('"input_tokens": 1.0', "invalid_value", "/input_tokens"),
        ('"input_tokens": "5"', "invalid_value", "/input_tokens"),
        ('"input_tokens": true', "invalid_value", "/input_tokens"),
        ('"input_tokens": 9007199254740993', "invalid_value", "/input_tokens"),
        ('"input_tokens": 1e400', "invalid_value", "/input_tokens"),
        (f'"input_tokens": {"9" * 5000}', "invalid_value", "/input_tokens"),
        ('"step": 2147483648', "invalid_value", "/step"),
        ('"usage": {"input_tokens": 1e999}', "invalid_value", "/usage"),
        (f'"usage": {{"x": {"9" * 5000}}}', "invalid_value", "/usage"),
        ('"usage": [1]', "invalid_value", "/usage"),
        ('"cost_usd": 1e999', "invalid_value", "/cost_usd"),
        (f'"team": "{"x" * 201}"', "invalid_value", "/team"),
        ('"team": ""', "invalid_value", "/team"),
        ('"team": 5', "invalid_value", "/team"),
        ('"team": "a\\u0000b"', "invalid_value", None),
        ('"tags": {"\\u0000": 1}', "invalid_value", None),
        ('"usage": {"x": [{"y": "\\u0000"}]}', "invalid_value", None),
        ('"tags": {"a": {"b": 1}}', "invalid_value", "/tags"),
        ('"operation": "think"', "invalid_value", "/operation"),
        ('"complexity": 11', "invalid_value", "/complexity"),
        ('"time": "yesterday"', "invalid_value", "/time"),
        ('"time": "2026-11-21T12:00:00"', "invalid_value", "/time"),
        ('"time": "10000-01-01T00:00:00Z"', "invalid_value", "/time"),
        ('"time": "9999-12-31T23:59:59-10:00"', "time_out_of_range", "/time"),
        ('"time": "0001-01-01T00:00:00+10:00"', "time_out_of_range", "/time"),
        ('"colour": "red"', "unknown_field", "/colour"),
        ('"a/b~c": 1', "unknown_field", "/a~1b~0c"),
    ],
)
def test_a_bad_value_is_the_fault_of_its_event_alone(
    fields: str, code: str, pointer: str | None
) -> None:
    bad = f'{{"id": "bad", {fields}}}'.encode()
    first, second, third = decode_json(b"[" + GOOD + b"," + bad + b"," + GOOD + b"]")
    assert isinstance(first, EventBody)
    assert isinstance(second, EventRejected)
    assert isinstance(third, EventBody)
    assert (second.code, second.pointer, second.event_id) == (code, pointer, "bad")
    assert rejected(bad).code == code


def test_too_many_tags_are_refused() -> None:
    pairs = ",".join(f'"k{number}": 1' for number in range(33))
    assert rejected(f'{{"id": "a", "tags": {{{pairs}}}}}'.encode()).pointer == "/tags"


def test_a_missing_id_is_named() -> None:
    item = rejected(b'{"team": "growth"}')
    assert (item.code, item.pointer, item.event_id) == ("missing_field", "/id", None)
    assert item.as_error(3) == {
        "index": 3,
        "code": "missing_field",
        "detail": "'id' is required.",
        "pointer": "/id",
    }


def test_a_long_unknown_name_is_not_echoed_whole() -> None:
    item = rejected(b'{"id": "a", "' + b"x" * 100_000 + b'": 1}')
    assert item.code == "unknown_field"
    assert len(item.detail) < 300


@pytest.mark.parametrize("body", [b"1", b"null", b'"text"', b"true", b"[1]", b"[[]]", b"[null]"])
def test_what_is_no_object_is_no_event(body: bytes) -> None:
    assert rejected(body).code == "invalid_value"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"{",
        b"[",
        b"nonsense",
        b'{"id": "a"} trailing',
        b'{"id": "a",}',
        b"{'id': 'a'}",
        b'{"id": "a", "input_tokens": NaN}',
        b'{"id": "a", "usage": {"x": -Infinity}}',
        b'{"id": "\\ud800"}',
        b'{"id": "a", "team": "\x00"}',
        b'\xef\xbb\xbf{"id": "a"}',
    ],
)
def test_what_breaks_the_json_fails_the_body(body: bytes) -> None:
    assert malformed(body).code == "malformed_json"
    assert malformed(b"[" + GOOD + b", " + body.strip() + b", x]").code == "malformed_json"


def test_nan_and_half_surrogates_fail_a_whole_array() -> None:
    assert malformed(b"[" + GOOD + b', {"id": "a", "input_tokens": NaN}]').code == "malformed_json"
    assert malformed(b"[" + GOOD + b', {"id": "\\ud800"}]').code == "malformed_json"


def test_a_surrogate_pair_is_a_character() -> None:
    event = one(b'{"id": "\\ud83d\\ude00"}')
    assert isinstance(event, EventBody)
    assert event.id == "\N{GRINNING FACE}"


def test_bytes_that_are_not_utf8_fail_the_body() -> None:
    assert malformed(b'{"id": "\xff"}').code == "invalid_utf8"


@pytest.mark.parametrize(("depth", "is_fine"), [(31, True), (32, True), (33, False)])
def test_json_nests_32_levels_deep_and_no_deeper(depth: int, is_fine: bool) -> None:
    bodies = [nested(depth), b"[" + nested(depth - 1) + b"]"]
    for body in bodies:
        if is_fine:
            assert isinstance(one(body), EventBody)
        else:
            assert malformed(body).code == "too_deep"
    (line,) = decode_ndjson(nested(depth))
    assert isinstance(line, EventBody if is_fine else EventRejected)


def test_brackets_in_strings_are_not_nesting() -> None:
    event = one(b'{"id": "' + b"[{" * 90 + b'\\"]"}')
    assert isinstance(event, EventBody)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5_000_000,
        b'{"id": "a", "usage":' + b'{"a":' * 1_000_000,
        # Quotes that end nowhere made a naive search for brackets take minutes.
        b'{"id": "a", "usage": [' + b"[]," * 40 + b'"' + b'\\"' * 1_000_000,
    ],
    ids=["arrays", "objects", "quotes"],
)
def test_hostile_nesting_is_refused_at_once(body: bytes) -> None:
    started = time.process_time()
    malformed(body)
    assert time.process_time() - started < 2


def test_more_events_than_allowed_are_refused() -> None:
    with pytest.raises(TooManyEvents):
        decode_json(b"[" + b",".join([b"1"] * 10_001) + b"]")
    with pytest.raises(TooManyEvents):
        decode_ndjson(b"1\n" * 10_001)
    assert len(decode_ndjson(b"1\n" * 10_000)) == 10_000


def test_a_bad_line_leaves_the_others() -> None:
    bad = [b'{"id": ', b'{"id": "x", "a": NaN}', b'{"id": "\xff"}', nested(40), b"[]", b"{}"]
    lines = decode_ndjson(b"\r\n".join([GOOD, *bad, b"", GOOD.replace(b"good", b"last")]))
    codes = [line.code if isinstance(line, EventRejected) else line.id for line in lines]
    assert codes == [
        "good",
        "malformed_json",
        "malformed_json",
        "invalid_utf8",
        "too_deep",
        "invalid_value",
        "missing_field",
        "last",
    ]


def test_line_separators_of_unicode_stay_inside_a_string() -> None:
    (event,) = decode_ndjson('{"id": "a", "team": "x\u2028y"}'.encode())
    assert isinstance(event, EventBody)
    assert event.team == "x\u2028y"


def test_a_thousand_events_take_a_few_milliseconds() -> None:
    body = json.dumps([{**FULL, "id": f"e{number}"} for number in range(1000)]).encode()
    decode_json(body)
    started = time.process_time()
    assert len(decode_json(body)) == 1000
    # 3 ms when nothing else runs; the bound only catches another order of magnitude.
    assert time.process_time() - started < 0.05


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=80), st.text(alphabet='{}[]":,\\un0123e-.aNti ').map(str.encode))
)
def test_any_bytes_are_events_or_a_refusal(body: bytes) -> None:
    for decode in (decode_json, decode_ndjson):
        try:
            items = decode(body)
        except MeteringError:
            continue
        assert all(isinstance(item, EventBody | EventRejected) for item in items)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*EventBody.__struct_fields__, "x"]), JSON, max_size=4))
def test_any_values_are_events_or_a_refusal(fields: dict[str, object]) -> None:
    try:
        (item,) = decode_json(json.dumps({"id": "a"} | fields).encode())
    except MalformedBody:
        return
    assert isinstance(item, EventBody | EventRejected)


def test_what_is_rejected_says_who_sent_it_and_shows_its_form() -> None:
    bad = {"id": "bad", "source": "svc", "input_tokens": -1, "agent": "Ann"}
    good = {"id": "good", "input_tokens": 1}
    for body, decode in (
        (json.dumps([good, bad]), decode_json),
        (f"{json.dumps(good)}\n{json.dumps(bad)}", decode_ndjson),
    ):
        item = decode(body.encode())[1]
        assert isinstance(item, EventRejected)
        assert item.source == "svc"
        assert json.loads(item.sample or "") == {
            "id": "str[3]",
            "source": "str[3]",
            "input_tokens": -1,
            "agent": "str[3]",
        }
