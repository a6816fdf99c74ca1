"""Sums of money and tokens become numeric: a thousand of the largest events pass a bigint.

Locks: each table is rewritten once, and neither read nor written meanwhile; about 10 s for each
million rows of roll-ups and ledger entries. Stop web and workers first where there are many.
"""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import migrations

from metering.models.sums import SumField

SUMS = {
    "budget_window": (
        *("spent_nanos", "spent_tokens", "reserved_nanos", "reserved_tokens"),
        *("overrun_nanos", "carried_nanos"),
    ),
    "ledger_entry": ("cost_nanos", "tokens"),
    "crossing": ("spent_nanos", "limit_nanos"),
    "usage_rollup": (
        *("cost_nanos", "input_tokens", "output_tokens", "cache_read_tokens"),
        *("cache_write_tokens", "reasoning_tokens"),
    ),
}
ARRAYS = {"pace": ("nanos", "tokens"), "breaker_state": ("nanos",)}
MODELS = {
    "budget_window": "budgetwindow",
    "ledger_entry": "ledgerentry",
    "crossing": "crossing",
    "usage_rollup": "usagerollup",
    "pace": "pace",
    "breaker_state": "breakerstate",
}


def become(columns: dict[str, tuple[str, ...]], type_: str) -> str:
    """One statement a table, so that each is rewritten once."""
    return ";".join(
        f"ALTER TABLE {table} " + ", ".join(f"ALTER {name} TYPE {type_}" for name in names)
        for table, names in columns.items()
    )


def field(table: str, name: str) -> Any:
    """The field as its model has it."""
    if table in ARRAYS:
        return ArrayField(SumField())
    if table == "budget_window":
        return SumField(db_default=0)
    return SumField(null=True) if name == "limit_nanos" else SumField()


class Migration(migrations.Migration):
    dependencies = [("metering", "0012_levels_that_fall")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(become(SUMS, "numeric"), become(SUMS, "bigint")),
                migrations.RunSQL(become(ARRAYS, "numeric[]"), become(ARRAYS, "bigint[]")),
            ],
            state_operations=[
                migrations.AlterField(MODELS[table], name, field(table, name))
                for table, names in {**SUMS, **ARRAYS}.items()
                for name in names
            ],
        ),
    ]
