"""A statement as a file: CSV for spreadsheets, and one page of HTML that prints on A4.

Files of a statement that is not a draft are kept as they were first made, so they are the same for
ever, whatever later versions of the service print.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.http import content_disposition_header

from billing.currencies import amount_of, money_of
from billing.finalization import parties_of
from billing.models import Statement, StatementFile, StatementState
from billing.rate_words import decimal_words
from billing.settings import billing_settings
from billing.statement_views import (
    QUANTITY_PLACES,
    LineView,
    StatementView,
    csv_rows,
    total_rows,
    views_of,
)
from common.csv_files import csv_lines
from common.json_bodies import JsonObject

CONTENT_TYPES: Final = {"csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}
STYLE_START: Final = b"<style>"
STYLE_END: Final = b"</style>"


class PrintedLine(NamedTuple):
    """A line as it is printed."""

    name: str
    note: str
    quantity: str
    rate: str
    amount: str
    exact: str
    events_url: str | None


class PrintedTotal(NamedTuple):
    """A sum as it is printed."""

    name: str
    amount: str
    exact: str
    strong: bool


def file_of(statement: Statement, kind: str) -> bytes:
    """Return a statement's file: the one that is kept, or of a draft that of this moment. Within a
    snapshot.
    """
    kept = StatementFile.objects.filter(
        tenant_id=statement.tenant_id, statement=statement, kind=kind
    ).first()
    if kept is not None:
        return bytes(kept.content)
    view = views_of([statement])[0]
    content = _csv(view) if kind == "csv" else _html(view)
    if statement.state != StatementState.DRAFT:
        StatementFile.objects.bulk_create(
            [
                StatementFile(
                    tenant_id=statement.tenant_id, statement=statement, kind=kind, content=content
                )
            ],
            ignore_conflicts=True,
        )
    return content


def file_response(statement: Statement, kind: str) -> HttpResponse:
    """Return a statement's file as a response. HTML may use the style that it holds, and nothing
    else.
    """
    content = file_of(statement, kind)
    response = HttpResponse(content, content_type=CONTENT_TYPES[kind])
    number = statement.number or f"draft-{statement.pk}"
    name = f"statement-{number.replace('/', '-')}.{kind}"
    if kind == "csv":
        response["Content-Disposition"] = content_disposition_header(True, name)
    else:
        style = content.partition(STYLE_START)[2].partition(STYLE_END)[0]
        digest = b64encode(sha256(style).digest()).decode()
        response._csp_replace = {  # type: ignore[attr-defined]
            "default-src": ["'none'"],
            "style-src": [f"'sha256-{digest}'"],
            "img-src": ["data:"],
            "frame-ancestors": ["'self'"],
        }
    return response


def _csv(view: StatementView) -> bytes:
    return "".join(csv_lines(csv_rows(view))).encode()


def _html(view: StatementView) -> bytes:
    context = {**printed_context(view), "style": _style()}
    return render_to_string("billing/statement.html", context).encode()


def printed_context(view: StatementView) -> JsonObject:
    """Return what is printed of a statement, for templates."""
    statement = view.statement
    parties = statement.parties or parties_of(
        statement.customer, billing_settings(statement.tenant_id)
    )
    customer, seller = parties["customer"], parties["seller"]
    context: JsonObject = {
        "statement": statement,
        "title": f"Statement {statement.number or 'draft'}, {customer['name']}",
        "parties": parties,
        "unpriced": view.unpriced,
        "seller_lines": [*_lines(seller["address"]), seller["email"], _vat(seller["vat_id"])],
        "customer_lines": [
            *_lines(customer["address"]),
            customer["country"],
            customer["email"],
            _vat(customer["vat_id"]),
        ],
        "facts": list(_facts(statement, parties)),
        "lines": [_printed(line, statement) for line in view.lines],
        "totals": list(_totals(view)),
    }
    for name in ("seller_lines", "customer_lines"):
        context[name] = [line for line in context[name] if line]
    return context


@cache
def _style() -> str:
    return Path(settings.BASE_DIR, "templates/billing/statement.css").read_text()


def _lines(address: str) -> Sequence[str]:
    return address.splitlines()


def _vat(vat_id: str) -> str:
    return f"VAT ID {vat_id}" if vat_id else ""


def _facts(statement: Statement, parties: JsonObject) -> Iterator[tuple[str, str]]:
    zone = ZoneInfo(statement.timezone)
    days = day_range(statement.period_start, statement.period_end, zone)
    yield "Period", f"{days} ({statement.timezone})"
    if statement.finalized_at is None:
        through = min(timezone.now(), statement.period_end)
        yield "Through", f"{through.astimezone(zone):%b %-d, %Y, %-I:%M %p %Z}"
    else:
        yield "Date", f"{statement.finalized_at.astimezone(zone):%b %-d, %Y}"
    days_due = parties["payment_terms_days"]
    yield "Terms", f"Net {days_due}" if days_due else "Due on receipt"
    if statement.due_on is not None:
        yield "Due", f"{statement.due_on:%b %-d, %Y}"
    yield "Currency", statement.currency


def day_range(starts_at: datetime, ends_at: datetime, zone: ZoneInfo) -> str:
    """The days of a stretch of time, as in Nov 1 to 30, 2026, with a dash."""
    first = starts_at.astimezone(zone)
    last = (ends_at - timedelta(microseconds=1)).astimezone(zone)
    if first.date() == last.date():
        return f"{first:%b %-d, %Y}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first:%b %-d}\N{EN DASH}{last:%-d, %Y}"
    year = "" if first.year == last.year else f", {first.year}"
    return f"{first:%b %-d}{year} \N{EN DASH} {last:%b %-d, %Y}"


def _printed(line: LineView, statement: Statement) -> PrintedLine:
    zone = ZoneInfo(statement.timezone)
    note = day_range(line.starts_at, line.ends_at, zone)
    if line.adjusts:
        note = f"Adjustment of statement {line.adjusts}, {note}"
    elif (line.starts_at, line.ends_at) == (statement.period_start, statement.period_end):
        note = ""
    return PrintedLine(
        name=line.name,
        note=note,
        quantity=decimal_words(Fraction(line.quantity), QUANTITY_PLACES),
        rate=line.rate,
        amount=money_of(line.amount, statement.currency),
        exact=amount_of(line.amount, statement.currency),
        events_url=line.events_url,
    )


def _totals(view: StatementView) -> Iterator[PrintedTotal]:
    currency = view.statement.currency
    for name, amount in total_rows(view.totals):
        yield PrintedTotal(
            name,
            money_of(amount, currency),
            amount_of(amount, currency),
            name in {"Total", "Amount due"},
        )
