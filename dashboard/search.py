"""Search: jump to anything, filter the present page by it, or halt it. ⌘K on every page, and a page
of its own without script.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from django.http import HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_safe

from alerts.incident_lists import visible_to
from alerts.models import Channel, Incident
from common.money import money
from dashboard.access import PageRequest, may_halt, member_page
from dashboard.budgets.visible import is_visible
from dashboard.budgets.words import scope_words
from dashboard.explore.exploration import explore_value
from dashboard.filter_bar import FilterBar, parameter_of
from dashboard.frame import filter_bar_of, frame
from dashboard.navigation import NAVIGATION
from metering.reporting.search import find_budgets, find_calls, find_values
from tenants.models import ApiKey
from tenants.roles import ROLES_THAT_GRANT

TEXT_CHARACTERS_MAX: Final = 200
EACH_MAX: Final = 4
INCIDENTS_LOOKED_AT: Final = 500
# Dimensions with their icons, in the order of their groups.
VALUES: Final = {
    "agent": "people",
    "customer": "people",
    "feature": "panes",
    "team": "people",
    "user": "people",
    "model": "chart",
}


class Hit(NamedTuple):
    """Something that was found. `parts` are its name: before, within and after what was typed;
    `filter_address` shows the present page for it alone.
    """

    parts: tuple[str, str, str]
    address: str
    icon: str
    meta: str = ""
    filter_address: str = ""


class Group(NamedTuple):
    """Hits of one kind."""

    title: str
    hits: list[Hit]


class Search:
    """What a person of a tenant may find."""

    def __init__(self, request: PageRequest, bar: FilterBar, text: str) -> None:
        self._request = request
        self._tenant_id = request.tenant.id
        self._bar = bar
        self._text = text
        self._here = request.GET.get("here", "")

    def groups(self) -> list[Group]:
        """Return what was found, group by group; empty ones are left out."""
        if not self._text:
            return []
        searches: list[tuple[str, Callable[[], Iterator[Hit]]]] = [
            ("Sessions", lambda: self._calls("session")),
            ("Traces", lambda: self._calls("trace")),
            ("Budgets", self._budgets),
            ("Incidents", self._incidents),
            ("Channels", self._channels),
            ("API keys", self._keys),
            ("Pages", self._pages),
        ]
        values = {name: list(self._values(name)) for name in VALUES}
        groups = [Group(f"{name.capitalize()}s", hits) for name, hits in values.items()]
        groups += [Group(title, list(islice(read(), EACH_MAX))) for title, read in searches]
        groups.append(Group("Actions", list(self._actions(values))))
        return [group for group in groups if group.hits]

    def _hit(self, name: str, address: str, icon: str, **more: str) -> Hit:
        return Hit(parts_of(name, self._text), address, icon, **more)

    def _values(self, dimension: str) -> Iterator[Hit]:
        for value, cost_nanos in find_values(
            tenant_id=self._tenant_id,
            dimension=dimension,
            text=self._text,
            now=self._bar.now,
            teams=self._bar.teams,
            limit=EACH_MAX,
        ):
            yield self._hit(
                value,
                explore_value(self._bar.without_chips(), dimension, value),
                VALUES[dimension],
                meta=f"{money(cost_nanos)} · 7 days",
                filter_address=self._filtered(dimension, value),
            )

    def _filtered(self, dimension: str, value: str) -> str:
        """The present page for one value alone; the overview where it is no page of ours."""
        is_ours = self._here.startswith("/") and url_has_allowed_host_and_scheme(
            self._here, allowed_hosts=None
        )
        here = urlsplit(self._here if is_ours else reverse("dashboard:overview"))
        query = QueryDict(here.query, mutable=True)
        query.setlist(parameter_of(dimension), [value])
        path = here.path
        return f"{path}?{query.urlencode(safe='[],')}"

    def _calls(self, dimension: str) -> Iterator[Hit]:
        for value, agent in find_calls(
            tenant_id=self._tenant_id,
            dimension=dimension,
            text=self._text,
            teams=self._bar.teams,
            limit=EACH_MAX,
        ):
            address = reverse(f"dashboard:{dimension}", args=[value])
            filtered = self._filtered(dimension, value)
            yield self._hit(value, address, "lines", meta=agent, filter_address=filtered)

    def _budgets(self) -> Iterator[Hit]:
        for budget in find_budgets(tenant_id=self._tenant_id, text=self._text):
            if is_visible(budget.match, budget.per, self._bar.teams):
                address = reverse("dashboard:budget", args=[budget.id])
                meta = scope_words(budget.match, budget.per, budget.period)
                yield self._hit(budget.name, address, "gauge", meta=meta)

    def _incidents(self) -> Iterator[Hit]:
        """Of the newest incidents: titles are not indexed."""
        own = visible_to(self._bar.teams)
        rows = Incident.objects.filter(own, tenant_id=self._tenant_id).order_by("-id")
        for row in rows[:INCIDENTS_LOOKED_AT]:
            if self._text.lower() in row.title.lower():
                meta = "resolved" if row.resolved_at else row.severity
                address = reverse("dashboard:incident", args=[row.id])
                yield self._hit(row.title, address, "alert", meta=meta)

    def _channels(self) -> Iterator[Hit]:
        if self._bar.teams is None:
            rows = Channel.objects.filter(tenant_id=self._tenant_id, name__icontains=self._text)
            for row in rows.order_by("name", "id")[:EACH_MAX]:
                address = f"{reverse('dashboard:channels')}#channel-{row.id}"
                yield self._hit(row.name, address, "alert", meta=row.kind)

    def _keys(self) -> Iterator[Hit]:
        if self._request.role not in ROLES_THAT_GRANT:
            return
        rows = ApiKey.objects.filter(
            tenant_id=self._tenant_id, revoked_at=None, name__icontains=self._text
        )
        for row in rows.order_by("name", "id")[:EACH_MAX]:
            address = f"{reverse('dashboard:keys')}#key-{row.id}"
            yield self._hit(row.name, address, "sliders", meta=f"sg_{row.prefix}_…")

    def _pages(self) -> Iterator[Hit]:
        plain = self._bar.with_further({})
        for entry in NAVIGATION:
            if entry.is_of_tenant and self._bar.teams is not None:
                continue
            for tab in entry.tabs:
                if self._text.lower() in tab.words.lower():
                    address = plain.query(path=reverse(f"dashboard:{tab.name}"))
                    meta = "" if tab.words == entry.words else entry.words
                    yield self._hit(tab.words, address, entry.icon, meta=meta)

    def _actions(self, values: dict[str, list[Hit]]) -> Iterator[Hit]:
        """What can be done with the first agent, customer or feature that was found."""
        first = next(
            ((name, hits[0]) for name, hits in values.items() if hits and name != "model"), None
        )
        if first is None:
            return
        name, hit = first
        value = "".join(hit.parts)
        if may_halt(self._request):
            query = urlencode({"dimension": name, "value": value})
            address = f"{reverse('dashboard:confirm_halt')}?{query}"
            parts = (f"Halt {name} {hit.parts[0]}", hit.parts[1], f"{hit.parts[2]}…")
            yield Hit(parts, address, "stop", meta="confirm first")
        parts = (f"Filter this page by {name} {hit.parts[0]}", *hit.parts[1:])
        yield Hit(parts, hit.filter_address, "panes", meta="this page")


def parts_of(name: str, text: str) -> tuple[str, str, str]:
    """A name in three: what was typed stands in the middle, where it is in the name as such."""
    start = name.lower().find(text.lower())
    # Letters that change their number in lower case do not line up.
    if start < 0 or len(name.lower()) != len(name) or len(text.lower()) != len(text):
        return name, "", ""
    end = start + len(text)
    return name[:start], name[start:end], name[end:]


def _context(request: PageRequest, bar: FilterBar) -> dict[str, object]:
    text = request.GET.get("q", "").replace("\0", "").strip()[:TEXT_CHARACTERS_MAX]
    groups: Sequence[Group] = Search(request, bar, text).groups()
    return {"text": text, "groups": groups, "number": sum(len(group.hits) for group in groups)}


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Where is it? As a page, for those who search without script or share a search."""
    bar = filter_bar_of(request)
    asked = _context(request, bar)
    number = asked["number"]
    many = f"{number} matches for" if number != 1 else "1 match for"
    headline = f"{many} “{asked['text']}”" if asked["text"] else "Search"
    context = frame(request, bar, page="overview") | asked | {"headline": headline}
    return render(request, "dashboard/search.html", context)


@require_safe
@member_page
def results(request: PageRequest) -> HttpResponse:
    """The hits alone, as they are shown while a person types."""
    return render(request, "components/hits.html", _context(request, filter_bar_of(request)))
