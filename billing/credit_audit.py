"""The proof of prepaid credit: balances, what statements used, and limits of wallets recomputed."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from billing.models import Wallet
from billing.wallets import limit_of
from common.queries import fetch_rows
from metering.audit.rollups import Drift
from tenants.scope import tenant_scope


class _Sum(NamedTuple):
    """Rows in which a stored sum is not that of what it sums up: id, expected, stored."""

    subject: str
    part: str
    statement: str


_SUMS: Final = (
    _Sum(
        "credit",
        "balance against its entries",
        "SELECT g.id, coalesce(sum(e.amount), 0), g.balance FROM credit_grant g"
        " LEFT JOIN credit_entry e ON e.grant_id = g.id WHERE g.tenant_id = %(tenant)s"
        " GROUP BY g.id HAVING coalesce(sum(e.amount), 0) <> g.balance ORDER BY g.id",
    ),
    _Sum(
        "credit note",
        "unused against its uses",
        "SELECT n.id, n.total - coalesce(sum(a.amount), 0), n.unused FROM credit_note n"
        " LEFT JOIN credit_note_application a ON a.credit_note_id = n.id"
        " WHERE n.tenant_id = %(tenant)s"
        " GROUP BY n.id HAVING n.total - coalesce(sum(a.amount), 0) <> n.unused ORDER BY n.id",
    ),
    # What is void has given everything back.
    _Sum(
        "statement",
        "prepaid credit against the grants' entries",
        "SELECT s.id, s.used, s.applied FROM (SELECT s.id,"
        " CASE s.state WHEN 'final' THEN s.credit_applied ELSE 0 END AS applied,"
        " -coalesce((SELECT sum(e.amount) FROM credit_entry e WHERE e.statement_id = s.id), 0)"
        " AS used FROM statement s WHERE s.tenant_id = %(tenant)s) s"
        " WHERE s.used <> s.applied ORDER BY s.id",
    ),
    _Sum(
        "statement",
        "credit notes against their uses",
        "SELECT s.id, s.used, s.applied FROM (SELECT s.id,"
        " CASE s.state WHEN 'final' THEN s.credit_notes_applied ELSE 0 END AS applied,"
        " coalesce((SELECT sum(a.amount) FROM credit_note_application a"
        " WHERE a.statement_id = s.id), 0) AS used FROM statement s"
        " WHERE s.tenant_id = %(tenant)s) s WHERE s.used <> s.applied ORDER BY s.id",
    ),
    _Sum(
        "statement",
        "its credit notes against its total",
        "SELECT s.id, s.total, sum(n.total) FROM statement s"
        " JOIN credit_note n ON n.statement_id = s.id WHERE s.tenant_id = %(tenant)s"
        " GROUP BY s.id HAVING sum(n.total) > s.total ORDER BY s.id",
    ),
)


def credit_drifts(tenant_id: int) -> list[Drift]:
    """Return every drift of a tenant's credit, in one snapshot, with the service running."""
    with tenant_scope(tenant_id, is_snapshot=True):
        return [*_sums_drift(tenant_id), *_limits_drift(tenant_id)]


def _sums_drift(tenant_id: int) -> Iterator[Drift]:
    for each in _SUMS:
        for row_id, expected, stored in fetch_rows(each.statement, {"tenant": tenant_id}):
            yield Drift(f"{each.subject} {row_id}", each.part, int(expected), int(stored))


def _limits_drift(tenant_id: int) -> Iterator[Drift]:
    wallets = Wallet.objects.select_related("budget").filter(tenant_id=tenant_id, ended_at=None)
    for wallet in wallets.order_by("id"):
        expected, stored = limit_of(wallet), wallet.budget.limit_cost_nanos or 0
        if expected != stored:
            yield Drift(f"wallet {wallet.id}", "limit against its credit", expected, stored)
