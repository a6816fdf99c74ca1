"""Reading: what was used, by whom, and what it cost (see README.md)."""

from metering.reporting.change import Change, GroupChange, Used, what_moved_it
from metering.reporting.comparison import range_before
from metering.reporting.cursors import range_of_cursor
from metering.reporting.estimates import EstimateError, EstimateQuestion, estimate_errors
from metering.reporting.events import EventQuestion, list_events
from metering.reporting.focus import focus_rows
from metering.reporting.forecast import Forecast, forecast
from metering.reporting.kept import require_events, require_sums
from metering.reporting.metrics import METRICS, MONEY_METRICS, NOT_ADDITIVE, Coverage, Figures
from metering.reporting.percentiles import Percentiles, percentiles_of
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.report import ReportRow, UsageReport, usage_report
from metering.reporting.sessions import Session, SessionStep, read_session
from metering.reporting.traces import CallNode, CallTree, call_tree
from metering.reporting.unpriced_models import UnpricedModel, unpriced_models
from metering.reporting.usage import Measures, UsagePage, UsageRow, total_usage, usage
