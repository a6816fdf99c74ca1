"""Scan one tenant's series: learn what is over, judge what is running.

Every whole quarter of an hour is learned once, a while after it has ended, so that late events are
part of it. Later ones are judged by a copy of what is known: the last whole quarter, and the
running one, with the events that no roll-up holds yet. So a spike is found within seconds of its
data, and nothing is learned from half of it. Usage that comes later still changes neither what was
learned nor what was judged.

No transaction of a scan takes long. Each stretch of quarters is learned and recorded as learned in
its own transaction; what is judged is read in others, which write nothing; and the findings are
written in the last, unless another scan was faster. A scan locks the row of the tenant's progress
while it writes. So a scan that dies has learned whole stretches, and reported nothing partially.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from alerts.anomaly import Verdicts
from alerts.anomaly_groups import ScanResult
from alerts.findings import open_series, take_findings, take_pattern, with_overlaps
from alerts.models import ScanProgress
from alerts.series import (
    COST,
    MEASURES,
    NEVER,
    PORTION_SERIES,
    POSITION,
    QUARTER,
    REQUESTS,
    SUMS,
    TENANT,
    Frame,
    Learned,
    SeriesKey,
    Usage,
    Watch,
    count_series,
    forget_idle,
    forget_other_version,
    frames,
    new_records,
    read_states,
    save,
    stored_portions,
    usage_of,
)
from alerts.severity import Activity, Finding
from metering.core.periods import floor_seconds
from metering.reporting.series import first_usage_at, newest_batch, quarter_sums
from metering.rollups.sets import QUARTER_SECONDS
from tenants.claims import ClaimSize
from tenants.scope import tenant_scope

# A quarter is learned this long after its end.
LATENESS: Final = timedelta(minutes=15)
# So much of the past is learned when a tenant is scanned for the first time, and a series that was
# not used for as long is forgotten.
HISTORY: Final = timedelta(days=35)
# A scan learns for this long; the next one continues from there.
LEARN_SECONDS: Final = 20.0
# The number of sums learned in one transaction, and the most quarters.
LEARN_SUMS: Final = ClaimSize(least=2_000, first=20_000, most=200_000)
STRETCH_QUARTERS: Final = 96
# A ratio of a running quarter that rests on fewer requests may be anything at its end.
RUNNING_REQUESTS_MIN: Final = 20
# Quarters with less than this share of the largest excess do not count as part of it.
EXCESS_SHARE: Final = 0.1
SECONDS_PER_HOUR: Final = 3600

# Tenants with batches that no scan has seen, and those whose last scan was in another quarter.
_TO_SCAN: Final = """
    SELECT t.id FROM tenant t LEFT JOIN scan_progress p ON p.tenant_id = t.id
    WHERE EXISTS (SELECT FROM ingest_batch b
            WHERE b.tenant_id = t.id AND b.id > coalesce(p.batch_id, 0))
        OR p.scanned_at < date_bin('15 minutes', now(), 'epoch')
    ORDER BY p.scanned_at NULLS FIRST, t.id
