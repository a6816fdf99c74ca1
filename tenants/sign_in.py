"""Signing in, and every other place that asks for a password: slowed down, never locked."""

import secrets
from typing import Final

from tenants.attempts import Limit, Tried, claim, forgive
from tenants.models import User, normalize_email
from tenants.passwords import TooManyHashes, checked, hashed

# A minute at the longest: the owner who waits behind a guesser at the same address gets in.
BY_ADDRESS: Final = Limit("address", free=20, longest_seconds=60)
BY_ACCOUNT: Final = Limit("account from address", free=5, longest_seconds=60)


class WrongPassword(Exception):
    """The address and the password do not belong together, or there is no such account."""


def sign_in(*, email: str, password: str, address: str) -> User:
    """The person with this email address and password, tried from a network address.

    Raises WrongPassword, TooSoon or TooManyHashes. It takes as long for an account that does not
    exist, and costs a turn at hashing only after the limits let the try through.
    """
    tried = _tried(email, address)
    claim(*tried)
    user = User.objects.find(email)
    try:
        is_right, renewed = checked(password, user.password if user else None)
    except TooManyHashes:
        forgive(*tried)
        raise
    if user is None or not is_right or not user.is_active:
        raise WrongPassword
    if renewed is not None:
        store_password(user, renewed)
    forgive(tried[0], forget=tried[1:])
    return user


def change_password(*, user: User, old: str, new: str, address: str) -> User:
    """Give a person another password, who knows the old one. Their other sessions end.

    Raises as `sign_in` does, by the same limits.
    """
    person = sign_in(email=user.email, password=old, address=address)
    store_password(person, hashed(new))
    return person


def choose_password(*, new: str, address: str) -> str:
    """Return the stored form of a password that someone chooses over a link, by the same limits."""
    tried = Tried(BY_ADDRESS, address)
    claim(tried)
    try:
        return hashed(new)
    finally:
        # The holder of the link need not guess: what counts is that the turn came after the limit.
        forgive(tried)


def store_password(user: User, stored: str) -> None:
    """Keep a hashed password. Sessions begun with another end at their next request."""
    user.password = stored
    user.save(update_fields=["password"])


def end_other_sessions(user: User) -> User:
    """End every session of a person at its next request; the caller renews the one that stays."""
    user.session_salt = secrets.token_hex(16)
    user.save(update_fields=["session_salt"])
    return user


def set_own_timezone(*, user: User, timezone: str) -> None:
    """Choose the zone in which pages show a person instants; empty: the browser's."""
    user.timezone = timezone
    user.save(update_fields=["timezone"])


def _tried(email: str, address: str) -> tuple[Tried, Tried]:
    account = f"{normalize_email(email)} {address}"
    return Tried(BY_ADDRESS, address), Tried(BY_ACCOUNT, account)
