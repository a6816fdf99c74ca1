"""One event, ready to be written: tokens normalized, rated, matched to windows. No database."""

import re
from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from common.errors import RejectEvent
from common.money import NANOS_PER_USD, nanos_from_usd
from metering.budgets.index import WindowKey, WindowsOf
from metering.calls.inheritance import implied_operation, inherit
from metering.core.amounts import NOTHING, Amounts
from metering.core.match import POSITION, Values
from metering.ledger.holds import Held
from metering.limits.breakers.feed import ReportedCall
from metering.models import Authority, Completeness, CostSource, Operation, Route, Status
from metering.pricing.book import UNPRICED
from metering.snapshot import Configuration
from metering.usage.columns import (
    WRITTEN,
    dimension_values,
    key_values,
    objects,
    plain_values,
    texts,
)
from metering.usage.decoders.native import EventBody
from metering.usage.decoders.values import with_normal_values
from metering.usage.event_keys import key_of_id, key_of_request, key_of_response, key_of_span
from metering.usage.shapes import Tokens, service_tier

# More than any call costs, and little enough that sums of many fit their columns.
COST_NANOS_MAX: Final = 10_000_000 * NANOS_PER_USD
OPERATION_NUMBERS: Final = {operation.label: operation.value for operation in Operation}
STATUS_NUMBERS: Final = {status.label: status.value for status in Status}
COST_SOURCES: Final = {source.label: source for source in CostSource}
NO_TOKENS: Final = Tokens()

encode: Final[Callable[[object], bytes]] = msgspec.json.Encoder(order="deterministic").encode
# NUL, which PostgreSQL cannot store, and what its COPY text format spells with a backslash.
_SPECIAL: Final = re.compile(r"[\x00\\\t\n\r\x08\x0b\x0c]")
_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\v": "\\v", "\f": "\\f"}
)
NULL: Final = "\\N"
_TABS: Final = bytes.maketrans(b",", b"\t")
# What reports may leave out: the bits of `usage_event.filled`, in this order.
FILLABLE: Final = (
    *("team", "customer", "agent", "user", "feature", "session", "task", "trace"),
    *("model", "provider", "tool", "operation", "status", "time", "saved_usd"),
)
BIT_OF: Final = {name: 1 << position for position, name in enumerate(FILLABLE)}
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


STATUS: Final = POSITION["status"]


