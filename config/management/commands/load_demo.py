"""`manage.py load_demo`: what the service does once it is up, unless DEMO=0."""

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from config.demo import is_loaded, load, open_demo, show
from config.environment import read_environment


class Command(BaseCommand):
    help = "Fill an empty database with the demo over HTTP, and say where to look at it."

    def handle(self, *args: object, **options: object) -> None:
        environment = read_environment()
        access = open_demo(data_dir=environment.data_dir, url=environment.url)
        if access is None:
            return  # the database is in use by others
        console = Console()
        show(access, console)
        if is_loaded(environment.data_dir):
            return
        console.print(
            "Loading the demo: two weeks of real traffic. You can look around while it loads."
        )
        if not load(access, data_dir=environment.data_dir):
            raise CommandError("The demo is not complete. The next start continues loading it.")