"""


def tenants_to_scan() -> list[int]:
    """Return tenants that may have news, the longest waiting first. Needs a platform scope."""
    with connection.cursor() as cursor:
        cursor.execute(_TO_SCAN)
        return [row[0] for row in cursor.fetchall()]


def scan_tenant(*, tenant_id: int, now: datetime) -> int:
    """Learn what has ended, judge what is running, and update the tenant's incidents.

    Return the number of judged series: none if nothing is new, another scan is running, or there is
    more to learn first than one scan may. A second run changes nothing.
    """
    learned = _learn(tenant_id, now)
    if learned is None:
        return 0
    since, restless = learned.progress.learned_until, learned.restless
    with tenant_scope(tenant_id):
        newest = newest_batch(tenant_id=tenant_id)
        scan, is_novel, count = _judge(tenant_id, since, restless, now)
    with tenant_scope(tenant_id):
        scan = with_overlaps(scan, now)
    with tenant_scope(tenant_id):
        progress = claim_progress(tenant_id=tenant_id, now=now)
        if progress is None or _position(progress) != _position(learned.progress):
            return 0
        take_findings(scan=scan, now=now)
        take_pattern(tenant_id=tenant_id, is_novel=is_novel, now=now)
        progress.batch_id, progress.scanned_at = newest, now
        progress.save(update_fields=["batch_id", "scanned_at"])
    return count


def _position(progress: ScanProgress) -> tuple[datetime, int, datetime]:
    """Return how far scans have come: elsewhere if another has ended since."""
    return progress.learned_until, progress.batch_id, progress.scanned_at


def _has_news(progress: ScanProgress, now: datetime) -> bool:
    """Whether there is anything to scan.

    A batch that is committed after one with a higher id is seen with the next one, or at the end of
    the quarter.
    """
    is_new_quarter = progress.scanned_at < floor_seconds(now, QUARTER_SECONDS)
    return is_new_quarter or newest_batch(tenant_id=progress.tenant_id) != progress.batch_id


def claim_progress(*, tenant_id: int, now: datetime) -> ScanProgress | None:
    """Lock the tenant's progress. Return None if another scan has it, or there was never usage."""
    rows = ScanProgress.objects.filter(tenant_id=tenant_id)
    progress = rows.select_for_update(skip_locked=True).first()
    if progress is None and not rows.exists():
        begun = _first_quarter(tenant_id, now)
        if begun is None:
            return None
        ScanProgress.objects.bulk_create(
            [ScanProgress(tenant_id=tenant_id, learned_until=begun, scanned_at=NEVER)],
            ignore_conflicts=True,
        )
        progress = rows.select_for_update(skip_locked=True).first()
    if progress is not None:
        oldest = floor_seconds(now - HISTORY, QUARTER_SECONDS)
        progress.learned_until = max(progress.learned_until, oldest)
    return progress


def _first_quarter(tenant_id: int, now: datetime) -> datetime | None:
    """Return where learning begins; None without usage in the time that is learned from."""
    first = first_usage_at(tenant_id=tenant_id, since=now - HISTORY)
    return None if first is None else floor_seconds(first, QUARTER_SECONDS)


class _Learned(NamedTuple):
    """Where learning has ended, and the series that were not as expected in its last quarter."""

    progress: ScanProgress
    restless: set[SeriesKey]


def _learn(tenant_id: int, now: datetime) -> _Learned | None:
    """Learn all whole quarters that are over, a stretch a transaction. Return None if nothing is to
    be judged now, another scan is running, or the time is over.
    """
    ends_at = time.monotonic() + LEARN_SECONDS
    until = floor_seconds(now - LATENESS, QUARTER_SECONDS)
    restless: set[SeriesKey] = set()
    while True:
        with tenant_scope(tenant_id):
            progress = claim_progress(tenant_id=tenant_id, now=now)
            if progress is None or not _has_news(progress, now):
                return None
            if forget_other_version(tenant_id=tenant_id):
                # What is stored of usage is learned from again, else nothing would be found for
                # weeks.
                begun = _first_quarter(tenant_id, now)
                progress.learned_until = begun or progress.learned_until
            is_all = progress.learned_until >= until
            is_in_time = time.monotonic() < ends_at
            if not is_all and is_in_time:
                restless = _learn_some(tenant_id, progress, until)
            progress.save(update_fields=["learned_until"])
        if is_all:
            return _Learned(progress, restless)
        if not is_in_time:
            return None


