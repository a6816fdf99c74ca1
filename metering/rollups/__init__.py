"""Roll-ups: usage added up by batch into buckets of 15 minutes and of UTC days.

Owns `usage_rollup`, `usage_histogram` and `ingest_batch.rolled_up_at`, and `call_size`, which is
learned from the same events on their way; does not own events.
Invariant: per dimension set and bucket, the rows sum to exactly the events (void ones apart) of the
batches that are marked as rolled up.
"""

from metering.rollups.batches import lock_batches, post_deltas, roll_up, tenants_waiting
from metering.rollups.sets import OTHER

__all__ = ["OTHER", "lock_batches", "post_deltas", "roll_up", "tenants_waiting"]
