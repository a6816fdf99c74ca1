"""The environment of one installation: read once, judged here, and nothing else reads it.

Every variable also comes from `NAME_FILE`, the path of a file that holds its value. A wrong value
raises `WrongSetting` with a sentence that says what and why. Values that may be secret are not
shown.
"""

import ipaddress
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from alerts.mail_server import WrongMailServer, read_mail_server

Value = TypeVar("Value")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CHECKOUT = Path(__file__).resolve().parent.parent

# The embedded server leaves what a client needs to reach it in this file under DATA_DIR.
EMBEDDED_RECORD = "embedded_postgres.json"
EMBEDDED_DATABASE = "spendgate"
EMBEDDED_ROLE = "spendgate"

SECRET_KEY_MIN_CHARACTERS = 32
RETENTION_MAX_DAYS = 36_500
# A year is the longest period that windows look back over, by rolling or by rollover.
LONGEST_PERIOD_DAYS = 366
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
ALL_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on


class WrongSetting(Exception):
    """A variable of the environment holds a value the service cannot start with."""


@dataclass(frozen=True)
class Retention:
    """For how many days rows are kept. `docs/operations.md` says which table follows which."""

    events_days: int
    decisions_days: int
    incidents_days: int
    history_days: int


@dataclass(frozen=True)
class Environment:
    """What the environment says. `None` for a URL means the embedded server stands in."""

    database_url: str | None
    broker_url: str | None
    data_dir: Path
    host: str
    port: int
    secret_key: str | None
    demo: bool
    event_max_age_days: int
    retention: Retention
    web_workers: int
    web_threads: int
    metrics_port: int | None
    allowed_hosts: list[str]
    public_url: str | None
    mail_url: str | None
    channel_networks: list[Network]
    trusted_proxies: list[Network]

    @property
    def is_https(self) -> bool:
        """People reach the service by https, so cookies may insist on it."""
        return self.public_url is not None and self.public_url.startswith("https://")

    @property
    def trusted_origins(self) -> list[str]:
        return [self.public_url] if self.public_url else []

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the web process."""
        host = "localhost" if self.host in ALL_ADDRESSES else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """Read and judge every variable; an empty one counts as not set."""
    host = _read(environ, "HOST", "127.0.0.1", _host)
    public_url = _read(environ, "PUBLIC_URL", None, _public_url)
    event_max_age_days = _read(environ, "EVENT_MAX_AGE_DAYS", 35, _whole_number(1, 400))
    return Environment(
        database_url=_read(environ, "DATABASE_URL", None, _database_url),
        broker_url=_read(environ, "CELERY_BROKER_URL", None, _broker_url),
        data_dir=_read(environ, "DATA_DIR", CHECKOUT / ".data", _folder),
        host=host,
        port=_read(environ, "PORT", 8000, _whole_number(1, 65535)),
        secret_key=_read(environ, "SECRET_KEY", None, _secret_key),
        demo=_read(environ, "DEMO", True, _switch),
        event_max_age_days=event_max_age_days,
        retention=_retention(environ, event_max_age_days),
        web_workers=_read(environ, "WEB_WORKERS", 1, _whole_number(1, 64)),
        web_threads=_read(environ, "WEB_THREADS", 16, _whole_number(1, 256)),
        metrics_port=_read(environ, "METRICS_PORT", None, _whole_number(1, 65535)),
        allowed_hosts=_allowed_hosts(environ, host, public_url),
        public_url=public_url,
        mail_url=_read(environ, "MAIL_URL", None, _mail_url),
        channel_networks=_read(environ, "CHANNEL_NETWORKS", [], _networks),
        trusted_proxies=_read(environ, "TRUSTED_PROXIES", [], _networks),
    )


def secret_key(environment: Environment) -> str:
    """The given key, or one made once for this DATA_DIR and kept there for its owner alone."""
    if environment.secret_key:
        return environment.secret_key
    path = environment.data_dir / "secret_key"
    if not path.exists():
        environment.data_dir.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"secret_key.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(64))
        try:
            # A link to a complete file: whoever comes first wins, and nobody reads half a key.
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first; its key counts
        finally:
            draft.unlink()
    return path.read_text().strip()


# psycopg prepares a statement that is sent with prepare=True only where this is a number: so many
# executions would prepare any other.
PREPARE_WHAT_IS_MARKED = 1 << 30


def database_parameters(environment: Environment) -> dict[str, Any]:
    """Django's DATABASES["default"]. Its backend steps down from a superuser."""
    if environment.database_url is None:
        parts = embedded_connection(environment.data_dir)
    else:
        parts = {
            name: str(value) for name, value in conninfo_to_dict(environment.database_url).items()
        }
    named = {
        setting: parts.pop(name, "")
        for setting, name in (
            ("NAME", "dbname"),
            ("USER", "user"),
            ("PASSWORD", "password"),
            ("HOST", "host"),
            ("PORT", "port"),
        )
    }
    return {
        "ENGINE": "config.postgresql",
        **named,
        "OPTIONS": {
            "connect_timeout": "10",
            "application_name": "spendgate",
            "prepare_threshold": PREPARE_WHAT_IS_MARKED,
            **parts,
        },
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
    }


