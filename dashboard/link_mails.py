"""Mails with links that let a person in: an invitation, a new password."""

import time
from typing import Final
from urllib.parse import urljoin

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from alerts.channels.email import mail_text
from alerts.channels.kind import NotDelivered
from common.formats import format_time
from tenants.links import claim_mail, note_mail
from tenants.models import Invitation, Link, PasswordReset, User
from tenants.scope import platform_scope

INVITATION_TEXT: Final = """\
{inviter} invited you to {tenant} on Spendgate, with the role "{role}".

Accept the invitation: {link}

The link works once, until {until}. If you did not expect it, ignore this email: nothing
happens unless you accept.
"""
RESET_TEXT: Final = """\
Someone requested a new password for {email} on Spendgate.

Choose a new password: {link}

The link works once, until {until}. If it was not you, ignore this email: your password
does not change.
"""


def mail_due_links(*, seconds: float) -> int:
    """Mail the links that are due, one after the other, for about so long; how many were tried.

    No transaction is open while a mail server answers.
    """
    ends_at, tried = time.monotonic() + seconds, 0
    for model in (PasswordReset, Invitation):
        while time.monotonic() < ends_at:
            with platform_scope("mail links to people"):
                claimed = claim_mail(model, now=timezone.now())
                mail = _mail_of(*claimed) if claimed else None
            if claimed is None:
                break
            tried += 1
            if mail is not None:
                _send(claimed[0], *mail)
    return tried


def _mail_of(link: Link, token: str) -> tuple[str, str, str] | None:
    """Recipient, subject and text; None for an address without an account, which gets no mail."""
    until = format_time(link.expires_at)
    if isinstance(link, Invitation):
        text = INVITATION_TEXT.format(
            inviter=link.invited_by,
            tenant=link.tenant.name,
            role=link.role,
            link=_address("invitation", token),
            until=until,
        )
        return link.email, f"Your invitation to {link.tenant.name} on Spendgate", text
    assert isinstance(link, PasswordReset)
    user = User.objects.find(link.email)
    if user is None or not user.is_active:
        link.delete()
        return None
    text = RESET_TEXT.format(email=link.email, link=_address("new_password", token), until=until)
    return link.email, "Choose a new password for Spendgate", text


def _send(link: Link, recipient: str, subject: str, text: str) -> None:
    reference = f"spendgate-{link._meta.model_name}-{link.pk}-{link.mail_attempts}"
    error = ""
    try:
        mail_text(recipient, subject=subject, text=text, reference=reference)
    except NotDelivered as refusal:
        error = refusal.detail
    with platform_scope("note that a link was mailed"):
        note_mail(link, error=error)


def _address(page: str, token: str) -> str:
    environment = settings.ENVIRONMENT
    return urljoin(
        environment.public_url or environment.url, reverse(f"dashboard:{page}", args=[token])
    )
