"""`manage.py create_tenant NAME --owner EMAIL [--json]`."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.core.validators import validate_email

from tenants.people import TenantExists, create_tenant


class Command(BaseCommand):
    """Make a tenant with an owner and a key."""

    help = "Create a tenant with its owner and an API key with all scopes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("--owner", required=True, metavar="EMAIL")
        parser.add_argument("--json", action="store_true", help="Print one JSON object last.")

    def handle(self, *args: object, **options: Any) -> None:
        name, owner = options["name"].strip(), options["owner"].strip()
        if not 1 <= len(name) <= 200 or not name.isprintable():
            raise CommandError("NAME must have 1 to 200 printable characters.")
        try:
            validate_email(owner)
            new = create_tenant(name=name, owner_email=owner, actor="manage.py create_tenant")
        except ValidationError as error:
            raise CommandError(f"--owner {owner!r} is not an email address.") from error
        except TenantExists as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            summary = {
                "tenant": new.tenant.name,
                "api_key": new.api_key,
                "email": new.email,
                "password": new.password,
            }
            self.stdout.write(json.dumps(summary))
            return
        self.stdout.write(f"Tenant    {new.tenant.name}")
        self.stdout.write(f"API key   {new.api_key}   (shown this once)")
        self.stdout.write(f"Sign in   {new.email}")
        self.stdout.write(f"Password  {new.password or '(as before)'}")
