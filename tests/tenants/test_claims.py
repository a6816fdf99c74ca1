"""A job claims as much as one short transaction does."""

from types import SimpleNamespace

import pytest

from tenants import claims
from tenants.claims import TENANTS_MAX, ClaimSize


def claim(size: ClaimSize, clock: SimpleNamespace, *, count: int, seconds: float) -> int:
    """What the next transaction claims, after one of `count` that took so long."""
    with size.measured(1, count=count):
        clock.seconds += seconds
    return size.of(1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def test_it_shrinks_by_the_time_taken_and_grows_where_there_was_room(
    clock: SimpleNamespace,
) -> None:
    size = ClaimSize(least=10, first=1_000, most=1_500)
    assert size.of(1) == 1_000
    assert claim(size, clock, count=1_000, seconds=6) == 250
    assert claim(size, clock, count=250, seconds=1.5) == 250
    assert claim(size, clock, count=250, seconds=1.25) == 300
    assert claim(size, clock, count=300, seconds=0.25) == 600
    assert claim(size, clock, count=600, seconds=0.75) == 1_200
    assert claim(size, clock, count=1_200, seconds=0.25) == 1_500
    assert claim(size, clock, count=1_500, seconds=1_000) == 10


def test_it_grows_by_what_was_claimed_where_a_whole_batch_did_not_fit(
    clock: SimpleNamespace,
) -> None:
    size = ClaimSize(least=10, first=1_000, most=4_000)
    assert claim(size, clock, count=800, seconds=0.75) == 1_600
    assert claim(size, clock, count=700, seconds=0.1) == 1_600


def test_little_that_was_done_quickly_says_nothing_of_much(clock: SimpleNamespace) -> None:
    size = ClaimSize(least=10, first=1_000, most=4_000)
    for _ in range(5):
        assert claim(size, clock, count=3, seconds=0.01) == 1_000


def test_one_tenants_pace_is_not_anothers(clock: SimpleNamespace) -> None:
    size = ClaimSize(least=10, first=1_000, most=1_500)
    claim(size, clock, count=1_000, seconds=4)
    assert size.of(2) == 1_000


def test_a_claim_that_fails_shrinks_the_next_only_where_it_took_long(
    clock: SimpleNamespace,
) -> None:
    size = ClaimSize(least=10, first=1_000, most=4_000)

    def fail(seconds: float) -> None:
        clock.seconds += seconds
        raise ValueError("no")

    for seconds, expected in ((0.1, 1_000), (6, 250)):
        with pytest.raises(ValueError, match="no"), size.measured(1, count=1_000):
            fail(seconds)
        assert size.of(1) == expected


def test_memory_is_bounded(clock: SimpleNamespace) -> None:
    size = ClaimSize(least=10, first=1_000, most=1_500)
    claim(size, clock, count=1_000, seconds=4)
    for tenant_id in range(2, TENANTS_MAX + 2):
        with size.measured(tenant_id, count=1):
            pass
    assert size.of(1) == 1_000
