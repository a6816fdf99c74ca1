"""The audit log: who changed what, when, from what to what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.db.models import Model, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from alerts.models import Channel
from billing.models import Customer, Plan
from common.csv_downloads import csv_response
from dashboard.access import PageRequest, member_page
from dashboard.filter_bar import FilterBar
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import newest_before, number_of
from dashboard.settings.changes import ACTIONS, NOUNS, Change, Value, changes_of, noun_of, verb_of
from metering.models import Breaker, Budget, RateLimit, TenantPrice, ToolPrice
from tenants.admin_site import actor_of
from tenants.models import ApiKey, AuditEntry, Invitation, Membership, Team

PER_PAGE: Final = 50
CSV_ROWS_MAX: Final = 10_000
FILTER_CHARACTERS_MAX: Final = 300
# What a row is known by, for entries that do not name it.
NAMED: Final[Mapping[str, tuple[type[Model], str]]] = {
    "apikey": (ApiKey, "name"),
    "breaker": (Breaker, "name"),
    "budget": (Budget, "name"),
    "channel": (Channel, "name"),
    "customer": (Customer, "name"),
    "invitation": (Invitation, "email"),
    "membership": (Membership, "user__email"),
    "plan": (Plan, "name"),
    "ratelimit": (RateLimit, "name"),
    "team": (Team, "name"),
    "tenantprice": (TenantPrice, "model"),
    "toolprice": (ToolPrice, "tool"),
}
# Where an entry of a row that is gone, or new, has its name.
NAME_FIELDS: Final = ("name", "email", "model", "tool", "reason")
# One of a kind: its number says nothing.
SINGLE: Final = frozenset(
    {"alertsettings", "attributemappings", "reconciliationsettings", "stripesettings", "tenant"}
)


# Of what a person who may see some teams alone sees the changes: access, prices and where alerts
# go. Those of rules, and of what they stop, tell of other teams' money.
OF_NO_TEAM: Final = frozenset(
    {
        "alertsettings",
        "apikey",
        "attributemappings",
        "channel",
        "invitation",
        "membership",
        "team",
        "tenant",
        "tenantprice",
        "toolprice",
    }
)


class Filters(NamedTuple):
    """Which entries are wanted: those of /v1/audit-log."""

    actor: str
    action: str
    object_type: str
    object_id: str

    @property
    def given(self) -> dict[str, str]:
        return {name: value for name, value in self._asdict().items() if value}


@dataclass(frozen=True)
class EntryLine:
    """A change as the page shows it."""

    row: AuditEntry
    verb: str
    noun: str
    name: str
    changes: list[Change]

    @property
    def is_whole(self) -> bool:
        """Whether it lists a whole row, in few lines, rather than what differs."""
        return self.row.action in {"create", "delete"}


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Who changed what?"""
    filters = _filters(request)
    bar = filter_bar_of(request).with_further(filters.given)
    before = number_of(request.GET.get("before", ""))
    rows = _of(request, bar, filters)
    entries = newest_before(rows, before, limit=PER_PAGE)
    older = {**filters.given, "before": str(entries.older)}
    lines = _lines(request.tenant.id, entries.rows)
    context = frame(request, bar, page="audit_log") | {
        "headline": _headline(lines, bool(before), bool(filters.given)),
        "lines": lines,
        "filters": filters,
        "period_pairs": bar.with_further({}).pairs,
        "actions": list(ACTIONS.items()),
        "types": _types(filters.object_type),
        "csv": bar.query(path=request.path + ".csv"),
        "csv_rows_max": CSV_ROWS_MAX,
        "older": bar.with_further(older).query() if entries.older else None,
        "newest": bar.query() if before else None,
    }
    return render(request, "dashboard/settings/audit_log.html", context)


@require_safe
@member_page
def download(request: PageRequest) -> HttpResponse:
    """The same as a file, the newest first."""
    filters = _filters(request)
    bar = filter_bar_of(request)
    rows = _of(request, bar, filters).order_by("-id")[:CSV_ROWS_MAX]
    lines = _lines(request.tenant.id, list(rows))
    return csv_response(_csv_rows(lines), name="audit-log.csv")


def _csv_rows(lines: Sequence[EntryLine]) -> Iterator[list[str]]:
    """A head, then each field of each change."""
    yield ["at", "actor", "action", "object", "object_id", "name", "field", "before", "after"]
    for line in lines:
        entry = line.row
        begin = [
            entry.at.isoformat(),
            entry.actor,
            entry.action,
            line.noun,
            entry.object_id,
            line.name,
        ]
        for change in line.changes or [Change("", None, None)]:
            yield [*begin, change.label, _text(change.before), _text(change.after)]


def _text(value: Value | None) -> str:
    return "" if value is None else value.words


def _filters(request: PageRequest) -> Filters:
    return Filters(
        *(
            request.GET.get(name, "")[:FILTER_CHARACTERS_MAX].replace("\0", "").strip()
            for name in Filters._fields
        )
    )


def _of(request: PageRequest, bar: FilterBar, filters: Filters) -> QuerySet[AuditEntry]:
    rows = AuditEntry.objects.filter(
        tenant=request.tenant, at__gte=bar.range.starts_at, at__lt=bar.range.ends_at
    )
    if bar.teams is not None:
        rows = rows.filter(Q(object_type__in=OF_NO_TEAM) | Q(actor=actor_of(request)))
    exact = {name: value for name, value in filters.given.items() if name != "actor"}
    rows = rows.filter(**exact)
    return rows.filter(actor__icontains=filters.actor) if filters.actor else rows


def _types(chosen: str) -> list[tuple[str, str]]:
    """What can be changed, by the words for it."""
    names = {*NOUNS, *NAMED, "halt", *([chosen] if chosen else [])}
    return sorted(((name, noun_of(name)) for name in names), key=lambda pair: pair[1].lower())


def _lines(tenant_id: int, rows: Sequence[AuditEntry]) -> list[EntryLine]:
    names = _names(tenant_id, rows)
    return [
        EntryLine(
            row,
            verb_of(row.action),
            noun_of(row.object_type),
            _name(row, names),
            changes_of(row.action, row.changes),
        )
        for row in rows
    ]


def _names(tenant_id: int, rows: Sequence[AuditEntry]) -> dict[tuple[str, str], str]:
    """What the rows that still exist are called: one query a kind."""
    ids: dict[str, set[int]] = {}
    for row in rows:
        if row.object_type in NAMED and row.object_id.isdecimal():
            ids.setdefault(row.object_type, set()).add(int(row.object_id))
    names: dict[tuple[str, str], str] = {}
    for kind, wanted in ids.items():
        model, field = NAMED[kind]
        stored: Any = model._default_manager.filter(tenant_id=tenant_id, id__in=wanted)
        names |= {(kind, str(id_)): name for id_, name in stored.values_list("id", field)}
    return names


def _name(row: AuditEntry, names: Mapping[tuple[str, str], str]) -> str:
    if row.object_type in SINGLE:
        return ""
    known = names.get((row.object_type, row.object_id))
    if known:
        return known
    for field in NAME_FIELDS:
        before, after = row.changes.get(field, (None, None))
        if after or before:
            return str(after or before)
    return f"number {row.object_id}"


def _headline(lines: Sequence[EntryLine], is_older: bool, is_filtered: bool) -> str:
    """The finding: the newest change, or that there is none."""
    if not lines:
        return "No change matches" if is_filtered else "Nothing was changed in this period"
    first = lines[0]
    if is_older:
        return "Earlier changes"
    thing = f"{first.noun} “{first.name}”" if first.name else first.noun
    return f"{first.row.actor} {first.verb} {thing} last"
