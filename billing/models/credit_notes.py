"""Credit notes: what is given back of a final statement."""

from django.db import models
from django.db.models import F, Q

from billing.models.statements import Statement
from tenants.models import Tenant


class CreditNote(models.Model):
    """An amount of a final statement that is given back, in minor units. Only `unused` changes."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    statement = models.ForeignKey(Statement, on_delete=models.PROTECT, related_name="credit_notes")
    # In the series of credit notes, and as it is printed.
    sequence = models.BigIntegerField()
    number = models.CharField(max_length=40)
    reason = models.CharField(max_length=1000)
    net = models.BigIntegerField()
    # [{"name", "percent", "amount"}], amounts in minor units.
    taxes = models.JSONField(default=list)
    total = models.BigIntegerField()
    # What no later statement has used yet.
    unused = models.BigIntegerField()
    actor = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "credit_note"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "sequence"], name="credit_note_number_once"),
            models.CheckConstraint(condition=Q(net__gt=0), name="credit_note_of_something"),
            models.CheckConstraint(
                condition=Q(unused__gte=0) & Q(unused__lte=F("total")), name="credit_note_unused"
            ),
        ]

    def __str__(self) -> str:
        return self.number


class CreditNoteLine(models.Model):
    """What is given back of one line, before coupon and tax. Never changed."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    credit_note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="lines")
    # Of the line in the note's statement.
    position = models.PositiveIntegerField()
    amount = models.BigIntegerField()

    class Meta:
        db_table = "credit_note_line"
        constraints = [
            models.UniqueConstraint(
                fields=["credit_note", "position"], name="credit_note_line_once"
            ),
            models.CheckConstraint(condition=Q(amount__gt=0), name="credit_note_line_amount"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of line {self.position}"


class CreditNoteApplication(models.Model):
    """Append-only: what a later statement used of a credit note; below zero: gave back when it
    became void.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    credit_note = models.ForeignKey(
        CreditNote, on_delete=models.PROTECT, related_name="applications"
    )
    statement = models.ForeignKey(
        Statement, on_delete=models.PROTECT, related_name="credit_note_applications"
    )
    amount = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "credit_note_application"
        constraints = [
            models.CheckConstraint(condition=~Q(amount=0), name="credit_note_application_amount"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of {self.credit_note_id}"
