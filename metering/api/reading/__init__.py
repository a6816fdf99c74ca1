"""Reading over HTTP. Each view parses, asks one function of `metering.queries`, and answers."""

from metering.api.reading.calls import SessionView, TraceView
from metering.api.reading.decisions import DecisionsView
from metering.api.reading.estimates import EstimatesView
from metering.api.reading.events import EventsView
from metering.api.reading.export import FocusExportView
from metering.api.reading.usage import UsageView

__all__ = [
    "DecisionsView",
    "EstimatesView",
    "EventsView",
    "FocusExportView",
    "SessionView",
    "TraceView",
    "UsageView",
]
