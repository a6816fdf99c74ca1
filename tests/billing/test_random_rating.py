"""100,000 random usages under every charge model, against another computation of the same rules.

The other computation takes the usages one after the other, as they happened, and keeps what has
been charged so far; integers of a tiny unit where the rating has fractions. Both must agree
exactly, and to the cent, in whatever order and batches usage is added up.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from random import Random
from typing import Final, NamedTuple

import pytest

from billing.charge_models import Used
from billing.periods import Part
from billing.rating import LineKind, rate
from billing.totals import to_minor
from common.json_bodies import JsonObject
from tests.billing.rating_scene import parts_of, terms_of, usage_charge
from tests.seed import dice

USAGES: Final = 100_000
# Amounts are multiples of this: 12 decimals of a price, 6 of a quantity, two of a percentage.
TINY: Final = 10**22
MODELS = ("per_unit", "graduated", "volume", "package", "percentage", "cost_plus")
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
PROVIDERS = ("anthropic", "openai", "google")
LLMS = ("large", "small")


class Usage(NamedTuple):
    """One call: when, how much, whose."""

    minute: int
    micros: int
    provider: str
    model: str


def decimal(chances: Random, most: int, places: int) -> str:
    whole = chances.randrange(most * 10**places + 1)
    return f"{whole // 10**places}.{whole % 10**places:0{places}d}"


def tiers(chances: Random) -> list[JsonObject]:
    bounds = sorted(chances.sample(range(1, 400_000), chances.randrange(6)))
    return [
        {
            "up_to": None if bound is None else str(bound),
            "unit_amount": decimal(chances, 2, 6),
            "flat_amount": decimal(chances, 50, 2),
        }
        for bound in (*bounds, None)
    ]


def charge(chances: Random, model: str) -> JsonObject:
    """A charge of a model; those of different versions differ in every price."""
    included = {"included_units": str(chances.choice([0, 0, 10_000, 150_000]))}
    match model:
        case "per_unit":
            members = {"unit_amount": decimal(chances, 3, 12), "per": chances.choice([1, 1000])}
        case "graduated" | "volume":
            members = {"tiers": tiers(chances), "per": chances.choice([1, 1000])}
        case "package":
            sizes = chances.choice([1, 7, 1000, 99_999])
            members = {"package_size": sizes, "package_amount": decimal(chances, 20, 4)}
        case "percentage":
            members = {"percent": decimal(chances, 100, 6), "unit_amount": decimal(chances, 1, 6)}
        case _:
            included = {}
            markups = [
                {"percent": decimal(chances, 90, 4), "provider": "openai"},
                {"percent": decimal(chances, 90, 4), "model": "small"},
                {"percent": decimal(chances, 90, 4), "provider": "google", "model": "small"},
            ]
            members = {"percent": decimal(chances, 90, 6), "markups": markups}
    metric = "cost" if model in ("percentage", "cost_plus") else "input_tokens"
    bounds: JsonObject = {}
    if chances.random() < 0.5:
        bounds = {"cap_amount": decimal(chances, 200_000, 2)}
    return usage_charge(model, metric=metric, **members, **included, **bounds)


def make_usages(chances: Random) -> Iterator[Usage]:
    minutes = 30 * 24 * 60
    for _ in range(USAGES):
        yield Usage(
            chances.randrange(minutes),
            chances.choice([1_000_000, 2_500_000, 3_333_333, chances.randrange(9_000_000)]),
            chances.choice(PROVIDERS),
            chances.choice(LLMS),
        )


# ---- the other computation


@cache
def tiny(amount: str | int) -> int:
    """An amount in units of TINY; fails if it is not a whole number of them."""
    scaled = Fraction(str(amount)) * TINY
    assert scaled.denominator == 1
    return scaled.numerator


def units_of(micros: int, price: int, per: int) -> int:
    product, rest = divmod(micros * price, 10**6 * per)
    assert rest == 0
    return product


class Meter:
    """Charges one usage after the other of the versions of a charge."""

    def __init__(self, versions: list[JsonObject], total: int) -> None:
        self.versions = versions
        self.total = total
        self.micros = 0
        self.flats: set[int] = set()
        self.packages = 0

    def begin(self, version: JsonObject) -> int:
        """What no usage at all costs: the first tier, unless units are included."""
        if version["model"] == "graduated" and version["included_units"] == "0":
            self.flats.add(0)
            return tiny(version["tiers"][0]["flat_amount"])
        return 0

    def change(self, version: JsonObject) -> None:
        """Go on under another version, whose tiers up to the present quantity count as reached."""
        above = self.micros - int(version.get("included_units", 0)) * 10**6
        lowers = [0, *(int(tier["up_to"]) * 10**6 for tier in version.get("tiers", ())[:-1])]
        self.flats = {index for index, lower in enumerate(lowers) if lower < above}
        if version.get("included_units") == "0":
            self.flats.add(0)

    def add(self, version: JsonObject, usage: Usage) -> int:
        before = self.micros
        self.micros += usage.micros
        free = int(version.get("included_units", 0)) * 10**6
        start, end = max(0, before - free), max(0, self.micros - free)
        owed = 0
        match version["model"]:
            case "per_unit":
                owed = units_of(end - start, tiny(version["unit_amount"]), version["per"])
            case "graduated":
                owed = self._graduated(version, start, end)
            case "volume":
                tier = self._volume_tier(version, free)
                if tier is not None:
                    owed = units_of(usage.micros, tiny(tier["unit_amount"]), version["per"])
            case "package":
                size = version["package_size"] * 10**6
                owed = (-(-end // size) + -start // size) * tiny(version["package_amount"])
            case "percentage":
                owed = units_of(end - start, tiny(version["percent"]), 100)
                owed += tiny(version["unit_amount"])
            case "cost_plus":
                owed = units_of(usage.micros, tiny(100) + tiny(markup(version, usage)), 100)
        return owed

    def end(self, version: JsonObject) -> int:
        """What is due once, at the end."""
        if version["model"] != "volume":
            return 0
        tier = self._volume_tier(version, int(version["included_units"]) * 10**6)
        return 0 if tier is None else tiny(tier["flat_amount"])

    def _graduated(self, version: JsonObject, start: int, end: int) -> int:
        bounds = [int(tier["up_to"]) * 10**6 for tier in version["tiers"][:-1]]
        owed = 0
        while start < end:
            index = bisect_right(bounds, start)
            stop = min(end, bounds[index]) if index < len(bounds) else end
            tier = version["tiers"][index]
            owed += units_of(stop - start, tiny(tier["unit_amount"]), version["per"])
            if index not in self.flats:
                self.flats.add(index)
                owed += tiny(tier["flat_amount"])
            start = stop
        return owed

    def _volume_tier(self, version: JsonObject, free: int) -> JsonObject | None:
        if free and self.total <= free:
            return None
        above = max(0, self.total - free)
        for tier in version["tiers"]:
            if tier["up_to"] is None or above <= int(tier["up_to"]) * 10**6:
                result: JsonObject = tier
                return result
        return None


def markup(version: JsonObject, usage: Usage) -> str:
    own = {
        (each.get("provider"), each.get("model")): str(each["percent"])
        for each in version["markups"]
    }
    by_model = own.get((None, usage.model), own.get((usage.provider, None)))
    return own.get((usage.provider, usage.model), by_model) or str(version["percent"])


def charge_one_by_one(versions: list[JsonObject], cuts: list[int], usages: list[Usage]) -> int:
    """What the usages of a month cost, in tiny units, before the cap."""
    meter = Meter(versions, sum(usage.micros for usage in usages))
    owed = meter.begin(versions[0])
    present = versions[0]
    for usage in sorted(usages):
        version = versions[bisect_right(cuts, usage.minute)]
        if version is not present:
            meter.change(version)
            present = version
        owed += meter.add(version, usage)
    return owed + meter.end(versions[-1])


# ---- the rating, with usage added up in any order and batches


def parts_for(versions: list[JsonObject], cuts: list[int]) -> list[Part]:
    begins = [None, *(NOVEMBER + timedelta(minutes=cut) for cut in cuts)]
    terms = [(at, terms_of(each)) for at, each in zip(begins, versions, strict=True)]
    return parts_of(*terms)


def added_up(parts: int, cuts: list[int], usages: list[Usage], chances: Random) -> list[Used]:
    """Usage by part: batches of all sizes, in any order, added up in any order."""
    batches: list[Used] = []
    places: list[int] = []
    shuffled = chances.sample(usages, len(usages))
    while shuffled:
        size = min(len(shuffled), chances.choice([1, 10, 1000, 20_000]))
        batch, shuffled = shuffled[-size:], shuffled[:-size]
        by_part: defaultdict[int, list[Usage]] = defaultdict(list)
        for usage in batch:
            by_part[bisect_right(cuts, usage.minute)].append(usage)
        for position, members in by_part.items():
            places.append(position)
            batches.append(used_by(members))
    order = chances.sample(range(len(batches)), len(batches))
    sums = [Used() for _ in range(parts)]
    for index in order:
        position, batch_sum = places[index], batches[index]
        costs = dict(sums[position].costs)
        for whose, cost in batch_sum.costs.items():
            costs[whose] = costs.get(whose, Fraction(0)) + cost
        sums[position] = Used(
            quantity=sums[position].quantity + batch_sum.quantity,
            requests=sums[position].requests + batch_sum.requests,
            costs=costs,
        )
    return sums


def used_by(usages: list[Usage]) -> Used:
    micros: defaultdict[tuple[str, str], int] = defaultdict(int)
    for usage in usages:
        micros[usage.provider, usage.model] += usage.micros
    return Used(
        quantity=Fraction(sum(micros.values()), 10**6),
        requests=len(usages),
        costs={whose: Fraction(total, 10**6) for whose, total in micros.items()},
    )


@pytest.mark.parametrize("model", MODELS)
def test_random_usage_costs_what_another_computation_says(model: str) -> None:
    chances = dice("rating", model)
    usages = list(make_usages(chances))
    given = 0
    while given < len(usages):
        # From no usage at all up to a month that reaches every tier.
        count = chances.choice([0, 1, 30, 1000, 20_000, 60_000])
        month = usages[given : given + count]
        given += count
        cuts = sorted(chances.sample(range(1, 30 * 24 * 60), chances.randrange(3)))
        versions = [charge(chances, model) for _ in range(len(cuts) + 1)]
        parts = parts_for(versions, cuts)
        sums = added_up(len(parts), cuts, month, chances)
        pairs = [(part, {"Usage": used}) for part, used in zip(parts, sums, strict=True)]
        lines = rate(pairs)
        exact = Fraction(charge_one_by_one(versions, cuts, month), TINY)
        usage_lines = [line for line in lines if line.kind == LineKind.USAGE]
        assert sum(line.amount for line in usage_lines) == exact, versions
        assert all(
            sum(stretch.amount for stretch in line.stretches) == line.amount for line in usage_lines
        )
        cap = versions[-1].get("cap_amount")
        capped = exact if cap is None else min(exact, Fraction(cap))
        cents = sum(to_minor([line.amount for line in lines], 2))
        assert cents == int(capped * 100 + Fraction(1, 2))
