"""The service's own event format: bytes in, one event or one error per item out.

A body is split into raw items first, so that one bad event does not fail the others; each item is
then decoded against the contract by msgspec. What breaks the JSON of the whole body fails the body.
"""

import json
import re
from datetime import datetime
from itertools import islice
from typing import Annotated, Final, Literal, NamedTuple, NoReturn

import msgspec

from common.errors import EventRejected, MalformedBody, RejectEvent, TooManyEvents
from common.expectations import TIMESTAMP, expectation_at, unknown_field
from common.json_bodies import DEPTH_MAX, JsonObject, holds_nul, require_shallow, require_utf8
from common.money import USD_PATTERN
from common.times import parse_timestamp
from common.values import COUNT_MAX, RAW_CHARACTERS_MAX
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.usage.decoders.samples import with_sample
from metering.usage.decoders.values import with_normal_values

EVENTS_MAX: Final = 10_000
TAGS_MAX: Final = 32
# Rejected items of a body that get a sample; in the end one of each reason is kept.
SAMPLES_MAX: Final = 20

# The length that counts is that of the normal value, which `with_normal_values` judges.
Dimension = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=RAW_CHARACTERS_MAX,
        extra_json_schema={"maxLength": VALUE_CHARACTERS_MAX},
    ),
]
Source = Annotated[
    str,
    msgspec.Meta(
        max_length=RAW_CHARACTERS_MAX, extra_json_schema={"maxLength": VALUE_CHARACTERS_MAX}
    ),
]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Word = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Step = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
# The pattern stands in the schema alone; `nanos_from_usd` applies it, and says what is wrong.
Usd = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": USD_PATTERN})] | int | float
TagKey = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
TagValue = str | int | float | bool | None


class EventBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One usage event as the contract has it. Every decoder answers this, whatever it reads."""

    id: Name
    source: Source | None = None
    time: Timestamp | None = None
    provider: Dimension | None = None
    model: Dimension | None = None
    requested_model: Name | None = None
    usage: JsonObject | None = None
    team: Dimension | None = None
    customer: Dimension | None = None
    agent: Dimension | None = None
    user: Dimension | None = None
    feature: Dimension | None = None
    session: Dimension | None = None
    task: Dimension | None = None
    trace: Dimension | None = None
    span: Name | None = None
    parent_span: Name | None = None
    step: Step | None = None
    operation: Literal["llm", "embedding", "tool", "other"] | None = None
    tool: Dimension | None = None
    tool_arguments_hash: Name | None = None
    response_id: Name | None = None
    request_id: Name | None = None
    service_tier: Name | None = None
    status: Literal["success", "error", "cancelled"] | None = None
    error_type: Word | None = None
    latency_ms: Count | None = None
    time_to_first_token_ms: Count | None = None
    max_output_tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_1h_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    input_audio_tokens: Count | None = None
    output_audio_tokens: Count | None = None
    web_searches: Count | None = None
    cost_usd: Usd | None = None
    saved_usd: Usd | None = None
    task_type: Name | None = None
    complexity: Annotated[int, msgspec.Meta(ge=0, le=10)] | None = None
    output_hash: Name | None = None
    prefix_hash: Name | None = None
    tags: Annotated[dict[TagKey, TagValue], msgspec.Meta(max_length=TAGS_MAX)] | None = None
    reservation: Name | None = None
    # Counts of an answer that broke off: what was received, not what was used.
    is_estimate: bool | None = None
    # The call was made and no report says what it used: stored without a price.
    is_usage_missing: bool | None = None


class PassedOver(msgspec.Struct, frozen=True):
    """Items of one source that are no usage: why, and one of them, redacted. Counted, not kept."""

    source: str
    reason: str
    count: int = 1
    sample: str | None = None


EVENT_FIELDS: Final = EventBody.__struct_fields__
_USAGE_HINT: Final = " Put the provider's own usage object into 'usage'."
HINT_BY_FIELD: Final = {
    "/events": " Send the array itself.",
    "/prompt_tokens": _USAGE_HINT,
    "/completion_tokens": _USAGE_HINT,
}
# What an item of a body turned into.
Decoded = EventBody | EventRejected

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_event = msgspec.json.Decoder(EventBody).decode
# Times here cannot be turned into another zone, which later steps do without asking.
_YEARS_AT_THE_EDGE: Final = (1, 9999)
# What only some times have: msgspec would round their last digits up, perhaps into the next day.
_FINER_THAN_MICROSECONDS: Final = re.compile(rb"\.[0-9]{7}")


def decode_json(body: bytes) -> list[Decoded]:
    """One event or an array of them. Raises MalformedBody for a body that is not JSON."""
    require_utf8(body)
    if body.lstrip()[:1] == b"[":
        items = [bytes(item) for item in split_array(body)]
        decoded = [decode_item(item, index=index, depth=1) for index, item in enumerate(items)]
        return _with_samples(decoded, items)
    return _with_samples([decode_item(body)], [body])


def decode_ndjson(body: bytes) -> list[Decoded]:
    """One event a line. A line that is not JSON is that line's error: the others still are."""
    # Split at line feeds only: JSON strings may hold the other line separators of Unicode.
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > EVENTS_MAX:
        raise TooManyEvents(len(lines))
    decoded = [_decode_line(index, line) for index, line in enumerate(lines)]
    return _with_samples(decoded, lines)


