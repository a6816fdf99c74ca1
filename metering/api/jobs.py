"""`/v1/jobs`: work that was too long for a request, and how far it is."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Moment, moment_text
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import NotFound
from common.money import usd_from_nanos
from metering.models import BackgroundJob, JobKind, JobState
from tenants.api.views import ApiView, tenant_of


class JobAnswer(serializers.Serializer[Any]):
    """A job, and where it stands."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(
        choices=JobKind.values,
        help_text="`rerate` rates a period again, `price_unpriced` rates what had no price,"
        " `count_budget` counts what was spent before a budget was made, `judge_windows` brings a"
        " changed budget's windows to their levels.",
    )
    state = serializers.ChoiceField(choices=JobState.values)
    progress_percent = serializers.IntegerField(help_text="100 once it is done, and not before.")
    done = serializers.IntegerField(help_text="Events read, or windows.")
    total = serializers.IntegerField(help_text="Of how many; an estimate until it is done.")
    budget_id = serializers.IntegerField(allow_null=True)
    result = serializers.DictField(
        allow_null=True, help_text="Once it is done. Of ratings, as `/v1/prices/rerate` answers."
    )
    created_at = Moment()
    finished_at = Moment(allow_null=True)
    error = serializers.CharField(allow_null=True, help_text="Why it failed, or is tried again.")


class JobsView(ApiView):
    """All jobs of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List jobs, newest first",
        description="A job that has ended is kept for 35 days.",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(JobAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        jobs = BackgroundJob.objects.filter(tenant=tenant_of(request))
        if page.after is not None:
            jobs = jobs.filter(id__lt=page.after[0])
        rows = list(jobs.order_by("-id")[: page.limit + 1])
        return Response(page_answer(rows, page=page, answer=job_answer, key=lambda row: [row.id]))


class JobView(ApiView):
    """One job."""

    @extend_schema(summary="Show a job", responses=JobAnswer)
    def get(self, request: Request, job_id: int) -> Response:
        job = BackgroundJob.objects.filter(tenant=tenant_of(request), id=job_id).first()
        if job is None:
            raise NotFound(f"There is no job {job_id}.")
        return Response(job_answer(job))


def job_answer(job: BackgroundJob) -> dict[str, Any]:
    """A job as the API shows it."""
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "progress_percent": job.progress_percent,
        "done": job.done,
        "total": max(job.total, job.done),
        "budget_id": job.budget_id,
        "result": _result_answer(job) if job.state == JobState.DONE else None,
        "created_at": moment_text(job.created_at),
        "finished_at": moment_text(job.finished_at) if job.finished_at else None,
        "error": job.error or None,
    }


def _result_answer(job: BackgroundJob) -> dict[str, Any] | None:
    if job.result is None or job.kind not in (JobKind.RERATE, JobKind.PRICE_UNPRICED):
        return job.result
    return rerate_answer(job.result, is_dry_run=job.parameters.get("dry_run", False))


def rerate_answer(summary: Mapping[str, int], *, is_dry_run: bool) -> dict[str, Any]:
    """What rating again found, as the API shows it."""
    counts = {name: count for name, count in summary.items() if name != "difference_nanos"}
    difference_usd = usd_from_nanos(summary["difference_nanos"])
    return {"dry_run": is_dry_run, **counts, "difference_usd": difference_usd}


def accepted(job: BackgroundJob) -> Response:
    """The answer to a request whose work a job goes on with."""
    return Response(job_answer(job), status=202, headers={"Location": f"/v1/jobs/{job.id}"})
