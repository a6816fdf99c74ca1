"""`manage.py import_prices`: fill the global price catalogue from the installed price library."""

import json

from django.core.management.base import BaseCommand, CommandParser

from metering.pricing.catalogue_import import import_catalogue


class Command(BaseCommand):
    help = "Fill the global price catalogue from the installed price library."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: object, **options: object) -> None:
        done = import_catalogue()
        if options["json"]:
            self.stdout.write(json.dumps(done._asdict()))
            return
        if not done.added and not done.superseded:
            outcome = "nothing had changed"
        else:
            outcome = f"{done.added:,} added, {done.superseded:,} superseded"
        self.stdout.write(
            f"The catalogue holds {done.prices:,} prices of {done.models:,} models "
            f"(version {done.version}): {outcome}."
        )
