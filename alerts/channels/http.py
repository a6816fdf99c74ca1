"""Posts to the addresses of channels, within the limits of `alerts.outbound`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import msgspec
import requests
from urllib3.exceptions import HTTPError

from alerts.channels.addresses import reach_of
from alerts.channels.kind import NotDelivered, Sent
from alerts.outbound import CALL_SECONDS, CONNECT_SECONDS, Call, calling_out

USER_AGENT: Final = "Spendgate"
GONE: Final = 410
TOO_MANY: Final = 429
STATUSES_WITH_RETRY_AFTER: Final = frozenset({TOO_MANY, 503})
TOO_SLOW: Final = "The receiver did not answer in time."
# The first that matches counts.
DETAIL_BY_ERROR: Final[Sequence[tuple[type[Exception], str]]] = (
    (requests.ReadTimeout, TOO_SLOW),
    (requests.exceptions.SSLError, "The receiver's certificate or encryption cannot be trusted."),
    (
        requests.ConnectTimeout,
        f"The receiver did not accept a connection within {CONNECT_SECONDS:.0f} seconds.",
    ),
    (
        requests.ConnectionError,
        "The receiver cannot be reached, or closed the connection without an answer.",
    ),
)
# However long a receiver asks to wait, it is tried again after this.
RETRY_AFTER_MAX_SECONDS: Final = 3600.0


class _Session(requests.Session):
    """Ignores redirects. The library reads and unpacks the whole body of one even if it does not
    follow it: that of a hostile receiver never ends.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def post_json(url: str, value: object, *, seconds: float = CALL_SECONDS) -> Sent:
    """Post a value as JSON. Raises NotDelivered unless the answer is a success."""
    return post(url, msgspec.json.encode(value), seconds=seconds)


def post(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float = CALL_SECONDS,
) -> Sent:
    """Post JSON bytes. Raises NotDelivered unless the answer is a success within `seconds`.

    Redirects are not followed, and proxies and passwords of this machine's environment are not
    used. The answer's body is not read: the receiver chooses it, and it may repeat a secret.
    """
    status, answered = _answer(url, body, headers or {}, seconds)
    if 200 <= status < 300:
        return Sent(status)
    raise NotDelivered(
        _sentence(status),
        status=status,
        is_receiver_down=status == TOO_MANY or status >= 500,
        is_final=status == GONE,
        retry_after_seconds=_retry_after_seconds(status, answered),
    )


def _answer(
    url: str, body: bytes, headers: Mapping[str, str], seconds: float
) -> tuple[int, Mapping[str, str]]:
    with calling_out(reach=reach_of(url), seconds=seconds) as call, _Session() as session:
        session.trust_env = False
        try:
            response = session.post(
                url,
                data=body,
                headers={
                    "User-Agent": USER_AGENT,
                    "Content-Type": "application/json",
                    **headers,
                },
                timeout=(CONNECT_SECONDS, seconds),
                allow_redirects=False,
                stream=True,
            )
            response.close()
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise NotDelivered(_reason(error, call)) from None
    return response.status_code, response.headers


def _reason(error: Exception, call: Call) -> str:
    """Say why there was no answer. The library's own message holds the whole address."""
    if call.refusal:
        return call.refusal
    if call.is_late:
        return TOO_SLOW
    reasons = (detail for kind, detail in DETAIL_BY_ERROR if isinstance(error, kind))
    return next(reasons, "The receiver's address or answer cannot be understood.")


def _sentence(status: int) -> str:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    if 300 <= status < 400:
        return f"The receiver answered {phrase}: redirects are not followed, enter the new address."
    return f"The receiver answered {phrase}."


def _retry_after_seconds(status: int, headers: Mapping[str, str]) -> float | None:
    if status not in STATUSES_WITH_RETRY_AFTER or "Retry-After" not in headers:
        return None
    seconds = _seconds(headers["Retry-After"].strip())
    return None if seconds is None else min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)


def _seconds(text: str) -> float | None:
    """Read a delay in seconds, or until a date."""
    if text.isascii() and text.replace(".", "", 1).isdecimal():
        return float(text[:20])
    try:
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
