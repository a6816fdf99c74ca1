"""Plans as their form reads them, and periods to rate them in."""

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction

from billing.api.plans_body import PlanBody
from billing.charge_models import Used
from billing.periods import Part, Schedule
from billing.rating import RatedLine, rate
from billing.terms import Terms, Version
from common.json_bodies import JsonObject

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def plan_of(*charges: JsonObject, **members: object) -> JsonObject:
    """A plan's fields, as the body of `POST /v1/plans` gives them."""
    body = PlanBody(data={"name": "Scale", "charges": list(charges), **members})
    body.is_valid(raise_exception=True)
    fields: JsonObject = body.validated_data
    return fields


def terms_of(*charges: JsonObject, **members: object) -> Terms:
    terms: Terms = plan_of(*charges, **members)["terms"]
    return terms


def usage_charge(model: str, **members: object) -> JsonObject:
    return {
        "name": "Usage",
        "kind": "usage",
        "metric": "input_tokens",
        "model": model,
        **members,
    }


def fee(amount: str, **members: object) -> JsonObject:
    return {"name": "Fee", "kind": "flat", "amount": amount, **members}


def schedule_of(
    starts_at: datetime = datetime(2020, 1, 1, tzinfo=UTC),
    ends_at: datetime | None = None,
    *,
    interval: str = "month",
    anchor: str = "calendar",
    timezone: str = "UTC",
) -> Schedule:
    return Schedule(
        interval=interval, anchor=anchor, timezone=timezone, starts_at=starts_at, ends_at=ends_at
    )


def parts_of(
    *versions: tuple[datetime | None, Terms],
    schedule: Schedule | None = None,
    at: datetime = NOVEMBER,
    trial_ends_at: datetime | None = None,
) -> list[Part]:
    """The parts of the period that holds a moment."""
    schedule = schedule or schedule_of()
    period = schedule.period_at(at)
    assert period is not None
    numbered = [Version(number, *version) for number, version in enumerate(versions, 1)]
    return schedule.parts(period, numbered, trial_ends_at)


def rate_month(terms: Terms, used: Used) -> list[RatedLine]:
    """The lines of November with this usage of each charge."""
    (part,) = parts_of((None, terms))
    names = [charge.name for charge in terms.charges]
    return rate([(part, dict.fromkeys(names, used))])


def rate_parts(parts: list[Part], *used: Mapping[str, Used]) -> list[RatedLine]:
    return rate(list(zip(parts, used, strict=True)))


def units(quantity: object) -> Used:
    return Used(quantity=Fraction(str(quantity)))


def total_of(lines: list[RatedLine]) -> Fraction:
    return sum((line.amount for line in lines), Fraction(0))
