"""The columns of `usage_event`: one table, from which an event is written and read.

A new column is a line of `StoredEvent`, a field of `EventBody` if clients report it, and a line in
the model and in the migration.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Final, Literal, NamedTuple, get_type_hints
from uuid import UUID

from metering.core.amounts import Amounts
from metering.core.match import POSITION, Values
from metering.models import BATCH_ID_STRIDE, Operation, Status
from metering.usage.shapes import ExtraValue, Tokens

OPERATIONS: Final = {operation.value: operation.label for operation in Operation}
STATUSES: Final = {status.value: status.label for status in Status}
# The counts of `Tokens`, each with a column of its own.
TOKEN_COUNTS: Final = tuple(name for name in Tokens.__struct_fields__ if name != "extra")
# The counts of whatever has these fields: an `EventBody`, a `StoredEvent`.
token_counts: Final = attrgetter(*TOKEN_COUNTS)
# By position: `extra` is the last field, and this runs for every event.
_make_tokens: Final[Callable[..., Tokens]] = Tokens


def tokens_of(counts: Iterable[int | None], extra: dict[str, ExtraValue] | None = None) -> Tokens:
    """Return counts in the order of TOKEN_COUNTS as tokens; None is zero."""
    return _make_tokens(*[count or 0 for count in counts], extra)


class Source(NamedTuple):
    """How a column is written, and which part of a `PreparedEvent` has its value under which name
    (empty: the event itself, and the column's name).

    A `text` may need escapes in COPY; a `rare` count is NULL instead of zero, as few calls have it.
    """

    kind: Literal["plain", "rare", "dimension", "text", "json"]
    part: Literal["", "tokens", "body"] = ""
    name: str = ""


Decided = Annotated[int, Source("plain")]
Used = Annotated[int, Source("plain", "tokens")]
RarelyUsed = Annotated[int | None, Source("rare", "tokens")]
Number = Annotated[int | None, Source("plain", "body")]
Text = Annotated[str | None, Source("text", "body")]
Dimension = Annotated[str, Source("dimension")]


class StoredEvent(NamedTuple):
    """A row of `usage_event`. Columns without a source are set when an event is numbered, rated or
    corrected.
    """

    id: int
    cost_nanos: int | None
    price_id: int | None
    cost_source: int
    is_void: bool
    is_conflict: Annotated[bool, Source("plain")]
    time: Annotated[datetime, Source("plain", name="at")]
    route: Annotated[int, Source("plain", name="route.value")]
    authority: Decided
    completeness: Decided
    filled: Decided
    operation: Annotated[int, Source("plain", name="operation_number")]
    status: Annotated[int, Source("plain", name="status_number")]
    input_tokens: Used
    output_tokens: Used
    cache_read_tokens: Used
    cache_write_tokens: Used
    reasoning_tokens: Used
    cache_write_1h_tokens: RarelyUsed
    input_audio_tokens: RarelyUsed
    output_audio_tokens: RarelyUsed
    web_searches: RarelyUsed
    latency_ms: Number
    time_to_first_token_ms: Number
    max_output_tokens: Number
    saved_nanos: Annotated[int | None, Source("plain")]
    step: Number
    complexity: Number
    reservation_id: Annotated[UUID | None, Source("plain", "body", "reservation")]
    team: Dimension
    customer: Dimension
    agent: Dimension
    user: Dimension
    feature: Dimension
    session: Dimension
    task: Dimension
    trace: Dimension
    model: Dimension
    provider: Dimension
    tool: Dimension
    source: Dimension
    sent_id: Annotated[str, Source("text", "body", "id")]
    span: Text
    parent_span: Text
    response_id: Text
    request_id: Text
    requested_model: Text
    service_tier: Annotated[str | None, Source("text")]
    error_type: Text
    tool_arguments_hash: Text
    task_type: Text
    output_hash: Text
    prefix_hash: Text
    extra_usage: Annotated[dict[str, ExtraValue] | None, Source("json", "tokens", "extra")]
    tags: Annotated[dict[str, object] | None, Source("json", "body")]

    @property
    def tokens(self) -> Tokens:
        """The event's tokens as they were normalized."""
        return tokens_of(token_counts(self), self.extra_usage)

    @property
    def values(self) -> Values:
        """The event's dimensions in the order of MATCHABLE."""
        return (
            *(self.team, self.customer, self.agent, self.user, self.feature, self.session),
            *(self.task, self.trace, self.model, self.provider, self.tool),
            *(OPERATIONS[self.operation], STATUSES[self.status], self.source),
        )

    @property
    def batch_id(self) -> int:
        """The batch that the event came with."""
        return self.id // BATCH_ID_STRIDE

    def amounts_signed(self, sign: int) -> Amounts:
        """Return what the event adds to its windows, or takes from them (-1)."""
        is_tool = self.operation == Operation.TOOL
        tokens = self.input_tokens + self.output_tokens
        return Amounts(
            sign * (self.cost_nanos or 0),
            sign * tokens,
            0 if is_tool else sign,
            sign if is_tool else 0,
        )


_SOURCES: Final = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(StoredEvent, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}


def _columns_of(kind: str, part: str = "") -> dict[str, str]:
    """Return the columns of a kind of which a part of a prepared event has the values, and the name
    of each there.
    """
    return {
        name: source.name or name
        for name, source in _SOURCES.items()
        if (source.kind, source.part) == (kind, part)
    }


_OWN, _USED, _REPORTED = (_columns_of("plain", part) for part in ("", "tokens", "body"))
_RARE: Final = _columns_of("rare", "tokens")
_DIMENSIONS: Final = _columns_of("dimension")
_REPORTED_TEXTS, _OWN_TEXTS = (_columns_of("text", part) for part in ("body", ""))
_EXTRAS, _TAGS = (_columns_of("json", part) for part in ("tokens", "body"))
_own, _used, _reported, _rare, _reported_texts = (
    attrgetter(*names.values()) for names in (_OWN, _USED, _REPORTED, _RARE, _REPORTED_TEXTS)
)
_own_text, _extra, _tags = (attrgetter(*names.values()) for names in (_OWN_TEXTS, _EXTRAS, _TAGS))
dimension_values: Final = itemgetter(*[POSITION[name] for name in _DIMENSIONS])


def plain_values(event: Any) -> tuple[Any, ...]:
    """Return the values of a prepared event that need no escapes. Each part of it is asked once,
    which takes half of the time of a path to each value.
    """
    body, tokens = event.body, event.tokens
    rare = [used or None for used in _rare(tokens)]
    return (*_own(event), *_used(tokens), *_reported(body), *rare)


def texts(event: Any) -> tuple[str | None, ...]:
    """Return the texts of a prepared event beside its dimensions."""
    return (*_reported_texts(event.body), _own_text(event))


def objects(event: Any) -> tuple[object, object]:
    """Return what a prepared event has that is stored as JSON."""
    return _extra(event.tokens), _tags(event.body)


# Set by the code that gives an event its number, its rating and its tenant.
NUMBERED: Final = ("id", "cost_nanos", "price_id", "cost_source")
KEYS: Final = ("key", "response_key", "request_key", "span_key", "fingerprint")
key_values: Final = attrgetter(*KEYS)
# What is written of an event, in this order; COPY writes its keys as well.
_NEED_NO_ESCAPES: Final = ("tenant_id", *_OWN, *_USED, *_REPORTED, *_RARE)
_NEED_ESCAPES: Final = (*_DIMENSIONS, *_REPORTED_TEXTS, *_OWN_TEXTS, *_EXTRAS, *_TAGS)
WRITTEN: Final = (*NUMBERED, *_NEED_NO_ESCAPES, *_NEED_ESCAPES)
COPIED: Final = (*NUMBERED, *_NEED_NO_ESCAPES, *KEYS, *_NEED_ESCAPES)


def column_list(names: Iterable[str], prefix: str = "") -> str:
    """Return column names as SQL; "user" is one of its own words."""
    return ", ".join(f'{prefix}"{name}"' for name in names)
