"""The events of batches are read in stretches, however many batches there are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.json_bodies import JsonObject
from metering.models import BATCH_ID_STRIDE, IngestBatch
from metering.reporting.series import costly_calls, quarter_sums
from metering.usage.batch_events import STRETCH_GAP_MAX, STRETCHES_MAX, events_of_batches
from tests.factories import Account, make_event, send

BATCHES = 60


def ranges_of(batch_ids: list[int]) -> list[tuple[int, int]]:
    """The ranges of batches that the condition reads."""
    condition, parameters = events_of_batches(batch_ids)
    *bounds, wanted = parameters
    assert wanted == batch_ids
    assert condition.count(" OR ") == len(bounds) // 2 - 1
    ids = [bound // BATCH_ID_STRIDE for bound in bounds]
    return list(zip(ids[::2], ids[1::2], strict=True))


def test_batches_that_are_close_are_one_stretch() -> None:
    far = 7 + STRETCH_GAP_MAX + 1
    assert ranges_of([3, 4, 7, far, far + STRETCH_GAP_MAX]) == [
        (3, 8),
        (far, far + STRETCH_GAP_MAX + 1),
    ]
    assert events_of_batches([]) == ("false", [])


def test_very_many_batches_far_apart_are_a_bounded_number_of_stretches() -> None:
    gap = STRETCH_GAP_MAX + 1
    ids = [index * gap for index in range(5_000)]
    # The widest gap is not read across.
    ids += [ids[-1] + 100 * gap]
    ranges = ranges_of(ids)
    assert len(ranges) == STRETCHES_MAX
    assert ranges[-1] == (ids[-1], ids[-1] + 1)
    assert all(any(first <= id_ < end for first, end in ranges) for id_ in ids)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_analyzed", [False, True])
def test_no_event_is_compared_with_more_than_its_own_stretch(
    account: Account, is_analyzed: bool
) -> None:
    now = datetime.now(UTC)
    for _ in range(BATCHES):
        send(account, [make_event(cost_usd="3"), make_event(cost_usd="3")])
    with account.scope():
        ids = list(IngestBatch.objects.order_by("id").values_list("id", flat=True))
        # Every second one is rolled up: as many stretches as there can be.
        IngestBatch.objects.filter(id__in=ids[::2]).update(rolled_up_at=now)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE usage_event, ingest_batch" if is_analyzed else "SELECT 1")
    hour = timedelta(hours=1)
    tenant_id = account.tenant.id
    with account.scope(), CaptureQueriesContext(connection) as queries:
        quarter_sums(tenant_id=tenant_id, starts_at=now - hour, ends_at=now + hour)
        costly_calls(tenant_id=tenant_id, received_from=now - hour, nanos_min=0, limit=9)
    statements = [query["sql"] for query in queries if "usage_event" in query["sql"]]
    assert len(statements) == 2
    for statement in statements:
        assert rows_thrown_away(account, statement) <= BATCHES
    with account.scope():
        IngestBatch.objects.update(rolled_up_at=None)


def rows_thrown_away(account: Account, statement: str) -> float:
    """How many rows the statement reads and does not use."""
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        ((plan,),) = cursor.fetchall()
    return sum(
        float(count * node["Actual Loops"])
        for node in nodes(plan[0]["Plan"])
        for name, count in node.items()
        if name.startswith("Rows Removed by")
    )


def nodes(plan: JsonObject) -> Iterator[JsonObject]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)
