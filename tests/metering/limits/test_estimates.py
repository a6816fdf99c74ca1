"""What calls usually use: learned once, from what they really used, and answered quickly."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, connection

from common.bounded_memory import BoundedMemory
from common.json_bodies import JsonObject
from metering.limits import estimates
from metering.limits.estimates import ExpectedSize, expected_size, forget_estimates
from metering.models import CallSize
from metering.rollups import batches, call_sizes
from metering.rollups.bins import bins_of, largest
from metering.rollups.call_sizes import CALLS, COST, KEYS, OUTPUT, TOKENS
from tests.factories import NANOS, Account, make_event, send
from tests.metering.rollups.test_batches import roll_everything_up, void

MODEL = "claude-sonnet-4-5"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    forget_estimates()
    yield
    forget_estimates()


def calls(count: int, **fields: object) -> list[JsonObject]:
    """Calls of one agent and feature that cost 0.02 USD, unless told otherwise."""
    fields = {"agent": "researcher", "feature": "search", "cost_usd": "0.02", **fields}
    return [make_event(**fields) for _ in range(count)]


def learned(account: Account, events: list[JsonObject]) -> None:
    send(account, events)
    roll_everything_up(account)
    forget_estimates()


def expected(
    account: Account, *, agent: str = "researcher", feature: str = "search", model: str = MODEL
) -> ExpectedSize | None:
    return expected_size(account.tenant.id, agent=agent, feature=feature, model=model)


def upper(value: int) -> int:
    """The largest value of the bin that a value falls into."""
    (bin_number,) = bins_of(np.array([value], np.int64)).tolist()
    return largest(bin_number)


def each(count: int) -> Counter[int]:
    """So many calls in every measure."""
    return Counter(dict.fromkeys((CALLS, COST, OUTPUT, TOKENS), count))


def counted(account: Account) -> dict[tuple[str, str, str], Counter[int]]:
    """How many calls each key's measures count."""
    result: dict[tuple[str, str, str], Counter[int]] = {}
    with account.scope():
        for row in CallSize.objects.filter(tenant=account.tenant).exclude(measure=KEYS):
            key = (row.agent, row.feature, row.model)
            result.setdefault(key, Counter())[row.measure] += row.count
    return result


def count_of_keys(account: Account) -> int:
    with account.scope():
        return CallSize.objects.get(tenant=account.tenant, measure=KEYS).count


