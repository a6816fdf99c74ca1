"""What retention took away, as sums: balances are provable without the rows behind them."""

from django.db import models

from metering.models.facts import Fact
from metering.models.sums import SumField
from tenants.models import Tenant


class UsageSeal(models.Model):
    """How far a tenant's usage is sealed.

    Events before `frozen_until` never change any more. Those before `sealed_until` are in the seals
    of their windows, and may be gone.
    """

    tenant = models.OneToOneField(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, primary_key=True
    )
    frozen_until = models.DateTimeField()
    sealed_until = models.DateTimeField()

    class Meta:
        db_table = "usage_seal"

    def __str__(self) -> str:
        return f"sealed until {self.sealed_until}"


class WindowSeal(Fact):
    """What is gone of a window: the sum of its removed entries, and that of its sealed events.

    Invariant: `entry_*` and the entries that remain add up to what the window spent, and so do
    `event_*` and the events that remain, where its budget is in force. The two are added up
    independently of each other; `manage.py audit_ledger` proves both. Rolling windows and those of
    single calls have no `event_*`: they hold no usage that old, or are over with their call.
    """

    pk = models.CompositePrimaryKey("tenant_id", "window_id")
    window_id = models.BigIntegerField()
    entry_count = models.BigIntegerField(db_default=0)
    entry_nanos = SumField(db_default=0)
    entry_tokens = SumField(db_default=0)
    entry_requests = models.BigIntegerField(db_default=0)
    entry_tool_calls = models.BigIntegerField(db_default=0)
    event_nanos = SumField(db_default=0)
    event_tokens = SumField(db_default=0)
    event_requests = models.BigIntegerField(db_default=0)
    event_tool_calls = models.BigIntegerField(db_default=0)

    class Meta:
        db_table = "window_seal"