def embedded_connection(data_dir: Path) -> dict[str, str]:
    """How a client reaches the embedded server of this DATA_DIR, as libpq's keywords.

    Before its first start there is no record; a connection then fails with the folder's name in it.
    """
    try:
        record = json.loads((data_dir / EMBEDDED_RECORD).read_text())
    except FileNotFoundError:
        record = {"socket_folder": str(data_dir / "postgres_is_not_running"), "password": ""}
    return {
        "host": record["socket_folder"],
        "dbname": EMBEDDED_DATABASE,
        "user": EMBEDDED_ROLE,
        "password": record["password"],
    }


def embedded_conninfo(data_dir: Path) -> str:
    """The same as one text, as psycopg.connect takes it."""
    return make_conninfo("", **embedded_connection(data_dir))


def _read(
    environ: Mapping[str, str], name: str, default: Value, parse: Callable[[str, str], Value]
) -> Value:
    value = _text(environ, name)
    return default if value is None else parse(name, value)


def _text(environ: Mapping[str, str], name: str) -> str | None:
    value, file = environ.get(name), environ.get(f"{name}_FILE")
    if value and file:
        raise WrongSetting(f"{name} and {name}_FILE are both set: keep one of them.")
    if not file:
        return value or None
    try:
        return Path(file).read_text().strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise WrongSetting(
            f"{name}_FILE names '{file}', which cannot be read: {reason}."
        ) from error


