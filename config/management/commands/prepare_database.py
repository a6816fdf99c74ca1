"""`manage.py prepare_database`: migrations, prices of the installed price library, static files."""

from django.core.management import call_command
from django.core.management.base import BaseCommand

from config.health import count_pending_migrations
from config.static_files import collect_static_files


class Command(BaseCommand):
    help = "Bring schema, price catalogue and static files up to date. Safe to run again."

    def handle(self, *args: object, **options: object) -> None:
        if count_pending_migrations():  # asking is much quicker than migrating nothing
            call_command("migrate", interactive=False, verbosity=0)
        call_command("import_prices")
        collect_static_files()
