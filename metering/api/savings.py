"""`/v1/savings` and `/v1/what-if`: what was saved and wasted, and what another model would cost."""

from typing import Annotated, Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import StrictSerializer, Timestamp, Value, problem_at, read_body
from common.api.structs import AmountUsd, Answer, GroupValues, UtcTimestamp, about, one_of
from common.money import usd_from_nanos
from metering.core.dimensions import MATCHABLE
from metering.core.match import wanted_values
from metering.fields.body import Match
from metering.fields.parameters import (
    FILTER_PARAMETERS,
    RANGE_DEFAULT,
    RANGE_PARAMETERS,
    read_filters,
    read_range,
)
from metering.reporting import UsageQuestion
from metering.reporting.savings import Finding, Kind, savings
from metering.reporting.what_if import what_if
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope


class FindingAnswer(Answer):
    """An amount, and the calls that make it: `filter` finds them in `/v1/events`."""

    kind: Annotated[
        str,
        one_of(
            list(Kind),
            "`caching`, `route` and `reported` were saved; `failed` and `repeated` were wasted;"
            " `cheaper_model` would have been saved by `other_model`.",
        ),
    ]
    amount_usd: AmountUsd
    calls: int
    filter: GroupValues
    other_model: Annotated[
        str | UnsetType, about("The cheaper model that was used, or that would save the amount.")
    ] = UNSET


class SavingsAnswer(Answer):
    """Findings, the largest amount first, and their sums."""

    saved_usd: AmountUsd
    wasted_usd: AmountUsd
    data: list[FindingAnswer]
    left_out: Annotated[list[str], about("Kinds for which this range has too many calls.")]


class SavingsView(ApiView):
    """What was saved and wasted."""

    filters = MATCHABLE
    parameters = {"GET": (*RANGE_PARAMETERS, *FILTER_PARAMETERS)}

    @extend_schema(
        summary="Where money was saved, wasted, or could be saved",
        description="Caching: cached input at the full input price, less what it cost. Caching and"
        " `cheaper_model` are computed from sums by model and UTC day, at the standard rates as the"
        " day began; `/v1/what-if` rates calls one by one. The first of repeated calls is not"
        " counted as wasted.",
        responses={200: SavingsAnswer},
    )
    def get(self, request: Request) -> Response:
        starts_at, ends_at = read_range(request, None)
        result = savings(
            UsageQuestion(
                tenant_id=tenant_of(request).id,
                starts_at=starts_at,
                ends_at=ends_at,
                interval="none",
                filters=read_filters(request),
            )
        )
        return Response(
            SavingsAnswer(
                saved_usd=usd_from_nanos(result.saved_nanos),
                wasted_usd=usd_from_nanos(result.wasted_nanos),
                data=[_finding_answer(finding) for finding in result.findings],
                left_out=list(result.left_out),
            )
        )


def _finding_answer(finding: Finding) -> FindingAnswer:
    return FindingAnswer(
        kind=finding.kind,
        amount_usd=usd_from_nanos(finding.nanos),
        calls=finding.calls,
        filter=dict(finding.filters),
        other_model=finding.other_model or UNSET,
    )


class WhatIfBody(StrictSerializer):
    """Which calls, and the model that would have served them."""

    model = Value()
    provider = Value(required=False, help_text="If several sell the model.")
    filter = Match(required=False, help_text="The calls, by dimension; empty: all.")
    to = Timestamp(required=False, help_text="Now, unless given.")

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of Python's own, so it cannot be declared as the others are.
        return {
            "from": Timestamp(required=False, help_text="30 days before `to`, unless given."),
            **super().get_fields(),
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.setdefault("to", timezone.now())
        attrs.setdefault("from", attrs["to"] - RANGE_DEFAULT)
        if attrs["from"] >= attrs["to"]:
            raise problem_at("to", "must be later than 'from'")
        return attrs


class WhatIfAnswer(Answer):
    """What calls cost, and what their tokens would have cost on another model, to the
    nano-dollar.
    """

    model: str
    starts_at: UtcTimestamp
    ends_at: UtcTimestamp
    calls: int
    cost_usd: AmountUsd
    other_cost_usd: AmountUsd
    saved_usd: Annotated[AmountUsd, about("Below zero where the other model costs more.")]


class WhatIfView(ApiView):
    """What another model would cost."""

    write_scope = Scope.READ

    @extend_schema(
        summary="Rate past calls at another model's prices",
        description="Each call by itself, at the price of its time; nothing is stored. Refused with"
        " `no_price` where the model has none for what a call used, and with `too_much_to_read`"
        " beyond 200,000 calls.",
        request=WhatIfBody,
        responses={200: WhatIfAnswer},
    )
    def post(self, request: Request) -> Response:
        fields = read_body(WhatIfBody, request)
        match = fields.get("filter", {})
        question = UsageQuestion(
            tenant_id=tenant_of(request).id,
            starts_at=fields["from"],
            ends_at=fields["to"],
            interval="none",
            filters={name: tuple(sorted(wanted_values(value))) for name, value in match.items()},
        )
        result = what_if(question, provider=fields.get("provider"), model=fields["model"])
        return Response(
            WhatIfAnswer(
                model=fields["model"],
                starts_at=question.starts_at,
                ends_at=question.ends_at,
                calls=result.calls,
                cost_usd=usd_from_nanos(result.cost_nanos),
                other_cost_usd=usd_from_nanos(result.other_nanos),
                saved_usd=usd_from_nanos(result.saved_nanos),
            )
        )
