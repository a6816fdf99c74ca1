"""What a breaker decides, call by call. Pure: the simulation replays the past with it."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from common.money import NANOS_PER_USD, usd_words
from metering.core.match import Grouping, Values
from metering.limits.rate_counters import SlidingMinute
from metering.models import Breaker, BreakerClose, Mode

MEASURES: Final = ("nanos", "calls", "errors")
# What is usual is learned from about this many calls: an agent may change its ways.
USUAL_CALLS_MAX: Final = 1_000
NANOS_PER_CENT: Final = NANOS_PER_USD // 100


class BreakerRule(NamedTuple):
    """One breaker, ready to watch calls."""

    id: int
    name: str
    mode: str
    grouping: Grouping
    cost_nanos_per_minute: int | None
    error_percent: int | None
    error_min_calls: int
    tokens_times: int | None
    usual_min_calls: int
    limit_percent: int | None
    close: str
    cool_down_seconds: int

    @classmethod
    def of(cls, breaker: Breaker) -> "BreakerRule":
        """The rule that a stored (or proposed) breaker means."""
        return cls(
            id=breaker.id,
            name=breaker.name,
            mode=breaker.mode,
            grouping=Grouping(breaker.match, breaker.per),
            cost_nanos_per_minute=breaker.cost_nanos_per_minute,
            error_percent=breaker.error_percent,
            error_min_calls=breaker.error_min_calls,
            tokens_times=breaker.tokens_times,
            usual_min_calls=breaker.usual_min_calls,
            limit_percent=breaker.limit_percent,
            close=breaker.close,
            cool_down_seconds=breaker.cool_down_seconds,
        )

    def group(self, values: Values) -> str | None:
        """The group that a call with these values belongs to; None where the breaker does not
        match it.
        """
        return self.grouping.group(values)

    @property
    def halts(self) -> bool:
        """Whether an open breaker stops its group."""
        return self.mode == Mode.ENFORCE and self.limit_percent is None

    @property
    def tightens(self) -> bool:
        """Whether an open breaker makes budgets' limits count less for its group."""
        return self.mode == Mode.ENFORCE and self.limit_percent is not None

    @property
    def cools_down(self) -> bool:
        """Whether it closes by itself with the first call after the cool-down.

        One that halts sees no call but the probe, and one that closes manually waits for that.
        """
        return self.mode != Mode.ENFORCE or (self.tightens and self.close == BreakerClose.PROBE)


class Call(NamedTuple):
    """A call that was reported, as a breaker sees it; `at` is when it became known."""

    at: datetime
    nanos: int
    tokens: int
    is_error: bool


class Transition(StrEnum):
    """What a call made a breaker do."""

    OPENED = "open"
    CLOSED = "close"


