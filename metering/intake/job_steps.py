"""Which step each kind of job takes, and whose turn it is."""

from collections.abc import Callable, Mapping
from typing import Final

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from metering.core.background_jobs import claim_job, note_failure
from metering.intake.rerate import rerate_a_chunk
from metering.ledger.counting import count_a_stretch
from metering.ledger.crossings import judge_a_portion
from metering.limits.lockouts import follow_levels
from metering.models import BackgroundJob, JobKind, JobState
from metering.snapshot import Configuration, as_configured
from tenants.scope import tenant_scope

Step = Callable[[Configuration, BackgroundJob], None]
STEPS: Final[Mapping[str, Step]] = {
    JobKind.RERATE: rerate_a_chunk,
    JobKind.PRICE_UNPRICED: rerate_a_chunk,
    JobKind.COUNT_BUDGET: lambda configuration, job: follow_levels(
        configuration.budgets, count_a_stretch(configuration.budgets, job)
    ),
    JobKind.JUDGE_WINDOWS: lambda configuration, job: follow_levels(
        configuration.budgets, judge_a_portion(configuration.budgets, job)
    ),
}


def take_step(*, tenant_id: int, job_id: int | None = None) -> int:
    """Do a step of a job, or of the tenant's job that has waited longest; return the number of
    steps. Zero: there is nothing to do, or others do it.
    """
    claimed: list[int] = []

    def work(configuration: Configuration) -> int:
        claimed.clear()
        job = claim_job(tenant_id=tenant_id, job_id=job_id)
        if job is None:
            return 0
        claimed.append(job.id)
        STEPS[job.kind](configuration, job)
        job.stepped_at = timezone.now()
        job.save()
        return 1

    try:
        return as_configured(tenant_id, work)
    except (OperationalError, InterfaceError):
        raise  # Nothing is wrong with the job.
    except Exception:
        if claimed:
            with tenant_scope(tenant_id):
                note_failure(tenant_id=tenant_id, job_id=claimed[0])
        raise


def run_job(job: BackgroundJob) -> BackgroundJob:
    """Do what is left of a job in this process; return it as it is then."""
    while take_step(tenant_id=job.tenant_id, job_id=job.id):
        pass
    with tenant_scope(job.tenant_id):
        return BackgroundJob.objects.get(tenant_id=job.tenant_id, id=job.id)


def tenants_with_jobs() -> list[int]:
    """Tenants with jobs that are not done. Needs a platform scope."""
    states = [JobState.WAITING.value, JobState.RUNNING.value]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM background_job WHERE state = ANY(%s)", [states]
        )
        return [row[0] for row in cursor.fetchall()]
