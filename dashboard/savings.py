"""Savings: what caching and cheaper models saved, what was wasted, what would save more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from common.values import normal_value
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import money
from dashboard.filter_bar import FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.spend import has_usage, question
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.reporting import InvalidQuestion, UsageQuestion
from metering.reporting.savings import (
    SAVED,
    WASTED,
    Finding,
    Kind,
    Savings,
    savings,
    savings_by_model,
)
from metering.reporting.what_if import what_if

SECTIONS: Final = (
    ("Saved", SAVED),
    ("Wasted", WASTED),
    ("Could be saved", frozenset({Kind.CHEAPER_MODEL})),
)


@dataclass(frozen=True)
class Line:
    """A finding in words, where its calls are, and what would do better."""

    finding: Finding
    words: str
    address: str
    next_words: str = ""
    next_address: str = ""


def _question(request: PageRequest, bar: FilterBar) -> UsageQuestion | None:
    if bar.range.starts_at >= bar.range.until:
        return None
    return question(request.tenant.id, bar, bar.range, group_by=None, interval="none")


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """Where does money leak, and what has stopped it from leaking?"""
    bar = filter_bar_of(request)
    context: dict[str, Any] = frame(request, bar, page="savings")
    if not has_usage(request.tenant.id):
        context |= {"headline": "No usage yet", "is_unused": True}
        return render(request, "dashboard/savings.html", context)
    context |= _tried(request, bar)
    asked = _question(request, bar)
    try:
        context["headline"] = _headline(savings_by_model(asked) if asked else [])
    except InvalidQuestion as error:
        context |= {"headline": "Savings are not known for this selection", "why": error.detail}
    return render(request, "dashboard/savings.html", context)


@require_safe
@cached_page
def findings(request: PageRequest) -> HttpResponse:
    """Every finding: a fragment that is read after the page, as it reads calls."""
    bar = filter_bar_of(request)
    asked = _question(request, bar)
    try:
        result = savings(asked) if asked else Savings([], ())
    except InvalidQuestion as error:
        return render(request, "dashboard/savings_findings.html", {"why": error.detail})
    context = {
        "found": result,
        "sections": [
            {
                "title": title,
                "is_total": kinds != SECTIONS[2][1],
                "nanos": sum(finding.nanos for finding in result.findings if finding.kind in kinds),
                "lines": [
                    _line(finding, bar) for finding in result.findings if finding.kind in kinds
                ],
            }
            for title, kinds in SECTIONS
        ],
        "left_out": result.left_out,
    }
    return render(request, "dashboard/savings_findings.html", context)


def _headline(shown: Sequence[Finding]) -> str:
    """What is known before the calls are read."""
    parts = []
    if cached := sum(finding.nanos for finding in shown if finding.kind is Kind.CACHING):
        parts.append(f"Caching saved {money(cached)}")
    best = next((finding for finding in shown if finding.kind is Kind.CHEAPER_MODEL), None)
    if best is not None:
        model, other = shortened(best.filters["model"]), shortened(best.other_model)
        parts.append(f"“{other}” instead of “{model}” would have saved {money(best.nanos)}")
    return "; ".join(parts) or "Neither caching nor a cheaper model saves anything here"


def _line(finding: Finding, bar: FilterBar) -> Line:
    chosen = bar
    for name, value in finding.filters.items():
        chosen = chosen.with_only(name, value)
    address = chosen.query(path=reverse("dashboard:calls"))
    if finding.kind is not Kind.CHEAPER_MODEL:
        return Line(finding, _words(finding), address)
    tried = bar.with_further({"model": finding.filters["model"], "instead": finding.other_model})
    return Line(finding, _words(finding), address, "Rate call by call", f"{tried.query()}#what-if")


def _words(finding: Finding) -> str:
    model = f"“{shortened(finding.filters.get('model', ''))}”"
    tool = f"“{shortened(finding.filters.get('tool', ''))}”"
    what = f"tool {tool}" if "tool" in finding.filters else model
    agent = f"“{shortened(finding.filters['agent'])}”" if finding.filters.get("agent") else "no one"
    return {
        Kind.CACHING: f"Cached input of {model}",
        Kind.ROUTE: f"Routes chose {model} instead of a better model",
        Kind.REPORTED: f"Saved as reported with calls of {model}",
        Kind.FAILED: f"Failed calls of {what}",
        Kind.REPEATED: f"Calls of {what} that {agent} had made before in the session",
        Kind.CHEAPER_MODEL: f"{model} → “{shortened(finding.other_model)}”",
    }[finding.kind]


def _tried(request: PageRequest, bar: FilterBar) -> dict[str, object]:
    """The answer of the form "What if": calls of one model, rated at the prices of another."""
    model, instead = (
        normal_value(request.GET.get(name, ""))[:VALUE_CHARACTERS_MAX].replace("\0", "")
        for name in ("model", "instead")
    )
    tried: dict[str, object] = {"model": model, "instead": instead}
    asked = _question(request, bar.with_only("model", model or None))
    if not instead or asked is None:
        return tried
    try:
        tried["answer"] = what_if(asked, provider=None, model=instead)
    except InvalidQuestion as error:
        tried["refusal"] = error.detail
    return tried
