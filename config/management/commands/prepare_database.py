"""`manage.py prepare_database`: migrations, and the prices of the installed price library."""

from django.core.management import call_command
from django.core.management.base import BaseCommand

from config.health import count_pending_migrations


class Command(BaseCommand):
    help = "Bring the schema and the price catalogue up to date. Safe to run again."

    def handle(self, *args: object, **options: object) -> None:
        if count_pending_migrations():  # asking is much quicker than migrating nothing
            call_command("migrate", interactive=False, verbosity=0)
        call_command("import_prices")
