"""`POST /v1/rating-preview`: what a plan would charge for some usage. Nothing is stored."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta
from drf_spectacular.utils import extend_schema
from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.rating_preview_body import Moment, RatingPreviewBody
from billing.charge_models import Stretch
from billing.currencies import amount_of, digits_of
from billing.periods import Part, Period, Schedule
from billing.preview import rate_given
from billing.rate_words import decimal_text
from billing.rating import LineKind, RatedLine
from billing.terms import Metric, UsageCharge, Version
from billing.totals import Totals, settle_totals, to_minor
from common.api.fields import problem_at, read_body
from common.api.structs import Answer, UtcTimestamp, about, one_of
from common.json_bodies import JsonObject
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

DECIMALS: Final = 12


class StretchAnswer(Answer):
    """A part of a line's quantity that has one rate."""

    unit: Annotated[
        str,
        one_of(
            ["unit", "package", "percent", "request"],
            "What `rate` is for: `per` units, a package, a call; or a percentage of the cost.",
        ),
    ]
    quantity: str
    rate: str
    per: int
    flat_amount: str
    amount: Annotated[str, about("Not rounded to the currency's digits.")]


class RatedLineAnswer(Answer):
    """A line, with what explains its amount."""

    name: str
    kind: Annotated[str, one_of([each.value for each in LineKind])]
    quantity: Annotated[str, about("Of a flat fee, its share of the period.")]
    amount: Annotated[str, about("In the currency's digits; all add up to the subtotal.")]
    exact_amount: Annotated[str, about("Before cents were made, to 12 decimals.")]
    starts_at: UtcTimestamp
    ends_at: UtcTimestamp
    is_trial: bool
    tiers: Annotated[list[StretchAnswer], about("The parts of the quantity that have one rate.")]
    charge: Annotated[str | UnsetType, about("Whose minimum or cap this is; none: the plan's.")] = (
        UNSET
    )
    metric: Annotated[str | UnsetType, one_of([each.value for each in Metric])] = UNSET


class TaxAnswer(Answer):
    """A tax on the taxable amount."""

    name: str
    percent: str
    amount: str


class RatingPreviewAnswer(Answer):
    """What the plan would charge, as a statement says it."""

    period_start: UtcTimestamp
    period_end: UtcTimestamp
    timezone: str
    currency: str
    lines: list[RatedLineAnswer]
    subtotal: str
    coupon_amount: str
    taxable: str
    taxes: list[TaxAnswer]
    total: str
    credit_applied: str
    amount_due: str
    usage_outside: Annotated[
        int, about("Entries whose time is not in the period, which are not counted.")
    ]


class RatingPreviewView(ApiView):
    """What a plan would charge."""

    write_scope = Scope.BILLING

    @extend_schema(
        summary="Rate usage by a plan",
        description="The lines and totals that this plan would give for a period that is over, by"
        " the rules of docs/billing.md. Nothing is stored. `tokens` counts entries of that name and"
        " those of input and output tokens; a charge for each call counts `requests`; entries of"
        " `cost` choose markups by `model` and `provider`.",
        request=RatingPreviewBody,
        responses={200: RatingPreviewAnswer},
    )
    def post(self, request: Request) -> Response:
        fields = read_body(RatingPreviewBody, request)
        plan = fields["plan"]
        timezone = plan.get("timezone", tenant_of(request).timezone)
        period, parts = _period_of(fields, timezone)
        inside = [
            each
            for each in fields["usage"]
            if each.time is None or period.starts_at <= each.time < period.ends_at
        ]
        lines = rate_given(parts, inside)
        amounts = to_minor([line.amount for line in lines], digits_of(plan["currency"]))
        totals = settle_totals(
            sum(amounts),
            coupon=fields["coupon"],
            tax_rates=fields.get("tax_rates", ()),
            credit=fields["credit"],
        )
        return Response(
            RatingPreviewAnswer(
                period_start=period.scheduled_start,
                period_end=period.scheduled_end,
                timezone=timezone,
                currency=plan["currency"],
                lines=list(_line_answers(lines, amounts, plan["currency"])),
                taxes=_tax_answers(totals, plan["currency"]),
                usage_outside=len(fields["usage"]) - len(inside),
                **{name: amount_of(getattr(totals, name), plan["currency"]) for name in _TOTALS},
            )
        )


