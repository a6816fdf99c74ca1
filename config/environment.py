"""The environment of one installation: read and checked here once; nothing else reads it.

Every variable can also come from `NAME_FILE`, the path of a file that holds its value. Wrong values
raise `WrongSetting`, with a sentence for each. Values that may be secret are not shown.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from alerts.mail_server import read_mail_server

CHECKOUT: Final = Path(__file__).resolve().parent.parent
# A year is the longest period that windows look back over, by rolling or by rollover.
LONGEST_PERIOD_DAYS: Final = 366
HISTORY_DAYS: Final = 1_100
HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on
# Follows from the problem of another variable.
UNCALLED_DEFAULT: Final = "default_factory_not_called"


class WrongSetting(Exception):
    """Variables of the environment hold values that the service cannot start with."""


def check_host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        if HOST_NAME.fullmatch(value):
            return value
        raise ValueError("it must be an address or a host name") from None


def check_allowed_host(value: str) -> str:
    if value != "*" and not HOST_NAME.fullmatch(value.removeprefix(".")):
        check_host(value)
    return value


def check_folder(path: Path) -> Path:
    path = path.expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise ValueError("it must be a folder")
    return path


def check_database_url(value: str) -> str:
    try:
        parts = conninfo_to_dict(value)
    except psycopg.Error:  # its reason may quote the password
        parts = {}
    is_url = value.startswith(("postgresql://", "postgres://"))
    if not is_url or not (parts.get("dbname") or parts.get("service")):
        raise ValueError("it must look like postgresql://user:password@host:port/database")
    ports = str(parts.get("port") or "").split(",")
    if not all(port == "" or (port.isdecimal() and 0 < int(port) < 1 << 16) for port in ports):
        raise ValueError("the port must be a whole number from 1 to 65535")
    return value


def check_broker_url(value: str) -> str:
    if not re.match(r"(redis|rediss|amqp|amqps)://.", value):
        raise ValueError("it must be the URL of a broker, such as redis://host:6379/0")
    return value


def check_public_url(value: str) -> str:
    parts = urlsplit(value)
    is_origin = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    if not is_origin or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError("it must be an origin without a path, as https://spendgate.example.com")
    return value.rstrip("/")


def check_mail_url(value: str) -> str:
    read_mail_server(value)
    return value


def check_api_base(value: str) -> str:
    parts = urlsplit(value)
    is_origin = parts.scheme in ("http", "https") and bool(parts.hostname)
    if not is_origin or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError("it must be an origin without a path, as http://127.0.0.1:12111")
    return value.rstrip("/")


def check_stripe_key(value: str) -> str:
    if not re.match(r"(sk|rk)_(live|test)_.", value):
        raise ValueError("it must be a secret or restricted key: sk_live_…, sk_test_…, rk_…")
    return value


def split_list(value: object) -> object:
    """Split a text at its commas; empty parts do not count."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


