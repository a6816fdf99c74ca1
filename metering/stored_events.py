"""Stored events as the ledger needs them again: to rate them anew, or to take them back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection

from metering.budget_rules import Amounts, BudgetBook, Values, WindowKey, reaches_a_level
from metering.enforcement.holds import Held, find_held
from metering.events import key_of_id
from metering.ledger import NOTHING, Posting, add_amounts, find_windows, open_windows
from metering.models import BATCH_ID_STRIDE, Operation, Status
from metering.periods import EPOCH
from metering.usage_shapes import Tokens

OPERATIONS: Final = {one.value: one.label for one in Operation}
STATUSES: Final = {one.value: one.label for one in Status}


class StoredEvent(NamedTuple):
    """An event's row, in the order of COLUMNS."""

    id: int
    time: datetime
    cost_nanos: int | None
    price_id: int | None
    cost_source: int
    operation: int
    status: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cache_write_1h_tokens: int | None
    input_audio_tokens: int | None
    output_audio_tokens: int | None
    web_searches: int | None
    extra_usage: dict[str, Any] | None
    service_tier: str | None
    team: str
    customer: str
    agent: str
    user: str
    feature: str
    session: str
    task: str
    trace: str
    model: str
    provider: str
    tool: str
    source: str
    sent_id: str
    reservation_id: UUID | None

    @property
    def tokens(self) -> Tokens:
        """The event's tokens as they were normalised."""
        return Tokens(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens or 0,
            reasoning_tokens=self.reasoning_tokens,
            input_audio_tokens=self.input_audio_tokens or 0,
            output_audio_tokens=self.output_audio_tokens or 0,
            web_searches=self.web_searches or 0,
            extra=self.extra_usage,
        )

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

    def amounts(self, cost_nanos: int | None) -> Amounts:
        """What the event adds to its windows at this cost."""
        is_tool = self.operation == Operation.TOOL
        tokens = self.input_tokens + self.output_tokens
        return Amounts(cost_nanos or 0, tokens, 0 if is_tool else 1, 1 if is_tool else 0)


COLUMNS: Final = ", ".join(
    'e."user"' if name == "user" else f"e.{name}" for name in StoredEvent._fields
)


def lock_events(
    *, tenant_id: int, condition: str, parameters: Sequence[Any], limit: int
) -> list[StoredEvent]:
    """Up to `limit` events that count, in order of time and id, kept from other changes until
    commit.

    `condition` is SQL of this package's own, never a caller's text.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {COLUMNS} FROM usage_event e WHERE e.tenant_id = %s AND NOT e.is_void"  # noqa: S608
            f" AND {condition} ORDER BY e.time, e.id LIMIT %s FOR UPDATE",
            [tenant_id, *parameters, limit],
        )
        return [StoredEvent(*row) for row in cursor.fetchall()]


class Change(NamedTuple):
    """An event and the two amounts between which its windows move; NOTHING takes it out
    altogether.
    """

    event: StoredEvent
    before: Amounts
    after: Amounts

    @property
    def difference(self) -> Amounts:
        """What moves."""
        return Amounts(*(new - old for new, old in zip(self.after, self.before, strict=True)))


def sums_of_changes(book: BudgetBook, changes: Sequence[Change]) -> dict[Posting, Amounts]:
    """What changes add to each window, per grain of rolling ones; opens the windows that lack.

    Opening inside this transaction is safe here: ingest opens windows in a transaction that holds
    nothing else, so nobody waits for this one while it waits for them.
    """
    book = book.for_transaction()
    calls = _windows_of_calls(book, changes)
    held = find_held(
        book.tenant_id,
        {id_ for change in changes if (id_ := change.event.reservation_id) is not None},
    )
    plain = [(change, _windows_of(change.event, book, held)) for change in changes]
    open_windows(
        book=book, keys={key for _, keys in plain for key in keys} | {key for key, _ in calls}
    )
    sums: dict[Posting, Amounts] = {}
    for change, keys in plain:
        for key in keys:
            rule = book.rules[key.budget_id]
            grain_at = rule.grain_at(change.event.time) if rule.is_rolling else None
            posting = Posting(book.window_ids[key], grain_at)
            sums[posting] = add_amounts(sums.get(posting, NOTHING), change.difference)
    for key, amounts in calls:
        sums[Posting(book.window_ids[key], None)] = amounts
    return sums


def _windows_of(
    event: StoredEvent, book: BudgetBook, held: Mapping[UUID, Held]
) -> tuple[WindowKey, ...]:
    """Where an event counts: as when it was stored, in the windows that its reservation holds."""
    own = book.windows_of(event.values, event.time)
    if event.reservation_id is None or event.reservation_id not in held:
        return own
    return held[event.reservation_id].windows_with(own, book)


def _windows_of_calls(
    book: BudgetBook, changes: Sequence[Change]
) -> list[tuple[WindowKey, Amounts]]:
    """Windows of budgets on single calls, and what goes there: a call that had none posts all of
    it.
    """
    if not book.request_rules:
        return []
    candidates = [
        (WindowKey(rule.id, (*group, key_of_id(event.source, event.sent_id)), EPOCH), rule, change)
        for change in changes
        for event in [change.event]
        for rule in book.request_rules
        if (group := rule.group(event.values)) is not None and event.time >= rule.counts_from
    ]
    existing = find_windows(book=book, keys={key for key, _, _ in candidates})
    return [
        (key, change.difference if key in existing else change.after)
        for key, rule, change in candidates
        if key in existing or reaches_a_level(rule, change.after)
    ]
