"""What an event leaves out: taken from the reservation that it names, or implied by the rest."""

import re
from operator import attrgetter
from typing import Final
from uuid import UUID

import msgspec

from metering.core.dimensions import MATCHABLE
from metering.ledger.holds import Held, find_held
from metering.usage.columns import TOKEN_COUNTS
from metering.usage.decoders.native import EventBody

INHERITED: Final = ("team", "customer", "agent", "user", "feature", "session", "task", "trace")
# Searches are no tokens: they may be all that a tool call has.
FLAT_FIELDS: Final = tuple(name for name in TOKEN_COUNTS if name != "web_searches")
NO_COUNTS: Final = (None,) * len(FLAT_FIELDS)
flat_counts: Final = attrgetter(*FLAT_FIELDS)


def inherit(body: EventBody, held: Held) -> EventBody:
    """Return the event with what it leaves out taken from its reservation."""
    wanted = dict(zip(MATCHABLE, held.values, strict=True))
    says_little = body.model is None and not has_tokens(body) and body.operation is None
    is_tool = (body.operation or implied_operation(body)) == "tool" or (
        wanted["operation"] == "tool" and says_little
    )
    # A tool call is no call of the reservation's model, nor vice versa.
    names = (*INHERITED, "tool") if is_tool else (*INHERITED, "model", "provider")
    missing = {name: wanted[name] for name in names if wanted[name] and getattr(body, name) is None}
    if body.operation is None:
        operation = "tool" if is_tool else wanted["operation"]
        if is_tool or operation != "tool":
            missing["operation"] = operation
    return msgspec.structs.replace(body, **missing)


def implied_operation(body: EventBody) -> str:
    """Return `tool` for a report of a tool and nothing that a model used, otherwise `llm`."""
    is_tool = body.tool is not None and body.model is None and not has_tokens(body)
    return "tool" if is_tool else "llm"


def has_tokens(body: EventBody) -> bool:
    return body.usage is not None or flat_counts(body) != NO_COUNTS


_UUID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def is_reservation_id(text: str) -> bool:
    """Return whether this can be the id of a reservation."""
    return _UUID.fullmatch(text) is not None


def reservation_of(body: EventBody) -> UUID | None:
    """Return the reservation that an event names; None if it names none or an impossible one."""
    if body.reservation is None or not is_reservation_id(body.reservation):
        return None
    return UUID(body.reservation)


def held_of(tenant_id: int, body: EventBody) -> Held | None:
    """Return what the reservation holds that an event names. In the tenant's scope."""
    id_ = reservation_of(body)
    return None if id_ is None else find_held(tenant_id, [id_]).get(id_)
