"""Store what a bill says. Of a day of a provider's account the latest report counts, as a whole."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from billing.models import ProviderBillLine
from billing.provider_bills.lines import BillKey, BillLines
from tenants.audit import record_change
from tenants.models import Tenant

# Bills of a tenant are imported one after the other: two reports of a day would else mix.
IMPORT_LOCK: Final = 7314
# Days that one statement looks for.
DAYS_AT_ONCE: Final = 200
ROWS_AT_ONCE: Final = 2_000

ProviderDay = tuple[str, date]


class Imported(NamedTuple):
    """What an import did."""

    source: str
    # Lines of the bill as it is stored, and days of a provider that they are of.
    lines: int
    days: int
    # Days that were not known, or otherwise.
    changed_days: int
    # Lines of the bill that are no usage of AI services.
    skipped: int


@transaction.atomic
def import_bill(*, tenant: Tenant, actor: str, account: str, bill: BillLines) -> Imported:
    """Store a bill. The same again changes nothing; a newer report of a provider's day replaces
    that day, so that what a provider corrects is not counted twice.

    Raises InvalidBill with every fault; nothing is stored then.
    """
    billed = _by_day(bill.nanos())
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [IMPORT_LOCK, tenant.id])
    changed = [
        day
        for days in _portions(sorted(billed))
        for day, stored in _stored(tenant, account, days).items()
        if stored != billed[day]
    ]
    for days in _portions(changed):
        _lines_of(tenant, account, days).delete()
    rows = (
        ProviderBillLine(
            tenant=tenant,
            provider=provider,
            account=account,
            day=day,
            model=model,
            line_item=item,
            amount_nanos=nanos,
            source=bill.source,
        )
        for provider, day in changed
        for (model, item), nanos in billed[provider, day].items()
    )
    ProviderBillLine.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)
    lines = sum(map(len, billed.values()))
    imported = Imported(bill.source, lines, len(billed), len(changed), bill.skipped)
    if changed:
        _record(tenant, actor, account, imported, changed)
    return imported


def _by_day(nanos: Mapping[BillKey, int]) -> dict[ProviderDay, dict[tuple[str, str], int]]:
    billed: dict[ProviderDay, dict[tuple[str, str], int]] = defaultdict(dict)
    for key, amount in nanos.items():
        billed[key.provider, key.day][key.model, key.line_item] = amount
    return dict(billed)


def _portions(days: Sequence[ProviderDay]) -> Iterator[list[ProviderDay]]:
    remaining = iter(days)
    while portion := list(islice(remaining, DAYS_AT_ONCE)):
        yield portion


def _stored(
    tenant: Tenant, account: str, days: Sequence[ProviderDay]
) -> dict[ProviderDay, dict[tuple[str, str], int]]:
    stored: dict[ProviderDay, dict[tuple[str, str], int]] = {day: {} for day in days}
    for line in _lines_of(tenant, account, days):
        stored[line.provider, line.day][line.model, line.line_item] = line.amount_nanos
    return stored


def _lines_of(
    tenant: Tenant, account: str, days: Sequence[ProviderDay]
) -> QuerySet[ProviderBillLine]:
    of_days = Q(*(Q(provider=provider, day=day) for provider, day in days), _connector=Q.OR)
    return ProviderBillLine.objects.filter(of_days, tenant=tenant, account=account)


def _record(
    tenant: Tenant, actor: str, account: str, imported: Imported, changed: Sequence[ProviderDay]
) -> None:
    days = [day for _, day in changed]
    record_change(
        tenant_id=tenant.id,
        actor=actor,
        action="import",
        subject=ProviderBillLine(tenant=tenant),
        after={
            "source": imported.source,
            "account": account,
            "providers": sorted({provider for provider, _ in changed}),
            "first_day": min(days).isoformat(),
            "last_day": max(days).isoformat(),
            "changed_days": imported.changed_days,
        },
    )
