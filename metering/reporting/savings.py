"""Where money was saved, where it was wasted, and where a cheaper model would save some.

Caching and cheaper models are told from sums by model and UTC day, at the standard rates of each
day's beginning: exact as long as no price changed within a day and no call's size or service tier
had another rate. Cached input is compared with the full input price. Everything else is added up
from the calls it names. `what_if` rates calls one by one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from math import floor
from typing import Final, NamedTuple

from common.queries import Rows
from metering.calls.prepared_event import BIT_OF
from metering.models import Operation, Status
from metering.pricing.book import PriceBook, load_price_book
from metering.pricing.schedule import Price
from metering.reporting.bounded import TooMuchToRead, fetch_in_time, require_few_events
from metering.reporting.conditions import on_events
from metering.reporting.kept import require_sums
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import Measures, usage

# Model days that are looked at; models that cost least fall off first.
MODELS_MAX: Final = 30
ROWS_MAX: Final = 12_000
EACH_MAX: Final = 20
# Models that would save less than so much of the cost are not named.
SAVED_PERCENT_MIN: Final = 10
# Below a hundredth of a cent a finding is noise.
NANOS_MIN: Final = 100_000


class Kind(StrEnum):
    """What a finding is about."""

    CACHING = "caching"
    ROUTE = "route"
    REPORTED = "reported"
    FAILED = "failed"
    REPEATED = "repeated"
    CHEAPER_MODEL = "cheaper_model"


SAVED: Final = frozenset({Kind.CACHING, Kind.ROUTE, Kind.REPORTED})
WASTED: Final = frozenset({Kind.FAILED, Kind.REPEATED})


class Finding(NamedTuple):
    """An amount, the calls that make it, and the filters that find these. `other_model` is the
    cheaper model that was used, or that would save the amount.
    """

    kind: Kind
    nanos: int
    calls: int
    filters: Mapping[str, str]
    other_model: str = ""


class Savings(NamedTuple):
    """Findings, the largest amount first. `left_out` are kinds for which there was too much to
    read.
    """

    findings: list[Finding]
    left_out: tuple[Kind, ...]

    @property
    def saved_nanos(self) -> int:
        """What caching, routes and reported savings came to."""
        return self._sum_of(SAVED)

    @property
    def wasted_nanos(self) -> int:
        """What failed and repeated calls cost. A repeated call that failed counts once, as
        failed.
        """
        return self._sum_of(WASTED)

    def _sum_of(self, kinds: frozenset[Kind]) -> int:
        return sum(finding.nanos for finding in self.findings if finding.kind in kinds)


def savings(question: UsageQuestion) -> Savings:
    """Return what was saved, wasted and could be saved in a range. Raises InvalidQuestion."""
    findings = [*_by_models(question), *_saved_by_calls(question), *_failed(question)]
    left_out: tuple[Kind, ...] = ()
    try:
        findings += _repeated(question)
    except TooMuchToRead:
        left_out = (Kind.REPEATED,)
    return Savings(_shown(findings), left_out)


class _Tokens(NamedTuple):
    """Tokens of a day, each counted once."""

    plain: int
    cache_read: int
    cache_write: int
    output: int

    @classmethod
    def of(cls, day: Measures) -> "_Tokens":
        """Return the tokens of a day's sums, whose input includes what was cached."""
        cached = day.cache_read_tokens + day.cache_write_tokens
        plain = max(day.input_tokens - cached, 0)
        return cls(plain, day.cache_read_tokens, day.cache_write_tokens, day.output_tokens)


class _ModelSums(NamedTuple):
    """A model's usage, a day each, with the price in force as the day began."""

    model: str
    cost_nanos: int
    calls: int
    days: list[tuple[datetime, Measures, Price | None]]

    @property
    def provider(self) -> str | None:
        """Who sells the model, as its price says."""
        return next((price.provider for _, _, price in self.days if price), None)


def savings_by_model(question: UsageQuestion) -> list[Finding]:
    """Return what is told from sums alone, without reading calls: what caching saved and cheaper
    models would save, the largest amount first. Raises InvalidQuestion.
    """
    return _shown(_by_models(question))


