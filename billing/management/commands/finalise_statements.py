"""`manage.py finalise_statements [--tenant NAME] [--period 2026-10] [--until TIME]`."""

import re
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from billing.models import Statement, StatementState
from billing.month_end import EVERYONE, Due, MonthEnd, Share
from billing.statement_periods import open_due_drafts, tenants_with_due_drafts
from common.times import parse_timestamp_or_date
from tenants.models import Tenant
from tenants.runs import tenants_of
from tenants.scope import platform_scope, tenant_scope

MONTH: Final = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")
SHARE: Final = re.compile(r"([0-9]+)/([1-9][0-9]*)")
PROCESSES: Final = 2
LOOK_SECONDS: Final = 1.0


class Command(BaseCommand):
    """Make statements of periods that are over final. What is final is skipped, so a run that was
    interrupted is simply started again.
    """

    help = "Make the statements of periods that are over final; start it again if it was stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="NAME", help="Otherwise all tenants.")
        parser.add_argument(
            "--period", metavar="MONTH", help="Periods that ended in this month, as in 2026-10."
        )
        parser.add_argument(
            "--until", metavar="TIME", help="Periods that ended by then: RFC 3339 or a date (UTC)."
        )
        parser.add_argument(
            "--processes", type=int, default=PROCESSES, metavar="N", help="How many work at it."
        )
        # What one of several processes does.
        parser.add_argument("--share", metavar="K/N", help="Customers whose id modulo N is K.")

    def handle(self, *args: object, **options: Any) -> None:
        share = _share(options["share"])
        until = _until(options["until"])
        month = _month(options["period"])
        left: list[str] = []
        for tenant in _tenants(options["tenant"], until):
            while share is None and _open_drafts(tenant.id):
                pass
            due = Due(tenant.id, until, month, share or EVERYONE)
            if share is None and options["processes"] > 1:
                self._finalize_together(tenant, due, options)
            else:
                left += self._finalize_alone(tenant, due, shows_bar=share is None)
        if left:
            raise CommandError("Some statements stay drafts:\n" + "\n".join(left), returncode=1)

    def _finalize_alone(self, tenant: Tenant, due: Due, *, shows_bar: bool) -> list[str]:
        total = _count(due)
        with _bar(is_shown=shows_bar) as bar:
            task = bar.add_task(tenant.name, total=total)
            run = MonthEnd(due, progress=lambda count: bar.advance(task, count))
            run.run()
        if shows_bar:
            self.stdout.write(f"{tenant.name}: {run.final:,} statements are final.")
        return [
            f"{tenant.name}, {held.statement.customer.key}, {held.statement.period_start:%Y-%m-%d}:"
            f" {held.reason}"
            for held in run.held
        ]

    def _finalize_together(self, tenant: Tenant, due: Due, options: dict[str, Any]) -> None:
        """Let several processes finalize, and show how far they are by what is left."""
        total = _count(due)
        if not total:
            return
        count = options["processes"]
        with _bar(is_shown=True) as bar:
            task = bar.add_task(tenant.name, total=total)
            workers = [_start(tenant, due, Share(number, count)) for number in range(count)]
            while any(worker.poll() is None for worker in workers):
                bar.update(task, completed=total - _count(due))
                time.sleep(LOOK_SECONDS)
            left = _count(due)
            bar.update(task, completed=total - left)
        self.stdout.write(f"{tenant.name}: {total - left:,} statements are final.")
        if any(worker.returncode for worker in workers):
            raise CommandError(f"{left:,} statements of {tenant.name} stay drafts.", returncode=1)


def _start(tenant: Tenant, due: Due, share: Share) -> "subprocess.Popen[bytes]":
    month = [] if due.month is None else ["--period", f"{due.month:%Y-%m}"]
    return subprocess.Popen(
        [
            *(sys.executable, sys.argv[0], "finalise_statements", "--tenant", tenant.name),
            *("--until", due.ended_by.isoformat(), *month),
            *("--share", f"{share.number}/{share.of}"),
        ]
    )


def _bar(*, is_shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not is_shown,
    )


def _count(due: Due) -> int:
    with tenant_scope(due.tenant_id):
        return due.statements().count()


def _open_drafts(tenant_id: int) -> int:
    with tenant_scope(tenant_id):
        return open_due_drafts(tenant_id=tenant_id)


def _tenants(name: str | None, until: datetime) -> Sequence[Tenant]:
    with platform_scope("find the tenants of a month end"):
        if name is not None:
            tenants = list(Tenant.objects.filter(name=name))
            if not tenants:
                raise CommandError(f"There is no tenant named {name!r}.")
            return tenants
        due = Statement.objects.filter(state=StatementState.DRAFT, period_end__lte=until)
        ids = {*tenants_of(due), *tenants_with_due_drafts()}
        return list(Tenant.objects.filter(id__in=ids).order_by("id"))


def _until(text: str | None) -> datetime:
    if text is None:
        return timezone.now()
    try:
        until = parse_timestamp_or_date(text)
    except ValueError as error:
        raise CommandError(f"--until {text!r} {error}, or a date.") from error
    if until > timezone.now():
        raise CommandError("--until lies in the future; what is not over is finalized one by one.")
    return until


def _month(text: str | None) -> date | None:
    if text is None:
        return None
    match = MONTH.fullmatch(text)
    if match is None:
        raise CommandError("--period is a month, as in 2026-10.")
    return date(int(match[1]), int(match[2]), 1)


def _share(text: str | None) -> Share | None:
    if text is None:
        return None
    match = SHARE.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise CommandError("--share is a number below another, as in 0/2.")
    return Share(int(match[1]), int(match[2]))