class PreparedEvent:
    """An event that fits the contract, ready to be written if it turns out to be new.

    `sent_body` is the body with normal values, `body` the same with what its reservation adds.
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
        "is_conflict",
        "key",
        "operation",
        "operation_number",
        "price_id",
        "request_key",
        "response_key",
        "rest_of_line",
        "route",
        "saved_nanos",
        "sent_body",
        "service_tier",
        "span_key",
        "status_number",
        "tokens",
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
        self.sent_body = body
        self.filled = (
            (_NO_OPERATION if body.operation is None else 0)
            | (_NO_STATUS if body.status is None else 0)
            | (_NO_TIME if body.time is None else 0)
        )
        if held is not None:
            body = inherit(body, held)
            self.filled |= _filled(self.sent_body, body)
        self.body = body
        self.index = index
        self.route = route
        # `Authority` and `Completeness`, as numbers: this runs for every event.
        self.authority = AUTHORITIES[route][body.usage is not None]
        self.completeness = _completeness(body, tokens)
        self.at = at
        self.tokens = tokens
        self.operation = body.operation or implied_operation(body)
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
        self.operation_number = OPERATION_NUMBERS[self.operation]
        self.status_number = STATUS_NUMBERS[self.values[STATUS]]
        self.is_conflict = False
        self.saved_nanos = None if body.saved_usd is None else nanos_from_usd(body.saved_usd)
        self.key = key_of_id(body.source or "", body.id)
        self.response_key = key_of_response(body.response_id)
        self.request_key = key_of_request(body.request_id)
        self.span_key = key_of_span(body.trace, body.span) if body.span and body.trace else None
        self.cost_nanos: int | None = None
        self.price_id: int | None = None
        self.cost_source = CostSource.UNPRICED
        self.amounts = NOTHING
        self.windows: tuple[WindowKey, ...] = ()
        self.rest_of_line = ""

    def breaker_call(self) -> ReportedCall:
        """Return what breakers look at."""
        return ReportedCall(self.values, self.at, self.amounts, self.body.reservation)

    def judge(self, configuration: Configuration, find_windows: WindowsOf | None = None) -> None:
        """Rate the event and find its windows, by one version of the configuration. What finds them
        may be shared with other events.
        """
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
        self.windows = (find_windows or book.windows_of)(self.values, self.at)
        if self.held is not None:
            self.windows = self.held.windows_with(self.windows, book)
        if book.request_rules:
            self.windows += tuple(
                book.request_windows_of(self.values, self.key, self.at, self.amounts)
            )

    def note_saving(self, configuration: Configuration) -> None:
        """Note what was saved if a cheaper model was used than the best of its route."""
        top_model = self.held.top if self.held is not None else None
        if top_model is None or self.saved_nanos is not None or self.cost_nanos is None:
            return
        provider, model = top_model
        if model == self.body.model:
            return
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
            self.saved_nanos = saved_nanos

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
        self.cost_source = COST_SOURCES[rating.source]
        self.cost_nanos = configuration.cost_of(rating, self.tokens)
        self.price_id = rating.price_id

    def line(self, event_id: int) -> str:
        """Return the event as a line of COPY text: the columns of COPIED."""
        cost = NULL if self.cost_nanos is None else self.cost_nanos
        price = NULL if self.price_id is None else self.price_id
        return f"{event_id}\t{cost}\t{price}\t{self.cost_source.value}\t{self.rest_of_line}"

    def write_line(self, *, tenant_id: int) -> None:
        """Write the part of the COPY line that neither a new rating nor a new id changes."""
        plain = (tenant_id, *plain_values(self), *key_values(self))
        # The JSON of numbers, times and hashes is COPY text but for these marks.
        numbers = encode(plain)[1:-1].translate(_TABS, b'"').replace(b"null", b"\\N").decode()
        words = [
            *dimension_values(self.values),
            *texts(self),
            *[encode(value).decode() if value else None for value in objects(self)],
        ]
        text = "".join(filter(None, words))
        # What is printable is no control character, and that is found out much faster.
        is_plain = text.isprintable() and "\\" not in text
        special = None if is_plain else _SPECIAL.search(text)
        if special is None:
            written = "\t".join([NULL if word is None else word for word in words])
        elif special[0] == "\x00":
            raise RejectEvent("invalid_value", "A string holds the character NUL.")
        else:
            written = "\t".join(
                [NULL if word is None else word.translate(_ESCAPES) for word in words]
            )
        self.rest_of_line = f"{numbers}\t{written}\n"

    def row(self, event_id: int, *, tenant_id: int) -> dict[str, object]:
        """Return the event as a row of `usage_event`, by column; what is absent is NULL."""
        values = (
            *(event_id, self.cost_nanos, self.price_id, self.cost_source.value, tenant_id),
            *plain_values(self),
            *dimension_values(self.values),
            *texts(self),
            *[value or None for value in objects(self)],
        )
        return dict(zip(WRITTEN, values, strict=True))


def _completeness(body: EventBody, tokens: Tokens) -> int:
    is_unknown = body.is_usage_missing or (body.usage is not None and _is_silent(body, tokens))
    if is_unknown and not tokens.input_tokens and not tokens.output_tokens:
        return MISSING
    return ESTIMATE if body.is_estimate else COMPLETE


def _is_silent(body: EventBody, tokens: Tokens) -> bool:
    """Return whether a provider's usage object was left unfilled: it counts nothing although the
    call succeeded. A call that was answered from a cache says what that saved.
    """
    return tokens == NO_TOKENS and body.status in (None, "success") and body.saved_usd is None


def _filled(sent_body: EventBody, body: EventBody) -> int:
    """Return the bits of the fields that stand in `body` and were not sent."""
    return sum(
        bit
        for name, bit in BIT_OF.items()
        if getattr(sent_body, name) is None and getattr(body, name) is not None
    )


def fingerprint_of(body: EventBody) -> str:
    """Return a hash of the event as sent, whatever the order of its fields."""
    return blake2b(encode(body), digest_size=16).hexdigest()
