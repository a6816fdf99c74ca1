"""What tables of facts have in common."""

from django.db import models

from tenants.models import Tenant


class Fact(models.Model):
    """A row of which there are many. Its writers know the tenant, so the database neither checks it
    nor keeps an index on it alone.
    """

    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )

    class Meta:
        abstract = True
