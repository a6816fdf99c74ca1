"""Finding reports by what they share: rows of `event_key`, and the groups of `call_report`."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection

from common.queries import Parameter
from metering.calls.inheritance import reservation_of
from metering.calls.prepared_event import PreparedEvent
from metering.calls.report import Report, report_from_text
from metering.models import Route
from metering.usage.event_keys import key_of_id

MERGE_LOCK: Final = 7304
# Reports of one group. A report beyond that is a call of its own, marked as a conflict.
GROUP_REPORTS_MAX: Final = 64
IDENTITIES: Final = ("response_key", "request_key", "span_key")


class KeyRow(NamedTuple):
    """A report's row in `event_key`, and its group if there are more reports of its call."""

    key: str
    response_key: str | None
    request_key: str | None
    span_key: str | None
    fingerprint: str
    group_id: int | None
    event_id: int
    event_at: datetime


_KEY_COLUMNS: Final = (
    ", ".join(f"replace(k.{name}::text, '-', '')" for name in KeyRow._fields[:5])
    + ", r.group_id, k.event_id, k.event_at"
)


# PostgreSQL has no statistics of a new tenant, and takes any index that begins with the tenant for
# good enough. "+ 0" leaves it the index of the other column; LIMIT keeps it a look-up.
_LOOK_UP: Final = f"""
    SELECT {_KEY_COLUMNS} FROM unnest(%s::uuid[]) AS n (value)
    CROSS JOIN LATERAL (
        SELECT * FROM event_key k WHERE k.tenant_id{{unless_key}} = %s AND k.{{name}} = n.value
        LIMIT 1
    ) k LEFT JOIN LATERAL (
        SELECT group_id FROM call_report r WHERE r.tenant_id = %s AND r.key = k.key LIMIT 1
    ) r ON true
"""


def lock_merging(tenant_id: int) -> None:
    """Let no other transaction of the tenant merge reports until this one ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [MERGE_LOCK, tenant_id])


def load_keys(tenant_id: int, **wanted: Iterable[str | None]) -> dict[str, KeyRow]:
    """Return the rows of `event_key` with these values, by column; by key."""
    branches: list[str] = []
    parameters: list[Parameter] = []
    for name, values in wanted.items():
        if present := sorted({value for value in values if value is not None}):
            unless_key = "" if name == "key" else " + 0"
            branches.append(_LOOK_UP.format(name=name, unless_key=unless_key))
            parameters += [present, tenant_id, tenant_id]
    if not branches:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(branches), parameters)
        return {row[0]: KeyRow(*row) for row in cursor.fetchall()}


def load_reports(tenant_id: int, groups: Iterable[int]) -> list[tuple[Report, int]]:
    """Return the reports of these groups, each with the call that it belongs to."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.report, r.event_id FROM unnest(%s::bigint[]) AS n (id)"
            " JOIN LATERAL (SELECT event_id, report FROM call_report r"
            " WHERE r.tenant_id + 0 = %s AND r.group_id = n.id LIMIT %s) r ON true",
            [list(groups), tenant_id, 2 * GROUP_REPORTS_MAX],
        )
        return [(report_from_text(text), event_id) for text, event_id in cursor.fetchall()]


def second_key(event: PreparedEvent) -> str:
    """Return the key of a report whose own key belongs to a report of another kind: a client may
    name its call alike in its event and in its settle, and these are two reports all the same.
    """
    return key_of_id(f"{event.body.source or ''}\x00{kind_of_report(event)}", event.body.id)


def kind_of_report(event: PreparedEvent) -> str:
    """Reports of one kind and id replace or contradict each other; those of two kinds are two."""
    reservation_id = reservation_of(event.sent_body)
    return _kind(event.route, None if reservation_id is None else str(reservation_id))


def kind_of_stored(report: Report) -> str:
    """Return the kind of a report that is stored."""
    return _kind(report.route, report.body.reservation)


def _kind(route: int, reservation: str | None) -> str:
    if route == Route.SETTLE:
        return f"settle {reservation}"
    return "span" if route == Route.OTLP else "event"
