"""Arguments that several commands take."""

from datetime import datetime

from django.core.management.base import CommandError

from common.times import parse_timestamp_or_date
from tenants.models import Tenant
from tenants.scope import platform_scope


def find_tenant(name: str) -> Tenant:
    """Return the tenant of this name. Raises CommandError."""
    with platform_scope("find the tenant of a command"):
        tenant = Tenant.objects.filter(name=name).first()
    if tenant is None:
        raise CommandError(f"There is no tenant named {name!r}.")
    return tenant


def read_time(text: str, option: str) -> datetime:
    """Return the time that an option names: RFC 3339, or a date in UTC. Raises CommandError."""
    try:
        return parse_timestamp_or_date(text)
    except ValueError as error:
        raise CommandError(f"{option} {text!r} {error}, or a date.") from error
