"""Jobs as rows: work that is too long for a request is begun by one and done by workers.

The rows are the queue. The worker that does a step holds the job's row until it is committed.
"""

from collections.abc import Mapping
from typing import Final

from django.db.models import F
from django.utils import timezone

from metering.core.event_stretches import Position
from metering.models import UNFINISHED, BackgroundJob, JobKind, JobState

# A job that repeatedly fails ends so, unless what it does must come to an end all the same.
FAILURES_MAX: Final = 5
GIVEN_UP: Final = (JobKind.RERATE,)
OUR_FAULT: Final = "Something went wrong on our side; the error was logged."


def start_job(
    *, tenant_id: int, kind: JobKind, actor: str, total: int, **columns: object
) -> BackgroundJob:
    """Leave work to the workers, from commit on."""
    return BackgroundJob.objects.create(
        tenant_id=tenant_id, kind=kind, actor=actor[:300], total=total, **columns
    )


def claim_job(*, tenant_id: int, job_id: int | None = None) -> BackgroundJob | None:
    """Take a job for one step: that one, or the tenant's that has waited longest.

    None where there is none, or another worker has it. The row stays locked until commit.
    """
    jobs = BackgroundJob.objects.select_for_update(skip_locked=True).filter(
        UNFINISHED, tenant_id=tenant_id
    )
    if job_id is not None:
        jobs = jobs.filter(id=job_id)
    job = jobs.order_by(F("stepped_at").asc(nulls_first=True), "id").first()
    if job is not None:
        job.state = JobState.RUNNING
    return job


def position_of(job: BackgroundJob) -> Position:
    """How far a job has read events."""
    assert job.after_at is not None, "a job that reads events has a position"
    return Position(job.after_at, job.after_id)


def move_on(job: BackgroundJob, *, position: Position, count: int) -> None:
    """Note that a step has read `count` more events; the caller saves the job."""
    job.after_at, job.after_id = position
    job.done += count


def finish_job(job: BackgroundJob, result: Mapping[str, object]) -> None:
    """Note that all is done; the caller saves the job."""
    job.state, job.result, job.error = JobState.DONE, result, ""
    job.total = job.done
    job.finished_at = timezone.now()


def note_failure(*, tenant_id: int, job_id: int) -> None:
    """Note that a step failed, whose transaction left nothing behind."""
    job = BackgroundJob.objects.select_for_update().get(tenant_id=tenant_id, id=job_id)
    job.failures += 1
    job.error, job.stepped_at = OUR_FAULT, timezone.now()
    if job.failures >= FAILURES_MAX and job.kind in GIVEN_UP:
        job.state, job.finished_at = JobState.FAILED, timezone.now()
    job.save()
