"""What calls add to windows, and what a change of a call moves in them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection

from metering.budgets.index import BudgetIndex, WindowKey
from metering.budgets.rules import BudgetRule, reaches_a_level
from metering.calls.prepared_event import PreparedEvent
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.core.match import group_key
from metering.core.periods import EPOCH
from metering.ledger.counting import CountingPast, counting_pasts
from metering.ledger.holds import Held, find_held
from metering.ledger.opening import find_windows, open_windows
from metering.ledger.posting import Posting
from metering.usage.columns import StoredEvent
from metering.usage.event_keys import key_of_id


def sums_by_posting(book: BudgetIndex, events: Iterable[PreparedEvent]) -> dict[Posting, Amounts]:
    """Return what these events add to each window (and grain of a rolling one)."""
    rules = book.rules
    rolling = {rule.id for rule in rules.values() if rule.is_rolling}
    # First by those that count in the same windows, and leave rolling ones at the same time. They
    # have one tuple of keys, which is told apart by identity.
    alike: dict[object, tuple[PreparedEvent, Amounts]] = {}
    for event in events:
        group = (id(event.windows), event.at) if rolling else id(event.windows)
        known = alike.get(group)
        amounts = event.amounts if known is None else add_amounts(known[1], event.amounts)
        alike[group] = event, amounts
    # Then by key, which events of one body share as well. Added up in place: of most bodies, this
    # runs once for every event and budget.
    by_key: dict[object, tuple[WindowKey, datetime | None, list[int]]] = {}
    for event, amounts in alike.values():
        cost_nanos, tokens, requests, tool_calls = amounts
        for key in event.windows:
            identity: object = id(key)
            grain_at = None
            if rolling and key[0] in rolling:
                grain_at = rules[key[0]].grain_at(event.at)
                identity = (identity, grain_at)
            entry = by_key.get(identity)
            if entry is None:
                by_key[identity] = key, grain_at, [*amounts]
            else:
                sum_ = entry[2]
                sum_[0] += cost_nanos
                sum_[1] += tokens
                sum_[2] += requests
                sum_[3] += tool_calls
    window_ids = book.window_ids
    sums: dict[Posting, Amounts] = {}
    for key, grain_at, sum_ in by_key.values():
        # Bodies may have keys of their own for the same window.
        _add(sums, Posting(window_ids[key], grain_at), Amounts(*sum_))
    return sums


class Change(NamedTuple):
    """A call before and after something changed it; None where it does not count."""

    before: StoredEvent | None
    after: StoredEvent | None


def movements(book: BudgetIndex, changes: Sequence[Change]) -> list[dict[Posting, Amounts]]:
    """Return what each change adds to each window, per grain of rolling ones; opens the windows
    that lack.

    A call leaves the windows in which it counted and enters those in which it counts; a window of
    both gets the difference. Windows of a budget that has not counted the call yet stay as they
    are. Opening windows inside this transaction is safe: ingest opens them in
    a transaction that holds nothing else, so no one waits for this one while it waits for them.
    """
    held = _held_of(book.tenant_id, changes)
    book = book.for_transaction()
    pasts = counting_pasts(book)
    sides = [
        (index, sign, event, _counting_in(event, _windows_of(event, book, held), pasts))
        for index, change in enumerate(changes)
        for sign, event in ((-1, change.before), (1, change.after))
        if event is not None and not event.is_void
    ]
    moves: list[dict[Posting, Amounts]] = [{} for _ in changes]
    counting = {key for *_, keys in sides for key in keys}
    open_windows(book=book, keys=book.lacking(counting))
    for index, sign, event, keys in sides:
        amounts = event.amounts_signed(sign)
        for key in keys:
            rule = book.rules[key.budget_id]
            grain_at = rule.grain_at(event.time) if rule.is_rolling else None
            _add(moves[index], Posting(book.window_ids[key], grain_at), amounts)
    for rule in book.request_rules:
        for index, posting, amounts in _moves_of_single_calls(book, rule, changes):
            _add(moves[index], posting, amounts)
    return [
        {posting: amounts for posting, amounts in move.items() if amounts != NOTHING}
        for move in moves
    ]


def added_up(moves: Iterable[Mapping[Posting, Amounts]]) -> dict[Posting, Amounts]:
    """Return the sum of movements, by window and grain."""
    sums: dict[Posting, Amounts] = {}
    for move in moves:
        for posting, amounts in move.items():
            _add(sums, posting, amounts)
    return sums


def _add(sums: dict[Posting, Amounts], posting: Posting, amounts: Amounts) -> None:
    known = sums.get(posting)
    sums[posting] = amounts if known is None else add_amounts(known, amounts)


def _held_of(tenant_id: int, changes: Iterable[Change]) -> Mapping[UUID, Held]:
    return find_held(
        tenant_id,
        {
            event.reservation_id
            for change in changes
            for event in change
            if event is not None and event.reservation_id is not None
        },
    )


def _windows_of(
    event: StoredEvent, book: BudgetIndex, held: Mapping[UUID, Held]
) -> tuple[WindowKey, ...]:
    """Return where an event counts: in the windows that its reservation holds, else in its own."""
    own = book.windows_of(event.values, event.time)
    if event.reservation_id is None or event.reservation_id not in held:
        return own
    return held[event.reservation_id].windows_with(own, book)


def _counting_in(
    event: StoredEvent, keys: tuple[WindowKey, ...], pasts: Mapping[int, CountingPast]
) -> tuple[WindowKey, ...]:
    """Return those of an event's windows that it is in by now: the count of its budget may not have
    come to it.
    """
    if not pasts:
        return keys
    return tuple(
        key
        for key in keys
        if (past := pasts.get(key.budget_id)) is None or past.holds(event.id, event.time)
    )


def _moves_of_single_calls(
    book: BudgetIndex, rule: BudgetRule, changes: Sequence[Change]
) -> Iterator[tuple[int, Posting, Amounts]]:
    """Yield what moves in windows of a budget on single calls, by the change's place: a call has
    one window, once it has reached a level.

    The window goes by the call's key. When another report becomes the one that names the call, the
    window is renamed, so that what was told of it is not told again.
    """
    pairs = [[_window_of_single_call(rule, event) for event in change] for change in changes]
    windows = find_windows(
        book=book, keys={key for pair in pairs for key in pair if key is not None}
    )
    for index, (change, (named, new)) in enumerate(zip(changes, pairs, strict=True)):
        old = named
        if named is not None and named in windows and _takes_over(book, named, new, windows):
            assert new is not None, "what takes over has a key"
            _rename_window(book, named, new)
            # The old name is free now, or goes with a window that was never used.
            windows = (windows - {named} | {new}) if new not in windows else windows
            old = new
        if old is not None and old in windows and change.before is not None:
            yield index, Posting(book.window_ids[old], None), change.before.amounts_signed(-1)
        if new is None or change.after is None:
            continue
        amounts = change.after.amounts_signed(1)
        if new not in windows:
            if not reaches_a_level(rule, amounts):
                continue
            open_windows(book=book, keys={new})
        yield index, Posting(book.window_ids[new], None), amounts


def _window_of_single_call(rule: BudgetRule, event: StoredEvent | None) -> WindowKey | None:
    if event is None or event.is_void or event.time < rule.counts_from:
        return None
    group = rule.group(event.values)
    if group is None:
        return None
    return WindowKey(rule.id, (*group, key_of_id(event.source, event.sent_id)), EPOCH)


def _takes_over(
    book: BudgetIndex, old: WindowKey, new: WindowKey | None, windows: Collection[WindowKey]
) -> bool:
    """Return whether a call's window goes by a new key, which no window goes by that was used."""
    return new is not None and new != old and (new not in windows or _is_unused(book, new))


