"""`/v1/jobs`: work that was too long for a request, and how far it is."""

from collections.abc import Sequence
from typing import Annotated, Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from msgspec import Meta
from rest_framework.response import Response

from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of
from metering.intake.rerate import RerateSummary
from metering.models import BackgroundJob, JobKind, JobState
from tenants.api.resources import Resource


class RerateAnswer(Answer):
    """What rating again found, and changed unless it was a dry run."""

    dry_run: bool
    examined: int
    changed: int
    newly_priced: int
    still_unpriced: int
    difference_usd: Annotated[AmountUsd, about("What it costs more; below zero: less.")]


class JobAnswer(Answer):
    """A job, and where it stands."""

    id: int
    kind: Annotated[
        str,
        one_of(
            JobKind.values,
            "`rerate` rates a period again, `price_unpriced` rates what had no price,"
            " `count_budget` counts what was spent before a budget was made, `judge_windows` brings"
            " a changed budget's windows to their levels.",
        ),
    ]
    state: Annotated[str, one_of(JobState.values)]
    progress_percent: Annotated[int, about("100 once it is done, and not before.")]
    done: Annotated[int, about("Events read, or windows.")]
    total: Annotated[int, about("The number of them; an estimate until it is done.")]
    budget_id: int | None
    result: Annotated[
        Any,
        about("Once it is done. Of ratings, as `/v1/prices/rerate` answers."),
        Meta(extra_json_schema={"type": ["object", "null"], "additionalProperties": {}}),
    ]
    created_at: UtcTimestamp
    finished_at: UtcTimestamp | None
    error: Annotated[str | None, about("Why it failed, or is tried again.")]


@extend_schema_view(
    list=extend_schema(
        summary="List jobs, newest first",
        description="A job that has ended is kept for 35 days.",
    ),
    retrieve=extend_schema(summary="Show a job"),
)
class Jobs(Resource[BackgroundJob]):
    """The background jobs of the tenant."""

    model = BackgroundJob
    noun = "job"
    answer = JobAnswer
    order = ("-id",)

    def answers(self, rows: Sequence[BackgroundJob]) -> Sequence[JobAnswer]:
        return [job_answer(job) for job in rows]


def job_answer(job: BackgroundJob) -> JobAnswer:
    """A job as the API shows it."""
    return JobAnswer.of(
        job,
        total=max(job.total, job.done),
        result=_result_of(job) if job.state == JobState.DONE else None,
        error=job.error or None,
    )


def _result_of(job: BackgroundJob) -> object:
    if job.result is None or job.kind not in (JobKind.RERATE, JobKind.PRICE_UNPRICED):
        return job.result
    return rerate_answer(
        RerateSummary(**job.result), is_dry_run=job.parameters.get("dry_run", False)
    )


def rerate_answer(summary: RerateSummary, *, is_dry_run: bool) -> RerateAnswer:
    """What rating again found, as the API shows it."""
    return RerateAnswer.of(summary, dry_run=is_dry_run)


def accepted(job: BackgroundJob) -> Response:
    """The answer to a request whose work a job continues."""
    return Response(job_answer(job), status=202, headers={"Location": f"/v1/jobs/{job.id}"})
