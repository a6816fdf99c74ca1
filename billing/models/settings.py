"""How a tenant bills."""

from django.db import models

from tenants.models import Tenant


class BillingSettings(models.Model):
    """Who sends a tenant's statements, and what happens by itself. No row: the defaults."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True)
    # As statements have it; empty: the tenant's name.
    legal_name = models.CharField(max_length=200, blank=True, default="")
    address = models.TextField(max_length=1000, blank=True, default="")
    email = models.EmailField(blank=True, default="")
    vat_id = models.CharField(max_length=50, blank=True, default="")
    statement_prefix = models.CharField(max_length=20, blank=True, default="")
    credit_note_prefix = models.CharField(max_length=20, blank=True, default="CN-")
    # Days after a period's end at which its statement is finalized; None: by hand.
    finalize_after_days = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        db_table = "billing_settings"

    def __str__(self) -> str:
        return f"billing of {self.tenant_id}"
