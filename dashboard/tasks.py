"""What the workers do for people's accounts: thin, bounded, safe to run twice."""

from typing import Final

from celery import shared_task
from django.utils import timezone

from dashboard.link_mails import mail_due_links
from tenants import links

# A run ends after this time and the mail that it is about; the next beat continues.
MAIL_SECONDS: Final = 10.0
FORGET_SECONDS: Final = 60.0


@shared_task(ignore_result=True)
def mail_links() -> None:
    """Mail invitations and links for new passwords."""
    mail_due_links(seconds=MAIL_SECONDS)


@shared_task(ignore_result=True)
def forget_old_links() -> None:
    """Remove links that ended long ago."""
    links.forget_old_links(now=timezone.now(), seconds=FORGET_SECONDS)
