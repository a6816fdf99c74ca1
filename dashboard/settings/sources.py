"""Sources: which emitters send, what arrives, what is lost, and what to set."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, cached_page, member_page
from dashboard.amounts import count, percent
from dashboard.curl_lines import curl_context
from dashboard.findings import loss_words, sources_headline
from dashboard.frame import filter_bar_of, frame
from dashboard.spend import question
from metering.models import Route, SourceOutcome
from metering.reporting.attribution import NAMES, Attribution, attributions
from metering.reporting.question import InvalidQuestion
from metering.reporting.source_counts import SourceQuestion, SourceReason, SourceRow, read_sources
from metering.usage.sources import OTHER
from tenants.roles import Scope

SOURCES_MAX: Final = 500
PROBLEMS_MAX: Final = 20
# Names that no source gave itself.
NAMES_OF: Final = {
    "": "Reports without a source",
    OTHER: "Other sources",
}
ROUTE_WORDS: Final = {
    Route.NATIVE: "Events API",
    Route.CLOUDEVENTS: "CloudEvents",
    Route.OTLP: "OpenTelemetry",
    Route.LITELLM: "LiteLLM callback",
    Route.FILE: "Imported file",
    Route.CORRECTION: "Corrections",
    Route.SETTLE: "Settled reservations",
}
# The most serious first: what is not stored, what costs nothing, what may count twice.
SEVERITIES: Final = {
    SourceOutcome.REJECTED: "critical",
    SourceOutcome.UNPRICED: "warning",
    SourceOutcome.CONFLICT: "warning",
    SourceOutcome.PASSED_OVER: "warning",
}
RANKS: Final = list(SEVERITIES)
REPEATED: Final = (SourceOutcome.MERGED, SourceOutcome.DUPLICATE)
# Reasons that end with a price.
PRICE_CODES: Final = frozenset({"no_price", "no_rate"})
# "OTEL_EXPORTER_X=delta", "stream_options.include_usage=true".
SETTING: Final = re.compile(r"[A-Za-z_.]{8,}=[A-Za-z0-9_./-]*[A-Za-z0-9]")
OUTCOME_WORDS: Final = {
    SourceOutcome.REJECTED: "rejected",
    SourceOutcome.UNPRICED: "without a cost",
    SourceOutcome.CONFLICT: "in conflict with known calls",
    SourceOutcome.PASSED_OVER: "passed over",
}


@dataclass(frozen=True)
class Problem:
    """A reason for which data of a source is lost."""

    line: "SourceLine"
    reason: SourceReason

    @property
    def rank(self) -> tuple[object, ...]:
        return (RANKS.index(self.reason.outcome), -self.reason.count, self.line.name)

    @property
    def severity(self) -> str:
        return SEVERITIES[self.reason.outcome]

    @property
    def words(self) -> str:
        return OUTCOME_WORDS[self.reason.outcome]

    @property
    def headline(self) -> str:
        """What is lost of which source: "1,204 reports of “codex” were rejected"."""
        return loss_words(self.line.named, self.reason.outcome, self.reason.count)

    @property
    def setting(self) -> str:
        """The setting that ends it, to copy; empty where it takes more than one."""
        match = SETTING.search(self.reason.what_to_set)
        return match[0] if match else ""

    @property
    def needs_price(self) -> bool:
        return self.reason.outcome is SourceOutcome.UNPRICED and self.reason.code in PRICE_CODES

    @property
    def events_address(self) -> str | None:
        """Where the API lists the calls in question; None where they are not stored."""
        names = {SourceOutcome.CONFLICT: "conflicts", SourceOutcome.UNPRICED: "unpriced"}
        name = names.get(self.reason.outcome)
        if name is None or self.line.row.source == OTHER:
            return None
        return f"/v1/events?{name}=true&filter[source]={quote(self.line.row.source, safe='')}"


@dataclass(frozen=True)
class SourceLine:
    """What one source sent by one route, as the page shows it."""

    row: SourceRow

    @property
    def name(self) -> str:
        return NAMES_OF.get(self.row.source, self.row.source)

    @property
    def route(self) -> str:
        return ROUTE_WORDS.get(self.row.route, self.row.route.label)

    @property
    def named(self) -> str:
        """The source within a sentence."""
        return f"{self.name[:1].lower()}{self.name[1:]}" if self.is_unnamed else f"“{self.name}”"

    @property
    def is_unnamed(self) -> bool:
        return self.row.source in NAMES_OF

    @property
    def counts(self) -> dict[str, int]:
        """The counts by name; `repeated` are the reports of calls that were known."""
        counts = {outcome.label: self.row.count(outcome) for outcome in SourceOutcome}
        repeated = sum(self.row.count(outcome) for outcome in REPEATED)
        return counts | {"repeated": repeated}

    @property
    def severity(self) -> str:
        """That of the worst problem."""
        problems = self.problems
        return problems[0].severity if problems else "ok"

    @property
    def problems(self) -> list[Problem]:
        problems = [
            Problem(self, problem) for problem in self.row.reasons if not problem.is_harmless
        ]
        return sorted(problems, key=lambda problem: problem.rank)

    @property
    def harmless(self) -> int:
        """How many reports were passed over rightly."""
        return sum(reason.count for reason in self.row.reasons if reason.is_harmless)

    @property
    def rank(self) -> tuple[object, ...]:
        """By consequence, then by how much arrives."""
        problems = self.problems
        worst = problems[0].rank if problems else (len(RANKS), 0, "")
        return (*worst[:2], -self.row.count(SourceOutcome.ACCEPTED), self.name, self.route)


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What is lost, and what must be set? Reports are counted by source, not by team, so that they
    are not shown to a person who may see some teams alone.
    """
    bar = filter_bar_of(request)
    if bar.teams is not None:
        context = frame(request, bar, page="sources") | {
            "headline": "Sources are shown to people who can see the whole workspace"
        }
        return render(request, "dashboard/settings/sources_limited.html", context)
    sources = read_sources(
        SourceQuestion(
            tenant_id=request.tenant.id, starts_at=bar.range.starts_at, ends_at=bar.range.ends_at
        ),
        limit=SOURCES_MAX,
    )
    lines = sorted((SourceLine(row) for row in sources.rows), key=lambda line: line.rank)
    problems = sorted(
        (problem for line in lines for problem in line.problems), key=lambda each: each.rank
    )
    context = frame(request, bar, page="sources") | {
        "headline": headline_of(lines, problems),
        "lines": lines,
        "attribution": bar.query(path=reverse("dashboard:attribution")),
        "problems": problems[:PROBLEMS_MAX],
        "problem_count": len(problems),
        "totals": sum((Counter(line.counts) for line in lines), Counter()),
        "is_cut": sources.next_cursor is not None,
        "sources_max": SOURCES_MAX,
        **curl_context(request, Scope.INGEST),
    }
    return render(request, "dashboard/settings/sources.html", context)


