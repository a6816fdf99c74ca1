"""Which attributes of telemetry name the dimensions of its calls."""

from django.db import models

from tenants.models import Tenant


class AttributeMappings(models.Model):
    """A tenant's attribute mappings; one row, made with the first of them."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE)
    # [{"attribute", "dimension"}]; of those of one dimension, the first that has a value counts.
    mappings = models.JSONField(default=list, blank=True)

    class Meta:
        db_table = "attribute_mappings"
        verbose_name_plural = "attribute mappings"

    def __str__(self) -> str:
        return "attribute mappings"
