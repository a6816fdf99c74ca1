"""Login sessions of people: each says whose it is, where it began and by which browser, so that a
person can see and end their own.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, login
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from tenants.client_address import client_address
from tenants.models import LoginSession, User

# Where a session keeps what is known of its begin.
BEGAN: Final = "began"
SESSIONS_MAX: Final = 100
BROWSER_CHARACTERS: Final = 300


class SessionStore(DatabaseSessionStore):
    """Django's sessions in the database, with the person in a column of their own."""

    @classmethod
    def get_model_class(cls) -> type[LoginSession]:
        return LoginSession

    def create_model_instance(self, data: dict[str, Any]) -> LoginSession:
        row = cast(LoginSession, super().create_model_instance(data))
        person = data.get(SESSION_KEY)
        row.user_id = None if person is None else int(person)
        return row


class OwnSession(NamedTuple):
    """A session as its person sees it. The id names it without letting anyone use it."""

    id: str
    began_at: datetime | None
    address: str
    browser: str
    is_this: bool


def begin_session(request: HttpRequest, user: User) -> None:
    """Log a person in who has shown who they are."""
    login(request, user)
    request.session[BEGAN] = {
        "at": timezone.now().isoformat(),
        "address": client_address(request),
        "browser": request.headers.get("User-Agent", "")[:BROWSER_CHARACTERS],
    }


def own_sessions(user: User, *, session_key: str | None) -> list[OwnSession]:
    """Return a person's sessions that still work, this one first, then the newest."""
    sessions = [
        OwnSession(
            id=_id_of(row),
            began_at=datetime.fromisoformat(began["at"]) if began else None,
            address=began.get("address", ""),
            browser=began.get("browser", ""),
            is_this=row.session_key == session_key,
        )
        for row, began in _working(user)
    ]
    return sorted(
        sessions, key=lambda session: (session.is_this, str(session.began_at)), reverse=True
    )


def end_own_session(user: User, session_id: str) -> bool:
    """End one of a person's sessions; False where it is none of theirs, or ended already."""
    for row, _ in _working(user):
        if _id_of(row) == session_id:
            return row.delete()[0] > 0
    return False


def _working(user: User) -> Iterator[tuple[LoginSession, dict[str, str]]]:
    """The person's sessions that neither time nor another password has ended."""
    hashes = {user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()}
    rows = LoginSession.objects.filter(user_id=user.pk, expire_date__gt=timezone.now())
    for row in rows.order_by("-expire_date")[:SESSIONS_MAX]:
        data = row.get_decoded()
        if data.get(HASH_SESSION_KEY) in hashes:
            yield row, data.get(BEGAN, {})


def _id_of(row: LoginSession) -> str:
    return salted_hmac("tenants.login_sessions", row.session_key, algorithm="sha256").hexdigest()
