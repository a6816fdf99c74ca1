"""One call and its reports."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from common.errors import NotFound
from common.values import normal_value
from metering.calls.report import report_from_text
from metering.models import CallReport, EventKey, UsageEvent
from metering.usage.event_keys import key_of_id


class ReportOfCall(NamedTuple):
    """What one report said of itself. `route` is the number that is stored."""

    source: str
    sent_id: str
    route: int
    at: datetime


class OneCall(NamedTuple):
    """A call as it is stored, and its reports; the first names the call."""

    event: UsageEvent
    reports: list[ReportOfCall]


def read_call(
    *, tenant_id: int, source: str, sent_id: str, teams: Sequence[str] | None = None
) -> OneCall:
    """Return the call of the report with this source and id. `teams` leaves out the calls
    of all other teams. Raises NotFound.
    """
    own_key = key_of_id(normal_value(source), sent_id)
    key = EventKey.objects.filter(tenant_id=tenant_id, key=own_key).first()
    event = None
    if key is not None:
        events = UsageEvent.objects.filter(tenant_id=tenant_id, id=key.event_id)
        event = events.filter(time=key.event_at).first()
    if event is None or (teams is not None and event.team not in teams):
        raise NotFound("There is no such call.")
    own = ReportOfCall(event.source, event.sent_id, event.route, event.time)
    # Groups are found by their own index; a call with one report is in none.
    group = CallReport.objects.filter(tenant_id=tenant_id, key=own_key).first()
    if group is None:
        return OneCall(event, [own])
    rows = CallReport.objects.filter(tenant_id=tenant_id, group_id=group.group_id)
    stored = [report_from_text(row.report) for row in rows if row.event_id == event.id]
    further = [
        ReportOfCall(report.body.source or "", report.body.id, report.route, report.at)
        for report in stored
        if (report.body.source or "", report.body.id) != (event.source, event.sent_id)
    ]
    return OneCall(event, [own, *sorted(further, key=lambda report: report.at)])
