"""The proof of the ledger and the roll-ups: everything recomputed from entries and events, and from
the seals of those that retention took away.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

from django.conf import settings
from django.db import connection

from metering.audit.rollups import rollup_drifts
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.calls.seals import read_sealed, sealed_events
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.core.match import group_key
from metering.ledger.counting import held_amounts, stored_amounts
from metering.models import Operation, ReservationState
from metering.rollups.sets import DAY_SECONDS
from metering.usage.event_keys import key_of_id
from tenants.scope import tenant_scope

# This many are enough to see that roll-ups drift; a wrong day may have a hundred thousand rows.
ROLLUP_DRIFTS_MAX: Final = 1_000
PARTS: Final = ("nanos", "tokens", "requests", "tool_calls")


class Drift(NamedTuple):
    """A balance that is not what it must be. `subject` says which, `expected` and `found` in its
    unit.
    """

    subject: str
    part: str
    expected: int
    found: int

    def __str__(self) -> str:
        difference = self.found - self.expected
        return (
            f"{self.subject}: {self.part} is {self.found:,}, must be {self.expected:,}"
            f" ({difference:+,})"
        )


class Seals(NamedTuple):
    """The number of windows with seals, of the removed entries in these, and until when usage is
    sealed (the epoch: none is).
    """

    windows: int
    entries: int
    until: datetime


def audit_tenant(tenant_id: int) -> list[Drift]:
    """Return every drift of a tenant's balances, in one snapshot, with the service running."""
    with tenant_scope(tenant_id, is_snapshot=True):
        book = read_budget_index(tenant_id)
        sealed_until = read_sealed(tenant_id).sealed_until
        drifts = [
            *_balances_drift(tenant_id, "spent", _ENTRIES, "its entries"),
            *_orphans(tenant_id),
            *_balances_drift(tenant_id, "reserved", _HOLDS, "its open reservations, reserved"),
            *_settled_drift(tenant_id, sealed_until),
            *_repeated_events(tenant_id),
        ]
        for rule in book.rules.values():
            if rule.is_per_request:
                drifts += _requests_drift(book, rule)
            else:
                drifts += _events_drift(book, rule, sealed_until)
        drifts += _rollup_drifts(tenant_id, sealed_until)
        return drifts


def count_seals(tenant_id: int) -> Seals:
    """Count what of a tenant is provable by seals alone."""
    with tenant_scope(tenant_id, is_snapshot=True), connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(entry_count), 0)::bigint FROM window_seal"
            " WHERE tenant_id = %s",
            [tenant_id],
        )
        windows, entries = cursor.fetchone()
        return Seals(windows, entries, read_sealed(tenant_id).sealed_until)


def _rollup_drifts(tenant_id: int, sealed_until: datetime) -> Iterator[Drift]:
    """Yield roll-ups that are not the sums of the events of their batches; of days whose events are
    sealed, those that differ from the sums of the whole day.
    """
    for drift in islice(rollup_drifts(tenant_id, sealed_until), ROLLUP_DRIFTS_MAX):
        dimensions = drift.dimension_set.dimensions
        values = " ".join(
            f"{name}={value.strip()!r}"
            for name, value in zip(dimensions, drift.values, strict=False)
        )
        grain = "day" if drift.dimension_set.grain_seconds == DAY_SECONDS else "quarter of an hour"
        yield Drift(
            f"roll-up of the {grain} from {drift.starts_at:%Y-%m-%d %H:%M} UTC"
            f"{f', {values}' if values else ''}, against its events",
            drift.measure,
            drift.expected,
            drift.stored,
        )


