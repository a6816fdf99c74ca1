"""The page of what happened that may have moved costs."""

from collections.abc import Sequence
from typing import Final

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, cached_page
from dashboard.annotations import read_annotations
from dashboard.curl_lines import curl_context
from dashboard.enforcement.matches import pairs_of
from dashboard.filter_bar import FilterBar
from dashboard.frame import filter_bar_of, frame
from metering.reporting.annotations import Kind, TimeNote
from tenants.roles import Scope

KIND_WORDS: Final = {
    Kind.POSTED: "Posted",
    Kind.PRICE: "Price",
    Kind.BUDGET: "Budget",
    Kind.HALT: "Halt",
}


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """What happened in this period that may have moved costs?"""
    bar = filter_bar_of(request)
    notes = read_annotations(request.tenant.id, bar)[::-1]
    context = frame(request, bar, page="annotations") | {
        "headline": _headline(notes, bar),
        "rows": [
            {
                "note": note,
                "kind": KIND_WORDS[note.kind],
                "address": _source_of(note),
                "pairs": [
                    (name, values[0]) for name, values in pairs_of(note.match) if len(values) == 1
                ],
            }
            for note in notes
        ],
        **curl_context(request, Scope.INGEST),
    }
    return render(request, "dashboard/annotations.html", context)


def _headline(notes: Sequence[TimeNote], bar: FilterBar) -> str:
    if not notes:
        return "Nothing was deployed or changed in this period"
    many = f"{len(notes)} moments" if len(notes) > 1 else "1 moment"
    return f"{many} may explain costs of {bar.period_words}; the latest: {notes[0].text}"


def _source_of(note: TimeNote) -> str:
    """Where to look at what changed; empty for what was posted."""
    if note.kind is Kind.BUDGET:
        return reverse("dashboard:budgets")
    return reverse("dashboard:halts") if note.kind is Kind.HALT else ""