@require_safe
@cached_page
def attribution(request: PageRequest, route: Route | None = None) -> HttpResponse:
    """Whose are the calls that each source reports, by a route or any? A fragment that is read
    after the page.
    """
    bar = filter_bar_of(request)
    if bar.teams is not None:
        raise PermissionDenied
    span = bar.range
    by = f" from {ROUTE_WORDS[route]}" if route is not None else ""
    context: dict[str, object] = {"names": NAMES, "by": by, "period": bar.period_words}
    if span.starts_at < span.until:
        asked = question(request.tenant.id, bar, span, group_by=None, interval="none")
        try:
            shares = attributions(replace(asked, filters={}))
        except InvalidQuestion as refusal:
            context["refusal"] = refusal.detail
        else:
            shares = [share for share in shares if route in (None, share.route)]
            context["rows"] = [
                (NAMES_OF.get(share.source, share.source), ROUTE_WORDS.get(share.route, ""), share)
                for share in shares
            ]
            context["finding"] = attribution_words(shares, by)
    return render(request, "dashboard/settings/attribution.html", context)


def attribution_words(shares: Sequence[Attribution], by: str) -> str:
    """The finding: what most calls lack that some carry."""
    calls = sum(share.calls for share in shares)
    sums = [sum(share.carrying[at] for share in shares) for at in range(len(NAMES))]
    lacking = [
        f"{percent(calls - carrying, calls)} have no {name}"
        for name, carrying in zip(NAMES, sums, strict=True)
        if carrying < calls
    ]
    if not lacking:
        return f"Every call{by} has a {', '.join(NAMES[:-1])} and {NAMES[-1]}"
    return f"Of {count(calls)} calls{by}, {', '.join(lacking)}"


def headline_of(lines: Sequence[SourceLine], problems: Sequence[Problem]) -> str:
    """The finding: how many sources lose data, and what matters most."""
    worst = None
    if problems:
        first = problems[0]
        worst = (first.line.named, first.reason.outcome, first.reason.count)
    return sources_headline(
        sources=len({line.row.source for line in lines}),
        losing=len({problem.line.row.source for problem in problems}),
        worst=worst,
    )
