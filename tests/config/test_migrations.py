"""Migrations and models agree."""

from django.core.management import call_command


def test_migrations_make_what_the_models_say(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True)  # exits when there is a difference
