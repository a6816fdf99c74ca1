"""Bills as CSV in FOCUS 1.x, the billing format of the FinOps Foundation. Pure.

Of a cloud's whole bill the lines of AI services are read: `ServiceCategory` "AI and Machine
Learning", where the bill has the column. What is not usage (taxes, credits, purchases) is left out.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Final

from billing.provider_bills.lines import (
    A_DAY,
    BillKey,
    BillLines,
    LineFault,
    exact,
    is_known_model,
    known_day,
    model_name,
    plain_text,
    provider_name,
    require_usd,
    seller_of,
)
from common.errors import MalformedBody
from common.json_bodies import require_utf8
from common.times import parse_timestamp_or_date

SOURCE: Final = "focus"
REQUIRED: Final = ("BilledCost", "BillingCurrency", "ChargePeriodStart")
# Who sold it. FOCUS 1.3 renamed the first.
SELLERS: Final = ("ProviderName", "ServiceProviderName", "PublisherName", "InvoiceIssuerName")
AI: Final = "AI and Machine Learning"
USAGE: Final = "Usage"
# Where vendors write the model, the most telling first.
MODEL_COLUMNS: Final = ("ResourceName", "ResourceId", "SkuId", "SkuMeter", "ServiceName")
# What names a line of no model.
ITEM_COLUMNS: Final = ("SkuId", "ServiceName", "ResourceName", "ResourceId")
# Spreadsheets and databases write an empty cell so.
NOTHING: Final = frozenset({"", "NULL", "null"})

Cells = Mapping[str, str]


def read_focus(body: bytes) -> BillLines:
    """Read a bill. Raises MalformedBody for what is no CSV, or lacks the columns."""
    require_utf8(body)
    lines = BillLines(SOURCE)
    for number, cells in _rows(body.decode("utf-8-sig"), lines):
        with lines.line(f"/lines/{number}"):
            _read_line(lines, cells)
    return lines


def _rows(text: str, lines: BillLines) -> Iterator[tuple[int, Cells]]:
    """Yield the lines with their numbers in the file, each as its cells by column."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        _require_columns(columns)
        begin = reader.line_num + 1
        for row in reader:
            if len(row) not in (0, len(columns)):
                lines.fault(f"/lines/{begin}", f"has {len(row)} cells, not {len(columns)}")
            elif row:
                yield begin, {name: _cell(text) for name, text in zip(columns, row, strict=True)}
            begin = reader.line_num + 1
    except csv.Error as error:
        raise _malformed(f"Line {reader.line_num} cannot be read: {error}.") from error


def _require_columns(columns: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise _malformed(f"The first line lacks the columns {', '.join(missing)}.")
    if not set(SELLERS) & set(columns):
        raise _malformed(f"The first line has none of the columns {', '.join(SELLERS)}.")
    if len(set(columns)) < len(columns):
        raise _malformed("The first line names a column twice.")


def _malformed(detail: str) -> MalformedBody:
    return MalformedBody("malformed_bill", f"This is no bill in FOCUS: {detail}")


def _cell(text: str) -> str:
    text = text.strip()
    return "" if text in NOTHING else text


def _read_line(lines: BillLines, cells: Cells) -> None:
    is_ai = cells.get("ServiceCategory", AI) in ("", AI)
    if not is_ai or cells.get("ChargeCategory", USAGE) not in ("", USAGE):
        lines.skipped += 1
        return
    require_usd(cells["BillingCurrency"], "BillingCurrency")
    seller = next((cells[name] for name in SELLERS if cells.get(name)), "")
    if not seller:
        raise LineFault(SELLERS[0], "is empty")
    written, item = _model_and_item(provider_name(plain_text(seller, SELLERS[0])), cells)
    provider = seller_of(seller, written)
    model = model_name(provider, written) if written else ""
    lines.add(BillKey(provider, _day(cells), model, item), exact(cells["BilledCost"], "BilledCost"))


def _day(cells: Cells) -> date:
    """Return the day in UTC that a line is of. One of several days is of none."""
    starts_at = _time(cells["ChargePeriodStart"], "ChargePeriodStart")
    end = cells.get("ChargePeriodEnd")
    if end and _time(end, "ChargePeriodEnd") - starts_at > A_DAY:
        raise LineFault("ChargePeriodEnd", "must be a day after the start at most")
    return known_day(starts_at, "ChargePeriodStart")


def _time(text: str, member: str) -> datetime:
    """Return a time; without a zone it is in UTC, as the format says."""
    for written in (text, f"{text}Z"):
        try:
            return parse_timestamp_or_date(written)
        except ValueError:
            continue
    raise LineFault(member, "must be a time, such as 2026-11-21T12:00:00Z")


def _model_and_item(provider: str, cells: Cells) -> tuple[str, str]:
    """Return the model of a line as it is written, or what else it names."""
    kind = cells.get("ResourceType", "").lower()
    resource = plain_text(cells.get("ResourceName") or cells.get("ResourceId"), "ResourceName")
    if kind == "model" and resource:
        return resource, ""
    if kind == "tool" and resource:
        return "", resource.lower()
    for name in MODEL_COLUMNS:
        text = plain_text(cells.get(name), name)
        # A path or an ARN ends with the model's name.
        for written in (text, text.rpartition("/")[2]):
            if is_known_model(provider, written):
                return written, ""
    item = next((cells[name] for name in ITEM_COLUMNS if cells.get(name)), "")
    return "", plain_text(item, ITEM_COLUMNS[0]).lower()
