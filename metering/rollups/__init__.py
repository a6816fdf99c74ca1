"""Usage added up by batch into buckets of 15 minutes and of UTC days (see README.md)."""

from metering.rollups.batches import lock_batches, post_deltas, roll_up, tenants_waiting
from metering.rollups.sets import OTHER