class GroupState:
    """What a breaker knows of one group: the last minute, what is usual, and whether it is open.

    While it is open nothing is counted or learned, but for the probe.
    """

    __slots__ = (
        "minute",
        "opened_at",
        "probe_at",
        "probe_id",
        "usual_calls",
        "usual_tokens",
        "why",
    )

    def __init__(
        self, minute: SlidingMinute | None = None, *, usual_calls: int = 0, usual_tokens: int = 0
    ) -> None:
        self.minute = minute or SlidingMinute.empty(MEASURES)
        self.usual_calls = usual_calls
        self.usual_tokens = usual_tokens
        self.opened_at: datetime | None = None
        self.why = ""
        self.probe_id: UUID | None = None
        self.probe_at: datetime | None = None

    def feed(self, rule: BreakerRule, call: Call, *, is_probe: bool = False) -> Transition | None:
        """Count a call; return what the breaker does because of it.

        A probe that fails opens it once more: the cool-down begins again.
        """
        if self.opened_at is None:
            return self._count_or_open(rule, call)
        if is_probe:
            self.close()
            if call.is_error:
                self._open(call.at, "the probe failed")
                return Transition.OPENED
        elif rule.cools_down and call.at >= self.opened_at + cool_down(rule.cool_down_seconds):
            self.close()
        else:
            return None
        return self._count_or_open(rule, call) or Transition.CLOSED

    def close(self) -> None:
        """Start again from an empty minute; what is usual stays known."""
        self.minute = SlidingMinute.empty(MEASURES)
        self.opened_at = self.probe_id = self.probe_at = None
        self.why = ""

    def may_probe(self, rule: BreakerRule, now: datetime) -> bool:
        """Whether a call may be let through as the probe (see `is_probe_due`)."""
        return self.opened_at is not None and is_probe_due(
            close=rule.close,
            cool_down_seconds=rule.cool_down_seconds,
            opened_at=self.opened_at,
            probe_at=self.probe_at,
            now=now,
        )

    def _open(self, at: datetime, why: str) -> None:
        self.opened_at, self.why = at, why
        self.probe_id = self.probe_at = None

    def _count_or_open(self, rule: BreakerRule, call: Call) -> Transition | None:
        self.minute.advance(int(call.at.timestamp()))
        self.minute.add(nanos=call.nanos, calls=1, errors=1 if call.is_error else 0)
        too_large = self._too_large(rule, call)
        why = too_large or _too_fast(rule, self.minute) or _failing(rule, self.minute)
        # The outlier must not become the usual.
        if rule.tokens_times is not None and too_large is None and call.tokens > 0:
            self._learn(call.tokens)
        if why is None:
            return None
        self._open(call.at, why)
        return Transition.OPENED

    def _learn(self, tokens: int) -> None:
        self.usual_calls += 1
        self.usual_tokens += tokens
        if self.usual_calls > USUAL_CALLS_MAX:
            self.usual_calls //= 2
            self.usual_tokens //= 2

    def _too_large(self, rule: BreakerRule, call: Call) -> str | None:
        calls, tokens = self.usual_calls, self.usual_tokens
        if rule.tokens_times is None or calls < rule.usual_min_calls or tokens == 0:
            return None
        if call.tokens * calls < rule.tokens_times * tokens:
            return None
        return (
            f"a call used {call.tokens:,} tokens, {call.tokens * calls // tokens:,} times the usual"
            f" {tokens // calls:,}, limit {rule.tokens_times:,} times"
        )


def _too_fast(rule: BreakerRule, minute: SlidingMinute) -> str | None:
    limit, spent = rule.cost_nanos_per_minute, minute.sum("nanos")
    if limit is None or spent <= limit:
        return None
    return f"spent {_format_spent(spent)} in 60 s, limit {usd_words(limit)} a minute"


def _failing(rule: BreakerRule, minute: SlidingMinute) -> str | None:
    calls, errors = minute.sum("calls"), minute.sum("errors")
    if rule.error_percent is None or calls < rule.error_min_calls:
        return None
    if errors * 100 < rule.error_percent * calls:
        return None
    return (
        f"{errors:,} of {calls:,} calls failed in 60 s, {errors * 100 // calls}%,"
        f" limit {rule.error_percent}%"
    )


def is_probe_due(
    *,
    close: str,
    cool_down_seconds: int,
    opened_at: datetime,
    probe_at: datetime | None,
    now: datetime,
) -> bool:
    """Whether one call may be let through an open breaker.

    Once it has cooled down, and while no probe runs; one whose end no one reported for as long as
    the cool-down is over.
    """
    if close != BreakerClose.PROBE or now < opened_at + cool_down(cool_down_seconds):
        return False
    return probe_at is None or now >= probe_at + cool_down(cool_down_seconds)


def cool_down(seconds: int) -> timedelta:
    """How long an open breaker waits."""
    return timedelta(seconds=seconds)


def _format_spent(nanos: int) -> str:
    """From a dollar on whole cents, rounded up, so that it still reads as more than the limit."""
    if nanos >= NANOS_PER_USD:
        nanos = -(-nanos // NANOS_PER_CENT) * NANOS_PER_CENT
    return usd_words(nanos)
