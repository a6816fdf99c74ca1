"""What the workers do for people: thin, bounded, safe to run twice."""

from functools import partial
from typing import Final

from celery import shared_task
from django.utils import timezone

from dashboard.link_mails import mail_due_links
from dashboard.reports import schedules
from tenants import links
from tenants.runs import TenantRun, shuffled

# A run ends after this time and the mail that it is about; the next beat continues.
MAIL_SECONDS: Final = 10.0
FORGET_SECONDS: Final = 60.0
REPORTS_SECONDS: Final = 30.0


@shared_task(ignore_result=True)
def mail_links() -> None:
    """Mail invitations and links for new passwords."""
    mail_due_links(seconds=MAIL_SECONDS)


@shared_task(ignore_result=True)
def forget_old_links() -> None:
    """Remove links that ended long ago."""
    links.forget_old_links(now=timezone.now(), seconds=FORGET_SECONDS)


@shared_task(ignore_result=True)
def send_reports() -> None:
    """Queue the scheduled reports that are due."""
    now = timezone.now()
    run = TenantRun(REPORTS_SECONDS)
    run.each(
        "send_reports",
        shuffled(partial(schedules.tenants_with_due, now)),
        partial(schedules.send_due, now=now),
    )
    run.report()


@shared_task(ignore_result=True)
def remove_old_reports() -> None:
    """Remove what is known of reports that are too old to be kept."""
    schedules.remove_old_reports(seconds=FORGET_SECONDS)
