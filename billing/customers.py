"""Customers as configuration, and the links that say which usage is whose."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from billing.currencies import is_currency
from billing.models import Customer, CustomerLink
from billing.statement_periods import open_drafts
from billing.wallet_opening import end_wallet, require_followed
from billing.wallets import open_wallet_of
from common.database_errors import name_once
from common.errors import Conflict
from common.formats import moment
from common.values import normal_value
from metering.core.validation import Problem, require, require_row
from tenants.audit import audited_change, create_audited
from tenants.kinds import Kind
from tenants.limits import require_room
from tenants.models import Tenant

# A call belongs to the customer of the first of these that is linked.
PAYMENT_DAYS_MAX: Final = 365
LINK_DIMENSIONS: Final = ("customer", "user", "session", "agent", "team", "feature")
LINKS_MAX: Final = 200
TAX_RATES_MAX: Final = 10
# Links of a tenant are changed one after the other, so that a value never has two customers.
LINK_LOCK: Final = 7310


def validate_customer(customer: Customer) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require_row(customer, _problems(customer))


def _problems(customer: Customer) -> Iterator[Problem]:
    if not is_currency(customer.currency):
        yield Problem("currency", "Give a currency's code, as in USD or EUR.", "unknown_currency")
    if customer.country and not (customer.country.isascii() and customer.country.isalpha()):
        yield Problem("country", "Give a country's code of two letters, as in DE.")
    if len(customer.tax_rates) > TAX_RATES_MAX:
        yield Problem("tax_rates", f"Give at most {TAX_RATES_MAX} rates.")
    names = [rate["name"] for rate in customer.tax_rates]
    if len(set(names)) < len(names):
        yield Problem("tax_rates", "A rate is named twice.")


@transaction.atomic
def create_customer(
    *, tenant: Tenant, actor: str, links: Sequence[Mapping[str, object]] = (), **fields: Any
) -> Customer:
    """Add a customer, whose usage is that with its key as `customer`, and that of further links.

    Raises ValidationError, NameTaken and Conflict (a value that is another customer's).
    """
    fields["key"] = normal_value(fields["key"])
    customer = Customer(tenant=tenant, **{"timezone": tenant.timezone, **fields})
    validate_customer(customer)
    require_room(tenant.id, "customers", Customer.objects.filter(tenant=tenant, archived_at=None))
    with name_once("customer", customer.key):
        create_audited(customer, actor=actor)
    _link(customer, [{"dimension": "customer", "value": customer.key}, *links])
    return customer


@transaction.atomic
def update_customer(
    customer: Customer,
    *,
    actor: str,
    changes: Mapping[str, Any],
) -> Customer:
    """Change a customer. `links`, if named, are the further links from now on; statements follow
    them, as adjustments where they are final. Raises NotProportional if its wallet could not.
    """
    links = changes.get("links")
    columns = {name: value for name, value in changes.items() if name != "links"}
    with audited_change(customer, actor=actor, changes=columns) as change:
        validate_customer(change.row)
    if links is not None:
        further_links(change.row).delete()
        _link(change.row, links)
        require_followed([change.row.id])
    return change.row


@transaction.atomic
def archive_customer(customer: Customer, *, actor: str) -> None:
    """Take a customer out of lists. Subscriptions and its wallet end now; what was billed stays."""
    now = timezone.now()
    wallet = open_wallet_of(customer.id)
    if wallet is not None:
        end_wallet(wallet, actor=actor)
    with audited_change(customer, actor=actor, action="archive") as change:
        change.row.archived_at = change.row.archived_at or now
    running = customer.subscriptions.filter(Q(ends_at=None) | Q(ends_at__gt=now))
    running.filter(starts_at__lt=now).update(ends_at=now)
    coming = running.filter(starts_at__gte=now)
    # A statement that was final early charges for what never begins; the next gives it back.
    coming.filter(statementline__isnull=False).update(ends_at=F("starts_at"))
    coming.filter(statementline=None).delete()
    open_drafts(customer)


def further_links(customer: Customer) -> Any:
    """Return a customer's links besides that of its own key."""
    return customer.links.exclude(dimension="customer", value=customer.key)


def _link(customer: Customer, links: Iterable[Mapping[str, Any]]) -> None:
    rows = [
        CustomerLink(
            tenant_id=customer.tenant_id,
            customer=customer,
            dimension=link["dimension"],
            value=normal_value(link["value"]),
            starts_at=link.get("starts_at"),
            ends_at=link.get("ends_at"),
        )
        for link in links
    ]
    if len(rows) > LINKS_MAX:
        require([Problem("links", f"Give at most {LINKS_MAX} links.")])
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LINK_LOCK, customer.tenant_id])
    for index, row in enumerate(rows):
        _require_free(row, f"links.{index - 1}", rows[:index])
    CustomerLink.objects.bulk_create(rows)


def _require_free(link: CustomerLink, field: str, siblings: Sequence[CustomerLink]) -> None:
    if link.starts_at and link.ends_at and link.starts_at >= link.ends_at:
        require([Problem(f"{field}.to", "Must be after 'from'.")])
    stored = CustomerLink.objects.filter(
        tenant_id=link.tenant_id, dimension=link.dimension, value=link.value
    ).select_related("customer")
    for other in [*stored, *siblings]:
        is_same = (other.dimension, other.value) == (link.dimension, link.value)
        if is_same and overlap(link, other):
            raise Conflict(
                f"{link.dimension} '{link.value}' is already {other.customer.name}'s "
                f"{_lasting(other.starts_at, other.ends_at)}."
            )


def overlap(link: CustomerLink, other: CustomerLink) -> bool:
    """Whether two links hold at the same time."""
    return (link.ends_at is None or other.starts_at is None or other.starts_at < link.ends_at) and (
        other.ends_at is None or link.starts_at is None or link.starts_at < other.ends_at
    )


def _lasting(starts_at: datetime | None, ends_at: datetime | None) -> str:
    if starts_at is None and ends_at is None:
        return "at all times"
    since = f"from {moment(starts_at)} " if starts_at else ""
    return f"{since}until {moment(ends_at)}" if ends_at else f"{since}on"


CUSTOMERS: Final = Kind(create_customer, update_customer, archive_customer)
