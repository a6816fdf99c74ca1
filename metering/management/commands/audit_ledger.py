"""`manage.py audit_ledger [--tenant NAME]`: prove balances and roll-ups; exit 1 on any drift."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from metering.audit.ledger import audit_tenant, count_seals
from metering.core.periods import EPOCH
from metering.management.arguments import find_tenant
from tenants.models import Tenant
from tenants.scope import platform_scope


class Command(BaseCommand):
    """Recompute every balance from its entries and its events, and print what differs."""

    help = "Check every window's balance and every roll-up against entries and events."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="NAME")

    def handle(self, *args: object, **options: Any) -> None:
        if options["tenant"] is not None:
            tenants = [find_tenant(options["tenant"])]
        else:
            with platform_scope("audit of every tenant"):
                tenants = list(Tenant.objects.order_by("id"))
        count = 0
        for tenant in tenants:
            drifts = audit_tenant(tenant.id)
            count += len(drifts)
            for drift in drifts:
                self.stdout.write(f"{tenant.name}: {drift}")
            seals = count_seals(tenant.id)
            if options["verbosity"] > 0 and seals.until > EPOCH:
                self.stdout.write(
                    f"{tenant.name}: usage before {seals.until:%Y-%m-%d} UTC is sealed;"
                    f" {seals.windows:,} windows have seals, in place of {seals.entries:,} entries."
                )
        if count:
            raise CommandError(f"{count:,} sums drift.", returncode=1)
        if options["verbosity"] > 0:
            whose = "1 tenant" if len(tenants) == 1 else f"{len(tenants):,} tenants"
            self.stdout.write(
                f"Zero drift: every balance of {whose} equals the sum of its entries and of its"
                " events, or of its seal where they are sealed. So does every roll-up."
            )
