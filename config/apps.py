"""The app of the service itself: it holds the commands that run it, and loads Celery."""

from django.apps import AppConfig


class ServiceConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        # Tasks find their broker through the application that was made last: this one, everywhere.
        import config.celery  # noqa: F401, PLC0415 - needs the apps to be loaded
