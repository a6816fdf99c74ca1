"""`manage.py audit_credit [--tenant NAME]`: prove prepaid credit and wallets; exit 1 on a drift."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.credit_audit import credit_drifts
from tenants.models import Tenant
from tenants.scope import platform_scope


class Command(BaseCommand):
    """Recompute balances of credit and limits of wallets, and print what differs."""

    help = "Check every grant's balance, credit note and wallet against their entries."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", metavar="NAME")

    def handle(self, *args: object, **options: Any) -> None:
        with platform_scope("audit of credit"):
            tenants = list(Tenant.objects.order_by("id"))
        name = options["tenant"]
        if name is not None:
            tenants = [tenant for tenant in tenants if tenant.name == name]
            if not tenants:
                raise CommandError(f"There is no tenant named {name!r}.")
        drifts = [(tenant, drift) for tenant in tenants for drift in credit_drifts(tenant.id)]
        for tenant, drift in drifts:
            self.stdout.write(f"{tenant.name}: {drift}")
        if drifts:
            raise CommandError(f"{len(drifts):,} sums drift.", returncode=1)
        if options["verbosity"] > 0:
            self.stdout.write("Zero drift: every balance of credit equals the sum of its entries.")
