"""Where the events of batches are: in stretches of ids, each read by one range of the index on ids.

A batch's events are a range of ids (`BATCH_ID_STRIDE`), and the batches that a reader wants mostly
follow one another, so thousands of batches are a few stretches. To join batches to events instead
compares each with each.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from metering.models import BATCH_ID_STRIDE

# Batches whose ids are this close are read in one stretch; between them lie other tenants' ids, and
# now and then a batch that is not wanted.
STRETCH_GAP_MAX: Final = 1_000
# A condition of more alternatives takes long to plan; the closest stretches are read as one then.
STRETCHES_MAX: Final = 100


def events_of_batches(batch_ids: Sequence[int]) -> tuple[str, list[Any]]:
    """Return a condition on `id`, with its parameters: events of these batches, given in order."""
    if not batch_ids:
        return "false", []
    gaps = [
        (later - earlier, earlier, later)
        for earlier, later in pairwise(batch_ids)
        if later - earlier > STRETCH_GAP_MAX
    ]
    widest = sorted(gaps, reverse=True)[: STRETCHES_MAX - 1]
    cuts = sorted((earlier, later) for _, earlier, later in widest)
    firsts = [batch_ids[0], *(later for _, later in cuts)]
    lasts = [*(earlier for earlier, _ in cuts), batch_ids[-1]]
    ranges = " OR ".join(["(id >= %s AND id < %s)"] * len(firsts))
    bounds = [
        bound
        for first, last in zip(firsts, lasts, strict=True)
        for bound in (first * BATCH_ID_STRIDE, (last + 1) * BATCH_ID_STRIDE)
    ]
    return f"({ranges}) AND id / {BATCH_ID_STRIDE} = ANY(%s)", [*bounds, list(batch_ids)]


def select_of_batches(columns: str, *, batches: str, condition: str) -> str:
    """Return a SELECT of `columns` of the events of some batches that meet `condition`.

    `batches` is a query of neighboring batches of the tenant as `id` and `is_wanted`. It is folded
    into stretches of wanted ones by the statement itself, for callers that must see batches and
    events at one moment. The OFFSET keeps PostgreSQL from making a join of it.
    """
    return f"""
        WITH stretch AS MATERIALIZED (
            SELECT min(id) * {BATCH_ID_STRIDE} AS first_id,
                (max(id) + 1) * {BATCH_ID_STRIDE} AS end_id
            FROM (
                SELECT id, is_wanted, row_number() OVER (ORDER BY id)
                    - row_number() OVER (PARTITION BY is_wanted ORDER BY id) AS number
                FROM ({batches}) batch
            ) numbered WHERE is_wanted GROUP BY number
        )
        SELECT e.* FROM stretch CROSS JOIN LATERAL (
            SELECT {columns} FROM usage_event e
            WHERE e.id >= first_id AND e.id < end_id AND {condition} OFFSET 0
        ) e
    """