def _learn_some(tenant_id: int, progress: ScanProgress, until: datetime) -> set[SeriesKey]:
    """Learn as many quarters as a transaction may; return the series that were not as expected in
    the last of them.
    """
    forget_idle(tenant_id=tenant_id, before=until - HISTORY)
    series, starts_at = count_series(tenant_id=tenant_id), progress.learned_until
    # The first quarter of all tells how many series there are.
    quarters = min(STRETCH_QUARTERS, LEARN_SUMS.of(tenant_id) // series) if series else 1
    ends_at = min(until, starts_at + QUARTER * max(1, quarters))
    with LEARN_SUMS.measured(tenant_id, count=series * ((ends_at - starts_at) // QUARTER)):
        restless = _learn_stretch(tenant_id, starts_at, ends_at)
    progress.learned_until = ends_at
    return restless


def _learn_stretch(tenant_id: int, starts_at: datetime, ends_at: datetime) -> set[SeriesKey]:
    usage = _usage(tenant_id, starts_at, ends_at)
    quarters = _quarters(starts_at, ends_at)
    restless: set[SeriesKey] = set()
    seen: set[SeriesKey] = set()
    for portion in stored_portions(tenant_id=tenant_id):
        seen.update(portion.keys)
        restless |= _learn_portion(tenant_id, portion, usage, quarters)
    fresh = [key for key in usage.keys if key not in seen]
    for keys in _portions(fresh):
        portion = Learned(keys, new_records(len(keys)), [NEVER] * len(keys))
        restless |= _learn_portion(tenant_id, portion, usage, quarters)
    return restless


def _learn_portion(
    tenant_id: int, portion: Learned, usage: Usage, quarters: Sequence[int]
) -> set[SeriesKey]:
    """Learn the quarters of some series, and store what is known now."""
    watch = Watch(portion.records)
    first, last = usage.bounds(portion.keys)
    is_new = np.array([at == NEVER for at in portion.used_at])
    verdicts: Verdicts | None = None
    for frame in frames(usage, portion.keys, quarters):
        # Before a series was used for the first time nothing is known of it, not even that it was
        # idle.
        frame.values[is_new & (first > frame.quarter)] = np.nan
        verdicts = watch.observe(frame)
    assert verdicts is not None, "there is a quarter to learn"
    used_at = [
        max(known, datetime.fromtimestamp(quarter, UTC)) if quarter else known
        for known, quarter in zip(portion.used_at, last.tolist(), strict=True)
    ]
    save(tenant_id=tenant_id, learned=Learned(portion.keys, watch.records(), used_at))
    return {portion.keys[row] for row in np.flatnonzero(verdicts.is_open.any(axis=1))}


class _Step(NamedTuple):
    """A quarter that was judged, and how."""

    frame: Frame
    verdicts: Verdicts
    is_running: bool


def _judge(
    tenant_id: int, since: datetime, restless: set[SeriesKey], now: datetime
) -> tuple[ScanResult, bool, int]:
    """Judge what was used since, and what was not as expected before.

    Return what was seen, whether the tenant's pattern is a new one, and the number of series.
    """
    running = floor_seconds(now, QUARTER_SECONDS)
    # A tenant's first events may be ahead of our clock.
    since = min(since, running)
    usage = _usage(tenant_id, since, running + QUARTER)
    keys = sorted({TENANT, *usage.keys, *restless, *open_series(tenant_id=tenant_id)})
    findings: list[Finding] = []
    activities: dict[SeriesKey, Activity] = {}
    usual_nanos_per_hour = 0.0
    is_novel = False
    for portion in _portions(keys):
        steps = _steps(tenant_id, portion, usage, _quarters(since, running + QUARTER), running)
        active = _activities(portion, steps)
        findings += _findings(portion, steps, active)
        activities.update(active)
        if portion[0] == TENANT:
            usual_nanos_per_hour = _expected_cost(steps[0])[0] * SECONDS_PER_HOUR / QUARTER_SECONDS
            is_novel = any(step.verdicts.is_novel[0, POSITION[COST]] for step in steps)
    scan = ScanResult(tenant_id, findings, activities, usual_nanos_per_hour, usage, since)
    return scan, is_novel, len(keys)


def _steps(
    tenant_id: int,
    keys: list[SeriesKey],
    usage: Usage,
    quarters: Sequence[int],
    running: datetime,
) -> list[_Step]:
    """Judge the quarters by a copy of what is known, the running one without learning from it."""
    watch = Watch(read_states(tenant_id=tenant_id, keys=keys).records)
    steps = []
    for frame in frames(usage, keys, quarters):
        is_running = frame.quarter >= int(running.timestamp())
        verdicts = watch.judge(frame) if is_running else watch.observe(frame)
        steps.append(_Step(frame, verdicts, is_running))
    return steps


def _activities(keys: Sequence[SeriesKey], steps: Sequence[_Step]) -> dict[SeriesKey, Activity]:
    """Return what each series did, and was expected to do, in the quarters in which it cost too
    much; in all of them if it never did.

    A quarter that is above the expected by a hair is none of them: it would halve the rate.
    """
    cost = np.stack([step.frame.values[:, POSITION[COST]] for step in steps])
    requests = np.stack([step.frame.values[:, POSITION[REQUESTS]] for step in steps])
    expected = np.stack([_expected_cost(step) for step in steps])
    excess = cost - expected
    counted = (excess > 0) & (excess >= EXCESS_SHARE * excess.max(axis=0))
    counted[:, ~counted.any(axis=0)] = True
    return {
        key: Activity(*row)
        for key, row in zip(
            keys,
            zip(
                (cost * counted).sum(axis=0).tolist(),
                (expected * counted).sum(axis=0).tolist(),
                (requests * counted).sum(axis=0).tolist(),
                (counted.sum(axis=0) * QUARTER_SECONDS).tolist(),
                strict=True,
            ),
            strict=True,
        )
    }


def _expected_cost(step: _Step) -> NDArray[np.float64]:
    """Return what each series was expected to cost; 0 if nothing was expected."""
    expected = np.nan_to_num(step.verdicts.expected[:, POSITION[COST]])
    expected_nanos: NDArray[np.float64] = np.maximum(expected, 0.0)
    return expected_nanos


def _findings(
    keys: Sequence[SeriesKey], steps: Sequence[_Step], activities: dict[SeriesKey, Activity]
) -> Iterator[Finding]:
    """Find the measures that are not as expected now, in a direction that is worth reporting."""
    whole = [step for step in steps if not step.is_running]
    running = steps[len(whole) :]
    is_open = np.zeros((len(keys), len(MEASURES)), bool)
    if whole:
        is_open |= _is_open(whole[-1]) & ~_goes_on(running, len(keys))
    for step in running:
        is_open |= _is_open(step)
    for row, column in np.argwhere(is_open).tolist():
        open_steps = [step for step in steps if _is_open(step)[row, column]]
        step = max(open_steps, key=lambda step: step.verdicts.score[row, column])
        yield Finding(
            key=keys[row],
            measure=MEASURES[column].name,
            is_above=bool(step.verdicts.is_above[row, column]),
            score=float(step.verdicts.score[row, column]),
            actual=float(np.nan_to_num(step.frame.values[row, column])),
            expected=float(np.nan_to_num(step.verdicts.expected[row, column])),
            began_at=datetime.fromtimestamp(open_steps[0].frame.quarter, UTC),
            activity=activities[keys[row]],
        )


def _goes_on(running: Sequence[_Step], count: int) -> NDArray[np.bool_]:
    """Return where the requests of the running quarter disprove an end of all requests."""
    goes_on = np.zeros((count, len(MEASURES)), bool)
    column = POSITION[REQUESTS]
    for step in running:
        has_requests = step.frame.values[:, column] > 0
        goes_on[:, column] |= has_requests & ~step.verdicts.is_above[:, column]
    return goes_on


def _is_open(step: _Step) -> NDArray[np.bool_]:
    """What counts of a step's verdicts: the bad direction, and requests that stopped.

    A running quarter says something of a sum only if that is too high already, and of a ratio
    only if that rests on some requests. Requests have not stopped while there are new ones.
    """
    verdicts = step.verdicts
    is_bad_above = np.array([measure.is_bad_above for measure in MEASURES])
    counts = verdicts.is_above == is_bad_above
    if step.is_running:
        counts[:, :SUMS] &= verdicts.is_above[:, :SUMS]
        counts[:, SUMS:] &= step.frame.weights[:, SUMS:] >= RUNNING_REQUESTS_MIN
    else:
        stopped = POSITION[REQUESTS]
        counts[:, stopped] |= step.frame.values[:, stopped] == 0
    # That a series forms a new pattern is reported of the whole tenant only.
    is_reported: NDArray[np.bool_] = verdicts.is_open & ~verdicts.is_novel & counts
    return is_reported


def _usage(tenant_id: int, starts_at: datetime, ends_at: datetime) -> Usage:
    return usage_of(quarter_sums(tenant_id=tenant_id, starts_at=starts_at, ends_at=ends_at))


def _quarters(starts_at: datetime, ends_at: datetime) -> range:
    return range(int(starts_at.timestamp()), int(ends_at.timestamp()), QUARTER_SECONDS)


def _portions(keys: Sequence[SeriesKey]) -> Iterator[list[SeriesKey]]:
    for start in range(0, len(keys), PORTION_SERIES):
        yield list(keys[start : start + PORTION_SERIES])
