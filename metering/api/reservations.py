"""`/v1/reservations` and `/v1/balances`."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from msgspec import Meta
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.problems import CONTENT_TYPE
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of, usd_or_none
from common.errors import InvalidRequest, NotFound
from common.money import usd_from_nanos
from common.values import normal_value
from metering.api.fast_halts import READERS
from metering.api.fast_path import JSON
from metering.api.fast_views import fast_post
from metering.api.ingest import PROBLEM
from metering.core.dimensions import MATCHABLE, VALUE_CHARACTERS_MAX
from metering.core.match import KNOWN_BEFORE_CALL
from metering.ledger.holds import OPEN, SETTLED, STATES
from metering.models import Reservation
from metering.reporting.reservations import (
    OUTCOMES,
    Balance,
    HeldWindowAnswer,
    find_reservation,
    held_windows,
    read_balances,
)
from metering.reservations.answers import (
    BudgetRoom,
    ExtendAnswer,
    GrantAnswer,
    ReleaseAnswer,
    SettleAnswer,
)
from metering.reservations.verdicts import budget_answer
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

ASK: Final = {"$ref": "#/components/schemas/Ask"}
EVENT: Final = {"$ref": "#/components/schemas/SettledEvent"}
EXTENSION: Final = {"$ref": "#/components/schemas/Extension"}


class ReservationAnswer(Answer):
    """A reservation as it stands."""

    id: UUID
    status: Annotated[str, one_of(STATES.values())]
    decision: Annotated[str, one_of(["allow", "downgrade"])]
    model: str | None
    provider: str | None
    requested_model: str | None
    dimensions: dict[str, str]
    estimate: str
    reserved_usd: AmountUsd
    reserved_tokens: int
    created_at: UtcTimestamp
    expires_at: UtcTimestamp
    finished_at: UtcTimestamp | None
    cost_usd: AmountUsd | None
    released_usd: AmountUsd | None
    overrun_usd: AmountUsd | None
    late: bool
    outcome: Annotated[
        str | None,
        about(
            "Of the call: `unknown` if the hold expired and no report told of the call, which may"
            " have run; a settle makes it `known`. `not_run` where the hold was released, null"
            " while it is open."
        ),
        Meta(extra_json_schema={"enum": ["unknown", "known", "not_run", None]}),
    ]
    windows: list[HeldWindowAnswer]


class BalancesAnswer(Answer):
    """Every window that such a call would count in now."""

    budgets: list[BudgetRoom]


REFUSALS: Final = {
    (402, CONTENT_TYPE): OpenApiResponse(
        PROBLEM, "`budget_exceeded`, `unpriced` or `approval_needed`, with `budgets`."
    ),
    (423, CONTENT_TYPE): OpenApiResponse(PROBLEM, "`halted`, `breaker_open` or `locked_out`."),
    (429, CONTENT_TYPE): OpenApiResponse(PROBLEM, "`throttled`, with `Retry-After`."),
}


class ReservationsView(ApiView):
    """Reservations."""

    post = fast_post(
        summary="Ask before spending",
        description="Holds the amount in every window that the call counts in, or in none.",
        request={JSON: ASK},
        responses={201: GrantAnswer, **REFUSALS},
    )
    write_scope = Scope.ENFORCE
    takes_idempotency_key = True


class ReservationView(ApiView):
    """One reservation."""

    read_scopes = READERS

    @extend_schema(summary="Show a reservation", responses=ReservationAnswer)
    def get(self, request: Request, reservation_id: UUID) -> Response:
        row = find_reservation(tenant_of(request).id, reservation_id)
        if row is None:
            raise NotFound.of("reservation", reservation_id)
        return Response(_answer(row))


class _ActionView(ApiView):
    write_scope = Scope.ENFORCE
    also_answers = {"POST": (409,)}


class SettleView(_ActionView):
    """Settle a reservation."""

    post = fast_post(
        summary="Report what the call cost",
        description="The true cost is always booked: above the hold as an overrun, after the hold"
        " has ended as late. The same settle again gets the same answer.",
        request={JSON: EVENT},
        responses=SettleAnswer,
    )


class ReleaseView(_ActionView):
    """Release a reservation."""

    post = fast_post(
        summary="Release the hold: the call was not made",
        request=None,
        responses=ReleaseAnswer,
    )


class ExtendView(_ActionView):
    """Extend a reservation."""

    post = fast_post(
        summary="Extend the hold: the call is still running",
        request={JSON: EXTENSION},
        responses={200: ExtendAnswer, **REFUSALS},
    )


class BalancesView(ApiView):
    """What is left."""

    read_scopes = READERS
    parameters = {"GET": tuple(OpenApiParameter(name, str) for name in KNOWN_BEFORE_CALL)}

    @extend_schema(
        summary="Show what is left in every window that such a call would count in",
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
        return Response(
            BalancesAnswer(budgets=[_balance_answer(balance, now) for balance in balances])
        )


def _balance_answer(balance: Balance, now: datetime) -> BudgetRoom:
    answer = budget_answer(balance.rule, balance.window, balance.balance, balance.key, now=now)
    if balance.unknown_nanos:
        answer.unknown_usd = usd_from_nanos(balance.unknown_nanos)
    return answer


def _answer(row: Reservation) -> ReservationAnswer:
    is_settled = row.state == SETTLED
    cost = row.cost_nanos or 0
    released = None if row.state == OPEN else row.reserved_nanos
    if is_settled:
        released = 0 if row.is_late else max(0, row.reserved_nanos - cost)
    return ReservationAnswer.of(
        row,
        status=STATES[row.state],
        decision="allow" if row.requested_model is None else "downgrade",
        model=row.model or None,
        provider=row.provider or None,
        cost_usd=usd_from_nanos(cost) if is_settled else None,
        released_usd=usd_or_none(released),
        overrun_usd=usd_from_nanos(max(0, cost - row.reserved_nanos)) if is_settled else None,
        late=row.is_late,
        outcome=OUTCOMES[row.state],
        windows=held_windows(row.tenant_id, row),
    )
