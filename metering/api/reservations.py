"""`/v1/reservations` and `/v1/balances` as views.

The web process answers the POSTs before Django (`config.edge`); these views serve everything else
that speaks to Django directly, and put the endpoints into the schema.
"""

from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Moment, Usd, moment_text
from common.api.problems import CONTENT_TYPE
from common.errors import InvalidRequest, NotFound
from common.money import usd_from_nanos
from common.values import normal_value
from metering.api.fast_path import JSON
from metering.api.fast_reservations import (
    handle_extend,
    handle_release,
    handle_reserve,
    handle_settle,
)
from metering.api.fast_views import answer_of
from metering.core.dimensions import DIMENSIONS, FURTHER_DIMENSIONS, MATCHABLE, VALUE_CHARACTERS_MAX
from metering.ledger.holds import OPEN, SETTLED, STATES
from metering.models import Reservation
from metering.reporting.reservations import (
    Balance,
    find_reservation,
    held_windows,
    outcome_of,
    read_balances,
)
from metering.reservations.verdicts import budget_answer
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

ASK: Final = {"$ref": "#/components/schemas/Ask"}
EVENT: Final = {"$ref": "#/components/schemas/SettledEvent"}
EXTENSION: Final = {"$ref": "#/components/schemas/Extension"}
PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}
READERS: Final = (Scope.ENFORCE, Scope.READ)
# `status` is how a call ended; what is left does not depend on it.
ASKABLE: Final = tuple(name for name in (*DIMENSIONS, *FURTHER_DIMENSIONS) if name != "status")


class BudgetRoom(serializers.Serializer[Any]):
    """A window and what is left of it. Tokens, requests, tool calls and seconds where limited."""

    budget = serializers.IntegerField()
    name = serializers.CharField()
    mode = serializers.CharField()
    group = serializers.DictField(child=serializers.CharField(allow_blank=True))
    window_start = Moment(allow_null=True)
    window_end = Moment(allow_null=True)
    limit_usd = Usd(allow_null=True)
    spent_usd = Usd()
    reserved_usd = Usd()
    remaining_usd = serializers.CharField(allow_null=True, help_text="Below zero when overspent.")
    used_percent = serializers.FloatField(help_text="Of the fullest part of the limit.")
    level = serializers.IntegerField(allow_null=True)
    limit_tokens = serializers.IntegerField(required=False)
    spent_tokens = serializers.IntegerField(required=False)
    reserved_tokens = serializers.IntegerField(required=False)
    remaining_tokens = serializers.IntegerField(required=False)
    limit_requests = serializers.IntegerField(required=False)
    spent_requests = serializers.IntegerField(required=False)
    reserved_requests = serializers.IntegerField(required=False)
    remaining_requests = serializers.IntegerField(required=False)
    limit_tool_calls = serializers.IntegerField(required=False)
    spent_tool_calls = serializers.IntegerField(required=False)
    reserved_tool_calls = serializers.IntegerField(required=False)
    remaining_tool_calls = serializers.IntegerField(required=False)
    limit_seconds = serializers.IntegerField(required=False)
    first_used_at = Moment(required=False, allow_null=True)
    refused = serializers.BooleanField(required=False, help_text="In a refusal: this one did.")
    unknown_usd = Usd(
        required=False,
        help_text="In balances, where above zero: what was held for calls that may have run, until"
        " their time was over. It is neither spent nor reserved.",
    )


class WarningAnswer(serializers.Serializer[Any]):
    """Something that did not stop the call."""

    code = serializers.CharField()
    detail = serializers.CharField()
    budget = serializers.IntegerField(required=False)
    mode = serializers.CharField(required=False)


class GrantAnswer(serializers.Serializer[Any]):
    """What is held. `downgrade` names a cheaper model to use instead."""

    id = serializers.UUIDField()
    status = serializers.CharField()
    decision = serializers.ChoiceField(choices=["allow", "downgrade"])
    model = serializers.CharField(allow_null=True)
    provider = serializers.CharField(allow_null=True)
    requested_model = serializers.CharField(required=False)
    reserved_usd = Usd()
    reserved_tokens = serializers.IntegerField()
    estimate = serializers.ChoiceField(choices=["max", "expected", "amount"])
    expires_at = Moment()
    budgets = BudgetRoom(many=True)
    warnings = WarningAnswer(many=True)


