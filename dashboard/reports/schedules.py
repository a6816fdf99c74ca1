"""Reports that are sent by the clock: making them, and sending what is due.

The rows are the queue: a report of a period is written with its delivery in one transaction, which
only one worker can commit. Figures are read before it, in a snapshot of their own.
"""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from alerts.channels.email import can_mail_people
from alerts.delivery.requests import queue_report
from alerts.errors import AskedTooOften, ChannelUnavailable
from alerts.messages import Message
from alerts.models import Channel, ChannelKind
from common.database_errors import name_once
from common.errors import InvalidRequest
from dashboard.access import PageRequest
from dashboard.models import Cadence, ReportSchedule, SavedView, SentReport
from dashboard.reports.content import message_of, view_of
from dashboard.reports.periods import Period, due_after, period_before
from dashboard.reports.saved_views import readable, role_of
from metering.reporting.question import InvalidQuestion
from tenants.admin_site import actor_of
from tenants.audit import create_audited, delete_audited
from tenants.limits import require_room
from tenants.members import visible_teams
from tenants.models import Tenant
from tenants.old_rows import ChunkedRun
from tenants.roles import SCOPES_BY_ROLE, Scope
from tenants.runs import tenants_of
from tenants.scope import tenant_scope

# Of one tenant in one turn; the next turn continues.
SENT_MAX: Final = 20
TESTS_PER_MINUTE: Final = 5
ONE_MINUTE: Final = timedelta(minutes=1)
HOURS: Final = range(24)
# A report is for people to read.
NO_REPORTS: Final = frozenset({ChannelKind.PAGERDUTY})
NO_MAIL: Final = "This service has no mail server: choose a channel."


class WrongSchedule(InvalidRequest):
    """What a scheduled report cannot be."""

    code = "invalid_report"


class NotPermitted(Exception):
    """The owner may not be sent this report any more; the message says why."""


def usable_channels(tenant_id: int) -> list[Channel]:
    """Channels that can take a report, by name."""
    rows = Channel.objects.filter(tenant_id=tenant_id, removed_at=None).exclude(kind__in=NO_REPORTS)
    return list(rows.order_by("name", "id"))


def create_schedule(
    request: PageRequest, *, view: SavedView, cadence: str, hour: int, channel: Channel | None
) -> ReportSchedule:
    """Send a view from its next period on. Raises WrongSchedule."""
    if cadence not in Cadence.values or hour not in HOURS:
        raise WrongSchedule("Choose daily, weekly or monthly, and an hour from 0 to 23.")
    if channel is None and not can_mail_people():
        raise WrongSchedule(NO_MAIL)
    tenant = request.tenant
    zone = ZoneInfo(tenant.timezone)
    require_room(tenant.id, "scheduled_reports", ReportSchedule.objects.filter(tenant=tenant))
    teams = visible_teams(tenant_id=tenant.id, user_id=request.user.pk, role=request.role)
    schedule = ReportSchedule(
        tenant=tenant,
        view=view,
        owner=request.user,
        cadence=cadence,
        hour=hour,
        channel=channel,
        is_limited=teams is not None,
        next_due_at=due_after(cadence, hour, zone, timezone.now()),
    )
    with name_once("report", f"{view.name}, {cadence}"), transaction.atomic():
        return create_audited(schedule, actor=actor_of(request))


def remove_old_reports(*, seconds: float) -> int:
    """Remove what is known of reports too old to be kept; return the number of removed rows."""
    before = timezone.now() - settings.RETENTION_INCIDENTS
    run = ChunkedRun(seconds)
    return run.remove_by_id(SentReport.objects.all(), at="created_at", before=before)


def delete_schedule(request: PageRequest, schedule: ReportSchedule) -> None:
    """Send it no more."""
    with transaction.atomic():
        delete_audited(schedule, actor=actor_of(request))


def send_test(request: PageRequest, schedule: ReportSchedule) -> None:
    """Send the last period's report now, to whom it goes. Raises AskedTooOften, ChannelUnavailable
    and WrongSchedule.
    """
    now = timezone.now()
    Tenant.objects.select_for_update(no_key=True).get(id=request.tenant.id)
    recent = SentReport.objects.filter(
        tenant=request.tenant, is_test=True, created_at__gt=now - ONE_MINUTE
    )
    if recent.count() >= TESTS_PER_MINUTE:
        raise AskedTooOften(
            f"At most {TESTS_PER_MINUTE} tests of reports are sent within a minute.",
            retry_after_seconds=int(ONE_MINUTE.total_seconds()),
        )
    period = _period(schedule, now)
    try:
        message = _message(schedule, period, is_test=True, now=now)
        _write(schedule, period, message, is_test=True)
    except NotPermitted as refusal:
        raise WrongSchedule(f"Not sent: {refusal}") from refusal


