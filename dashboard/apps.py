"""The dashboard app: pages that people look at."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "dashboard"
