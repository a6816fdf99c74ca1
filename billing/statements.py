"""How a draft becomes a final statement, and a final one void.

A draft is computed in one snapshot. What is final is written in another transaction, under the
customer's lock, from a draft that no other final statement has overtaken. Usage that is
acknowledged in between is an adjustment of the next statement, as all that comes late.
"""

from typing import Final

from django.utils import timezone

from billing import credit_notes, credits
from billing.drafts import draft_of
from billing.finalization import write_final
from billing.models import Customer, Statement, StatementState
from billing.statement_periods import open_drafts
from billing.usage import usage_kept_from
from common.errors import Conflict, NotFound
from tenants.audit import record_change
from tenants.scope import tenant_scope

ATTEMPTS: Final = 5


def find_statement(tenant_id: int, statement_id: int) -> Statement:
    """Return a statement. Raises NotFound."""
    statement = (
        Statement.objects.filter(tenant_id=tenant_id, id=statement_id)
        .select_related("customer")
        .first()
    )
    if statement is None:
        raise NotFound.of("statement", statement_id)
    return statement


def finalize(
    tenant_id: int, statement_id: int, *, actor: str, accepted_unpriced: int = 0
) -> Statement:
    """Make a statement final, or return it if it is. Outside of any transaction.

    Raises NotFound, and Conflict for a void one, one with more unpriced calls than are accepted, or
    one whose usage is not kept whole.
    """
    for _ in range(ATTEMPTS):
        with tenant_scope(tenant_id, is_snapshot=True):
            statement = find_statement(tenant_id, statement_id)
            if statement.state != StatementState.DRAFT:
                return _final(statement)
            require_kept(statement)
            draft = draft_of(statement)
        if draft.unpriced > accepted_unpriced:
            raise Conflict(unpriced_words(draft.unpriced))
        final = write_final([draft], actor=actor)
        if final:
            return final[0]
    raise Conflict("Other statements of this customer became final meanwhile; try again.")


def unpriced_words(count: int) -> str:
    """Return why a statement with this many unpriced calls is not final yet."""
    return (
        f"{count:,} calls have no price yet, so their cost cannot be charged. Add their prices, or"
        " accept their number."
    )


def require_kept(statement: Statement) -> None:
    """Raise Conflict unless all usage of a statement's period can still be read."""
    kept_from = usage_kept_from(statement.tenant_id)
    if statement.period_start < kept_from:
        raise Conflict(
            f"Usage before {kept_from:%Y-%m-%d} UTC is no longer kept, so this period cannot be"
            " charged again. Write a credit note, or charge a fee on another statement."
        )


def _final(statement: Statement) -> Statement:
    if statement.state == StatementState.VOID:
        raise Conflict(f"Statement {statement.number} is void; its period has another statement.")
    return statement


def void(tenant_id: int, statement_id: int, *, actor: str) -> Statement:
    """Declare a final statement void. Its period gets a new draft.

    Raises NotFound, and Conflict for a draft, one with credit notes, or one whose usage is not kept
    whole, which the new draft would charge too little for.
    """
    with tenant_scope(tenant_id):
        customer_id = find_statement(tenant_id, statement_id).customer_id
        customer = Customer.objects.select_for_update(no_key=True).get(
            tenant_id=tenant_id, id=customer_id
        )
        statement = find_statement(tenant_id, statement_id)
        if statement.state == StatementState.DRAFT:
            raise Conflict("A draft cannot be voided; it changes with what was used.")
        if statement.state == StatementState.FINAL:
            require_kept(statement)
            credit_notes.require_no_notes(statement)
            statement.state, statement.voided_at = StatementState.VOID, timezone.now()
            statement.save(update_fields=["state", "voided_at"])
            credit_notes.give_back(statement)
            credits.give_back(statement, actor=actor)
            record_change(
                tenant_id=tenant_id,
                actor=actor,
                action="void",
                subject=statement,
                after={"number": statement.number},
            )
            open_drafts(customer)
    return statement