def _whole_number(least: int, most: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        is_number = value.isascii() and value.isdecimal() and len(value) <= len(str(most))
        if not is_number or not least <= int(value) <= most:
            raise WrongSetting(
                f"{name} is '{value}': it must be a whole number from {least} to {most}."
            )
        return int(value)

    return parse


def _switch(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise WrongSetting(f"{name} is '{value}': it must be 0 or 1.")
    return value == "1"


def _host(name: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        if not HOST_NAME.fullmatch(value):
            raise WrongSetting(
                f"{name} is '{value}': it must be an address or a host name."
            ) from None
    return value


def _host_list(name: str, value: str) -> list[str]:
    hosts = [host.strip() for host in value.split(",") if host.strip()]
    for host in hosts:
        if host != "*" and not HOST_NAME.fullmatch(host.lstrip(".")) and not _is_address(host):
            raise WrongSetting(f"{name} holds '{host}': it must be host names separated by commas.")
    return hosts


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return False
    return True


def _folder(name: str, value: str) -> Path:
    path = Path(value).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise WrongSetting(f"{name} is '{value}': it must be a folder.")
    return path


def _secret_key(name: str, value: str) -> str:
    if len(value) < SECRET_KEY_MIN_CHARACTERS:
        raise WrongSetting(
            f"{name} has {len(value)} characters: it must have {SECRET_KEY_MIN_CHARACTERS} or more."
        )
    return value


def _database_url(name: str, value: str) -> str:
    form = "postgresql://user:password@host:port/database"
    if not value.startswith(("postgresql://", "postgres://")):
        raise WrongSetting(f"{name} must be a PostgreSQL URL such as {form}.")
    try:
        parts = conninfo_to_dict(value)
    except psycopg.Error:
        # The reason PostgreSQL's client library gives may quote the password.
        raise WrongSetting(f"{name} cannot be read: it must look like {form}.") from None
    ports = str(parts.get("port") or "5432").split(",")
    if not all(port == "" or _is_port(port) for port in ports):
        raise WrongSetting(f"{name} has a port that is not a whole number from 1 to 65535.")
    if not parts.get("dbname") and not parts.get("service"):
        raise WrongSetting(f"{name} names no database: it must look like {form}.")
    return value


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdecimal() and 1 <= int(value) <= 65535


def _broker_url(name: str, value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in ("redis", "rediss", "amqp", "amqps") or not rest:
        raise WrongSetting(f"{name} must be the URL of a broker, such as redis://host:6379/0.")
    return value


def _public_url(name: str, value: str) -> str:
    form = "https://spendgate.example.com"
    try:
        parts = urlsplit(value)
        is_origin = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_origin = False
    if not is_origin or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise WrongSetting(
            f"{name} is '{value}': it must be an origin without a path, such as {form}."
        )
    return value.rstrip("/")


def _mail_url(name: str, value: str) -> str:
    try:
        read_mail_server(value)
    except WrongMailServer as error:
        raise WrongSetting(f"{name} {error}") from None
    return value


def _networks(name: str, value: str) -> list[Network]:
    networks: list[Network] = []
    for one in value.split(","):
        try:
            networks += [ipaddress.ip_network(one.strip())] if one.strip() else []
        except ValueError:
            raise WrongSetting(
                f"{name} holds '{one.strip()}': it must be networks separated by commas,"
                " such as 10.0.0.0/8."
            ) from None
    return networks


def _retention(environ: Mapping[str, str], event_max_age_days: int) -> Retention:
    """Events outlive every change to them, and every window that may still count them."""
    events_least = event_max_age_days + LONGEST_PERIOD_DAYS
    events = _days(
        environ,
        "RETENTION_EVENTS_DAYS",
        default=events_least,
        least=events_least,
        why=f", the sum of EVENT_MAX_AGE_DAYS ({event_max_age_days}) and the longest period of a"
        f" budget ({LONGEST_PERIOD_DAYS})",
    )
    history = _days(
        environ,
        "RETENTION_HISTORY_DAYS",
        default=max(1_100, events),
        least=events,
        why=", as RETENTION_EVENTS_DAYS is",
    )
    return Retention(
        events_days=events,
        decisions_days=_days(environ, "RETENTION_DECISIONS_DAYS", default=35, least=1),
        incidents_days=_days(environ, "RETENTION_INCIDENTS_DAYS", default=400, least=35),
        history_days=history,
    )


def _days(environ: Mapping[str, str], name: str, *, default: int, least: int, why: str = "") -> int:
    days = _read(environ, name, default, _whole_number(1, RETENTION_MAX_DAYS))
    if days < least:
        raise WrongSetting(f"{name} is '{days}': it must be at least {least}{why}.")
    return days


def _allowed_hosts(environ: Mapping[str, str], host: str, public_url: str | None) -> list[str]:
    """Names by which the service may be called; this machine itself always may."""
    given: list[str] = _read(environ, "ALLOWED_HOSTS", [], _host_list)
    if not given and public_url is None and host in ALL_ADDRESSES:
        return ["*"]  # nobody said by which names this machine is reached
    names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host, *given}
    if public_url is not None:
        names.add(urlsplit(public_url).hostname or "")
    return sorted(names - ALL_ADDRESSES)