def _shown(findings: Iterable[Finding]) -> list[Finding]:
    shown = [finding for finding in findings if finding.nanos >= NANOS_MIN]
    return sorted(shown, key=lambda each: (-each.nanos, each.kind, sorted(each.filters.items())))


def _by_models(question: UsageQuestion) -> Iterator[Finding]:
    book = load_price_book(question.tenant_id)
    models = _models(question, book)
    for model in models:
        saved = _rounded(sum((_cache_saving(*day) for day in model.days), Fraction()))
        cached = sum(day.requests for _, day, _ in model.days if day.cache_read_tokens)
        yield Finding(Kind.CACHING, saved, cached, {"model": model.model})
    for model in models:
        yield from _cheapest_other(book, model, models)


def _models(question: UsageQuestion, book: PriceBook) -> list[_ModelSums]:
    asked = replace(question, group_by=("model",), interval="none")
    names = [
        row.key[0] for row in usage(asked, limit=MODELS_MAX).rows if row.key[0] and not row.is_other
    ]
    if not names:
        return []
    filters = {**question.filters, "model": tuple(names)}
    by_day = replace(asked, interval="day", timezone="UTC", filters=filters)
    require_sums(by_day)
    days: dict[str, list[tuple[datetime, Measures, Price | None]]] = {name: [] for name in names}
    for row in usage(by_day, limit=ROWS_MAX).rows:
        price = book.price_at(provider=None, model=row.key[0], at=row.start)
        days[row.key[0]].append((row.start, row.measures, price))
    return [
        _ModelSums(
            name,
            sum(day.cost_nanos for _, day, _ in days_of_model),
            sum(day.requests for _, day, _ in days_of_model),
            days_of_model,
        )
        for name, days_of_model in days.items()
    ]


def _rate(price: Price, *keys: str) -> Fraction:
    """Nano-dollars a token of the first of these classes that the price has a rate for."""
    rates = (price.rates[key] for key in keys if key in price.rates)
    return next((rate.nanos / rate.per for rate in rates), Fraction())


def _cache_saving(at: datetime, day: Measures, price: Price | None) -> Fraction:
    """What cached input would have cost at the full input price, less what it cost."""
    if price is None:
        return Fraction()
    full = _rate(price, "input_tokens")
    return day.cache_read_tokens * (full - _rate(price, "cache_read_tokens", "input_tokens"))


def _cheapest_other(
    book: PriceBook, model: _ModelSums, models: list[_ModelSums]
) -> Iterator[Finding]:
    """The next cheaper model, of those in use of the same provider, on this one's tokens: what is
    much cheaper seldom does the same work.
    """
    if any(day.unpriced for _, day, _ in model.days):
        return  # what it cost is not known
    days = [(at, _Tokens.of(day)) for at, day, _ in model.days]
    findings: list[Finding] = []
    for other in models:
        if other is model or other.provider != model.provider:
            continue
        cost = _cost_as(book, other.model, days)
        if cost is None:
            continue
        saved = model.cost_nanos - _rounded(cost)
        if saved * 100 >= model.cost_nanos * SAVED_PERCENT_MIN:
            filters = {"model": model.model}
            findings.append(Finding(Kind.CHEAPER_MODEL, saved, model.calls, filters, other.model))
    yield from sorted(findings, key=lambda finding: finding.nanos)[:1]


def _cost_as(
    book: PriceBook, model: str, days: Sequence[tuple[datetime, _Tokens]]
) -> Fraction | None:
    """What the tokens of these days cost at a model's prices; None where one has no rate for
    tokens. Days of one price are added up first: fractions are slow.
    """
    by_rates: dict[int, tuple[Price, list[_Tokens]]] = {}
    for at, tokens in days:
        price = book.price_at(provider=None, model=model, at=at)
        if price is None or not {"input_tokens", "output_tokens"} <= price.rates.keys():
            return None
        by_rates.setdefault(id(price.rates), (price, []))[1].append(tokens)
    return sum(
        (
            _cost_at(price, _Tokens(*map(sum, zip(*each, strict=True))))
            for price, each in by_rates.values()
        ),
        Fraction(),
    )


