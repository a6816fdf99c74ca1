"""`manage.py password_link EMAIL`."""

from argparse import ArgumentParser
from urllib.parse import urljoin

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tenants.models import User
from tenants.password_resets import make_reset_token


class Command(BaseCommand):
    """Make a link by which a person chooses a new password."""

    help = "Print a single-use link, valid for an hour, with which a person chooses a new password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL")

    def handle(self, *args: object, email: str, **options: object) -> None:
        user = User.objects.find(email)
        if user is None or not user.is_active:
            raise CommandError(f"{email!r} has no account.")
        url = settings.ENVIRONMENT.public_url or settings.ENVIRONMENT.url
        self.stdout.write(urljoin(url, f"/password/new/{make_reset_token(user)}"))