def _is_unused(book: BudgetIndex, key: WindowKey) -> bool:
    """Return whether a window was opened for a report that turned out to be of a known call."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM budget_window WHERE tenant_id = %s AND id = %s"
            " AND (level_percent, episode) = (0, 0)"
            " AND (spent_nanos, spent_tokens, spent_requests, spent_tool_calls) = (0, 0, 0, 0)",
            [book.tenant_id, book.window_ids[key]],
        )
        return cursor.fetchone() is not None


def _rename_window(book: BudgetIndex, old: WindowKey, new: WindowKey) -> None:
    """Let a call's window go by its new key; one that goes by it already takes the old one."""
    window_id, other_id = book.window_ids[old], book.window_ids.get(new)
    old_key, new_key = group_key(old.group), group_key(new.group)
    steps = [(window_id, new_key)]
    if other_id is not None:
        # Two windows never go by one key, not even for a moment.
        steps = [(other_id, f"{new_key} "), *steps, (other_id, old_key)]
    with connection.cursor() as cursor:
        for id_, key in steps:
            cursor.execute(
                "UPDATE budget_window SET group_key = %s WHERE tenant_id = %s AND id = %s",
                [key, book.tenant_id, id_],
            )
    book.window_ids[new] = window_id
    if other_id is None:
        book.window_ids.pop(old, None)
    else:
        book.window_ids[old] = other_id
