"""One call with all that is known of it."""

from dataclasses import dataclass
from typing import Any, Final

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from common.errors import NotFound
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import money
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from metering.core.dimensions import DIMENSIONS, FURTHER_DIMENSIONS
from metering.models import Completeness, CostSource, Operation, Route, Status, UsageEvent
from metering.reporting.one_call import OneCall, ReportOfCall, read_call

TOKENS: Final = {
    "input_tokens": "Input, cached included",
    "cache_read_tokens": "… read from cache",
    "cache_write_tokens": "… written to cache",
    "cache_write_1h_tokens": "… of these kept for an hour",
    "input_audio_tokens": "… audio",
    "output_tokens": "Output, reasoning included",
    "reasoning_tokens": "… reasoning",
    "output_audio_tokens": "… audio",
    "max_output_tokens": "Output limit",
    "web_searches": "Web searches",
}
_ALWAYS_SHOWN: Final = frozenset({"input_tokens", "output_tokens"})
IDENTITIES: Final = {
    "span": "Span",
    "parent_span": "Parent span",
    "response_id": "Response",
    "request_id": "Request",
    "reservation_id": "Reservation",
    "requested_model": "Requested model",
    "service_tier": "Service tier",
    "tool_arguments_hash": "Arguments hash",
    "output_hash": "Output hash",
    "prefix_hash": "Prefix hash",
    "task_type": "Task type",
    "step": "Step",
}
SOURCE_WORDS: Final = {
    CostSource.CATALOGUE: "price catalogue",
    CostSource.OVERRIDE: "your own price",
    CostSource.GIVEN: "sent with the call",
    CostSource.UNPRICED: "no price",
}
# Their own links stand beside the title.
LINKED: Final = frozenset({"session", "trace", "operation", "status", "source"})


@dataclass(frozen=True)
class Call:
    """A call as its page shows it."""

    event: UsageEvent
    reports: list[ReportOfCall]

    @property
    def name(self) -> str:
        return self.event.tool or self.event.model or self.operation_words

    @property
    def operation_words(self) -> str:
        return Operation(self.event.operation).label

    @property
    def status_words(self) -> str:
        return Status(self.event.status).label

    @property
    def is_error(self) -> bool:
        return self.event.status == Status.ERROR

    @property
    def cost_source(self) -> str:
        return SOURCE_WORDS[CostSource(self.event.cost_source)]

    @property
    def is_unpriced(self) -> bool:
        return self.event.cost_source == CostSource.UNPRICED

    @property
    def completeness_words(self) -> str:
        """What is missing of the usage; empty where it is complete."""
        if self.event.completeness == Completeness.ESTIMATE:
            return "The answer broke off: the figures are what was received."
        if self.event.completeness == Completeness.MISSING:
            return "No report says what the call used."
        return ""

    @property
    def dimensions(self) -> list[tuple[str, str]]:
        names = (*DIMENSIONS, *FURTHER_DIMENSIONS)
        pairs = [(name, str(getattr(self.event, name))) for name in names if name not in LINKED]
        return [(name, value) for name, value in pairs if value]

    @property
    def tokens(self) -> list[tuple[str, int]]:
        """What was used, by class; zero for input and output alone."""
        return [
            (words, number)
            for name, words in TOKENS.items()
            if (number := getattr(self.event, name) or 0) or name in _ALWAYS_SHOWN
        ]

    @property
    def identities(self) -> list[tuple[str, str]]:
        return [
            (words, str(value))
            for name, words in IDENTITIES.items()
            if (value := getattr(self.event, name)) is not None
        ]

    @property
    def tags(self) -> list[tuple[str, str]]:
        return [(name, str(value)) for name, value in (self.event.tags or {}).items()]

    @property
    def told(self) -> list[tuple[ReportOfCall, str]]:
        """The reports, with the way by which each came."""
        return [(report, Route(report.route).label) for report in self.reports]


@require_safe
@cached_page
def page(request: PageRequest, source: str, sent_id: str) -> HttpResponse:
    """What was this call, and why did it cost that?"""
    bar = filter_bar_of(request)
    call = _find(request, source, sent_id, bar.teams)
    context = frame(request, bar, page="sessions") | {
        "headline": _headline(call),
        "call": call,
    }
    return render(request, "dashboard/sessions/call.html", context)


@require_safe
@cached_page
def facts(request: PageRequest, source: str, sent_id: str) -> HttpResponse:
    """The same inside of a trace."""
    bar = filter_bar_of(request)
    context: dict[str, Any] = {"bar": bar, "call": _find(request, source, sent_id, bar.teams)}
    return render(request, "dashboard/sessions/call_facts.html", context)


def _find(request: PageRequest, source: str, sent_id: str, teams: tuple[str, ...] | None) -> Call:
    try:
        call: OneCall = read_call(
            tenant_id=request.tenant.id, source=source, sent_id=sent_id, teams=teams
        )
    except NotFound as error:
        raise Http404 from error
    return Call(call.event, call.reports)


def _headline(call: Call) -> str:
    name = shortened(call.name)
    if call.event.is_void:
        return f"This call of {name} was taken back and costs nothing"
    if call.event.cost_nanos is None:
        return f"This call of {name} has no price yet"
    seconds = f" and took {call.event.latency_ms:,} ms" if call.event.latency_ms else ""
    return f"This call of {name} cost {money(call.event.cost_nanos)}{seconds}"