_ENTRIES: Final = """
    SELECT window_id, cost_nanos AS nanos, tokens, requests, tool_calls
    FROM ledger_entry WHERE tenant_id = %(tenant_id)s
    UNION ALL
    SELECT window_id, entry_nanos, entry_tokens, entry_requests, entry_tool_calls
    FROM window_seal WHERE tenant_id = %(tenant_id)s
"""
_HOLDS: Final = f"""
    SELECT window_id, reserved_nanos AS nanos, reserved_tokens AS tokens,
        reserved_requests AS requests, reserved_tool_calls AS tool_calls
    FROM reservation, unnest(window_ids) AS window_id
    WHERE tenant_id = %(tenant_id)s AND state = {ReservationState.OPEN.value}
"""
# Windows in which a balance is not the sum of these rows.
_BALANCE_DRIFTS: Final = f"""
    SELECT w.id, {", ".join(f"coalesce(s.{part}, 0)" for part in PARTS)},
        {", ".join(f"w.{{balance}}_{part}" for part in PARTS)}
    FROM budget_window w LEFT JOIN (
        SELECT window_id, {", ".join(f"sum({part})::numeric AS {part}" for part in PARTS)}
        FROM ({{rows}}) rows GROUP BY window_id
    ) s ON s.window_id = w.id
    WHERE w.tenant_id = %(tenant_id)s AND ({", ".join(f"w.{{balance}}_{part}" for part in PARTS)})
        IS DISTINCT FROM ({", ".join(f"coalesce(s.{part}, 0)" for part in PARTS)})
"""


def _balances_drift(
    tenant_id: int, balance: Literal["spent", "reserved"], rows: str, against: str
) -> Iterator[Drift]:
    with connection.cursor() as cursor:
        statement = _BALANCE_DRIFTS.format(balance=balance, rows=rows)
        cursor.execute(statement, {"tenant_id": tenant_id})
        for window_id, *amounts in cursor.fetchall():
            expected, stored = Amounts(*map(int, amounts[:4])), Amounts(*map(int, amounts[4:]))
            yield from _compare(f"window {window_id} against {against}", expected, stored)


def _orphans(tenant_id: int) -> Iterator[Drift]:
    with connection.cursor() as cursor:
        for rows, table in (("entries", "ledger_entry"), ("seals", "window_seal")):
            cursor.execute(
                f"SELECT count(*) FROM {table} e WHERE tenant_id = %s AND NOT EXISTS (SELECT FROM"
                " budget_window w WHERE w.tenant_id = e.tenant_id AND w.id = e.window_id)",
                [tenant_id],
            )
            (orphans,) = cursor.fetchone()
            if orphans:
                yield Drift(f"{rows} without a window", rows, 0, orphans)


def _settled_drift(tenant_id: int, sealed_until: datetime) -> Iterator[Drift]:
    """Count settled reservations whose event is not there, unless it may be sealed and gone: it may
    be older than its reservation. What it cost may have been rated again.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT count(*) FROM reservation r WHERE r.tenant_id = %s
                AND r.state = {ReservationState.SETTLED.value} AND r.created_at >= %s
                AND NOT EXISTS (SELECT FROM usage_event e WHERE e.tenant_id = r.tenant_id
                    AND e.id = r.event_id)
            """,
            [tenant_id, sealed_until + settings.EVENT_MAX_AGE],
        )
        (lost,) = cursor.fetchone()
    if lost:
        yield Drift("settled reservations without their event", "events", 0, lost)


