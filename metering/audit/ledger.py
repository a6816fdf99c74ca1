"""The proof of the ledger and the roll-ups: everything recomputed from entries and events, and from
the seals of those that retention took away.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Final, Literal, NamedTuple

from django.conf import settings

from common.queries import fetch_row, fetch_rows
from metering.audit.rollups import Drift, rollup_drifts
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.calls.seals import read_sealed, sealed_events
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.core.match import group_key
from metering.ledger.counting import held_amounts, stored_amounts
from metering.models import Operation, ReservationState
from metering.usage.event_keys import key_of_id
from tenants.scope import tenant_scope

# This many are enough to see that roll-ups drift; a wrong day may have a hundred thousand rows.
ROLLUP_DRIFTS_MAX: Final = 1_000
PARTS: Final = ("nanos", "tokens", "requests", "tool_calls")


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
            *_balances_drift(tenant_id, "reserved", _HOLDS, "its open reservations, reserved"),
            *_lost_rows(tenant_id, sealed_until),
        ]
        for rule in book.rules.values():
            if rule.is_per_request:
                drifts += _requests_drift(book, rule)
            else:
                drifts += _events_drift(book, rule, sealed_until)
        drifts += islice(rollup_drifts(tenant_id, sealed_until), ROLLUP_DRIFTS_MAX)
        return drifts


def count_seals(tenant_id: int) -> Seals:
    """Count what of a tenant is provable by seals alone."""
    with tenant_scope(tenant_id, is_snapshot=True):
        windows, entries = fetch_row(
            "SELECT count(*), coalesce(sum(entry_count), 0)::bigint FROM window_seal"
            " WHERE tenant_id = %s",
            [tenant_id],
        )
        return Seals(windows, entries, read_sealed(tenant_id).sealed_until)


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
_ORPHANS: Final = """
    SELECT count(*) FROM {table} e WHERE tenant_id = %(tenant)s AND NOT EXISTS (
        SELECT FROM budget_window w WHERE w.tenant_id = e.tenant_id AND w.id = e.window_id)
"""
_SETTLED_WITHOUT_EVENT: Final = f"""
    SELECT count(*) FROM reservation r WHERE r.tenant_id = %(tenant)s
        AND r.state = {ReservationState.SETTLED.value} AND r.created_at >= %(settled_from)s
        AND NOT EXISTS (
            SELECT FROM usage_event e WHERE e.tenant_id = r.tenant_id AND e.id = r.event_id)
"""
_REPEATED_EVENTS: Final = """
    SELECT count(*) - count(DISTINCT (source, sent_id, route, reservation_id))
    FROM usage_event WHERE tenant_id = %(tenant)s AND NOT is_void
"""
# The windows of a revision of a budget.
_WINDOWS: Final = "FROM budget_window WHERE tenant_id = %s AND budget_id = %s AND revision = %s"


def _balances_drift(
    tenant_id: int, balance: Literal["spent", "reserved"], rows: str, against: str
) -> Iterator[Drift]:
    statement = _BALANCE_DRIFTS.format(balance=balance, rows=rows)
    for window_id, *amounts in fetch_rows(statement, {"tenant_id": tenant_id}):
        expected, stored = Amounts(*map(int, amounts[:4])), Amounts(*map(int, amounts[4:]))
        yield from _compare(f"window {window_id} against {against}", expected, stored)


def _lost_rows(tenant_id: int, sealed_until: datetime) -> Iterator[Drift]:
    """Yield rows without the row that they belong to, and events that are counted twice.

    A settled reservation may be without its event where that may be sealed and gone: it may be
    older than its reservation. What it cost may have been rated again.
    """
    tenant, settled_from = {"tenant": tenant_id}, sealed_until + settings.EVENT_MAX_AGE
    for subject, part, statement, parameters in (
        ("entries without a window", "entries", _ORPHANS.format(table="ledger_entry"), tenant),
        ("seals without a window", "seals", _ORPHANS.format(table="window_seal"), tenant),
        (
            "settled reservations without their event",
            "events",
            _SETTLED_WITHOUT_EVENT,
            {**tenant, "settled_from": settled_from},
        ),
        ("events stored more than once", "events", _REPEATED_EVENTS, tenant),
    ):
        (count,) = fetch_row(statement, parameters)
        if count:
            yield Drift(subject, part, 0, count)


def _events_drift(book: BudgetIndex, rule: BudgetRule, sealed_until: datetime) -> Iterator[Drift]:
    """Compare the windows of a budget in force with the sum of the events that count there, older
    ones by the window's seal.
    """
    windows = fetch_rows(
        "SELECT group_key, starts_at, counted_from, spent_nanos, spent_tokens, spent_requests,"
        f" spent_tool_calls {_WINDOWS}",
        [book.tenant_id, rule.id, rule.revision],
    )
    counted_from = {key: at for key, _, at, *_ in windows if at is not None}
    balances = {(key, starts_at): Amounts(*spent) for key, starts_at, _, *spent in windows}
    expected: dict[tuple[str, datetime], Amounts] = {}

    def count(at: datetime, key: str, starts_at: datetime, amounts: Amounts) -> None:
        if rule.is_rolling and key in counted_from and rule.grain_at(at) < counted_from[key]:
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
    for window in sorted(expected.keys() | balances.keys()):
        yield from _compare(
            f"budget {rule.name!r}, group {window[0]}, window from {window[1]:%Y-%m-%d %H:%M} UTC,"
            " against its events",
            expected.get(window, NOTHING),
            balances.get(window, NOTHING),
        )


def _requests_drift(book: BudgetIndex, rule: BudgetRule) -> Iterator[Drift]:
    """Compare the windows of a budget on single calls with their one call, for as long as the call
    is known by its key.

    A report that no longer names the call may have left an empty window behind.
    """
    for window_id, key, source, sent_id, *amounts in fetch_rows(
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
    ):
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
