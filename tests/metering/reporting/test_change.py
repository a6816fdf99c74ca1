"""A change of cost is split into volume, mix and price that add up to the nano-dollar."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.reporting import UsageQuestion, what_moved_it
from metering.reporting.change import Change, GroupChange, Used, split_change
from tests.factories import Account, make_event, send
from tests.metering.reporting.test_usage import snapshot

sides = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", ""]),
    st.builds(Used, st.integers(0, 10**13), st.integers(0, 10**6)),
    max_size=5,
)


def parts(change: Change | GroupChange) -> tuple[int, int, int]:
    return change.volume_nanos, change.mix_nanos, change.price_nanos


@settings(max_examples=500, print_blob=True)
@given(before=sides, after=sides)
def test_the_parts_add_up_and_are_within_a_nano_dollar_of_their_formulas(
    before: dict[str, Used], after: dict[str, Used]
) -> None:
    change = split_change(before, after)
    cost_before = sum(used.cost_nanos for used in before.values())
    cost_after = sum(used.cost_nanos for used in after.values())
    assert (change.before_nanos, change.after_nanos) == (cost_before, cost_after)
    assert sum(parts(change)) == cost_after - cost_before
    assert {group.value for group in change.groups} == {*before, *after}
    n0 = sum(used.requests for used in before.values())
    n1 = sum(used.requests for used in after.values())
    for group in change.groups:
        assert sum(parts(group)) == group.change_nanos
        c0, n0_g = group.before
        c1, n1_g = group.after
        if n0_g:
            p0 = Fraction(c0, n0_g)
            exact = (
                (n1 - n0) * Fraction(n0_g, n0) * p0,
                (n1_g - n1 * Fraction(n0_g, n0)) * p0,
                c1 - n1_g * p0,
            )
            assert all(abs(a - b) <= 1 for a, b in zip(parts(group), exact, strict=True))
    assert parts(change) == tuple(map(sum, zip(*map(parts, change.groups), strict=True))) or (
        not change.groups
    )


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        # Twice as many of the same.
        ({"a": (100, 10)}, {"a": (200, 20)}, (100, 0, 0)),
        # A dearer price.
        ({"a": (100, 10)}, {"a": (150, 10)}, (0, 0, 50)),
        # From the dear model to the cheap one.
        ({"a": (900, 9), "b": (9, 9)}, {"a": (0, 0), "b": (18, 18)}, (0, -891, 0)),
        # A new model, as many requests.
        ({"a": (100, 10)}, {"a": (50, 5), "new": (500, 5)}, (0, 450, 0)),
        # From nothing, and to nothing.
        ({}, {"a": (70, 7)}, (70, 0, 0)),
        ({"a": (70, 7)}, {}, (-70, 0, 0)),
        # Cost of tool calls alone.
        ({"": (5, 0)}, {"": (9, 0)}, (0, 0, 4)),
        # A third of a nano-dollar each: no part comes out of rounding.
        ({"a": (100, 3)}, {"a": (133, 4)}, (33, 0, 0)),
    ],
)
def test_parts_are_what_their_names_say(
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
    wanted: tuple[int, int, int],
) -> None:
    change = split_change(
        {value: Used(*used) for value, used in before.items()},
        {value: Used(*used) for value, used in after.items()},
    )
    assert parts(change) == wanted


@pytest.mark.django_db(transaction=True)
def test_a_day_is_split_against_the_day_before(account: Account) -> None:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)

    def calls(count: int, at: datetime, model: str, usd: str, **fields: str) -> None:
        for _ in range(count):
            event = make_event(model=model, cost_usd=usd, time=at.isoformat(), **fields)
            send(account, [event])

    yesterday = midnight - timedelta(hours=3)
    calls(4, yesterday, "small", "1")
    calls(4, yesterday, "large", "10", team="growth")
    calls(1, yesterday - timedelta(days=1), "large", "500")
    calls(4, midnight, "small", "1")
    calls(8, midnight, "large", "12")
    question = UsageQuestion(
        tenant_id=account.tenant.id, starts_at=midnight, ends_at=midnight + timedelta(days=1)
    )
    # In the evening of today, all of yesterday is compared.
    with snapshot(account):
        change = what_moved_it(question, now=midnight + timedelta(days=1))
        morning = what_moved_it(question, now=midnight + timedelta(hours=1))
    usd = 10**9
    assert parts(change) == (22 * usd, 18 * usd, 16 * usd)
    assert (change.before_nanos, change.after_nanos) == (44 * usd, 100 * usd)
    assert [group.value for group in change.groups] == ["large", "small"]
    assert morning.before_nanos == 0
    assert parts(morning) == (100 * usd, 0, 0)
