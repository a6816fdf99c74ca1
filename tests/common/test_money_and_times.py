"""Amounts and times as they come in: what the schema says, the same everywhere."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from rest_framework.exceptions import ValidationError

from common.api.fields import Timestamp, Usd
from common.errors import EventRejected
from common.money import nanos_from_usd
from common.times import parse_timestamp, parse_timestamp_or_date
from metering.usage.decoders.assembly import usd
from metering.usage.decoders.native import EventBody, decode_item
from metering.usage.decoders.otlp.json_mapping import _integer

NO_AMOUNTS = (
    *("1_000", "1_0", "\u0663", "\uff11\uff12", "\u00b2", " 1", "1 ", "1\n", "+1", "-1"),
    *("1e3", "1E-3", "NaN", "Infinity", "", ".5", "5.", "1,000", "0x1", "1.2.3", "$1"),
    *("1." + "0" * 19, "1" * 11),
)


@pytest.mark.parametrize("text", NO_AMOUNTS)
def test_what_the_schema_does_not_call_an_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        nanos_from_usd(text)
    with pytest.raises(ValidationError):
        Usd().to_internal_value(text)


@pytest.mark.parametrize("value", [True, False, -1, -0.5, float("nan"), float("inf"), 10**10])
def test_numbers_that_are_no_amount_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        nanos_from_usd(value)


@pytest.mark.parametrize(
    ("value", "nanos"),
    [
        ("0", 0),
        ("007.50", 7_500_000_000),
        ("0.0000000005", 1),
        ("0.000000000499999999", 0),
        ("1000000000", 10**18),
        ("0.999999999999999999", 10**9),
        (3, 3 * 10**9),
        (0.1, 10**8),
        (1e-7, 100),
        (1e-30, 0),
    ],
)
def test_an_amount_is_rounded_to_the_nano_dollar_once(value: Any, nanos: int) -> None:
    assert nanos_from_usd(value) == nanos


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2345678901234567e-05, "0.000012345678901235"),
        ("1e-05", "0.00001"),
        (2, "2"),
        (None, None),
    ],
)
def test_a_foreign_cost_becomes_an_amount_of_the_schema(value: object, text: str | None) -> None:
    assert usd(value) == text
    if text is not None:
        nanos_from_usd(text)


@pytest.mark.parametrize("value", ["1_0", "\uff11", "\u0663", " 1", "nan", True, -1.0, []])
def test_a_foreign_cost_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="USD"):
        usd(value)


def test_a_count_in_otlp_json_is_ascii_digits() -> None:
    assert [_integer(text) for text in ("12", "-3", "\u0663", "\uff11\uff12", "1_0", " 1")] == [
        *(12, -3),
        *(None,) * 4,
    ]


DAY_END = datetime(2026, 11, 21, 23, 59, 59, 999_999, UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-21T23:59:59.9999999Z", DAY_END),
        ("2026-11-21T23:59:59.999999999999Z", DAY_END),
        ("2026-11-21T23:59:60Z", DAY_END),
        ("2026-11-21T23:59:60.7Z", DAY_END),
        ("2026-11-22T05:29:60+05:30", DAY_END),
        ("2026-11-21t23:59:59.999999z", DAY_END),
        ("2026-11-21 23:59:59.999999+00:00", DAY_END),
        ("2026-11-21T18:59:59.999999-0500", DAY_END),
        ("2026-11-21T23:59:59.5-00:00", DAY_END.replace(microsecond=500_000)),
        ("2026-11-22T23:58:59.999999+23:59", DAY_END),
    ],
)
def test_a_time_is_read_alike_in_events_bodies_and_parameters(text: str, at: datetime) -> None:
    assert parse_timestamp(text).astimezone(UTC) == at
    assert Timestamp().to_internal_value(text) == at
    event = decode_item(msgspec.json.encode({"id": "a", "time": text, "cost_usd": "1"}))
    assert isinstance(event, EventBody)
    assert event.time == at


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21",
        "2026-11-21T12:00:00",
        "2026-11-21T12:00Z",
        "20261121T120000Z",
        "2026-W47-6T00:00:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T12:00:61Z",
        "2026-11-21T12:00:60Z",
        "2026-02-30T12:00:00Z",
        "2026-11-21T12:00:00,5Z",
        "2026-11-21T12:00:00.Z",
        "2026-11-21T12:00:00+05:30:15",
        "2026-11-21T12:00:00+24:00",
        "2026-11-21T12:00:00+05:60",
        "2026-11-21T12:00:00+05",
        "\u0662\u0660\u0662\u0666-11-21T12:00:00Z",
        "\uff12026-11-21T12:00:00Z",
        " 2026-11-21T12:00:00Z",
        "2026-11-21T12:00:00Z\n",
        "2026-11-21T12:00:00." + "1" * 60 + "Z",
        "",
    ],
)
def test_what_is_no_time_is_refused_alike_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_timestamp(text)
    with pytest.raises(ValidationError, match="'must "):
        Timestamp().to_internal_value(text)
    event = decode_item(msgspec.json.encode({"id": "a", "time": text, "cost_usd": "1"}))
    assert isinstance(event, EventRejected)
    assert (event.pointer, event.event_id, event.detail[:11]) == ("/time", "a", "'time' must")


def test_fine_digits_elsewhere_in_an_event_change_no_time() -> None:
    body = {"id": "a", "cost_usd": 0.12345678, "tags": {"time": "x.12345678"}}
    event = decode_item(msgspec.json.encode({**body, "time": "2026-11-21T12:00:00.25Z"}))
    assert isinstance(event, EventBody)
    assert event.time == datetime(2026, 11, 21, 12, 0, 0, 250_000, UTC)
    number = decode_item(msgspec.json.encode({**body, "time": 5}))
    assert isinstance(number, EventRejected)
    assert number.detail == "'time' must be RFC 3339 with a zone, as in 2026-11-21T12:00:00Z."


def test_a_date_alone_is_its_first_moment_in_utc() -> None:
    assert (
        parse_timestamp_or_date("2026-11-21") == DAY_END - timedelta(days=1) + timedelta.resolution
    )
