"""What happened at which moment: annotations that were posted, and changes of prices, budgets and
halts, which are read where they are kept anyway.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from django.db.models import Q

from metering.core.amounts import format_amount
from metering.core.match import wanted_values
from metering.models import Annotation, Budget, Halt, HaltKind, TenantPrice, ToolPrice
from metering.reporting.question import Filters
from tenants.models import AuditEntry

# The newest of each kind in the range; more do not fit on a chart.
EACH_MAX: Final = 100
_LIMITS: Final = (
    "limit_cost_nanos",
    "limit_tokens",
    "limit_requests",
    "limit_tool_calls",
    "limit_seconds",
)
_BUDGET_WORDS: Final = {"create": "created", "archive": "archived"}


class Kind(StrEnum):
    """Where an annotation comes from."""

    POSTED = "posted"
    PRICE = "price"
    BUDGET = "budget"
    HALT = "halt"


class TimeNote(NamedTuple):
    """A moment on a time chart. `match` is the usage it concerns; `id` is of the annotation, price,
    budget or halt.
    """

    at: datetime
    kind: Kind
    text: str
    match: Mapping[str, object]
    id: int


def annotations(
    *,
    tenant_id: int,
    starts_at: datetime,
    ends_at: datetime,
    filters: Filters,
    teams: Collection[str] | None = None,
) -> list[TimeNote]:
    """Return what concerns the filtered usage of a range, oldest first.

    With `teams` (of a person who may see these teams alone) what may be about other teams is left
    out: budgets and halts that do not name one of theirs, and what was posted about other usage.
    """
    notes = [
        *_posted(tenant_id, starts_at, ends_at),
        *_prices(tenant_id, starts_at, ends_at),
        *_budgets(tenant_id, starts_at, ends_at),
        *_halts(tenant_id, starts_at, ends_at, is_limited=teams is not None),
    ]
    return sorted(
        (
            note
            for note in notes
            if starts_at <= note.at < ends_at
            and concerns(note.match, filters)
            and (teams is None or _is_of_teams(note, teams))
        ),
        key=lambda note: (note.at, note.kind, note.id),
    )


def concerns(match: Mapping[str, object], filters: Filters) -> bool:
    """Whether some usage can be of both: no dimension is asked for different values."""
    return all(
        not wanted_values(wanted).isdisjoint(filters[name])
        for name, wanted in match.items()
        if name in filters
    )


def _is_of_teams(note: TimeNote, teams: Collection[str]) -> bool:
    if "team" in note.match:
        return wanted_values(note.match["team"]) <= frozenset(teams)
    # What is about all usage is about theirs; a budget for it would tell of other teams' money.
    return not note.match and note.kind is not Kind.BUDGET


def _posted(tenant_id: int, starts_at: datetime, ends_at: datetime) -> Iterator[TimeNote]:
    rows = Annotation.objects.filter(tenant_id=tenant_id, time__gte=starts_at, time__lt=ends_at)
    for row in rows.order_by("-time", "-id")[:EACH_MAX]:
        yield TimeNote(row.time, Kind.POSTED, row.text, row.match, row.id)


def _prices(tenant_id: int, starts_at: datetime, ends_at: datetime) -> Iterator[TimeNote]:
    """When the tenant's own prices began and ended, which is when costs moved."""
    changed = Q(effective_from__gte=starts_at, effective_from__lt=ends_at) | Q(
        effective_to__gte=starts_at, effective_to__lt=ends_at
    )
    own = TenantPrice.objects.filter(changed, tenant_id=tenant_id).order_by("-effective_from")
    for price in own[:EACH_MAX]:
        match = {"model": price.model}
        yield from _changes_of(price, f"Price of {price.model}", match)
    tools = ToolPrice.objects.filter(changed, tenant_id=tenant_id).order_by("-effective_from")
    for tool in tools[:EACH_MAX]:
        yield from _changes_of(tool, f"Price of tool {tool.tool}", {"tool": tool.tool})


def _changes_of(
    price: TenantPrice | ToolPrice, subject: str, match: Mapping[str, object]
) -> Iterator[TimeNote]:
    yield TimeNote(price.effective_from, Kind.PRICE, f"{subject} changed", match, price.price_id)
    if price.effective_to is not None:
        yield TimeNote(price.effective_to, Kind.PRICE, f"{subject} ended", match, price.price_id)


def _budgets(tenant_id: int, starts_at: datetime, ends_at: datetime) -> Iterator[TimeNote]:
    entries = AuditEntry.objects.filter(
        tenant_id=tenant_id, object_type="budget", at__gte=starts_at, at__lt=ends_at
    ).order_by("-at", "-id")[:EACH_MAX]
    ids = {int(entry.object_id) for entry in entries}
    budgets = Budget.objects.filter(tenant_id=tenant_id).in_bulk(ids)
    for entry in entries:
        budget = budgets.get(int(entry.object_id))
        if budget is not None:
            text = f"Budget “{budget.name}” {_budget_words(entry)}"
            yield TimeNote(entry.at, Kind.BUDGET, text, budget.match, budget.id)


def _budget_words(entry: AuditEntry) -> str:
    if entry.action in _BUDGET_WORDS:
        return _BUDGET_WORDS[entry.action]
    moved = [
        f"limit {_limit(name, before)} → {_limit(name, after)}"
        for name, (before, after) in entry.changes.items()
        if name in _LIMITS
    ]
    return ", ".join(moved) or "changed"


def _limit(name: str, amount: int | None) -> str:
    return "none" if amount is None else format_amount(name.removeprefix("limit_"), amount)


def _halts(
    tenant_id: int, starts_at: datetime, ends_at: datetime, *, is_limited: bool
) -> Iterator[TimeNote]:
    """Halts that began or were lifted; newest first by version, which only rises. Where a rule
    stopped everything, its reason speaks of all teams' money.
    """
    changed = Q(since__gte=starts_at, since__lt=ends_at) | Q(
        lifted_at__gte=starts_at, lifted_at__lt=ends_at
    )
    rows = Halt.objects.filter(changed, tenant_id=tenant_id).order_by("-version")[:EACH_MAX]
    for row in rows:
        is_told = row.match or row.kind == HaltKind.MANUAL or not is_limited
        why = row.reason if is_told else "everything"
        yield TimeNote(row.since, Kind.HALT, f"Halted: {why}", row.match, row.id)
        if row.lifted_at is not None:
            text = f"Halt lifted: {why}"
            yield TimeNote(row.lifted_at, Kind.HALT, text, row.match, row.id)
