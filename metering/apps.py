"""The metering app: usage in, priced ledger and balances out."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    name = "metering"
