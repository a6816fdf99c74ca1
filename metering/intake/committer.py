"""Combines bodies of usage: those of a tenant that wait are committed together."""

from typing import Final

from metering.calls.ingest_job import IngestJob
from metering.core.committer import Committer
from metering.intake.ingest import commit_jobs

PROCESS_COMMITTER: Final[Committer[IngestJob]] = Committer(commit_jobs, name="committer")
