"""The metering app: usage in, priced ledger and balances out."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    name = "metering"

    def ready(self) -> None:
        from metering.models.sums import read_whole_numbers  # noqa: PLC0415 - needs loaded apps

        read_whole_numbers()
