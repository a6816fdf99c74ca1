"""Usage added up: what reading is fast from. Derived from events by batch, and always provable
against them.
"""

from django.db import models

from metering.models.facts import Fact
from metering.models.sums import SumField

MEASURES = (
    "cost_nanos",
    "requests",
    "errors",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "tool_calls",
    # The part of the cost that reports gave.
    "given_nanos",
)


class UsageRollup(Fact):
    """Sums of one bucket of time (15 minutes, or a UTC day) for one value or pair of values.

    `dimension_set` names the grain and the dimensions (see `metering.rollups`); `value_1` and
    `value_2` are their values, or the mark of the long tail.
    """

    pk = models.CompositePrimaryKey("tenant_id", "dimension_set", "starts_at", "value_1", "value_2")
    dimension_set = models.SmallIntegerField()
    starts_at = models.DateTimeField()
    value_1 = models.TextField(db_collation="C")
    value_2 = models.TextField(db_collation="C")
    cost_nanos = SumField()
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    unpriced = models.BigIntegerField()
    input_tokens = SumField()
    output_tokens = SumField()
    cache_read_tokens = SumField()
    cache_write_tokens = SumField()
    reasoning_tokens = SumField()
    tool_calls = models.BigIntegerField()
    given_nanos = SumField()

    class Meta:
        db_table = "usage_rollup"


class UsageHistogram(Fact):
    """How often a measure fell into a bin, for percentiles: bin `b` holds values up to GROWTH **
    b.
    """

    pk = models.CompositePrimaryKey(
        "tenant_id", "dimension_set", "starts_at", "value_1", "measure", "bin"
    )
    dimension_set = models.SmallIntegerField()
    starts_at = models.DateTimeField()
    value_1 = models.TextField(db_collation="C")
    measure = models.SmallIntegerField()
    bin = models.SmallIntegerField()
    count = models.BigIntegerField()

    class Meta:
        db_table = "usage_histogram"


class UsageCombination(Fact):
    """A combination of values that calls of a UTC day had: how many, the first and the last.

    `id` is made of the values (`metering.rollups.combinations`). A time that is not known lies
    before the first call, or after the last.
    """

    pk = models.CompositePrimaryKey("tenant_id", "starts_at", "id")
    starts_at = models.DateTimeField()
    id = models.UUIDField()
    session = models.TextField(db_collation="C")
    user = models.TextField(db_collation="C")
    team = models.TextField(db_collation="C")
    customer = models.TextField(db_collation="C")
    agent = models.TextField(db_collation="C")
    feature = models.TextField(db_collation="C")
    model = models.TextField(db_collation="C")
    calls = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    is_first_known = models.BooleanField()
    is_last_known = models.BooleanField()

    class Meta:
        db_table = "usage_combination"
        indexes = (
            models.Index(
                fields=["tenant_id"],
                name="usage_combination_searched",
                condition=~models.Q(is_first_known=True, is_last_known=True),
            ),
        )