class SettleAnswer(serializers.Serializer[Any]):
    """What the call cost, and what became of the hold."""

    id = serializers.UUIDField()
    status = serializers.CharField()
    cost_usd = Usd()
    released_usd = Usd()
    overrun_usd = Usd(help_text="What the call cost above what was reserved for it.")
    late = serializers.BooleanField(help_text="The hold had ended before.")


class ReleaseAnswer(serializers.Serializer[Any]):
    """What was given back."""

    id = serializers.UUIDField()
    status = serializers.CharField(help_text="released, or expired where it had expired before.")
    released_usd = Usd()


class ExtendAnswer(serializers.Serializer[Any]):
    """Until when it holds now."""

    id = serializers.UUIDField()
    status = serializers.CharField()
    expires_at = Moment()


class HeldWindowAnswer(serializers.Serializer[Any]):
    """A window that it holds, or held."""

    budget = serializers.IntegerField()
    name = serializers.CharField()
    group = serializers.DictField(child=serializers.CharField(allow_blank=True))
    window_start = Moment()
    window_end = Moment(allow_null=True)


class ReservationAnswer(serializers.Serializer[Any]):
    """A reservation as it stands."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=list(STATES.values()))
    decision = serializers.ChoiceField(choices=["allow", "downgrade"])
    model = serializers.CharField(allow_null=True)
    provider = serializers.CharField(allow_null=True)
    requested_model = serializers.CharField(allow_null=True)
    dimensions = serializers.DictField(child=serializers.CharField())
    estimate = serializers.CharField()
    reserved_usd = Usd()
    reserved_tokens = serializers.IntegerField()
    created_at = Moment()
    expires_at = Moment()
    finished_at = Moment(allow_null=True)
    cost_usd = Usd(allow_null=True)
    released_usd = Usd(allow_null=True)
    overrun_usd = Usd(allow_null=True)
    late = serializers.BooleanField()
    outcome = serializers.ChoiceField(
        choices=["unknown", "known", "not_run"],
        allow_null=True,
        help_text="Of the call: `unknown` if the hold expired and no report told of the call,"
        " which may have run; a settle makes it `known`. `not_run` where the hold was released,"
        " null while it is open.",
    )
    windows = HeldWindowAnswer(many=True)


class BalancesAnswer(serializers.Serializer[Any]):
    """Every window that such a call would count in now."""

    budgets = BudgetRoom(many=True)


REFUSALS: Final = {
    (402, CONTENT_TYPE): OpenApiResponse(
        PROBLEM, "`budget_exceeded`, `unpriced` or `approval_needed`, with `budgets`."
    ),
    (423, CONTENT_TYPE): OpenApiResponse(PROBLEM, "`halted`, `breaker_open` or `locked_out`."),
    (429, CONTENT_TYPE): OpenApiResponse(PROBLEM, "`throttled`, with `Retry-After`."),
}


class ReservationsView(ApiView):
    """Reservations."""

    write_scope = Scope.ENFORCE

    @extend_schema(
        summary="Ask before spending",
        description="Holds the amount in every window that the call counts in, or in none.",
        request={JSON: ASK},
        responses={201: GrantAnswer, **REFUSALS},
    )
    def post(self, request: Request) -> HttpResponse:
        return answer_of(handle_reserve, request)

    post.takes_idempotency_key = True  # type: ignore[attr-defined]


class ReservationView(ApiView):
    """One reservation."""

    read_scopes = READERS

    @extend_schema(summary="Show a reservation", responses=ReservationAnswer)
    def get(self, request: Request, reservation_id: UUID) -> Response:
        found = find_reservation(tenant_of(request).id, reservation_id)
        if found is None:
            raise NotFound(f"There is no reservation {reservation_id}.")
        return Response(_answer(found))


class _ActionView(ApiView):
    write_scope = Scope.ENFORCE
    also_answers = {"POST": (409,)}


class SettleView(_ActionView):
    """Settle a reservation."""

    @extend_schema(
        summary="Say what the call has cost",
        description="The true cost is always booked: above the hold as an overrun, after the hold"
        " has ended as late. The same settle again gets the same answer.",
        request={JSON: EVENT},
        responses=SettleAnswer,
    )
    def post(self, request: Request, reservation_id: UUID) -> HttpResponse:
        return answer_of(partial(handle_settle, reservation_id=reservation_id), request)


class ReleaseView(_ActionView):
    """Release a reservation."""

    @extend_schema(
        summary="Give back what is held: the call was not made",
        request=None,
        responses=ReleaseAnswer,
    )
    def post(self, request: Request, reservation_id: UUID) -> HttpResponse:
        return answer_of(partial(handle_release, reservation_id=reservation_id), request)


class ExtendView(_ActionView):
    """Extend a reservation."""

    @extend_schema(
        summary="Hold on for longer: the call still runs",
        request={JSON: EXTENSION},
        responses={200: ExtendAnswer, **REFUSALS},
    )
    def post(self, request: Request, reservation_id: UUID) -> HttpResponse:
        return answer_of(partial(handle_extend, reservation_id=reservation_id), request)


class BalancesView(ApiView):
    """What is left."""

    read_scopes = READERS
    parameters = {"GET": frozenset(ASKABLE)}

    @extend_schema(
        summary="Show what is left in every window that such a call would count in",
        parameters=[OpenApiParameter(name, str) for name in ASKABLE],
        responses=BalancesAnswer,
    )
    def get(self, request: Request) -> Response:
        query = request.query_params
        given = {name: normal_value(query[name]) for name in query}
        lengths = range(1, VALUE_CHARACTERS_MAX + 1)
        if too_long := [name for name, value in given.items() if len(value) not in lengths]:
            detail = f"{too_long[0]!r} must be 1 to {VALUE_CHARACTERS_MAX} visible characters."
            raise InvalidRequest(
                detail,
                errors=[
                    {"pointer": f"?{name}", "code": "invalid_value", "detail": detail}
                    for name in too_long
                ],
            )
        defaults = {"operation": "llm", "status": "success"}
        values = tuple([given.get(name, defaults.get(name, "")) for name in MATCHABLE])
        balances = read_balances(tenant_of(request).id, values)
        now = timezone.now()
        return Response({"budgets": [_balance_answer(balance, now) for balance in balances]})


def _balance_answer(one: Balance, now: datetime) -> dict[str, Any]:
    answer = budget_answer(one.rule, one.window, one.balance, one.key, now=now)
    if one.unknown_nanos:
        answer["unknown_usd"] = usd_from_nanos(one.unknown_nanos)
    return answer


def _answer(found: Reservation) -> dict[str, Any]:
    is_settled = found.state == SETTLED
    cost = found.cost_nanos or 0
    spare = max(0, found.reserved_nanos - cost)
    released = found.reserved_nanos if found.state != OPEN else None
    if is_settled:
        released = 0 if found.is_late else spare
    return {
        "id": str(found.id),
        "status": STATES[found.state],
        "decision": "allow" if found.requested_model is None else "downgrade",
        "model": found.model or None,
        "provider": found.provider or None,
        "requested_model": found.requested_model,
        "dimensions": found.dimensions,
        "estimate": found.estimate,
        "reserved_usd": usd_from_nanos(found.reserved_nanos),
        "reserved_tokens": found.reserved_tokens,
        "created_at": moment_text(found.created_at),
        "expires_at": moment_text(found.expires_at),
        "finished_at": moment_text(found.finished_at) if found.finished_at else None,
        "cost_usd": usd_from_nanos(cost) if is_settled else None,
        "released_usd": None if released is None else usd_from_nanos(released),
        "overrun_usd": usd_from_nanos(max(0, cost - found.reserved_nanos)) if is_settled else None,
        "late": found.is_late,
        "outcome": outcome_of(found),
        "windows": [
            {
                **window,
                "window_start": moment_text(window["window_start"]),
                "window_end": moment_text(window["window_end"]) if window["window_end"] else None,
            }
            for window in held_windows(found.tenant_id, found)
        ],
    }
