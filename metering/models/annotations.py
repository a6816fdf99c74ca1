"""What a tenant tells of its own work: moments to show on charts, numbers to divide costs by."""

from django.db import models

from tenants.models import Tenant

TEXT_CHARACTERS_MAX = 300


class Annotation(models.Model):
    """A moment that time charts show, such as a deploy. `match` says which usage it concerns; an
    empty one: all of it.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    time = models.DateTimeField()
    text = models.CharField(max_length=TEXT_CHARACTERS_MAX)
    match = models.JSONField(default=dict, blank=True)
    actor = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "annotation"
        indexes = [models.Index(fields=["tenant", "-time"], name="annotation_newest")]

    def __str__(self) -> str:
        return self.text


class UnitCount(models.Model):
    """How many units of work, such as solved tickets, a tenant finished on a day of its zone."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    day = models.DateField()
    count = models.BigIntegerField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "unit_count"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name", "day"], name="unit_count_once_a_day"),
            models.CheckConstraint(
                condition=models.Q(count__gte=0), name="unit_count_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.day}: {self.count}"
