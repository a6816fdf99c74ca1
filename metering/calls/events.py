"""From one reported event to one row: tokens normalised, rated, matched to windows. No database."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from common.errors import EventRejected, RejectEvent
from common.money import NANOS_PER_USD, nanos_from_usd, usd_from_nanos
from metering.budgets.index import WindowKey
from metering.core.amounts import Amounts
from metering.core.dimensions import MATCHABLE
from metering.core.match import Values
from metering.ledger.holds import Held
from metering.limits.breakers.feed import ReportedCall
from metering.models import Authority, Completeness, CostSource, Operation, Route, Status
from metering.pricing.book import UNPRICED
from metering.snapshot import Configuration
from metering.usage.decoders.native import EventBody
from metering.usage.decoders.values import with_normal_values
from metering.usage.event_keys import key_of_id, key_of_request, key_of_response, key_of_span
from metering.usage.shapes import Tokens, UnknownUsage, check_tokens, normalise_usage, service_tier

# More than any call costs, and little enough that sums of many fit their columns.
COST_NANOS_MAX: Final = 10_000_000 * NANOS_PER_USD
TOKENS_MAX: Final = 10**12
AHEAD_MAX: Final = timedelta(minutes=5)
TAGS_BYTES_MAX: Final = 16 * 1024
OPERATIONS: Final = {one.label: one.value for one in Operation}
STATUSES: Final = {one.label: one.value for one in Status}
SOURCES: Final = {one.label: one for one in CostSource}
NO_TOKENS: Final = Tokens()
FLAT_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)

_encode: Callable[[Any], bytes] = msgspec.json.Encoder(order="deterministic").encode
# NUL, which PostgreSQL cannot store, and what its COPY text format spells with a backslash.
_SPECIAL: Final = re.compile(r"[\x00\\\t\n\r\x08\x0b\x0c]")
_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\v": "\\v", "\f": "\\f"}
)
NULL: Final = "\\N"
# What reports may leave out: the bits of `usage_event.filled`, in this order.
FILLABLE: Final = (
    *("team", "customer", "agent", "user", "feature", "session", "task", "trace"),
    *("model", "provider", "tool", "operation", "status", "time", "saved_usd"),
)
BIT_OF: Final = {name: 1 << place for place, name in enumerate(FILLABLE)}
_NO_OPERATION: Final = BIT_OF["operation"]
_NO_STATUS: Final = BIT_OF["status"]
_NO_TIME: Final = BIT_OF["time"]
# How much a report is believed by the way that it came, without and with the provider's object.
_CLIENT: Final = (Authority.CLIENT.value, Authority.CLIENT_USAGE.value)
AUTHORITIES: Final = dict.fromkeys(Route, _CLIENT) | {
    Route.LITELLM: (Authority.CALLBACK.value, Authority.CALLBACK.value),
    Route.OTLP: (Authority.SPAN.value, Authority.SPAN_USAGE.value),
}
COMPLETE: Final = Completeness.COMPLETE.value
ESTIMATE: Final = Completeness.ESTIMATE.value
MISSING: Final = Completeness.MISSING.value


class PreparedEvent:
    """An event that fits the contract, ready to be written if it turns out to be new.

    `told` is the body with normal values, `body` the same with what its reservation adds.
    """

    __slots__ = (
        "amounts",
        "at",
        "authority",
        "body",
        "completeness",
        "cost_nanos",
        "cost_source",
        "filled",
        "fingerprint",
        "held",
        "index",
        "key",
        "operation",
        "price_id",
        "request_key",
        "response_key",
        "rest",
        "route",
        "service_tier",
        "span_key",
        "tokens",
        "told",
        "values",
        "windows",
    )

    def __init__(
        self,
        body: EventBody,
        *,
        index: int,
        at: datetime,
        tokens: Tokens,
        route: Route,
        held: Held | None = None,
    ) -> None:
        # Of the event as it was sent; everything else is of the values as they are stored.
        self.fingerprint = fingerprint_of(body)
        body = with_normal_values(body)
        # The reservation that the event names, where there is one: what the event leaves out is
        # taken from it, and the event counts in the windows that it holds.
        self.held = held
        self.told = body
        self.filled = (
            (_NO_OPERATION if body.operation is None else 0)
            | (_NO_STATUS if body.status is None else 0)
            | (_NO_TIME if body.time is None else 0)
        )
        if held is not None:
            body = inherit(body, held)
            self.filled |= _filled(self.told, body)
        self.body = body
        self.index = index
        self.route = route
        # `Authority` and `Completeness`, as numbers: this runs for every event.
        self.authority = AUTHORITIES[route][body.usage is not None]
        self.completeness = _completeness(body, tokens)
        self.at = at
        self.tokens = tokens
        self.operation = body.operation or _implied_operation(body)
        # A tier is priced differently; where the client does not say it, the provider's usage may.
        self.service_tier = body.service_tier or (
            service_tier(body.usage) if body.usage is not None else None
        )
        self.values: Values = (
            body.team or "",
            body.customer or "",
            body.agent or "",
            body.user or "",
            body.feature or "",
            body.session or "",
            body.task or "",
            body.trace or "",
            body.model or "",
            body.provider or "",
            body.tool or "",
            self.operation,
            body.status or "success",
            body.source or "",
        )
        self.key = key_of_id(body.source or "", body.id)
        self.response_key = key_of_response(body.response_id)
        self.request_key = key_of_request(body.request_id)
        self.span_key = key_of_span(body.trace, body.span) if body.span and body.trace else None
        self.cost_nanos: int | None = None
        self.price_id: int | None = None
        self.cost_source = CostSource.UNPRICED
        self.amounts = Amounts(0, 0, 0, 0)
        self.windows: tuple[WindowKey, ...] = ()
        self.rest = ""

    def reported(self) -> ReportedCall:
        """Return what breakers look at."""
        return ReportedCall(self.values, self.at, self.amounts, self.body.reservation)

    def judge(self, configuration: Configuration) -> None:
        """Rate the event and find its windows, by one version of the configuration."""
        body = self.body
        if body.cost_usd is not None:
            self.cost_nanos = nanos_from_usd(body.cost_usd)
            self.cost_source = CostSource.GIVEN
        else:
            self._rate(configuration)
        if self.cost_nanos is not None and self.cost_nanos > COST_NANOS_MAX:
            raise RejectEvent("cost_out_of_range", "No event costs more than 10,000,000 USD.")
        is_tool = self.operation == "tool"
        tokens = self.tokens
        self.amounts = Amounts(
            self.cost_nanos or 0,
            tokens.input_tokens + tokens.output_tokens,
            0 if is_tool else 1,
            1 if is_tool else 0,
        )
        book = configuration.budgets
        self.windows = book.windows_of(self.values, self.at)
        if self.held is not None:
            self.windows = self.held.windows_with(self.windows, book)
        if book.request_rules:
            self.windows += tuple(
                book.request_windows_of(self.values, self.key, self.at, self.amounts)
            )

    def note_saving(self, configuration: Configuration) -> None:
        """Where a cheaper model was used than the best of its route: what that saved."""
        held, body = self.held, self.body
        if held is None or held.top is None or body.saved_usd is not None:
            return
        if self.cost_nanos is None or held.top[1] == body.model:
            return
        provider, model = held.top
        top = configuration.prices.rate(
            provider=provider or None,
            model=model,
            at=self.at,
            tokens=self.tokens,
            service_tier=None,
            tool=None,
            operation=self.operation,
        )
        saved_nanos = top.cost_nanos - self.cost_nanos
        if top.source != UNPRICED and 0 < saved_nanos <= COST_NANOS_MAX:
            self.filled |= BIT_OF["saved_usd"]
            self.body = msgspec.structs.replace(body, saved_usd=usd_from_nanos(saved_nanos))

    def _rate(self, configuration: Configuration) -> None:
        body = self.body
        if self.completeness == MISSING:
            self.cost_nanos, self.price_id = None, None
            self.cost_source = CostSource.UNPRICED
            return
        rating = configuration.prices.rate(
            provider=body.provider,
            model=body.model,
            at=self.at,
            tokens=self.tokens,
            service_tier=self.service_tier,
            tool=body.tool,
            operation=self.operation,
        )
        self.cost_source = SOURCES[rating.source]
        self.cost_nanos = configuration.cost_of(rating, self.tokens)
        self.price_id = rating.price_id

    def line(self, event_id: int) -> str:
        """The event as a line of COPY text, in the order of COPY_COLUMNS."""
        cost = NULL if self.cost_nanos is None else self.cost_nanos
        price = NULL if self.price_id is None else self.price_id
        return f"{event_id}\t{cost}\t{price}\t{self.cost_source.value}\t{self.rest}"

    def row(self, event_id: int, *, tenant_id: int) -> dict[str, Any]:
        """The event as a row of `usage_event`, by column; what is absent is NULL."""
        body, tokens = self.body, self.tokens
        return {
            **dict(zip(TEXT_COLUMNS, (*self.values[:11], self.values[13], body.id), strict=True)),
            **{name: getattr(body, name) for name in BODY_COLUMNS},
            "id": event_id,
            "tenant_id": tenant_id,
            "time": self.at,
            "route": self.route.value,
            "authority": self.authority,
            "completeness": self.completeness,
            "filled": self.filled,
            "operation": OPERATIONS[self.operation],
            "status": STATUSES[self.values[12]],
            "cost_nanos": self.cost_nanos,
            "price_id": self.price_id,
            "cost_source": self.cost_source.value,
            "input_tokens": tokens.input_tokens,
            "output_tokens": tokens.output_tokens,
            "cache_read_tokens": tokens.cache_read_tokens,
            "cache_write_tokens": tokens.cache_write_tokens,
            "reasoning_tokens": tokens.reasoning_tokens,
            "cache_write_1h_tokens": tokens.cache_write_1h_tokens or None,
            "input_audio_tokens": tokens.input_audio_tokens or None,
            "output_audio_tokens": tokens.output_audio_tokens or None,
            "web_searches": tokens.web_searches or None,
            "saved_nanos": None if body.saved_usd is None else nanos_from_usd(body.saved_usd),
            "service_tier": self.service_tier,
            "reservation_id": body.reservation,
            "extra_usage": tokens.extra or None,
            "tags": body.tags or None,
        }


TEXT_COLUMNS: Final = (
    *("team", "customer", "agent", "user", "feature", "session", "task", "trace", "model"),
    *("provider", "tool", "source", "sent_id"),
)
BODY_COLUMNS: Final = (
    *("span", "parent_span", "response_id", "request_id", "requested_model", "error_type"),
    *("tool_arguments_hash", "task_type", "output_hash", "prefix_hash"),
    *("latency_ms", "time_to_first_token_ms", "max_output_tokens", "step", "complexity"),
)
COPY_COLUMNS: Final = (
    "id, cost_nanos, price_id, cost_source, key, fingerprint, response_key, request_key, span_key,"
    " tenant_id, time, route, authority, completeness, filled,"
    " operation, status, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,"
    " reasoning_tokens, cache_write_1h_tokens, input_audio_tokens, output_audio_tokens,"
    " web_searches,"
    " latency_ms, time_to_first_token_ms, max_output_tokens, saved_nanos, step, complexity,"
    ' reservation_id, team, customer, agent, "user", feature, session, task, trace, model,'
    " provider,"
    " tool, source, sent_id, span, parent_span, response_id, request_id, requested_model,"
    " service_tier,"
    " error_type,"
    " tool_arguments_hash, task_type, output_hash, prefix_hash, extra_usage, tags"
)


def _completeness(body: EventBody, tokens: Tokens) -> int:
    is_said = body.is_usage_missing or (body.usage is not None and _is_silent(body, tokens))
    if is_said and not tokens.input_tokens and not tokens.output_tokens:
        return MISSING
    return ESTIMATE if body.is_estimate else COMPLETE


def _is_silent(body: EventBody, tokens: Tokens) -> bool:
    """Whether a provider's usage object counts nothing although the call succeeded: it was not
    filled. What came out of a cache says what that saved.
    """
    return tokens == NO_TOKENS and body.status in (None, "success") and body.saved_usd is None


def _filled(told: EventBody, body: EventBody) -> int:
    """Which fields stand in `body` that were not told."""
    return sum(
        bit
        for name, bit in BIT_OF.items()
        if getattr(told, name) is None and getattr(body, name) is not None
    )


def fingerprint_of(body: EventBody) -> str:
    """A hash of the event as sent, whatever the order of its fields."""
    return blake2b(_encode(body), digest_size=16).hexdigest()


class Told(NamedTuple):
    """A report, where it stands in its body, and the reservation that it names.

    `tokens` are what the call used where several reports were counted together already.
    """

    place: int
    body: EventBody
    held: Held | None = None
    tokens: Tokens | None = None


class _Draft:
    """A report on its way to a prepared event, or to the reason why it is none."""

    __slots__ = ("at", "event", "rejection", "tokens", "told")

    def __init__(self, told: Told) -> None:
        self.told = told
        self.rejection: EventRejected | None = None
        self.at: datetime
        self.tokens: Tokens
        self.event: PreparedEvent

    @property
    def outcome(self) -> PreparedEvent | EventRejected:
        return self.event if self.rejection is None else self.rejection


def prepare_events(
    reports: Iterable[Told],
    *,
    now: datetime,
    max_age: timedelta,
    tenant_id: int,
    route: Route,
    configuration: Configuration,
) -> list[PreparedEvent | EventRejected]:
    """Judge each by the contract, the tenant's configuration, and its reservation.

    Step by step over all of them: doing the same to a thousand events takes a processor about half
    of the time that doing everything to one after the other takes (docs/decisions/0026).
    """
    drafts = [_Draft(told) for told in reports]

    def read(draft: _Draft) -> None:
        _, body, held, tokens = draft.told
        draft.at = _event_time(body, now=now, max_age=max_age)
        if tokens is None:
            tokens = _tokens(body if held is None else inherit(body, held))
        draft.tokens = tokens

    def build(draft: _Draft) -> None:
        place, body, held, _ = draft.told
        draft.event = PreparedEvent(
            body, index=place, at=draft.at, tokens=draft.tokens, route=route, held=held
        )

    def judge(draft: _Draft) -> None:
        _check_strings(draft.told.body)
        draft.event.judge(configuration)
        draft.event.note_saving(configuration)

    def write(draft: _Draft) -> None:
        draft.event.rest = rest_of_line(draft.event, tenant_id=tenant_id)

    for step in (read, build, judge, write):
        _take_step(step, drafts)
    return [draft.outcome for draft in drafts]


def _take_step(step: Callable[[_Draft], None], drafts: Iterable[_Draft]) -> None:
    for draft in drafts:
        if draft.rejection is None:
            try:
                step(draft)
            except RejectEvent as error:
                draft.rejection = error.rejection
                draft.rejection.event_id = draft.told.body.id


def prepare_event(
    told: Told,
    *,
    now: datetime,
    max_age: timedelta,
    tenant_id: int,
    route: Route,
    configuration: Configuration,
) -> PreparedEvent | EventRejected:
    """The same for one report."""
    (outcome,) = prepare_events(
        [told],
        now=now,
        max_age=max_age,
        tenant_id=tenant_id,
        route=route,
        configuration=configuration,
    )
    return outcome


def inherit(body: EventBody, held: Held) -> EventBody:
    """The event with what it leaves out taken from its reservation."""
    wanted = dict(zip(MATCHABLE, held.values, strict=True))
    says_little = body.model is None and not _has_tokens(body) and body.operation is None
    is_tool = (body.operation or _implied_operation(body)) == "tool" or (
        wanted["operation"] == "tool" and says_little
    )
    # A tool call is no call of the reservation's model, nor the other way round.
    names = (*INHERITED, "tool") if is_tool else (*INHERITED, "model", "provider")
    missing = {name: wanted[name] for name in names if wanted[name] and getattr(body, name) is None}
    if body.operation is None:
        operation = "tool" if is_tool else wanted["operation"]
        if is_tool or operation != "tool":
            missing["operation"] = operation
    return msgspec.structs.replace(body, **missing)


INHERITED: Final = ("team", "customer", "agent", "user", "feature", "session", "task", "trace")


def _implied_operation(body: EventBody) -> str:
    """A report of a tool and nothing that a model used is a tool call; everything else is `llm`."""
    is_tool = body.tool is not None and body.model is None and not _has_tokens(body)
    return "tool" if is_tool else "llm"


def _event_time(body: EventBody, *, now: datetime, max_age: timedelta) -> datetime:
    if body.time is None:
        return now
    if now - max_age <= body.time <= now + AHEAD_MAX:
        return body.time.astimezone(UTC)
    raise RejectEvent(
        "time_out_of_range",
        f"'time' must be within the last {max_age.days} days and at most 5 minutes ahead.",
        pointer="/time",
    )


def _has_tokens(body: EventBody) -> bool:
    return body.usage is not None or any(getattr(body, name) is not None for name in FLAT_FIELDS)


def _tokens(body: EventBody) -> Tokens:
    tokens = _tokens_as_sent(body)
    problem = check_tokens(tokens)
    if tokens.input_tokens > TOKENS_MAX or tokens.output_tokens > TOKENS_MAX:
        problem = "No call uses more than 1,000,000,000,000 tokens."
    if problem is not None:
        raise RejectEvent("inconsistent_tokens", problem)
    return tokens


def _tokens_as_sent(body: EventBody) -> Tokens:
    if body.usage is None:
        if not _has_tokens(body):
            if (
                body.cost_usd is None
                and body.tool is None
                and body.web_searches is None
                and not body.is_usage_missing
            ):
                raise RejectEvent(
                    "missing_usage",
                    "Send token counts, the provider's 'usage', 'cost_usd', or a 'tool'.",
                )
            return Tokens(web_searches=body.web_searches) if body.web_searches else NO_TOKENS
        return Tokens(
            input_tokens=body.input_tokens or 0,
            output_tokens=body.output_tokens or 0,
            cache_read_tokens=body.cache_read_tokens or 0,
            cache_write_tokens=body.cache_write_tokens or 0,
            cache_write_1h_tokens=body.cache_write_1h_tokens or 0,
            reasoning_tokens=body.reasoning_tokens or 0,
            input_audio_tokens=body.input_audio_tokens or 0,
            output_audio_tokens=body.output_audio_tokens or 0,
            web_searches=body.web_searches or 0,
        )
    try:
        tokens = normalise_usage(body.usage, provider=body.provider)
    except UnknownUsage as error:
        raise RejectEvent("unknown_usage", f"{error}", pointer="/usage") from error
    if body.web_searches and not tokens.web_searches:
        # Most usage objects cannot tell searches, which are billed beside the tokens.
        tokens = msgspec.structs.replace(tokens, web_searches=body.web_searches)
    for name in (*FLAT_FIELDS, "web_searches"):
        flat = getattr(body, name)
        if flat is not None and flat != getattr(tokens, name):
            raise RejectEvent(
                "usage_mismatch",
                f"{name!r} is {flat}, but 'usage' says {getattr(tokens, name)}; send one of them.",
                pointer=f"/{name}",
            )
    return tokens


def _check_strings(body: EventBody) -> None:
    if body.tags and len(_encode(body.tags)) > TAGS_BYTES_MAX:
        raise RejectEvent("invalid_value", "'tags' holds more than 16 KiB.", pointer="/tags")
    for name in ("cost_usd", "saved_usd"):
        value = getattr(body, name)
        if value is not None:
            try:
                nanos_from_usd(value)
            except ValueError as error:
                raise RejectEvent(
                    "invalid_value", f"{name!r} {error}.", pointer=f"/{name}"
                ) from error


def rest_of_line(event: PreparedEvent, *, tenant_id: int) -> str:
    """The part of the COPY line that neither a new rating nor a new id changes."""
    body, tokens = event.body, event.tokens
    texts = (
        *event.values[:11],
        event.values[13],
        body.id,
        body.span,
        body.parent_span,
        body.response_id,
        body.request_id,
        body.requested_model,
        event.service_tier,
        body.error_type,
        body.tool_arguments_hash,
        body.task_type,
        body.output_hash,
        body.prefix_hash,
        _encode(tokens.extra).decode() if tokens.extra else None,
        _encode(body.tags).decode() if body.tags else None,
    )
    special = _SPECIAL.search("".join([text for text in texts if text is not None]))
    if special is None:
        written = "\t".join([NULL if text is None else text for text in texts])
    elif special[0] == "\x00":
        raise RejectEvent("invalid_value", "A string holds the character NUL.")
    else:
        written = "\t".join([NULL if text is None else text.translate(_ESCAPES) for text in texts])
    optional = (
        f"{tokens.cache_write_1h_tokens or NULL}\t{tokens.input_audio_tokens or NULL}\t"
        f"{tokens.output_audio_tokens or NULL}\t{tokens.web_searches or NULL}\t"
        f"{NULL if body.latency_ms is None else body.latency_ms}\t"
        f"{NULL if body.time_to_first_token_ms is None else body.time_to_first_token_ms}\t"
        f"{NULL if body.max_output_tokens is None else body.max_output_tokens}\t"
        f"{NULL if body.saved_usd is None else nanos_from_usd(body.saved_usd)}\t"
        f"{NULL if body.step is None else body.step}\t"
        f"{NULL if body.complexity is None else body.complexity}\t"
        f"{_reservation(body) or NULL}"
    )
    return (
        f"{event.key}\t{event.fingerprint}\t{event.response_key or NULL}\t"
        f"{event.request_key or NULL}\t{event.span_key or NULL}\t{tenant_id}\t"
        f"{event.at.isoformat()}\t{event.route.value}\t{event.authority}\t"
        f"{event.completeness}\t{event.filled}\t"
        f"{OPERATIONS[event.operation]}\t{STATUSES[event.values[12]]}\t{tokens.input_tokens}\t"
        f"{tokens.output_tokens}\t{tokens.cache_read_tokens}\t{tokens.cache_write_tokens}\t"
        f"{tokens.reasoning_tokens}\t{optional}\t{written}\n"
    )


_UUID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def is_reservation_id(text: str) -> bool:
    """Whether this can be the id of a reservation."""
    return _UUID.fullmatch(text) is not None


def reservation_of(body: EventBody) -> UUID | None:
    """The reservation that an event names, None where it names none or no possible one."""
    if body.reservation is None or not is_reservation_id(body.reservation):
        return None
    return UUID(body.reservation)


def _reservation(body: EventBody) -> str | None:
    if body.reservation is None:
        return None
    if not is_reservation_id(body.reservation):
        raise RejectEvent(
            "invalid_value", "'reservation' is not the id of a reservation.", pointer="/reservation"
        )
    return body.reservation