def _repeated_events(tenant_id: int) -> Iterator[Drift]:
    """Count events that are stored, and so counted, more than once."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) - count(DISTINCT (source, sent_id, route, reservation_id))"
            " FROM usage_event"
            " WHERE tenant_id = %s AND NOT is_void",
            [tenant_id],
        )
        (repeats,) = cursor.fetchone()
    if repeats:
        yield Drift("events stored more than once", "events", 0, repeats)


def _events_drift(book: BudgetIndex, rule: BudgetRule, sealed_until: datetime) -> Iterator[Drift]:
    """Compare the windows of a budget in force with the sum of the events that count there, older
    ones by the window's seal.
    """
    counted_from = _counted_from(book.tenant_id, rule) if rule.is_rolling else {}
    expected: dict[tuple[str, Any], Amounts] = {}

    def count(at: datetime, key: str, starts_at: datetime, amounts: Amounts) -> None:
        if key in counted_from and rule.grain_at(at) < counted_from[key]:
            return
        window = (key, starts_at)
        expected[window] = add_amounts(expected.get(window, NOTHING), amounts)

    for seal in sealed_events(tenant_id=book.tenant_id, budget_id=rule.id, revision=rule.revision):
        expected[seal.group_key, seal.starts_at] = seal.amounts
    for at, group, amounts in stored_amounts(rule, tenant_id=book.tenant_id, since=sealed_until):
        span = rule.span(at)
        if span is not None:
            count(at, group_key(group), span.starts_at, amounts)
    for at, key, starts_at, amounts in held_amounts(
        rule, tenant_id=book.tenant_id, since=sealed_until
    ):
        count(at, key, starts_at, amounts)
    balances = _balances(book.tenant_id, rule)
    for window in sorted(expected.keys() | balances.keys()):
        yield from _compare(
            f"budget {rule.name!r}, group {window[0]}, window from {window[1]:%Y-%m-%d %H:%M} UTC,"
            " against its events",
            expected.get(window, NOTHING),
            balances.get(window, NOTHING),
        )


def _counted_from(tenant_id: int, rule: BudgetRule) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT group_key, counted_from FROM budget_window WHERE tenant_id = %s AND"
            " budget_id = %s"
            " AND revision = %s AND counted_from IS NOT NULL",
            [tenant_id, rule.id, rule.revision],
        )
        return dict(cursor.fetchall())


def _balances(tenant_id: int, rule: BudgetRule) -> dict[tuple[str, Any], Amounts]:
    """Return what the windows of a rule hold."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT group_key, starts_at, spent_nanos, spent_tokens, spent_requests,"
            " spent_tool_calls FROM budget_window"
            " WHERE tenant_id = %s AND budget_id = %s AND revision = %s",
            [tenant_id, rule.id, rule.revision],
        )
        return {(row[0], row[1]): Amounts(*row[2:]) for row in cursor.fetchall()}


def _requests_drift(book: BudgetIndex, rule: BudgetRule) -> Iterator[Drift]:
    """Compare the windows of a budget on single calls with their one call, for as long as the call
    is known by its key.

    A report that no longer names the call may have left an empty window behind.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT w.id, w.group_key::jsonb ->> -1, e.source, e.sent_id,
                w.spent_nanos, w.spent_tokens, w.spent_requests, w.spent_tool_calls,
                coalesce(e.cost_nanos, 0), coalesce(e.input_tokens + e.output_tokens, 0),
                CASE WHEN e.id IS NULL OR e.operation = {Operation.TOOL.value} THEN 0 ELSE 1 END,
                CASE WHEN e.operation = {Operation.TOOL.value} THEN 1 ELSE 0 END
            FROM budget_window w
            JOIN event_key k ON k.tenant_id = w.tenant_id
                AND k.key = (w.group_key::jsonb ->> -1)::uuid
            LEFT JOIN usage_event e ON e.tenant_id = w.tenant_id AND e.id = k.event_id
                AND e.time = k.event_at AND NOT e.is_void
            WHERE w.tenant_id = %s AND w.budget_id = %s AND w.revision = %s
            """,
            [book.tenant_id, rule.id, rule.revision],
        )
        for window_id, key, source, sent_id, *amounts in cursor.fetchall():
            is_its_call = source is not None and key_of_id(source, sent_id) == key
            yield from _compare(
                f"budget {rule.name!r}, window {window_id}, against its call",
                Amounts(*amounts[4:]) if is_its_call else NOTHING,
                Amounts(*amounts[:4]),
            )


def _compare(subject: str, expected: Amounts, stored: Amounts) -> Iterator[Drift]:
    for part, wanted, have in zip(PARTS, expected, stored, strict=True):
        if wanted != have:
            yield Drift(subject, part, wanted, have)
