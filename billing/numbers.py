"""Numbers of statements and credit notes: each series of a tenant without gaps."""

from django.db import connection

from billing.models import SeriesName


def next_number(tenant_id: int, series: SeriesName, *, count: int = 1) -> int:
    """Take the next number of a series, or the next few, and return the last of them. Everyone who
    asks after this waits for this transaction, so a number that is not used in the end is given to
    the next.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_series (tenant_id, name, last) VALUES (%s, %s, %s)"
            " ON CONFLICT (tenant_id, name) DO UPDATE"
            " SET last = billing_series.last + excluded.last RETURNING last",
            [tenant_id, series.value, count],
        )
        (number,) = cursor.fetchone()
    return int(number)