def test_the_estimate_is_what_nineteen_of_twenty_calls_did_not_exceed(account: Account) -> None:
    sizes = [
        {"cost_usd": f"0.{number:02}", "input_tokens": 100 * number, "output_tokens": number}
        for number in range(1, 21)
    ]
    learned(account, [call for size in sizes for call in calls(1, **size)])
    result = expected(account)
    assert result == ExpectedSize(
        cost_nanos=upper(19 * NANOS // 100), tokens=upper(1919), output_tokens=upper(19), calls=20
    )
    assert result is not None
    assert 1919 <= result.tokens <= 1919 * 1.1


def test_fewer_than_twenty_calls_tell_nothing(account: Account) -> None:
    learned(account, calls(19))
    assert expected(account) is None
    learned(account, calls(1))
    assert expected(account) == ExpectedSize(upper(NANOS // 50), upper(1100), upper(100), 20)


def test_a_feature_without_history_is_expected_to_use_what_the_agent_uses(account: Account) -> None:
    learned(account, calls(15) + calls(15, feature="summary", cost_usd="0.5"))
    whole = ExpectedSize(upper(NANOS // 2), upper(1100), upper(100), 30)
    assert expected(account, feature="search") == whole
    assert expected(account, feature="never seen") == whole
    learned(account, calls(5))
    own = expected(account, feature="search")
    assert own is not None
    assert (own.cost_nanos, own.calls) == (upper(NANOS // 50), 20)
    assert expected(account, agent="another") is None
    assert expected(account, model="gpt-4o") is None


def test_calls_without_agent_and_feature_have_a_history_of_their_own(account: Account) -> None:
    learned(account, calls(20, agent=..., feature=...))
    result = expected(account, agent="", feature="")
    assert result is not None
    assert result.calls == 20
    assert expected(account) is None


def test_a_dated_version_of_a_model_shares_its_history(account: Account) -> None:
    learned(account, calls(10) + calls(10, model="claude-sonnet-4-5-20250929"))
    assert set(counted(account)) == {("researcher", "search", MODEL)}
    for name in (MODEL, "claude-sonnet-4-5-20250929"):
        result = expected(account, model=name)
        assert result is not None
        assert result.calls == 20


def test_only_successful_priced_calls_of_models_teach(account: Account) -> None:
    other = [
        calls(1, status="error"),
        calls(1, status="cancelled"),
        calls(1, operation="tool", tool="web_search"),
        calls(1, operation="other"),
        calls(1, cost_usd=..., model="a model nobody knows"),
    ]
    learned(account, [call for some in other for call in some])
    assert counted(account) == {}
    learned(account, calls(1, operation="embedding") + calls(1, cost_usd="0"))
    assert counted(account) == {("researcher", "search", MODEL): each(2)}


def test_a_batch_is_learned_once_and_corrections_are_not_taken_back(account: Account) -> None:
    events = calls(3)
    learned(account, events)
    before = counted(account)
    assert before == {("researcher", "search", MODEL): each(3)}
    roll_everything_up(account)
    void(account, events[0])
    assert counted(account) == before


def test_a_roll_up_that_dies_has_learned_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, calls(3))
    monkeypatch.setattr(batches, "ADD_HISTOGRAMS", "SELECT 1 / 0 FROM tenant WHERE id = %s")
    with pytest.raises(Exception, match="division by zero"):
        roll_everything_up(account)
    assert counted(account) == {}
    monkeypatch.undo()
    roll_everything_up(account)
    assert counted(account) == {("researcher", "search", MODEL): each(3)}


def test_old_calls_fade_when_newer_ones_come(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_sizes, "CALLS_MAX", 40)
    learned(account, calls(40))
    assert counted(account)["researcher", "search", MODEL][CALLS] == 40
    learned(account, calls(1))
    faded = counted(account)["researcher", "search", MODEL]
    assert faded[CALLS] == 20
    # All fell into one bin, which fades as the count of calls does.
    assert (faded[COST], faded[OUTPUT], faded[TOKENS]) == (20, 20, 20)
    learned(account, calls(20, cost_usd="0.5"))
    result = expected(account)
    assert result is not None
    assert (result.cost_nanos, result.calls) == (upper(NANOS // 2), 40)
    with account.scope():
        assert not CallSize.objects.filter(tenant=account.tenant, count__lte=0).exists()


def test_calls_beyond_a_share_of_a_roll_up_are_left_out(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_sizes, "LEARNED_AT_LEAST", 5)
    monkeypatch.setattr(call_sizes, "LEARNED_ONE_IN", 20)
    learned(account, calls(40))
    assert counted(account) == {("researcher", "search", MODEL): each(5 + 40 // 20)}


def test_of_a_well_known_key_few_calls_are_learned(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_sizes, "WELL_KNOWN_CALLS", 10)
    learned(account, calls(10))
    monkeypatch.setattr(call_sizes, "WELL_KNOWN_ONE_IN", 10**9)
    learned(account, calls(10) + calls(3, feature="new"))
    known = counted(account)
    assert known["researcher", "search", MODEL][CALLS] == 10
    assert known["researcher", "new", MODEL][CALLS] == 3
    monkeypatch.setattr(call_sizes, "WELL_KNOWN_ONE_IN", 1)
    learned(account, calls(10))
    assert counted(account)["researcher", "search", MODEL][CALLS] == 20


def test_a_tenant_with_too_many_keys_loses_the_rarest(
    account: Account, stranger: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_sizes, "KEYS_MAX", 5)
    monkeypatch.setattr(call_sizes, "KEYS_KEPT", 2)
    learned(stranger, calls(1, agent="theirs"))
    learned(account, calls(3, feature="a") + calls(2, feature="b") + calls(1, feature="c"))
    learned(account, calls(1, feature="d") + calls(1, feature="e"))
    assert count_of_keys(account) == 5
    learned(account, calls(1, feature="f") + calls(2, feature="a"))
    assert {key[1]: counts[CALLS] for key, counts in counted(account).items()} == {"a": 5, "b": 2}
    assert count_of_keys(account) == 2
    learned(account, calls(1, feature="f"))
    assert count_of_keys(account) == len(counted(account)) == 3
    assert set(counted(stranger)) == {("theirs", "search", MODEL)}


def test_another_tenants_calls_tell_nothing(account: Account, stranger: Account) -> None:
    learned(account, calls(20))
    assert expected(stranger) is None


def test_an_answer_is_remembered_for_a_minute(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert expected(account) is None
    send(account, calls(20))
    roll_everything_up(account)
    assert expected(account) is None
    monkeypatch.setattr(estimates, "MEMORY_SECONDS", 0.0)
    assert expected(account) is not None


def test_memory_is_bounded(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_MEMORY", BoundedMemory(4))
    for number in range(20):
        expected(account, feature=f"feature-{number}")
    assert len(estimates._MEMORY) <= 4
    assert not estimates._reading


def test_callers_who_miss_together_read_once(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned(account, calls(20))
    real, reads, has_begun = estimates._read, [], threading.Event()

    def slow(key: Any) -> ExpectedSize | None:
        reads.append(key)
        # Nobody else reads while the first one does.
        assert not has_begun.wait(0.2)
        has_begun.set()
        return real(key)

    def ask() -> ExpectedSize | None:
        try:
            return expected(account)
        finally:
            connection.close()

    monkeypatch.setattr(estimates, "_read", slow)
    with ThreadPoolExecutor(8) as pool:
        answers = [each.result() for each in [pool.submit(ask) for _ in range(8)]]
    assert len(reads) == 1
    assert {answer.calls for answer in answers if answer} == {20}
    assert None not in answers


def test_what_could_not_be_read_is_not_remembered(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned(account, calls(20))

    def fail(key: object) -> ExpectedSize | None:
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(estimates, "_read", fail)
    with pytest.raises(OperationalError, match="is lost"):
        expected(account)
    monkeypatch.undo()
    assert expected(account) is not None


def test_the_event_loop_neither_reads_nor_waits_for_who_does(account: Account) -> None:
    async def ask() -> None:
        with pytest.raises(SynchronousOnlyOperation):
            expected(account)

    asyncio.run(ask())
    assert not estimates._reading, "nobody waits for what was not begun"
    assert expected(account) is None
    asyncio.run(remembered(account))


async def remembered(account: Account) -> None:
    assert expected(account) is None
