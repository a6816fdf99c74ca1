"""The app of billing."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """Customers, plans and what each customer owes."""

    name = "billing"
