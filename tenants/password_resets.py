"""A new password for who forgot the old one: by a link, mailed or made by the operator."""

from datetime import timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone

from tenants.attempts import Limit, TooSoon, Tried, claim
from tenants.links import hand_over, new_token, token_hash
from tenants.models import PasswordReset, User, normalize_email
from tenants.sign_in import store_password

LIFETIME: Final = timedelta(hours=1)
ASKED_BY_ADDRESS: Final = Limit("reset by address", free=10, longest_seconds=600)
ASKED_FOR_ACCOUNT: Final = Limit("reset for account", free=3, longest_seconds=3600)


class ResetEnded(Exception):
    """The link was used, has expired, or never existed."""


def ask_for_reset(*, email: str, address: str) -> None:
    """Have a link mailed to the address if it has an account.

    Whether it has one is looked up by the worker that mails, so neither the answer nor its time
    tells. More asks for one account than its limit allows are dropped in silence: who asks may not
    be whose account it is. Raises TooSoon for a network address that asks too often.
    """
    claim(Tried(ASKED_BY_ADDRESS, address))
    email = normalize_email(email)
    try:
        claim(Tried(ASKED_FOR_ACCOUNT, email))
    except TooSoon:
        return
    reset = PasswordReset(email=email, expires_at=timezone.now() + LIFETIME)
    hand_over(reset)
    reset.save()


def make_reset_token(user: User) -> str:
    """The token of a link that the operator hands on."""
    reset = PasswordReset(email=user.email, expires_at=timezone.now() + LIFETIME)
    token = new_token(reset)
    reset.save()
    return token


def find_reset_user(token: str) -> User:
    """Whose password the link may change. Raises ResetEnded."""
    reset = PasswordReset.objects.filter(token_hash=token_hash(token)).first()
    return _user_of(reset)


@transaction.atomic
def reset_password(*, token: str, stored_password: str) -> User:
    """Give the account another hashed password: once. Its sessions end, and its other links too.

    Raises ResetEnded.
    """
    rows = PasswordReset.objects.select_for_update()
    reset = rows.filter(token_hash=token_hash(token)).first()
    user = _user_of(reset)
    # The link was mailed to the address, or the operator gave it.
    user.is_address_proven = True
    user.save(update_fields=["is_address_proven"])
    store_password(user, stored_password)
    now = timezone.now()
    PasswordReset.objects.filter(email=user.email, used_at=None).update(
        used_at=now, mail_due_at=None
    )
    return user


def _user_of(reset: PasswordReset | None) -> User:
    if reset is None or reset.used_at is not None or reset.expires_at <= timezone.now():
        raise ResetEnded
    user = User.objects.find(reset.email)
    if user is None or not user.is_active:
        raise ResetEnded
    return user
