"""Open breakers become incidents, and end with them."""

from datetime import UTC, datetime

import pytest

from alerts import breakers
from alerts.breakers import compare_breakers
from alerts.models import Incident
from metering.limits.breakers.states import OpenGroup
from metering.models import Breaker
from tests.factories import NANOS, Account


def test_of_many_that_open_at_once_each_turn_tells_some(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    with account.scope():
        breaker = Breaker.objects.create(
            tenant=account.tenant, name="Agents", per=["agent"], cost_nanos_per_minute=NANOS
        )
    opened: list[OpenGroup] = [
        OpenGroup(breaker.id, f'["{agent}"]', now, "Too fast.", None, None) for agent in "abc"
    ]

    def open_groups(*_: object, **__: object) -> dict[int, list[OpenGroup]]:
        return {breaker.id: opened}

    monkeypatch.setattr(breakers, "open_groups", open_groups)
    monkeypatch.setattr(breakers, "CHANGED_MAX", 2)

    def turns() -> list[int]:
        with account.scope():
            return [compare_breakers(tenant_id=account.tenant.id, now=now) for _ in range(3)]

    assert turns() == [2, 1, 0]
    with account.scope():
        assert Incident.objects.filter(resolved_at=None).count() == 3
    opened.clear()
    assert turns() == [2, 1, 0]
    with account.scope():
        assert not Incident.objects.filter(resolved_at=None).exists()
