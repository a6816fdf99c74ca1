"""Sums of whole numbers, which no number of events makes too large for their column."""

from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
from django.db import models
from psycopg.abc import Buffer
from psycopg.adapt import Loader

if TYPE_CHECKING:
    # A field of `int`, as this one is to code that reads and writes it.
    SumField = models.BigIntegerField
else:

    class SumField(models.Field):
        """A whole number of any size: `numeric` in PostgreSQL, `int` in Python.

        A bigint of nano-dollars ends at 9.2 billion dollars, which a thousand of the largest events
        pass.
        """

        def db_type(self, connection: object) -> str:
            """Return the column's type."""
            return "numeric"

        def get_prep_value(self, value: object) -> object:
            """Return the value as the database takes it."""
            return None if value is None else int(value)


class _WholeNumbers(Loader):
    """Reads a numeric without decimals as `int`, and any other as `Decimal`."""

    def load(self, data: Buffer) -> int | Decimal:
        try:
            return int(data)
        except ValueError:
            return Decimal(bytes(data).decode())


def read_whole_numbers() -> None:
    """Let every connection made from now on read whole numerics, as of `sum`, as `int`."""
    psycopg.adapters.register_loader("numeric", _WholeNumbers)
