"""What the tests of alerts share."""

from collections.abc import Iterator

import pytest

from metering.models import IngestBatch, UsageCombination, UsageHistogram, UsageRollup
from tenants.scope import platform_scope
from tests.factories import Account


@pytest.fixture
def forgotten_history(account: Account) -> Iterator[None]:
    """Take roll-ups away that a test wrote without events, before the audit looks for those."""
    yield
    with platform_scope("tests"):
        UsageRollup.objects.all().delete()
        UsageHistogram.objects.all().delete()
        UsageCombination.objects.all().delete()
        IngestBatch.objects.update(rolled_up_at=None)
