"""Prices: the global catalogue, and what a tenant sets over it.

A row's `rates` maps a usage key of the price library to what so many (`per`) of it cost:

    {"input_tokens": {"nanos": "3000000000", "per": 1000000,
                      "tiers": [{"above": 200000, "nanos": "6000000000"}]}}

`nanos` is a decimal string, since a few catalogue prices are finer than a nano-dollar. See
`metering.pricing.rates`. An event keeps one `price_id` for all three tables: a catalogue row's
own id, which is positive, and below zero the tenant's rows, even for model prices and odd for tool
prices.
"""

from django.core.exceptions import ValidationError
from django.db import models

from tenants.models import Tenant


class CataloguePrice(models.Model):
    """One price of one model, as the price library of `catalogue_version` had it.

    Of a model's standard prices (empty `context`) the one with the highest `ordinal` that is in
    force applies; rows with a `context` replace single rates of it when the call was made that way
    (say `{"service_tier": "flex"}`), the lowest ordinal first. Rows are never changed: a new price
    is a new row, and the old one is kept as superseded so that the events rated with it can still
    name it.
    """

    provider = models.CharField(max_length=100)
    model = models.CharField(max_length=200)
    name = models.CharField(max_length=200, blank=True)
    ordinal = models.PositiveSmallIntegerField()
    effective_from = models.DateField(null=True, blank=True, help_text="UTC; empty: always.")
    daily_from = models.TimeField(null=True, blank=True, help_text="UTC.")
    daily_to = models.TimeField(null=True, blank=True, help_text="UTC; exclusive.")
    context = models.JSONField(default=dict, blank=True)
    rates = models.JSONField()
    catalogue_version = models.CharField(max_length=40)
    superseded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "catalogue_price"
        ordering = ["provider", "model", "ordinal"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "model", "ordinal"],
                condition=models.Q(superseded_at=None),
                name="catalogue_price_once_in_force",
            )
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"

    @property
    def price_id(self) -> int:
        return self.id


class _DatedPrice(models.Model):
    """A tenant's own price, in force from one moment up to, and without, another."""

    effective_from = models.DateTimeField()
    effective_to = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True

    def clean(self) -> None:
        if self.effective_to is not None and self.effective_to <= self.effective_from:
            raise ValidationError({"effective_to": "The end must be later than the start."})


class TenantPrice(_DatedPrice):
    """A tenant's price for a model. It beats the catalogue; an empty provider means any."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    provider = models.CharField(max_length=200, blank=True)
    model = models.CharField(max_length=200)
    rates = models.JSONField()

    class Meta:
        db_table = "tenant_price"
        ordering = ["provider", "model", "effective_from"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(effective_to=None)
                | models.Q(effective_to__gt=models.F("effective_from")),
                name="tenant_price_ends_after_it_starts",
            )
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.model}".strip()

    @property
    def price_id(self) -> int:
        return tenant_price_id(self.id)


class ToolPrice(_DatedPrice):
    """What one call of a tool costs a tenant. A tool without a price is free."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    tool = models.CharField(max_length=200)
    call_nanos = models.BigIntegerField()

    class Meta:
        db_table = "tool_price"
        ordering = ["tool", "effective_from"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(effective_to=None)
                | models.Q(effective_to__gt=models.F("effective_from")),
                name="tool_price_ends_after_it_starts",
            ),
            models.CheckConstraint(
                condition=models.Q(call_nanos__gte=0), name="tool_price_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.tool

    @property
    def price_id(self) -> int:
        return tool_price_id(self.id)


def tenant_price_id(row_id: int) -> int:
    """Return the `price_id` of a row of `tenant_price`."""
    return -2 * row_id


def tool_price_id(row_id: int) -> int:
    """Return the `price_id` of a row of `tool_price`."""
    return -2 * row_id - 1


def price_row(price_id: int) -> tuple[type[models.Model], int]:
    """Return the table and the row's own id behind a `price_id`."""
    if price_id > 0:
        return CataloguePrice, price_id
    if price_id % 2 == 0:
        return TenantPrice, price_id // -2
    return ToolPrice, (price_id + 1) // -2
