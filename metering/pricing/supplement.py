"""What the price library has no rate for and providers publish: `supplement.csv`.

Each line names its source and the date on which that was read. Lines add to the library's prices
and never override one: where the library learns a rate, its own holds. Three kinds:

`rate`: dollars for as many of `unit` as the library prices together (a million tokens, a thousand
calls), for prices of the models that lack it. `factor`: what all token rates are multiplied by for
calls of a `context`. `unsplit`: output that the provider does not break down is all of this unit.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from metering.pricing.catalogue import (
    CatalogueRow,
    StoredRate,
    StoredRates,
    catalogue_rows,
    nanos_text,
)
from metering.pricing.rates import units

FILE: Final = Path(__file__).with_suffix(".csv")
_EVERYWHERE: Final = "*"
_GEO: Final = "inference_geo"


class Line(NamedTuple):
    """A line of the file."""

    kind: str
    provider: str
    models: tuple[str, ...]
    context: dict[str, str]
    unit: str
    value: Decimal
    starts_on: date | None
    source: str
    read_on: date

    def is_for(self, provider: str, model: str) -> bool:
        return self.provider in (_EVERYWHERE, provider) and any(
            fnmatchcase(model, pattern) for pattern in self.models
        )

    def rate(self, per: int, nanos: str) -> StoredRate:
        """Return a rate made by this line, which says where it is from."""
        return StoredRate(per=per, nanos=nanos, source=self.source, read=self.read_on.isoformat())


def supplement_lines() -> list[Line]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return [
            Line(
                raw["kind"],
                raw["provider"],
                tuple(raw["models"].split()),
                dict(pair.split("=", 1) for pair in raw["context"].split()),
                raw["unit"],
                Decimal(raw["value"] or 0),
                date.fromisoformat(raw["from"]) if raw["from"] else None,
                raw["source"],
                date.fromisoformat(raw["read"]),
            )
            for raw in csv.DictReader(file)
        ]


def supplemented_rows() -> list[CatalogueRow]:
    """Every price of the installed library, with what the file adds to it."""
    lines = supplement_lines()
    rows: list[CatalogueRow] = []
    for (provider, model), group in groupby(
        catalogue_rows(), lambda row: (row.provider, row.model)
    ):
        own = list(group)
        added = [line for line in lines if line.is_for(provider, model)]
        rows.extend(_supplemented(own, added) if added else own)
    return rows


def _supplemented(rows: list[CatalogueRow], lines: list[Line]) -> list[CatalogueRow]:
    """Return the rows of one model. Of rows with a context, those for more of it come first."""
    standard = [row for row in rows if not row.context]
    variants = [row for row in rows if row.context]
    by_start = sorted(_of_kind(lines, "rate"), key=lambda line: line.starts_on or date.min)
    for starts_on, rates in groupby(by_start, lambda line: line.starts_on):
        added = list(rates)
        standard = [each for row in standard for each in _with_rates(row, added, starts_on)]
    narrower: list[CatalogueRow] = []
    wider: list[CatalogueRow] = []
    for line in _of_kind(lines, "factor"):
        if any(row.context == line.context for row in variants):
            continue
        wider += _multiplied(reversed(standard), line)
        if _GEO in line.context:
            narrower += _multiplied(variants, line)
    together = [*standard, *narrower, *variants, *wider]
    for line in _of_kind(lines, "unsplit"):
        for index, row in enumerate(together):
            if rate := row.rates.get(line.unit):
                marked: StoredRate = {**rate, "is_unsplit": True}
                together[index] = row._replace(rates={**row.rates, line.unit: marked})
    return [row._replace(ordinal=ordinal) for ordinal, row in enumerate(together)]


def _of_kind(lines: Iterable[Line], kind: str) -> list[Line]:
    return [line for line in lines if line.kind == kind]


def _with_rates(
    row: CatalogueRow, lines: list[Line], starts_on: date | None
) -> Iterator[CatalogueRow]:
    """Yield a price with the rates that it lacks, beside itself until then if they begin later."""
    rates: StoredRates = {
        line.unit: line.rate(units().units[line.unit].per, nanos_text(line.value))
        for line in lines
        if line.unit not in row.rates
    }
    is_later = starts_on is not None and (row.effective_from or date.min) < starts_on
    if not rates or not is_later or row.daily_from is not None:
        yield row._replace(rates={**row.rates, **rates})
        return
    yield row
    yield row._replace(effective_from=starts_on, rates={**row.rates, **rates})


def _multiplied(rows: Iterable[CatalogueRow], line: Line) -> list[CatalogueRow]:
    """Prices with token rates, for calls of the line's context as well as their own."""
    return [
        row._replace(context={**row.context, **line.context}, rates=rates)
        for row in rows
        if (rates := _times_factor(row.rates, line))
    ]


def _times_factor(rates: StoredRates, line: Line) -> StoredRates:
    multiplied: StoredRates = {}
    for key, rate in rates.items():
        if units().units[key].dimensions["family"] != line.unit:
            continue
        multiplied[key] = {**rate, **line.rate(rate["per"], _times(rate["nanos"], line.value))}
        if "tiers" in rate:
            multiplied[key]["tiers"] = [
                {**tier, "nanos": _times(tier["nanos"], line.value)} for tier in rate["tiers"]
            ]
    return multiplied


def _times(nanos: str, factor: Decimal) -> str:
    return nanos_text(Decimal(nanos).scaleb(-9) * factor)