Port = Annotated[int, Field(ge=1, le=65_535)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Host = Annotated[str, AfterValidator(check_allowed_host)]
Hosts = Annotated[list[Host], BeforeValidator(split_list)]
Networks = Annotated[list[IPvAnyNetwork], BeforeValidator(split_list)]

Secret: Any = Field(None, repr=False)


class Environment(BaseModel):
    """What the environment says; a variable is named as its field, in capitals.

    Fields without a `repr` may hold secrets. If no database or broker is named, the embedded ones
    under DATA_DIR serve.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: Annotated[str, AfterValidator(check_database_url)] | None = Secret
    celery_broker_url: Annotated[str, AfterValidator(check_broker_url)] | None = Secret
    data_dir: Annotated[Path, AfterValidator(check_folder)] = CHECKOUT / ".data"
    host: Annotated[str, AfterValidator(check_host)] = "127.0.0.1"
    port: Port = 8000
    secret_key: Annotated[str, Field(min_length=32)] | None = Secret
    demo: bool = True
    styleguide: bool = False
    event_max_age_days: Annotated[int, Field(ge=1, le=400)] = 35
    # Events outlive every change to them, and every window that may still count them.
    retention_events_days: Days = Field(
        default_factory=lambda given: given["event_max_age_days"] + LONGEST_PERIOD_DAYS
    )
    retention_decisions_days: Days = 35
    retention_incidents_days: Annotated[Days, Field(ge=35)] = 400
    retention_history_days: Days = Field(
        default_factory=lambda given: max(HISTORY_DAYS, given["retention_events_days"])
    )
    web_workers: Annotated[int, Field(ge=1, le=64)] = 1
    web_threads: Annotated[int, Field(ge=1, le=256)] = 16
    metrics_port: Port | None = None
    public_url: Annotated[str, AfterValidator(check_public_url)] | None = None
    mail_url: Annotated[str, AfterValidator(check_mail_url)] | None = Secret
    channel_networks: Networks = []
    # For tenants without a key of their own.
    stripe_api_key: Annotated[str, AfterValidator(check_stripe_key)] | None = Secret
    stripe_webhook_secret: str | None = Secret
    stripe_api_base: Annotated[str, AfterValidator(check_api_base)] | None = None
    stripe_fake: bool = Field(default_factory=lambda given: given.get("demo", False))
    # Where the fake Stripe listens; the supervisor sets it.
    stripe_fake_base: Annotated[str, AfterValidator(check_api_base)] | None = None
    trusted_proxies: Networks = []
    allowed_hosts: Hosts = Field([], validate_default=True)

    @field_validator("retention_events_days")
    @classmethod
    def require_days_of_windows(cls, days: int, info: ValidationInfo) -> int:
        least = info.data.get("event_max_age_days", 0) + LONGEST_PERIOD_DAYS
        if days < least:
            raise ValueError(
                f"it must be at least {least}, the sum of EVENT_MAX_AGE_DAYS and the longest period"
                f" of a budget ({LONGEST_PERIOD_DAYS})"
            )
        return days

    @field_validator("retention_history_days")
    @classmethod
    def require_days_of_events(cls, days: int, info: ValidationInfo) -> int:
        if days < (events_days := info.data.get("retention_events_days", 0)):
            raise ValueError(f"it must be at least RETENTION_EVENTS_DAYS, {events_days}")
        return days

    @field_validator("allowed_hosts")
    @classmethod
    def add_own_hosts(cls, given: list[str], info: ValidationInfo) -> list[str]:
        """Add the names of this machine, which may always be used."""
        host, public_url = info.data.get("host", ""), info.data.get("public_url")
        if not given and public_url is None and host in ALL_ADDRESSES:
            return ["*"]  # nothing says by which names this machine is reached
        names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host, *given}
        if public_url is not None:
            names.add(urlsplit(public_url).hostname or "")
        return sorted(names - ALL_ADDRESSES)

    @property
    def is_https(self) -> bool:
        """Whether people reach the service by https, so that cookies may insist on it."""
        return self.public_url is not None and self.public_url.startswith("https://")

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the web process."""
        host = "localhost" if self.host in ALL_ADDRESSES else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """Read and check every variable; an empty one counts as not set. Raises WrongSetting."""
    given: dict[str, str] = {}
    problems: list[str] = []
    for field in Environment.model_fields:
        try:
            if text := read_text(environ, field.upper()):
                given[field] = text
        except WrongSetting as error:
            problems.append(str(error))
    try:
        environment = Environment.model_validate(given)
    except ValidationError as error:
        problems += [
            describe_problem(problem)
            for problem in error.errors()
            if problem["type"] != UNCALLED_DEFAULT
        ]
    if problems:
        # Not from the error, which holds the values.
        raise WrongSetting("\n".join(problems)) from None
    return environment


def read_text(environ: Mapping[str, str], name: str) -> str | None:
    value, file = environ.get(name), environ.get(f"{name}_FILE")
    if value and file:
        raise WrongSetting(f"{name} and {name}_FILE are both set: keep one of them.")
    if not file:
        return value
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise WrongSetting(f"{name}_FILE is '{file}', which cannot be read: {reason}.") from None


def describe_problem(problem: ErrorDetails) -> str:
    """Say in a sentence what is wrong with a variable."""
    field, reason = str(problem["loc"][0]), problem["msg"].removeprefix("Value error, ")
    shown = f" is '{problem['input']}'" if Environment.model_fields[field].repr else ""
    return f"{field.upper()}{shown}: {reason[0].lower()}{reason[1:].rstrip('.')}."
