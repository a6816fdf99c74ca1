"""What explains a line of a statement beside its quantity and amount."""

from datetime import datetime
from functools import lru_cache
from urllib.parse import urlencode

from billing.models import Customer
from billing.rate_words import rate_words
from billing.rating import LineKind, RatedLine
from billing.terms import UsageCharge
from common.formats import moment
from common.json_bodies import JsonObject


def detail_of(line: RatedLine | None, customer: Customer) -> JsonObject:
    """Return a line's rate in words and where its events are; what is kept of it once it is final.

    None is a line that is not charged any more.
    """
    if line is None:
        return {"rate": "", "events_url": None}
    return {
        "rate": rate_words(line, customer.currency),
        "events_url": _events_url(line, customer),
        "version": line.version,
        "is_trial": line.is_trial,
        "unpriced": line.unpriced,
    }


def _events_url(line: RatedLine, customer: Customer) -> str | None:
    """Return where the events of a line are listed; of a customer with further links, those with
    its key.
    """
    if line.kind != LineKind.USAGE or not isinstance(line.charge, UsageCharge):
        return None
    filters = [
        _encoded(f"filter[{name}]", value)
        for name, wanted in line.charge.filter.items()
        for value in (wanted if isinstance(wanted, list) else [wanted])
    ]
    return "&".join([_events_in(line.starts_at, line.ends_at, customer.key), *filters])


# The lines of a statement share their time, and those of thousands of statements their filters.
@lru_cache(1_000)
def _events_in(starts_at: datetime, ends_at: datetime, customer: str) -> str:
    time_and_customer = {
        "from": moment(starts_at),
        "to": moment(ends_at),
        "filter[customer]": customer,
    }
    return f"/v1/events?{urlencode(time_and_customer)}"


@lru_cache(10_000)
def _encoded(name: str, value: str) -> str:
    return urlencode({name: value})
