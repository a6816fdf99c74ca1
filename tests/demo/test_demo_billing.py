"""The demo bills its customers through the API: once, however often it is loaded."""

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import pytest
from pytest_django.live_server_helper import LiveServer

from billing.models import CreditGrant, CreditNote, Plan, Statement, StatementLine, Subscription
from demo.billing import ORDER, bill
from demo.client import Client
from demo.events import demo_calls
from tests.factories import Account


@pytest.mark.django_db(transaction=True)
def test_customers_are_billed_once(live_server: LiveServer, account: Account) -> None:
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    calls = list(demo_calls(count=2_000, seed=1, end=end))
    for _ in range(2):
        with closing(Client(url=live_server.url, api_key=account.api_key)) as client:
            assert bill(client, calls=calls, end=end, load="tests") == []
    with account.scope():
        states = Counter(Statement.objects.values_list("state", flat=True))
        numbers = sorted(each.sequence or 0 for each in Statement.objects.exclude(sequence=None))
        assert Subscription.objects.count() == len(ORDER)
        assert Plan.objects.count() == 3
        assert (CreditGrant.objects.count(), CreditNote.objects.count()) == (2, 1)
        assert Plan.objects.get(name="Growth").versions.count() == 2
        assert StatementLine.objects.filter(statement__state="final").exists()
    # Two periods of each customer are over; one was voided and made final again.
    assert states["void"] == 1
    assert states["final"] == 2 * len(ORDER)
    assert states["draft"] >= len(ORDER)
    assert numbers == list(range(1, len(numbers) + 1))
