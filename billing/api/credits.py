"""`/v1/credits`: prepaid credit of customers."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.credit_fields import in_minor_units
from billing.api.references import CustomerReference, OfCustomers, find_customer, named
from billing.credits import PRIORITY_MAX, ROLLOVER_MONTHS_MAX, grant_credit, held_of, void_credit
from billing.currencies import amount_of
from billing.models import CreditEntry, CreditEntryKind, CreditGrant, CreditKind, CreditState
from common.api.fields import Amount, Choice, Count, StrictSerializer, Text, Timestamp, read_body
from common.api.structs import Answer, UtcTimestamp, about, one_of
from common.json_bodies import JsonObject
from metering.fields.body import errors_at_members
from tenants.api.idempotency import idempotent

# The entries that a grant is shown with.
ENTRIES_MAX: Final = 500


class RolloverBody(StrictSerializer):
    """What of the unused credit becomes credit of its own when this expires."""

    percent = Count(source="rollover_percent", max_value=100, help_text="Its share, rounded down.")
    max_amount = Amount(
        source="rollover_max",
        required=False,
        help_text="The most that rolled-over credit of the customer may hold.",
    )
    months = Count(
        source="rollover_months",
        required=False,
        max_value=ROLLOVER_MONTHS_MAX,
        help_text="How long the new credit lasts; left out: without an end.",
    )


class CreditBody(StrictSerializer):
    """Credit for a customer, in its currency."""

    customer = CustomerReference()
    amount = Amount()
    kind = Choice(choices=CreditKind.values)
    priority = Count(
        required=False, min_value=0, max_value=PRIORITY_MAX, help_text="Lower is drawn first. 50."
    )
    effective_at = Timestamp(required=False, help_text="Now, if left out.")
    expires_at = Timestamp(required=False, allow_null=True)
    rollover = RolloverBody(source="*", required=False)
    reference = Text(required=False, help_text="Such as the number of a payment.")


class VoidBody(StrictSerializer):
    """What of a credit is taken back, and why."""

    amount = Amount(required=False, help_text="All that may be taken back, if left out.")
    reason = Text(max_length=1000)


class RolloverAnswer(Answer):
    """What of the unused credit becomes credit of its own."""

    percent: int
    max_amount: str | None
    months: int | None


class CreditAnswer(Answer):
    """Credit, in the customer's currency."""

    id: int
    customer: Annotated[str, about("The customer's key.")]
    currency: str
    kind: Annotated[str, one_of(CreditKind.values)]
    amount: Annotated[str, about("As it was granted.")]
    balance: str
    held_for_calls: Annotated[
        str, about("Of the balance: what expired credit keeps for calls that are in flight.")
    ]
    priority: int
    state: Annotated[
        str, one_of(CreditState.values, "What is expired pays for usage before alone.")
    ]
    effective_at: UtcTimestamp
    expires_at: UtcTimestamp | None
    expired_at: UtcTimestamp | None
    rollover: RolloverAnswer | None
    rolled_from: Annotated[int | None, about("The credit that this is the rest of.")]
    reference: str
    actor: str
    created_at: UtcTimestamp


class CreditEntryAnswer(Answer):
    """Why a balance moved."""

    kind: Annotated[str, one_of(CreditEntryKind.values)]
    amount: str
    statement: Annotated[str | None, about("The number of the statement that it paid.")]
    note: str
    actor: str
    created_at: UtcTimestamp


class CreditDetailAnswer(CreditAnswer):
    """Credit with what moved it: the latest 500 entries."""

    entries: Annotated[list[CreditEntryAnswer], about("Oldest first.")]


@extend_schema_view(
    list=extend_schema(summary="List credit, newest first, with the balance of each grant"),
    create=extend_schema(
        summary="Grant credit to a customer",
        description="The customer's wallet, if it has one, may spend it immediately.",
        responses={201: CreditDetailAnswer},
    ),
    retrieve=extend_schema(summary="Show credit with its entries", responses=CreditDetailAnswer),
)
class Credits(OfCustomers[CreditGrant]):
    """The prepaid credit of the tenant's customers."""

    model = CreditGrant
    noun = "credit"
    body = CreditBody
    answer = CreditAnswer
    also_answers = {"void": (409,)}

    def create_row(self, fields: JsonObject) -> CreditGrant:
        customer = named("customer", find_customer, self.tenant.id, fields.pop("customer"))
        with errors_at_members(self.body()):
            amounts = in_minor_units(fields, customer.currency, "amount", "rollover_max")
            return grant_credit(tenant=self.tenant, actor=self.actor, customer=customer, **amounts)

    def answers(self, rows: Sequence[CreditGrant]) -> Sequence[CreditAnswer]:
        held = held_of(rows)
        return [credit_answer(row, CreditAnswer, held.get(row.id, 0)) for row in rows]

    def full_answer(self, row: CreditGrant) -> CreditDetailAnswer:
        entries = list(row.entries.select_related("statement").order_by("-id")[:ENTRIES_MAX])
        answer: CreditDetailAnswer = credit_answer(
            row,
            CreditDetailAnswer,
            held_of([row]).get(row.id, 0),
            entries=[_entry_answer(entry, row.customer.currency) for entry in reversed(entries)],
        )
        return answer

    @extend_schema(
        summary="Take credit back",
        description="All that is left of it, or an amount. A wallet keeps what it needs for usage"
        " that no statement has charged yet and for calls in flight.",
        request=VoidBody,
        responses={200: CreditDetailAnswer},
    )
    @idempotent
    def void(self, request: Request, **path: object) -> Response:
        row, fields = self.row(), read_body(VoidBody, request)
        with errors_at_members(VoidBody()):
            amounts = in_minor_units(fields, row.customer.currency, "amount")
            return Response(self.full_answer(void_credit(row, actor=self.actor, **amounts)))


def credit_answer(grant: CreditGrant, kind: type[Any], held: int, **further: object) -> Any:
    """Return credit as it is answered."""
    currency = grant.customer.currency
    return kind.of(
        grant,
        customer=grant.customer.key,
        currency=currency,
        amount=amount_of(grant.amount, currency),
        balance=amount_of(grant.balance, currency),
        held_for_calls=amount_of(held, currency),
        rollover=_rollover_answer(grant, currency),
        rolled_from=grant.rolled_from_id,
        **further,
    )


def _rollover_answer(grant: CreditGrant, currency: str) -> RolloverAnswer | None:
    if grant.rollover_percent is None:
        return None
    most = grant.rollover_max
    return RolloverAnswer(
        percent=grant.rollover_percent,
        max_amount=None if most is None else amount_of(most, currency),
        months=grant.rollover_months,
    )


def _entry_answer(entry: CreditEntry, currency: str) -> CreditEntryAnswer:
    return CreditEntryAnswer.of(
        entry,
        amount=amount_of(entry.amount, currency),
        statement=entry.statement.number if entry.statement else None,
    )
