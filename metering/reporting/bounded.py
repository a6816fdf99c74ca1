"""Reading events for figures that no roll-up has: within bounds, and never in part."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from django.db import OperationalError, transaction

from common.database_errors import is_cut_short
from common.queries import Parameters, Rows, fetch_row, fetch_rows
from metering.reporting.conditions import SPARSE
from metering.reporting.kept import require_events
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.rollups.counts import estimated_events

# A statement takes about a second for as many.
EVENTS_MAX: Final = 1_000_000
STATEMENT_MS: Final = 3_000
_SET_TIMEOUT: Final = "SELECT set_config('statement_timeout', %s, true)"
_TUNING: Final = "SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"


class TooMuchToRead(InvalidQuestion):
    """The figures would be made of more events than one answer reads."""

    def __init__(self, what: str) -> None:
        super().__init__(
            "too_much_to_read",
            f"{what} of this range would have to be read from too many events, one by one: ask for"
            " a shorter range, or for fewer dimensions.",
        )


def require_few_events(
    question: UsageQuestion, ranges: Iterable[tuple[datetime, datetime]], *, what: str
) -> None:
    """Refuse to read events that are gone, or too many; those of a session or trace are found one
    by one.
    """
    spans = list(ranges)
    if not spans:
        return
    tenant_id = question.tenant_id
    require_events(tenant_id=tenant_id, starts_at=min(starts_at for starts_at, _ in spans))
    if any(name in SPARSE and "" not in values for name, values in question.filters.items()):
        return
    events = sum(
        estimated_events(tenant_id=tenant_id, from_=starts_at, to=ends_at)
        for starts_at, ends_at in spans
    )
    if events > EVENTS_MAX:
        raise TooMuchToRead(what)


@contextmanager
def in_time(*, what: str) -> Iterator[None]:
    """Let the statements within take so long and no longer, or raise TooMuchToRead; the caller's
    transaction stays usable.
    """
    try:
        with transaction.atomic():
            (before,) = fetch_row("SELECT current_setting('statement_timeout')")
            fetch_row(_SET_TIMEOUT, [str(STATEMENT_MS)])
            yield
            fetch_row(_SET_TIMEOUT, [before])
    except OperationalError as error:
        if is_cut_short(error):
            raise TooMuchToRead(what) from error
        raise


def fetch_in_time(statement: str, parameters: Parameters, *, what: str) -> Rows:
    """Return every row of a statement, or raise TooMuchToRead when it takes too long; the caller's
    transaction stays usable.
    """
    with in_time(what=what):
        return fetch_rows(statement, parameters, tuning=_TUNING)
