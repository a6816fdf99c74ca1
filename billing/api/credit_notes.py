"""`/v1/credit-notes`: what is given back of final statements."""

from typing import Annotated

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers

from billing.api.credit_fields import in_minor_units
from billing.api.references import OfCustomers
from billing.credit_notes import LINES_MAX, LineAmount, create_credit_note
from billing.currencies import amount_of
from billing.models import CreditNote, CreditNoteLine, Statement
from common.api.fields import Amount, Count, Items, Spoken, StrictSerializer, Text, problem_at
from common.api.structs import Answer, UtcTimestamp, about
from common.json_bodies import JsonObject
from metering.fields.body import errors_at_members
from tenants.models import Tenant


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}], "example": 1})
class StatementReference(Spoken):
    """A statement by its id, or by its number."""

    example = 1

    def to_internal_value(self, data: object) -> int | str:
        if isinstance(data, bool) or not isinstance(data, int | str):
            raise serializers.ValidationError("must be the id or the number of a statement")
        return data


class NoteLineBody(StrictSerializer):
    """What is given back of a line, before tax."""

    position = Count(min_value=0, help_text="The line's place in the statement.")
    amount = Amount()


class CreditNoteBody(StrictSerializer):
    """A credit note on an amount before tax, or on lines; on neither: on all that is left."""

    statement = StatementReference()
    amount = Amount(required=False, help_text="Before tax, in the statement's currency.")
    lines = Items(child=NoteLineBody(), required=False, max_length=LINES_MAX)
    reason = Text(max_length=1000)

    def validate(self, attrs: JsonObject) -> JsonObject:
        if "amount" in attrs and attrs.get("lines"):
            raise problem_at("amount", "give this or 'lines', and not both")
        return attrs


class NoteTaxAnswer(Answer):
    """Tax that is given back."""

    name: str
    percent: str
    amount: str


class NoteLineAnswer(Answer):
    """What is given back of a line."""

    position: int
    amount: str


class CreditNoteAnswer(Answer):
    """A credit note, in the statement's currency."""

    id: int
    number: str
    statement_id: int
    statement: Annotated[str, about("The statement's number.")]
    customer: Annotated[str, about("The customer's key.")]
    currency: str
    reason: str
    net: str
    taxes: list[NoteTaxAnswer]
    total: str
    unused: Annotated[str, about("What no later statement has used yet.")]
    lines: list[NoteLineAnswer]
    actor: str
    created_at: UtcTimestamp


@extend_schema_view(
    list=extend_schema(summary="List credit notes, newest first"),
    create=extend_schema(
        summary="Give back an amount of a final statement",
        description="The next statements of the customer use it. All notes on a statement together"
        " come to no more than the statement, to the cent at each rate of tax.",
    ),
    retrieve=extend_schema(summary="Show a credit note"),
)
class CreditNotes(OfCustomers[CreditNote]):
    """The credit notes of the tenant."""

    model = CreditNote
    noun = "credit note"
    body = CreditNoteBody
    answer = CreditNoteAnswer
    related = ("statement__customer",)
    by = "statement__customer"

    def rows(self) -> QuerySet[CreditNote]:
        lines = Prefetch("lines", CreditNoteLine.objects.order_by("position"))
        return super().rows().prefetch_related(lines)

    def create_row(self, fields: JsonObject) -> CreditNote:
        statement = _find_statement(self.tenant, fields.pop("statement"))
        with errors_at_members(self.body()):
            amounts = in_minor_units(fields, statement.currency, "amount")
            lines = [
                LineAmount(**in_minor_units(line, statement.currency, "amount"))
                for line in amounts.pop("lines", [])
            ]
            return create_credit_note(statement, actor=self.actor, lines=lines, **amounts)

    def answer_of(self, row: CreditNote) -> CreditNoteAnswer:
        statement = row.statement
        currency = statement.currency
        return CreditNoteAnswer.of(
            row,
            statement=statement.number,
            customer=statement.customer.key,
            currency=currency,
            net=amount_of(row.net, currency),
            taxes=[
                NoteTaxAnswer(tax["name"], tax["percent"], amount_of(tax["amount"], currency))
                for tax in row.taxes
            ],
            total=amount_of(row.total, currency),
            unused=amount_of(row.unused, currency),
            lines=[
                NoteLineAnswer(line.position, amount_of(line.amount, currency))
                for line in row.lines.all()
            ],
        )


def _find_statement(tenant: Tenant, reference: int | str) -> Statement:
    statements = Statement.objects.filter(tenant=tenant)
    known = {"number": reference} if isinstance(reference, str) else {"id": reference}
    is_id = isinstance(reference, str) or 0 < reference < 2**63
    statement = statements.filter(**known).exclude(number="").first() if is_id else None
    if statement is None:
        raise problem_at("statement", "No final statement has this id or number.", "unknown")
    return statement
