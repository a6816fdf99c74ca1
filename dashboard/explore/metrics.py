"""What can be shown of usage: the values of `metric` in an address, how each reads and adds up."""

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple

from dashboard.amounts import exact_count
from dashboard.charts import COUNT, MONEY, SHARE, Unit
from dashboard.filter_bar import COST
from metering.reporting.metrics import NOT_ADDITIVE, RATIOS, Figures

Value = int | Decimal | None


class Metric(NamedTuple):
    """One figure of usage. `asked` are the names that `/v1/usage` has to be asked for in `metrics`.

    What is not additive is of each row's own calls: rows do not sum to the total.
    """

    name: str
    words: str
    unit: Unit
    value: Callable[[Figures], Value]
    asked: tuple[str, ...] = ()
    missing: str = "no calls"

    @property
    def is_additive(self) -> bool:
        """Whether rows sum to the total."""
        return self.is_measure or not NOT_ADDITIVE.intersection(self.asked)

    @property
    def is_measure(self) -> bool:
        """Whether it is one of the sums that every answer has."""
        return not self.asked

    @property
    def is_counted(self) -> bool:
        """Whether it is made neither of sums nor of ratios of them."""
        return bool(set(self.asked) - RATIOS.keys())

    @property
    def has_money(self) -> bool:
        return self.unit is MONEY


def _milliseconds(value: int) -> str:
    return f"{exact_count(value)} ms"


MILLISECONDS: Final = Unit(_milliseconds, _milliseconds, 1)


def _measure(name: str) -> Callable[[Figures], Value]:
    return lambda figures: int(getattr(figures.measures, name))


def _cost_per_user(figures: Figures) -> Value:
    users = figures.metrics["users"]
    if not users:
        return None
    cost = Decimal(figures.measures.cost_nanos) / users
    return int(cost.to_integral_value(rounding=ROUND_HALF_UP))


def _counted(name: str, words: str) -> Metric:
    return Metric(name, words, COUNT, _measure(name))


def _asked(name: str, words: str, unit: Unit, missing: str = "no calls") -> Metric:
    return Metric(name, words, unit, lambda figures: figures.metrics[name], (name,), missing)


_ALL: Final = (
    Metric(COST, "Spend", MONEY, _measure("cost_nanos")),
    _counted("requests", "Model calls"),
    _counted("tool_calls", "Tool calls"),
    _counted("errors", "Failed calls"),
    _counted("input_tokens", "Input tokens"),
    _counted("output_tokens", "Output tokens"),
    _counted("cache_read_tokens", "Cache read tokens"),
    _counted("cache_write_tokens", "Cache write tokens"),
    _counted("reasoning_tokens", "Reasoning tokens"),
    _asked("cost_per_request", "Cost per call", MONEY),
    _asked("cost_per_success_usd", "Cost per success", MONEY, "no outcomes"),
    Metric("cost_per_user", "Cost per user", MONEY, _cost_per_user, ("users",), "no users"),
    _asked("successes", "Successes", COUNT, "no outcomes"),
    _asked("error_rate", "Error rate", SHARE),
    _asked("cache_hit_share", "Cache hit rate", SHARE, "no input"),
    _asked("users", "Users", COUNT),
    _asked("sessions", "Sessions", COUNT),
    _asked("customers", "Customers", COUNT),
    _asked("p50_cost_usd", "Median cost", MONEY),
    _asked("p95_cost_usd", "p95 cost", MONEY),
    _asked("p99_cost_usd", "p99 cost", MONEY),
    _asked("p50_latency_ms", "Median latency", MILLISECONDS, "not measured"),
    _asked("p95_latency_ms", "p95 latency", MILLISECONDS, "not measured"),
    _asked("p99_latency_ms", "p99 latency", MILLISECONDS, "not measured"),
)
METRICS: Final = {metric.name: metric for metric in _ALL}
