"""What the workers run over all tenants: nobody's work keeps others from theirs."""

import pytest

from alerts import tasks
from metering.models import Crossing
from tests.factories import Account


def test_a_tenant_whose_work_fails_stops_no_other(account: Account, stranger: Account) -> None:
    done: list[int] = []

    def work(*, tenant_id: int) -> int:
        if tenant_id == account.tenant.id:
            raise ValueError("no")
        done.append(Crossing.objects.count())
        return 1

    run = tasks._Run(5)
    assert run.each(lambda: [account.tenant.id, stranger.tenant.id], work) == 1
    assert done == [0]
    with pytest.raises(ValueError, match="no"):
        run.report()


def test_a_step_with_work_without_end_leaves_the_others_their_time(account: Account) -> None:
    run = tasks._Run(0.1, steps=2)
    assert run.repeat(lambda: [account.tenant.id], lambda **_: 1) > 1
    assert run.each(lambda: [account.tenant.id], lambda **_: 1) == 1
