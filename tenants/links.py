"""Links that let one person in once: their tokens, and which of them are to be mailed."""

import hashlib
import secrets
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urljoin

from django.conf import settings
from django.db.backends.utils import CursorWrapper
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from tenants.models import Invitation, Link, PasswordReset
from tenants.old_rows import ROWS_A_CHUNK, ChunkedRun

MAIL_ATTEMPTS_MAX: Final = 5
# How long a worker has for one mail before another may try; doubled with each attempt.
MAIL_LEASE: Final = timedelta(minutes=1)
# What is over can still be told apart for a while: "expired", not "unknown".
INVITATION_KEPT: Final = timedelta(days=35)
RESET_KEPT: Final = timedelta(days=1)

AnyLink = TypeVar("AnyLink", bound=Link)


def new_token(link: Link) -> str:
    """Give a link a token, in place of one that it had, and answer it: it is kept as a hash alone.

    The token has 256 random bits, so one round of SHA-256 protects it.
    """
    token = secrets.token_urlsafe(32)
    link.token_hash = token_hash(token)
    return token


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def shown_link(request: HttpRequest, path: str) -> str:
    """A link for the viewer of this page to pass on."""
    url: str | None = settings.ENVIRONMENT.public_url
    return urljoin(url, path) if url else request.build_absolute_uri(path)


def can_mail() -> bool:
    """Whether the service mails links, or shows them."""
    return settings.MAIL_URL is not None


def hand_over(link: Link) -> str | None:
    """Have a link mailed soon, or answer its token for it to be shown. The caller saves it."""
    link.mail_attempts, link.mailed_at, link.mail_error = 0, None, ""
    link.mail_due_at, link.token_hash = None, None
    if not can_mail():
        return new_token(link)
    link.mail_due_at = timezone.now()
    return None


def claim_mail(model: type[AnyLink], *, now: datetime) -> tuple[AnyLink, str] | None:
    """Take the link that has waited longest to be mailed, with a new token; None: none waits.

    A worker that dies leaves it to the next once its time is over.
    """
    due = model._default_manager.filter(mail_due_at__lte=now, expires_at__gt=now)
    link = due.order_by("mail_due_at").select_for_update(skip_locked=True).first()
    if link is None:
        return None
    token = new_token(link)
    link.mail_attempts += 1
    link.mail_due_at = now + MAIL_LEASE * 2**link.mail_attempts
    link.save(update_fields=["token_hash", "mail_attempts", "mail_due_at"])
    return link, token


def note_mail(link: Link, *, error: str = "") -> None:
    """Keep what became of a mail. After some failures it is not tried again by itself."""
    is_over = not error or link.mail_attempts >= MAIL_ATTEMPTS_MAX
    type(link)._default_manager.filter(pk=link.pk, token_hash=link.token_hash).update(
        mail_due_at=None if is_over else F("mail_due_at"),
        mailed_at=None if error else timezone.now(),
        mail_error=error[:300],
    )


def forget_old_links(*, now: datetime, seconds: float) -> int:
    """Remove links that ended long ago, a chunk a transaction; return how many."""
    run = ChunkedRun(seconds)
    return sum(
        run.repeat("links that ended long ago", partial(_forget_some, model, now - kept))
        for model, kept in ((PasswordReset, RESET_KEPT), (Invitation, INVITATION_KEPT))
    )


def _forget_some(
    model: type[Invitation | PasswordReset], before: datetime, cursor: CursorWrapper
) -> int:
    old = model._default_manager.filter(expires_at__lt=before).order_by("expires_at")
    # A link that is made to last longer meanwhile stays.
    ids = list(old.values_list("id", flat=True).select_for_update(skip_locked=True)[:ROWS_A_CHUNK])
    return model._default_manager.filter(id__in=ids).delete()[0]
