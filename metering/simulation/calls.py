"""What a replay is made of: stored calls, in the order in which they happened. No database."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from common.queries import Row
from metering.core.amounts import Amounts
from metering.core.match import Values


class Call(NamedTuple):
    """A stored call, asked for at its true cost when it happened.

    `values` are those of an ask: how the call ended was not known then, so its status is success.
    `checked` is what is compared with limits: never nothing if no one knows the price.
    """

    at: datetime
    values: Values
    amounts: Amounts
    checked: Amounts
    is_unpriced: bool
    is_error: bool
    # What a cheaper model is priced by, in the order of the reader's columns; empty unless a
    # replay asks for one.
    priced_by: Row = ()


class Earlier(NamedTuple):
    """What a group spent in a portion of time before the replay's first call."""

    # Where the portion begins, and when the first call within it was.
    at: datetime
    first_at: datetime
    values: Values
    amounts: Amounts


# The same call with the cheaper model of a route; None if no route names one.
Cheaper = Callable[[Call], Call | None]
