"""A mail server as one URL: `smtp://user:password@host:587?from=alerts@example.com`."""

from email.utils import parseaddr
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

FORM: Final = "smtp://user:password@host:587?from=alerts@example.com"
PORT_BY_SCHEME: Final = {"smtp": 587, "smtps": 465}


class WrongMailServer(ValueError):
    """The URL names no mail server. The sentence follows the setting's name; it shows no secret."""


class MailServer(NamedTuple):
    """Where mail is handed over, and in whose name. `smtp` is encrypted by STARTTLS if offered."""

    host: str
    port: int
    is_encrypted_first: bool
    user: str
    password: str
    # As in a header: "Spendgate <alerts@example.com>".
    sender: str

    @property
    def sender_address(self) -> str:
        return parseaddr(self.sender)[1]

    @property
    def domain(self) -> str:
        return self.sender_address.rpartition("@")[2]


def read_mail_server(url: str) -> MailServer:
    """The server that a URL names. Raises WrongMailServer."""
    parts = _split(url)
    sender = (parse_qs(parts.query).get("from") or [""])[-1] or unquote(parts.username or "")
    if not _is_sender(sender):
        raise WrongMailServer("does not say who the mail is from: add ?from=alerts@example.com.")
    return MailServer(
        host=parts.hostname or "",
        port=_port(parts) or PORT_BY_SCHEME[parts.scheme],
        is_encrypted_first=parts.scheme == "smtps",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        sender=sender,
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    is_known = set(parse_qs(parts.query)) <= {"from"} and not parts.path.strip("/")
    if parts.scheme not in PORT_BY_SCHEME or not parts.hostname or not is_known:
        raise WrongMailServer(f"must look like {FORM} (smtps:// where encryption comes first).")
    return parts


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise WrongMailServer("has a port that is not a whole number from 1 to 65535.")
    return port


def _is_sender(text: str) -> bool:
    address = parseaddr(text)[1]
    name, _, domain = address.rpartition("@")
    return text.isprintable() and bool(name) and bool(domain) and address.isascii()
