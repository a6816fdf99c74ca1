"""Bringing the price library's catalogue, and what supplements it, into `catalogue_price`."""

import json
from typing import NamedTuple

from django.utils import timezone

from metering.models.prices import CataloguePrice
from metering.pricing.catalogue import CatalogueRow, catalogue_version
from metering.pricing.supplement import supplemented_rows
from tenants.scope import platform_scope
from tenants.settings import bump_all_configurations


class Imported(NamedTuple):
    """What an import did, in rows. `superseded` were replaced or are no longer in the catalogue."""

    version: str
    models: int
    prices: int
    added: int
    superseded: int


def import_catalogue() -> Imported:
    """Make the stored catalogue that of the installed library. Doing it again changes nothing.

    A price that changed becomes a new row and the old one is kept as superseded, since events name
    it. Every tenant then reads its prices again.
    """
    rows = supplemented_rows()
    with platform_scope("import prices"):
        current = {
            (row.provider, row.model, row.ordinal): row
            for row in CataloguePrice.objects.filter(superseded_at=None).select_for_update()
        }
        wanted = {(row.provider, row.model, row.ordinal): row for row in rows}
        kept = {key for key, row in current.items() if _is_kept(row, wanted.get(key))}
        old = [row.id for key, row in current.items() if key not in kept]
        new = [
            CataloguePrice(**row._asdict(), catalogue_version=catalogue_version())
            for key, row in wanted.items()
            if key not in kept
        ]
        if old or new:
            # The old rows leave first: a key has one row in force.
            CataloguePrice.objects.filter(id__in=old).update(superseded_at=timezone.now())
            CataloguePrice.objects.bulk_create(new, batch_size=1000)
            bump_all_configurations()
    models = len({(row.provider, row.model) for row in rows})
    return Imported(catalogue_version(), models, len(rows), len(new), len(old))


def _is_kept(stored: CataloguePrice, row: CatalogueRow | None) -> bool:
    columns = ("effective_from", "daily_from", "daily_to", "context")
    return (
        row is not None
        and all(getattr(stored, name) == getattr(row, name) for name in columns)
        # As JSON, so that what the database gives back compares equal to what was sent.
        and stored.rates == json.loads(json.dumps(row.rates))
    )
