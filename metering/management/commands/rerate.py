"""`manage.py rerate --tenant NAME --from DATE --to DATE [--dry-run]`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import Progress

from common.money import usd_from_nanos
from metering.intake.rerate import rerate
from metering.management.arguments import find_tenant, read_time
from metering.rollups.counts import estimated_events
from tenants.scope import tenant_scope


class Command(BaseCommand):
    """Rate a period's events at the prices known now."""

    help = "Reprice a period's events; balances change through correcting ledger entries."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", required=True, metavar="NAME")
        parser.add_argument(
            "--from", dest="from_", required=True, metavar="TIME", help="RFC 3339 or a date (UTC)"
        )
        parser.add_argument(
            "--to", required=True, metavar="TIME", help="RFC 3339 or a date (UTC); excluded"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Report what would change; change nothing."
        )

    def handle(self, *args: object, **options: Any) -> None:
        from_, to = read_time(options["from_"], "--from"), read_time(options["to"], "--to")
        if from_ >= to:
            raise CommandError("--from must be before --to.")
        tenant = find_tenant(options["tenant"])
        with tenant_scope(tenant.id):
            total = estimated_events(tenant_id=tenant.id, from_=from_, to=to)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Rating events", total=total)
            summary = rerate(
                tenant_id=tenant.id,
                from_=from_,
                to=to,
                is_dry_run=options["dry_run"],
                progress=lambda count: bar.advance(task, count),
            )
        did = "would change" if options["dry_run"] else "changed"
        self.stdout.write(
            f"Examined {summary.examined:,} events; {did} {summary.changed:,} by"
            f" {usd_from_nanos(summary.difference_nanos)} USD in all;"
            f" {summary.newly_priced:,} newly priced, {summary.still_unpriced:,} still without"
            f" a price."
        )