_TOTALS: Final = (
    "subtotal",
    "coupon_amount",
    "taxable",
    "total",
    "credit_applied",
    "amount_due",
)


def _period_of(fields: JsonObject, timezone: str) -> tuple[Period, list[Part]]:
    """Return the period that is asked about, and its parts. Raises ValidationError if the
    subscription does not cover any of it.
    """
    plan, asked = fields["plan"], fields["period"]
    zone = ZoneInfo(timezone)
    start = _begin(asked.start, zone)
    end = _begin(asked.start + relativedelta(months=1) if asked.end is None else asked.end, zone)
    if start >= end:
        raise problem_at("period", "must end later than it starts")
    if start.astimezone(zone).date() == end.astimezone(zone).date():
        # Fees are shared out by the days of the period.
        raise problem_at("period", "must end on a later day than it starts")
    schedule = Schedule(
        interval=plan["interval"],
        anchor=plan["anchor"],
        timezone=timezone,
        # Else long enough before to cover all of any period, on the same day of the month.
        starts_at=fields.get("starts_at", start.astimezone(zone) - relativedelta(years=1)),
        ends_at=fields.get("ends_at"),
    )
    if asked.end is None:
        period = _period_in_month(schedule, start, end)
    else:
        period = schedule.cut(start, end)
    if period is None:
        raise problem_at("period", "must have some time in which the subscription runs")
    trial_days = plan["trial_days"] if "starts_at" in fields else 0
    versions = [Version(1, None, plan["terms"])]
    return period, schedule.parts(period, versions, schedule.trial_end(trial_days))


def _begin(moment: Moment, zone: ZoneInfo) -> datetime:
    if isinstance(moment, datetime):
        return moment.astimezone(UTC)
    return datetime(moment.year, moment.month, moment.day, tzinfo=zone).astimezone(UTC)


def _period_in_month(schedule: Schedule, start: datetime, end: datetime) -> Period | None:
    """Return the period that begins in a month, else the one that holds some of it."""
    periods = list(schedule.periods_between(start, end))
    begun = [period for period in periods if period.starts_at >= start]
    return next(iter([*begun, *periods]), None)


def _line_answers(
    lines: Sequence[RatedLine], amounts: Sequence[int], currency: str
) -> Iterator[RatedLineAnswer]:
    for line, amount in zip(lines, amounts, strict=True):
        is_bound = line.kind in (LineKind.MINIMUM, LineKind.CAP)
        yield RatedLineAnswer(
            name=line.name,
            kind=line.kind.value,
            quantity=decimal_text(line.quantity, DECIMALS),
            amount=amount_of(amount, currency),
            exact_amount=decimal_text(line.amount, DECIMALS),
            starts_at=line.starts_at,
            ends_at=line.ends_at,
            is_trial=line.is_trial,
            tiers=[_stretch_answer(stretch) for stretch in line.stretches],
            charge=line.charge.name if is_bound and line.charge else UNSET,
            metric=line.charge.metric.value if isinstance(line.charge, UsageCharge) else UNSET,
        )


def _stretch_answer(stretch: Stretch) -> StretchAnswer:
    return StretchAnswer(
        unit=stretch.unit,
        per=stretch.per,
        **{
            name: decimal_text(getattr(stretch, name), DECIMALS)
            for name in ("quantity", "rate", "flat_amount", "amount")
        },
    )


def _tax_answers(totals: Totals, currency: str) -> list[TaxAnswer]:
    return [
        TaxAnswer(
            name=tax.name,
            percent=decimal_text(Fraction(tax.percent), DECIMALS),
            amount=amount_of(tax.amount, currency),
        )
        for tax in totals.taxes
    ]