def tenants_with_due(now: datetime) -> list[int]:
    """Tenants with a report that is due. Needs a platform scope."""
    return tenants_of(ReportSchedule.objects.filter(next_due_at__lte=now))


def send_due(*, tenant_id: int, now: datetime) -> int:
    """Queue the reports of a tenant that are due; return their number. Of periods that were missed
    only the last is sent.
    """
    with tenant_scope(tenant_id):
        due = ReportSchedule.objects.filter(tenant_id=tenant_id, next_due_at__lte=now)
        ids = list(due.order_by("next_due_at", "id").values_list("id", flat=True)[:SENT_MAX])
    for schedule_id in ids:
        _send(tenant_id, schedule_id, now)
    return len(ids)


def _send(tenant_id: int, schedule_id: int, now: datetime) -> None:
    message, refusal = None, ""
    with tenant_scope(tenant_id, is_snapshot=True):
        rows = ReportSchedule.objects.select_related("tenant", "view", "owner", "channel")
        schedule = rows.filter(id=schedule_id, next_due_at__lte=now).first()
        if schedule is None:
            return
        period = _period(schedule, now)
        try:
            message = _message(schedule, period, is_test=False, now=now)
        except NotPermitted as error:
            refusal = str(error)
    with tenant_scope(tenant_id):
        zone = ZoneInfo(schedule.tenant.timezone)
        following = due_after(schedule.cadence, schedule.hour, zone, now)
        claimed = ReportSchedule.objects.filter(
            id=schedule_id, next_due_at=schedule.next_due_at
        ).update(next_due_at=following)
        if not claimed:
            return
        is_known = SentReport.objects.filter(
            schedule=schedule, period_start=period.first, is_test=False
        ).exists()
        if is_known:  # the zone was changed, which made the same period due again
            return
        if message is not None:
            try:
                _write(schedule, period, message, is_test=False)
                return
            except ChannelUnavailable as error:
                refusal = error.detail
        _note_refusal(schedule, period, refusal)


def _period(schedule: ReportSchedule, now: datetime) -> Period:
    zone = ZoneInfo(schedule.tenant.timezone)
    return period_before(schedule.cadence, now.astimezone(zone).date())


def _message(schedule: ReportSchedule, period: Period, *, is_test: bool, now: datetime) -> Message:
    """The report with the rights that its owner has now. Raises NotPermitted."""
    owner = schedule.owner
    role = role_of(tenant_id=schedule.tenant_id, user_id=owner.pk)
    if role is None:
        raise NotPermitted(f"{owner.email} is not a member any more.")
    views = readable(tenant_id=schedule.tenant_id, user_id=owner.pk, role=role)
    if not views.filter(id=schedule.view_id).exists():
        raise NotPermitted(f"{owner.email} may not open this view any more.")
    teams = visible_teams(tenant_id=schedule.tenant_id, user_id=owner.pk, role=role)
    if teams is None and schedule.is_limited and Scope.MANAGE not in SCOPES_BY_ROLE[role]:
        raise NotPermitted(f"{owner.email} is in no team any more.")
    view = view_of(schedule, period, teams=teams, now=now)
    try:
        return message_of(schedule, view, is_test=is_test, now=now)
    except InvalidQuestion as error:
        raise NotPermitted(error.detail) from error


def _write(schedule: ReportSchedule, period: Period, message: Message, *, is_test: bool) -> None:
    recipients = [] if schedule.channel else [schedule.owner.email]
    delivery = queue_report(
        tenant_id=schedule.tenant_id,
        channel=schedule.channel,
        recipients=recipients,
        message=message,
    )
    SentReport.objects.create(
        tenant_id=schedule.tenant_id,
        schedule=schedule,
        period_start=period.first,
        is_test=is_test,
        delivery=delivery,
    )


def _note_refusal(schedule: ReportSchedule, period: Period, refusal: str) -> None:
    SentReport.objects.create(
        tenant_id=schedule.tenant_id,
        schedule=schedule,
        period_start=period.first,
        refusal=refusal[:300],
    )
