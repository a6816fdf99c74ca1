"""The cost reports of OpenAI and Anthropic, as their APIs answer them. Pure.

A body is a page of the report, or a list of pages. Numbers are read from their digits, never
through a float.

OpenAI: `GET /v1/organization/costs` (buckets from `start_time` to `end_time` in Unix seconds,
`amount.value` in dollars). Anthropic: `GET /v1/organizations/cost_report` (buckets from
`starting_at` to `ending_at`, `amount` in cents as a decimal string).
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final, NamedTuple

import msgspec

from billing.provider_bills.lines import (
    BillKey,
    BillLines,
    LineFault,
    exact,
    is_known_model,
    model_name,
    plain_text,
    require_usd,
    whole_day,
)
from common.errors import MalformedBody
from common.json_bodies import require_shallow, require_utf8

CENTS_PER_USD: Final = 100
OPENAI: Final = "openai"
ANTHROPIC: Final = "anthropic"
# As in "gpt-4o-2024-08-06, cached input".
_OPENAI_ITEM: Final = re.compile(r"(\S+), (?:[a-z ]+ )?(?:input|output|training)(?: [a-z ]+)?")


class _Money(msgspec.Struct):
    value: msgspec.Raw
    currency: str


class _OpenAIResult(msgspec.Struct):
    amount: _Money
    line_item: str | None = None


class _AnthropicResult(msgspec.Struct):
    amount: msgspec.Raw
    currency: str
    model: str | None = None
    cost_type: str | None = None
    description: str | None = None


class _Bucket(msgspec.Struct):
    """A day of either report: each has names of its own for where it begins."""

    results: list[msgspec.Raw]
    start_time: int | None = None
    end_time: int | None = None
    starting_at: datetime | None = None
    ending_at: datetime | None = None


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]


class _Line(NamedTuple):
    """A bucket's result, and where it is in the body."""

    bucket: _Bucket
    result: msgspec.Raw
    pointer: str


def read_report(body: bytes) -> BillLines:
    """Read a report of either provider. Raises MalformedBody for what is none."""
    require_utf8(body)
    require_shallow(body)
    lines: BillLines | None = None
    for pointer, raw in _buckets(body):
        bucket = _decoded(raw, _Bucket, pointer)
        source = OPENAI if bucket.starting_at is None else ANTHROPIC
        lines = lines or BillLines(source)
        if lines.source != source:
            raise _malformed(pointer, "the pages are of different providers")
        for number, result in enumerate(bucket.results):
            line = _Line(bucket, result, f"{pointer}/results/{number}")
            with lines.line(line.pointer):
                _READERS[source](lines, line)
    return lines or BillLines("")


def _buckets(body: bytes) -> Iterator[tuple[str, msgspec.Raw]]:
    is_list = body.lstrip()[:1] == b"["
    pages = _decoded(body, list[_Page], "") if is_list else [_decoded(body, _Page, "")]
    for number, page in enumerate(pages):
        begin = f"/{number}" if is_list else ""
        for index, bucket in enumerate(page.data):
            yield f"{begin}/data/{index}", bucket


def _decoded(raw: bytes | msgspec.Raw, kind: object, pointer: str) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(pointer, str(error)) from error


def _malformed(pointer: str, detail: str) -> MalformedBody:
    at = f" ({pointer})" if pointer else ""
    return MalformedBody(
        "malformed_bill",
        f"This is no cost report of OpenAI or Anthropic{at}: {detail}."
        " Send an answer of the report's API as it is, or a list of its pages.",
    )


def _result(line: _Line, kind: object) -> Any:
    try:
        return msgspec.json.decode(line.result, type=kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        member = path.rstrip("`").replace(".", "/")
        raise LineFault(member, f"cannot be read: {problem}") from error


def _read_openai(lines: BillLines, line: _Line) -> None:
    bucket = line.bucket
    if bucket.start_time is None:
        raise LineFault("", "is in a bucket without start_time")
    end = None if bucket.end_time is None else _of_seconds(bucket.end_time)
    day = whole_day(_of_seconds(bucket.start_time), end, "../../start_time")
    result = _result(line, _OpenAIResult)
    require_usd(result.amount.currency, "amount/currency")
    item = plain_text(result.line_item, "line_item")
    match = _OPENAI_ITEM.fullmatch(item)
    model = match[1] if match else item if is_known_model(OPENAI, item) else ""
    key = BillKey(
        OPENAI, day, model_name(OPENAI, model) if model else "", "" if model else item.lower()
    )
    lines.add(key, _exact(result.amount.value, "amount/value"))


def _exact(raw: msgspec.Raw, member: str) -> Fraction:
    """Return a number, or the number in a string, by its digits."""
    written = bytes(raw).decode()
    is_string = written.startswith('"')
    return exact(msgspec.json.decode(raw, type=str) if is_string else written, member)


def _of_seconds(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise LineFault("../../start_time", "must be a time in Unix seconds") from error


def _read_anthropic(lines: BillLines, line: _Line) -> None:
    bucket = line.bucket
    assert bucket.starting_at is not None, "that is how the report was known"
    for at in (bucket.starting_at, bucket.ending_at):
        if at is not None and at.tzinfo is None:
            raise LineFault("../../starting_at", "must be a time with a zone")
    day = whole_day(bucket.starting_at, bucket.ending_at, "../../starting_at")
    result = _result(line, _AnthropicResult)
    require_usd(result.currency, "currency")
    model = plain_text(result.model, "model")
    kind = plain_text(result.cost_type, "cost_type")
    item = kind if kind not in ("", "tokens") else plain_text(result.description, "description")
    key = BillKey(
        ANTHROPIC, day, model_name(ANTHROPIC, model) if model else "", "" if model else item.lower()
    )
    lines.add(key, _exact(result.amount, "amount") / CENTS_PER_USD)


_READERS: Final = {OPENAI: _read_openai, ANTHROPIC: _read_anthropic}