def _cost_at(price: Price, tokens: _Tokens) -> Fraction:
    return (
        tokens.plain * _rate(price, "input_tokens")
        + tokens.cache_read * _rate(price, "cache_read_tokens", "input_tokens")
        + tokens.cache_write * _rate(price, "cache_write_tokens", "input_tokens")
        + tokens.output * _rate(price, "output_tokens")
    )


def _rounded(nanos: Fraction | int) -> int:
    return floor(nanos + Fraction(1, 2))


def _saved_by_calls(question: UsageQuestion) -> Iterator[Finding]:
    """What routes to cheaper models saved, and what reports say was saved."""
    is_route = f"filled & {BIT_OF['saved_usd']} <> 0"
    rows = _calls(
        question,
        f"SELECT {is_route}, model, sum(saved_nanos), count(*)",
        "saved_nanos IS NOT NULL",
        "GROUP BY 1, 2 ORDER BY 3 DESC, 2",
    )
    for by_route, model, nanos, calls in rows:
        if by_route:
            yield Finding(Kind.ROUTE, int(nanos), calls, {"model": model}, model)
        else:
            yield Finding(Kind.REPORTED, int(nanos), calls, {"model": model})


def _failed(question: UsageQuestion) -> Iterator[Finding]:
    """What failed calls cost, by model or tool: every try that a retry had to repeat among them."""
    is_tool = f"operation = {Operation.TOOL.value}"
    rows = _calls(
        question,
        f"SELECT {is_tool}, CASE WHEN {is_tool} THEN tool ELSE model END,"
        " coalesce(sum(cost_nanos), 0), count(*)",
        f"status = {Status.ERROR.value}",
        "GROUP BY 1, 2 ORDER BY 3 DESC, 2",
    )
    for by_tool, value, nanos, calls in rows:
        name = "tool" if by_tool else "model"
        yield Finding(Kind.FAILED, int(nanos), calls, {name: value, "status": "error"})


def _repeated(question: UsageQuestion) -> list[Finding]:
    """What calls cost that did in a session what had been done in it before: a tool with the same
    arguments, or a model that wrote the same. The first one is not counted, nor are failed ones.
    """
    what = "Repeated calls"
    require_few_events(question, [(question.starts_at, question.ends_at)], what=what)
    wanted = on_events(question.filters)
    rows = fetch_in_time(
        f"""
        SELECT agent, operation = {Operation.TOOL.value}, name, sum(cost_nanos), count(*) FROM (
            SELECT agent, operation, coalesce(cost_nanos, 0) AS cost_nanos,
                CASE WHEN operation = {Operation.TOOL.value} THEN tool ELSE model END AS name,
                row_number() OVER (
                    PARTITION BY session, agent, operation, tool, model,
                        coalesce(tool_arguments_hash, output_hash)
                    ORDER BY time, id
                ) AS place
            FROM usage_event WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void
                AND session <> '' AND status <> {Status.ERROR.value}
                AND coalesce(tool_arguments_hash, output_hash) IS NOT NULL AND {wanted.sql}
        ) calls WHERE place > 1 GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 3 LIMIT {EACH_MAX}
        """,
        [question.tenant_id, question.starts_at, question.ends_at, *wanted.parameters],
        what=what,
    )
    return [
        Finding(
            Kind.REPEATED, int(nanos), calls, {"agent": agent, "tool" if by_tool else "model": name}
        )
        for agent, by_tool, name, nanos, calls in rows
    ]


def _calls(question: UsageQuestion, select: str, condition: str, group: str) -> Rows:
    """Read calls that a partial index finds."""
    wanted = on_events(question.filters)
    return fetch_in_time(
        f"{select} FROM usage_event WHERE tenant_id = %s AND time >= %s AND time < %s"
        f" AND NOT is_void AND {condition} AND {wanted.sql} {group} LIMIT {EACH_MAX}",
        [question.tenant_id, question.starts_at, question.ends_at, *wanted.parameters],
        what="Savings",
    )
