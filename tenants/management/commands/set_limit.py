"""`manage.py set_limit TENANT NAME VALUE`: allow a tenant more, or less, than everybody."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.limits import LIMITS, set_limit
from tenants.models import Tenant
from tenants.scope import platform_scope


class Command(BaseCommand):
    """Set how many budgets, halts, keys and so on a tenant may have."""

    help = "Set a tenant's limit on something; 'default' restores the default."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("name", choices=sorted(LIMITS))
        parser.add_argument("value", help="a number, or 'default'")

    def handle(self, *args: object, **options: Any) -> None:
        text = options["value"]
        if text != "default" and not (text.isascii() and text.isdigit()):
            raise CommandError(f"The value is {text!r}: it must be a number or 'default'.")
        with platform_scope("an operator sets a limit"):
            tenant = Tenant.objects.filter(name=options["tenant"]).first()
            if tenant is None:
                raise CommandError(f"There is no tenant named {options['tenant']!r}.")
            try:
                number = set_limit(
                    tenant=tenant,
                    name=options["name"],
                    value=None if text == "default" else int(text),
                    actor="manage.py set_limit",
                )
            except ValueError as error:
                raise CommandError(f"{error}.") from error
        if options["verbosity"] > 0:
            words = options["name"].replace("_", " ")
            self.stdout.write(f"{tenant.name} may have {number:,} {words}.")