def _with_samples(decoded: list[Decoded], items: list[bytes]) -> list[Decoded]:
    """Add source and sample to the first items that were rejected."""
    rejected = (each for each in zip(decoded, items, strict=True) if type(each[0]) is EventRejected)
    for item, raw in islice(rejected, SAMPLES_MAX):
        with_sample(item, raw)
    return decoded


def split_array(body: bytes) -> list[msgspec.Raw]:
    """Return the items of a JSON array, undecoded. Raises TooManyEvents beyond the limit."""
    try:
        items = _decode_items(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(body, error) from error
    if len(items) > EVENTS_MAX:
        raise TooManyEvents(len(items))
    return items


def decode_item(raw: bytes, *, index: int | None = None, depth: int = 0) -> Decoded:
    """One event of a body, where it stands at `index` and `depth` levels down.

    Raises MalformedBody when it is no JSON at all, which is the fault of the whole body.
    """
    require_shallow(raw, depth=depth)
    try:
        event = _decode_event(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        # What does not fit is found first, and the rest may still be no JSON.
        require_json(raw, index)
        return _read_otherwise(raw, error)
    if event.time is not None and _FINER_THAN_MICROSECONDS.search(raw):
        time = _time_as_written(raw)
        if isinstance(time, EventRejected):
            return time
        event = msgspec.structs.replace(event, time=time)
    return _refusal(event, raw) or event


def _read_otherwise(raw: bytes, error: Exception) -> Decoded:
    """Return an event whose time lies in a leap second, or why it is none."""
    if not isinstance(error, msgspec.ValidationError):
        return EventRejected("invalid_value", f"{_sentence(error)}.", event_id=_id_in(raw))
    if not str(error).endswith("at `$.time`"):
        return rejected(error, raw)
    time = _time_as_written(raw)
    if isinstance(time, EventRejected):
        return time
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    members["time"] = msgspec.Raw(msgspec.json.encode(time))
    return decode_item(msgspec.json.encode(members))


def _refusal(event: EventBody, raw: bytes) -> EventRejected | None:
    # A single byte is found much faster, and most items have none.
    if b"\\" in raw and b"\\u0000" in raw and holds_nul(event):
        return EventRejected(
            "invalid_value", "A string holds the character NUL.", event_id=event.id
        )
    if event.time is not None and event.time.year in _YEARS_AT_THE_EDGE:
        return EventRejected(
            "time_out_of_range",
            f"The time {event.time.isoformat()} is far from now.",
            pointer="/time",
            event_id=event.id,
        )
    return refused_value(event)


def _time_as_written(raw: bytes) -> datetime | EventRejected:
    """Return the time of an event that msgspec rejects or rounds, or what is wrong with it."""
    time = _members_in(raw).time
    try:
        if not isinstance(time, str):
            raise ValueError(TIMESTAMP)
        return parse_timestamp(time)
    except ValueError as error:
        detail = f"'time' {error}."
        return EventRejected("invalid_value", detail, pointer="/time", event_id=_id_in(raw))


def decode_event(body: bytes, *, default_id: str) -> Decoded:
    """Return the one event of a body, which gets this id where it names none."""
    require_utf8(body)
    event = decode_item(body)
    if isinstance(event, EventRejected) and (event.code, event.pointer) == ("missing_field", "/id"):
        fields = msgspec.json.decode(body)
        return decode_item(msgspec.json.encode({**fields, "id": default_id}))
    return event


def _decode_line(index: int, line: bytes) -> Decoded:
    try:
        require_utf8(line)
        return decode_item(line, index=index)
    except MalformedBody as error:
        return EventRejected(error.code, error.detail)


class FieldProblem(NamedTuple):
    """What a body's field has against the contract."""

    code: str
    detail: str
    pointer: str | None


def field_problem(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> FieldProblem:
    """Return what msgspec says of a body of this kind, in the words of the API."""
    message, _, path = str(error).partition(" - at `")
    if unknown := re.match(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        detail = unknown_field(unknown[1], kind.__struct_fields__)
        pointer = "/" + unknown[1][:100].replace("~", "~0").replace("/", "~1")
        return FieldProblem("unknown_field", detail, pointer)
    if missing := re.match(r"Object missing required field `(.*)`", message):
        return FieldProblem("missing_field", f"{missing[1]!r} is required.", f"/{missing[1]}")
    # As in `$.tags[...]`; of a name of an object as in `key` in `$.tags`.
    member = path.removeprefix("key` in `").removeprefix("$").rstrip("`")
    pointer = member.replace("[...]", "").replace(".", "/")
    expected = expectation_at(kind, member.replace("[...]", ".").replace(".", "/"))
    subject = f"{pointer[1:]!r}" if pointer else "The body"
    return FieldProblem("invalid_value", f"{subject} {expected}.", pointer or None)


def rejected(error: msgspec.ValidationError, raw: bytes) -> EventRejected:
    """Return what the contract says about an item that does not fit it."""
    code, detail, pointer = field_problem(error, EventBody)
    if code == "unknown_field":
        detail += HINT_BY_FIELD.get(pointer or "", " Put custom key-value pairs into 'tags'.")
    event_id = None if code == "missing_field" else _id_in(raw)
    return EventRejected(code, detail, pointer=pointer, event_id=event_id)


def refused_value(event: EventBody) -> EventRejected | None:
    """Return the refusal of an event for the value of a dimension. It stays as it was sent."""
    try:
        with_normal_values(event)
    except RejectEvent as error:
        rejection = error.rejection
        rejection.event_id = event.id
        return rejection
    return None


def require_json(raw: bytes, index: int | None = None) -> None:
    """Tell an item that is not JSON at all (the body's fault) from one whose values do not fit."""
    where = "" if index is None else f" in item {index}"

    def refuse(constant: str) -> NoReturn:
        raise MalformedBody("malformed_json", f"{constant} is not JSON{where}.")

    try:
        # A number with more digits than Python reads is still JSON.
        read = json.loads(raw.decode(), parse_constant=refuse, parse_int=len)
        json.dumps(read, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        detail = f"A string{where} holds half of a surrogate pair."
        raise MalformedBody("malformed_json", detail) from error
    except (ValueError, RecursionError) as error:
        raise _malformed(raw, error) from error


def _malformed(body: bytes, error: Exception) -> MalformedBody:
    if isinstance(error, RecursionError):
        return MalformedBody("too_deep", f"JSON nests deeper than {DEPTH_MAX} levels.")
    if not body.strip():
        return MalformedBody("malformed_json", "The body is empty; send an event or an array.")
    return MalformedBody("malformed_json", f"The body is not JSON: {_sentence(error)}.")


def _sentence(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ").rstrip(".")


class _Members(msgspec.Struct):
    id: object = None
    time: object = None


def _members_in(raw: bytes) -> _Members:
    return msgspec.json.decode(raw, type=_Members)


def _id_in(raw: bytes) -> str | None:
    """Return the id that a rejected item carries, where it can be read, so that its sender finds
    it.
    """
    try:
        event_id = _members_in(raw).id
    except (msgspec.DecodeError, RecursionError):
        return None
    return event_id[:200] if isinstance(event_id, str) else None
