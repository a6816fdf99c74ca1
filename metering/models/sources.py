"""What emitters send, as counts: what was counted, what was lost, and one sample of each reason."""

from django.db import models

from metering.models.facts import Fact


class SourceOutcome(models.IntegerChoices):
    """What became of a report."""

    ACCEPTED = 1, "accepted"
    MERGED = 2, "merged"
    DUPLICATE = 3, "duplicate"
    # Stored as another call, because it contradicts the call that it shares an identity with.
    CONFLICT = 4, "conflict"
    # Among the accepted.
    UNPRICED = 5, "unpriced"
    REJECTED = 6, "rejected"
    PASSED_OVER = 7, "passed_over"


class SourceCount(Fact):
    """The number of reports of one source, route and outcome on a UTC day.

    `code` says why, and is empty where nothing need be said. `detail` and `sample` are those of the
    latest report. Approximate by design: counts of the last second are lost with a killed process.
    """

    pk = models.CompositePrimaryKey("tenant_id", "day", "source", "route", "outcome", "code")
    day = models.DateField()
    source = models.TextField(db_collation="C")
    # A `Route`.
    route = models.SmallIntegerField()
    outcome = models.SmallIntegerField(choices=SourceOutcome.choices)
    code = models.TextField(db_collation="C")
    count = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    detail = models.TextField()
    # Redacted by who recorded it, and at most 2 KB.
    sample = models.TextField(null=True)

    class Meta:
        db_table = "source_count"
        indexes = [models.Index(fields=["day"], name="source_count_by_age")]
