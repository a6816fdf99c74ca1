"""Breakers and rate limits that are changed while they are deleted."""

import pytest

from common.errors import NotFound
from metering.configuration.breakers import create_breaker, delete_breaker, update_breaker
from metering.configuration.rate_limits import (
    create_rate_limit,
    delete_rate_limit,
    update_rate_limit,
)
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_breaker_that_is_gone_is_not_found(account: Account) -> None:
    with account.scope():
        breaker = create_breaker(
            tenant=account.tenant, actor="tests", name="gone", cost_nanos_per_minute=1
        )
        delete_breaker(breaker=breaker, actor="tests")
        with pytest.raises(NotFound, match="No breaker has the id"):
            update_breaker(breaker=breaker, actor="tests", changes={"name": "new"})


def test_a_rate_limit_that_is_gone_is_not_found(account: Account) -> None:
    with account.scope():
        limit = create_rate_limit(
            tenant=account.tenant, actor="tests", name="gone", requests_per_minute=1
        )
        delete_rate_limit(limit=limit, actor="tests")
        with pytest.raises(NotFound, match="No rate limit has the id"):
            update_rate_limit(limit=limit, actor="tests", changes={"name": "new"})
