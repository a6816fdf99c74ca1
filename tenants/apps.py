"""The tenants app: who uses the service, and what each may see."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"
