"""Credit notes: they add up to their statement, are numbered without gaps, and are used later."""

import threading

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from billing.credit_notes import LineAmount, create_credit_note, require_no_notes, unused
from billing.models import (
    CreditNote,
    Customer,
    Plan,
    Series,
    SeriesName,
    Statement,
    StatementLine,
    Subscription,
)
from common.errors import Conflict
from tests.billing.credit_scene import EPOCH, charge, make_grant, void
from tests.billing.scene import make_customer
from tests.factories import Account
from tests.seed import dice

VAT = (("VAT", "19", 1900),)
TWO_TAXES = (("State", "8.875", 292), ("City", "1.1", 36))


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def write(account: Account, statement: Statement, amount: int | None = None) -> CreditNote:
    with account.scope():
        return create_credit_note(statement, actor="tests", reason="outage", amount=amount)


def left(account: Account, customer: Customer) -> int:
    with account.scope():
        return unused(customer.id)


def test_notes_add_up_to_the_statement_to_the_cent_at_each_rate(
    account: Account, acme: Customer
) -> None:
    chances = dice("credit notes")
    # 8.875% of 32.90 is 2.919875, 1.1% is 0.3619.
    statement = charge(account, acme, 3290 + 292 + 36, taxes=TWO_TAXES)
    notes, net = [], 0
    while net < 3200:
        amount = min(chances.randint(1, 400), 3200 - net)
        notes.append(write(account, statement, amount))
        net += amount
    notes.append(write(account, statement))
    assert sum(note.net for note in notes) == 3290
    for index, (_, _, amount) in enumerate(TWO_TAXES):
        assert sum(note.taxes[index]["amount"] for note in notes) == amount
    assert sum(note.total for note in notes) == statement.total
    assert [note.sequence for note in notes] == list(range(1, len(notes) + 1))
    with pytest.raises(Conflict, match="Nothing of the statement is left"):
        write(account, statement)


def test_later_statements_use_notes_before_prepaid_credit(account: Account, acme: Customer) -> None:
    make_grant(account, acme, 100)
    first = charge(account, acme, 11900 + 100, taxes=VAT)
    assert first.credit_applied == 100
    write(account, first, 1000)
    write(account, first, 500)
    make_grant(account, acme, 5000)
    assert left(account, acme) == 1190 + 595
    second = charge(account, acme, 1500)
    assert (second.credit_notes_applied, second.credit_applied) == (1500, 0)
    assert left(account, acme) == 285
    third = charge(account, acme, 1500)
    assert (third.credit_notes_applied, third.credit_applied) == (285, 1215)
    assert left(account, acme) == 0
    void(account, second)
    void(account, second)
    assert left(account, acme) == 1500


def lines_of(account: Account, statement: Statement, *amounts: int) -> None:
    with account.scope():
        plan = Plan.objects.create(tenant=account.tenant, name="Plan")
        subscription = Subscription.objects.create(
            tenant=account.tenant,
            customer_id=statement.customer_id,
            plan=plan,
            starts_at=EPOCH,
        )
        for position, amount in enumerate(amounts, 1):
            StatementLine.objects.create(
                tenant=account.tenant,
                statement=statement,
                subscription=subscription,
                position=position,
                kind="flat",
                name=f"Line {position}",
                key=str(position),
                starts_at=EPOCH,
                ends_at=timezone.now(),
                quantity="1",
                exact_amount=str(amount),
                amount=amount,
            )


def test_of_a_line_no_more_is_given_back_than_it_is(account: Account, acme: Customer) -> None:
    statement = charge(account, acme, 300)
    lines_of(account, statement, 100, 200)
    with account.scope():
        first = [LineAmount(1, 60), LineAmount(2, 50)]
        note = create_credit_note(statement, actor="tests", reason="outage", lines=first)
        assert (note.net, note.lines.count()) == (110, 2)
        for wrong in ([LineAmount(1, 41)], [LineAmount(3, 1)], [LineAmount(2, 0)]):
            with pytest.raises(ValidationError) as refusal:
                create_credit_note(statement, actor="tests", reason="outage", lines=wrong)
            assert set(refusal.value.message_dict) == {"lines.0.amount"}
        twice = [LineAmount(1, 1), LineAmount(1, 1)]
        with pytest.raises(ValidationError, match="named twice"):
            create_credit_note(statement, actor="tests", reason="outage", lines=twice)
        assert CreditNote.objects.count() == 1


def test_a_refused_note_takes_no_number_and_parallel_ones_leave_no_gap(
    account: Account, acme: Customer
) -> None:
    statements = [charge(account, acme, 1000) for _ in range(8)]

    def work(statement: Statement) -> None:
        with account.scope():
            try:
                with transaction.atomic():
                    create_credit_note(statement, actor="tests", reason="outage", amount=100)
                    if statement.id % 2:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        connection.close()

    threads = [threading.Thread(target=work, args=(statement,)) for statement in statements]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValidationError):
        write(account, statements[0], 100_000)
    with account.scope():
        numbers = sorted(CreditNote.objects.values_list("sequence", flat=True))
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) == 4
        assert Series.objects.get(name=SeriesName.CREDIT_NOTE).last == 4


def test_notes_are_for_final_statements_and_never_change(account: Account, acme: Customer) -> None:
    statement = charge(account, acme, 1000)
    with account.scope():
        require_no_notes(statement)
    write(account, statement, 100)
    with account.scope():
        with pytest.raises(Conflict, match="cannot be voided"):
            require_no_notes(statement)
        with pytest.raises(DatabaseError, match="never changes"), transaction.atomic():
            CreditNote.objects.update(total=5)
        with pytest.raises(DatabaseError, match="never changes"), transaction.atomic():
            CreditNote.objects.all().delete()
    other = charge(account, acme, 1000)
    void(account, other)
    with pytest.raises(Conflict, match="is void"):
        write(account, other)
