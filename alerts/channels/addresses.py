"""Fields of channels as people type them: addresses on the web, keys, lists."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from alerts.channels.kind import Fields
from alerts.errors import WrongChannel
from alerts.outbound import Reach, literal_address, may_reach, refusal

URL_MAX_CHARACTERS: Final = 2000
FORM: Final = "must be an address such as https://host/path"


def read_text(given: Fields, name: str) -> str:
    """Return a text, stripped. Raises WrongChannel if it is missing or not a text."""
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise WrongChannel(name, "is required")
    text = value.strip()
    if len(text) > URL_MAX_CHARACTERS or not text.isprintable():
        raise WrongChannel(name, f"must be printable and at most {URL_MAX_CHARACTERS} characters")
    return text


def read_url(given: Fields, name: str = "url") -> str:
    """Return a web address that may be called. Raises WrongChannel.

    An address that spells a private network is refused here. A name is not resolved: it may lead
    elsewhere tomorrow, and is checked at every connection.
    """
    url = read_text(given, name)
    parts = _split(url, name)
    check_host(parts.hostname or "", name, reach=reach_of(url))
    return url


def reach_of(url: str) -> Reach:
    """Return what a call to this address may connect to.

    Without encryption anyone on the way could read and change alerts, and learn the secret part of
    the address; so `http` leads only into networks that the operator allows, for gateways there.
    """
    return Reach.PUBLIC if url.lower().startswith("https://") else Reach.ALLOWED


def check_host(host: str, name: str, *, reach: Reach) -> None:
    """Refuse a host that is spelled as a private address."""
    plain = host.rstrip(".").lower()
    is_local = plain == "localhost" or plain.endswith(".localhost")
    address = literal_address("127.0.0.1" if is_local else plain)
    if address is not None:
        is_allowed = may_reach(address, reach=reach)
    else:
        is_allowed = reach is Reach.PUBLIC or bool(settings.CHANNEL_NETWORKS)
    if not is_allowed:
        raise WrongChannel(name, refusal(reach))


def shown_url(url: str, *, with_path: bool) -> str:
    """Return what anyone may see of an address: no user, no query, and no path if it is secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if with_path else "/…"
    return f"{parts.scheme}://{host}{path}{'?…' if with_path and parts.query else ''}"


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or " " in url or "\\" in url:
        raise WrongChannel(name, FORM)
    return parts
