"""What explains a line of a statement beside its quantity and amount."""

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
    parameters = [
        ("from", moment(line.starts_at)),
        ("to", moment(line.ends_at)),
        ("filter[customer]", customer.key),
    ]
    for name, wanted in line.charge.filter.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        parameters += [(f"filter[{name}]", value) for value in values]
    return f"/v1/events?{'&'.join(_encoded(*each) for each in parameters)}"


# The lines of a statement share most of them, and those of thousands of statements the rest.
@lru_cache(10_000)
def _encoded(name: str, value: str) -> str:
    return urlencode({name: value})
