"""Which budget windows are about what a page shows, as the statement that ranks them takes it."""

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from metering.budgets.index import BudgetIndex
from metering.core.match import wanted_values


def wanted_windows(book: BudgetIndex, filters: Mapping[str, Sequence[str]]) -> Jsonb:
    """By dimension, the values that a window's group may have, and the budgets that count calls
    with these values and no others, whatever the group.
    """
    return Jsonb(
        {
            name: {
                "values": list(values),
                "budgets": [
                    rule.id
                    for rule in book.rules.values()
                    if name in rule.match and wanted_values(rule.match[name]) <= frozenset(values)
                ],
            }
            for name, values in filters.items()
        }
    )
