"""Plans that Stripe meters: their meters and prices there, and the hourly values for them."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from billing.collection.meter_offers import event_name_of, meter_of, price_of, refusals
from billing.models import (
    Interval,
    Plan,
    PlanVersion,
    StripeAccount,
    StripeMeter,
    StripeMeterValue,
    Subscription,
)
from billing.plans import terms_of
from billing.statement_lines import used_of
from billing.stripe_gateway import StripeGateway
from billing.terms import UsageCharge
from billing.usage import Demand, Piece, read_usage
from common.errors import Conflict
from tenants.audit import record_change
from tenants.scope import tenant_scope

HOUR: Final = timedelta(hours=1)
READ_EVERY: Final = timedelta(minutes=10)
# What changed in the last days is read often, what Stripe still takes once a day.
OFTEN: Final = timedelta(days=2)
FAR_BACK: Final = timedelta(days=34)
# So that a reading and what is stored of it take a second at most.
CUSTOMERS_A_READING: Final = 50
HOURS_A_READING: Final = 48


@transaction.atomic
def meter_plan(*, plan: Plan, actor: str, is_live: bool) -> list[StripeMeter]:
    """Have Stripe meter and bill a plan, whose statements are not collected from then on.

    Raises Conflict with every reason if Stripe's meters cannot express it.
    """
    version = plan.versions.order_by("-number")[0]
    terms = terms_of(version)
    if reasons := refusals(terms):
        raise Conflict(f"Stripe cannot meter this plan. {' '.join(reasons)}")
    meters = [
        StripeMeter.objects.get_or_create(
            tenant_id=plan.tenant_id,
            plan=plan,
            is_live=is_live,
            charge=charge.name,
            defaults={
                "event_name": event_name_of(
                    tenant_id=plan.tenant_id, plan_id=plan.id, charge=charge.name
                )
            },
        )[0]
        for charge in terms.charges
    ]
    record_change(
        tenant_id=plan.tenant_id,
        actor=actor,
        action="meter",
        subject=plan,
        after={"charges": [meter.charge for meter in meters]},
    )
    return meters


def read_next_meter(*, tenant_id: int, gateway: StripeGateway) -> bool:
    """Make sure that Stripe has the next meter, and read its hourly values. False: none is due."""
    now = timezone.now()
    with tenant_scope(tenant_id):
        meter = (
            StripeMeter.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("plan")
            .filter(tenant_id=tenant_id, is_live=gateway.is_live, next_read_at__lte=now)
            .order_by("next_read_at", "id")
            .first()
        )
        if meter is None:
            return False
        StripeMeter.objects.filter(id=meter.id).update(next_read_at=now + READ_EVERY)
        versions = list(PlanVersion.objects.filter(plan=meter.plan).order_by("number"))
    if not meter.stripe_id:
        _set_up(meter, versions[-1], gateway)
    is_late_due = meter.late_read_at is None or meter.late_read_at <= now - timedelta(days=1)
    since = _hour_of(now - (FAR_BACK if is_late_due else OFTEN))
    for customers in _parts_of_customers(meter, since):
        for starts_at, ends_at in _parts_of_time(since, _hour_of(now)):
            _read_values(_Reading(meter, versions, starts_at, ends_at), customers)
    if is_late_due:
        with tenant_scope(tenant_id):
            StripeMeter.objects.filter(id=meter.id).update(late_read_at=now)
    return True


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _set_up(meter: StripeMeter, version: PlanVersion, gateway: StripeGateway) -> None:
    """Find the meter and its price at Stripe by their names, or make them."""
    meter_ids = {each.event_name: each.id for each in gateway.list_meters()}
    meter_id = meter_ids.get(meter.event_name)
    if meter_id is None:
        given = meter_of(meter.charge, meter.event_name)
        meter_id = gateway.create_meter(given, key=f"spendgate:meter:{meter.event_name}").id
    charge = _charge_of(version, meter.charge)
    lookup_key = f"{meter.event_name}_v{version.number}"
    if charge is not None and not any(gateway.list_prices(lookup_key)):
        price = price_of(
            charge,
            meter=meter_id,
            currency=meter.plan.currency,
            interval=Interval(meter.plan.interval),
        )
        price["lookup_key"] = lookup_key
        gateway.create_price(price, key=f"spendgate:price:{lookup_key}")
    with tenant_scope(meter.tenant_id):
        StripeMeter.objects.filter(id=meter.id).update(stripe_id=meter_id)


def _charge_of(version: PlanVersion, name: str) -> UsageCharge | None:
    named = [charge for charge in terms_of(version).charges if charge.name == name]
    return named[0] if named and isinstance(named[0], UsageCharge) else None


def _parts_of_customers(meter: StripeMeter, since: datetime) -> Iterator[list[int]]:
    with tenant_scope(meter.tenant_id):
        customers = sorted(
            set(
                Subscription.objects.filter(Q(ends_at=None) | Q(ends_at__gt=since), plan=meter.plan)
                .values_list("customer_id", flat=True)
                .order_by()
            )
        )
    for start in range(0, len(customers), CUSTOMERS_A_READING):
        yield customers[start : start + CUSTOMERS_A_READING]


def _parts_of_time(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    while since < until:
        ends_at = min(until, since + HOURS_A_READING * HOUR)
        yield since, ends_at
        since = ends_at


@dataclass
class _Reading:
    """The hours of a meter that are read."""

    meter: StripeMeter
    versions: list[PlanVersion]
    starts_at: datetime
    ends_at: datetime

    def charge_at(self, moment: datetime) -> UsageCharge | None:
        """Return the charge as the version in force at a moment has it."""
        in_force = [
            each for each in self.versions if each.starts_at is None or each.starts_at <= moment
        ]
        return _charge_of(in_force[-1], self.meter.charge) if in_force else None

    def pieces_of(self, subscription: Subscription) -> Iterator[Piece]:
        """Yield the hours that are over, as far as the subscription covers them."""
        hour = max(self.starts_at, _hour_of(subscription.starts_at))
        until = min(self.ends_at, subscription.ends_at or self.ends_at)
        while hour < until:
            yield Piece(max(hour, subscription.starts_at), min(hour + HOUR, until))
            hour += HOUR


def _read_values(reading: _Reading, customers: Collection[int]) -> None:
    """Store the values of these customers that changed."""
    meter = reading.meter
    with tenant_scope(meter.tenant_id, is_snapshot=True):
        values = _values_of(reading, customers)
    with tenant_scope(meter.tenant_id):
        StripeAccount.objects.bulk_create(
            [
                StripeAccount(
                    tenant_id=meter.tenant_id, customer_id=customer, is_live=meter.is_live
                )
                for customer in sorted(customers)
            ],
            ignore_conflicts=True,
        )
        accounts = dict(
            StripeAccount.objects.filter(
                customer_id__in=customers, is_live=meter.is_live
            ).values_list("customer_id", "id")
        )
        known = {
            (each.account_id, each.hour): each
            for each in StripeMeterValue.objects.select_for_update().filter(
                meter=meter,
                account_id__in=accounts.values(),
                hour__gte=reading.starts_at,
                hour__lt=reading.ends_at,
            )
        }
        by_account = {
            (accounts[customer], hour): value for (customer, hour), value in values.items()
        }
        _store_values(meter, by_account, known)


def _store_values(
    meter: StripeMeter,
    values: dict[tuple[int, datetime], int],
    known: dict[tuple[int, datetime], StripeMeterValue],
) -> None:
    """Add values that are new, but no zeros, and change those that are others by now."""
    now = timezone.now()
    changed = [row for key, row in known.items() if values.get(key, row.value) != row.value]
    for row in changed:
        row.value, row.revision = values[row.account_id, row.hour], row.revision + 1
        row.attempts, row.next_attempt_at = 0, now
    StripeMeterValue.objects.bulk_update(
        changed, ["value", "revision", "attempts", "next_attempt_at"]
    )
    StripeMeterValue.objects.bulk_create(
        StripeMeterValue(
            tenant_id=meter.tenant_id, meter=meter, account_id=account, hour=hour, value=value
        )
        for (account, hour), value in values.items()
        if value and (account, hour) not in known
    )


def _values_of(reading: _Reading, customers: Collection[int]) -> dict[tuple[int, datetime], int]:
    """Return the value of each customer and hour; hours without usage are zero."""
    subscriptions = Subscription.objects.filter(
        plan=reading.meter.plan, customer_id__in=customers
    ).order_by("starts_at", "id")
    pieces: defaultdict[int, list[Piece]] = defaultdict(list)
    for subscription in subscriptions:
        pieces[subscription.customer_id] += reading.pieces_of(subscription)
    charges = {
        piece: reading.charge_at(piece.starts_at) for each in pieces.values() for piece in each
    }
    dimensions = frozenset(charge.dimensions for charge in charges.values() if charge)
    demands = [Demand(customer, tuple(each), dimensions) for customer, each in pieces.items()]
    values: defaultdict[tuple[int, datetime], int] = defaultdict(int)
    for customer, usage in read_usage(reading.meter.tenant_id, demands).items():
        for index, piece in enumerate(pieces[customer]):
            charge = charges[piece]
            if charge is not None:
                used = used_of(charge, usage, index)
                values[customer, _hour_of(piece.starts_at)] += int(used.quantity)
    return values
