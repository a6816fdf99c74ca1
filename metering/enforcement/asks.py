"""What a reservation asks for: decoded, priced, and matched to windows. No database."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from metering.budget_rules import Amounts, Values, WindowKey
from metering.configuration import Configuration
from metering.decoders.native import Count, Dimension, Name, holds_nul, require_shallow
from metering.enforcement.estimates import ExpectedSize
from metering.enforcement.routes import RouteRule
from metering.errors import InvalidRequest, MalformedBody
from metering.events import COST_NANOS_MAX, TOKENS_MAX
from metering.money import nanos_from_usd, usd_from_nanos
from metering.usage_shapes import Tokens

TTL_SECONDS_DEFAULT: Final = 300
TTL_SECONDS_MAX: Final = 3600

NOTHING: Final = Amounts(0, 0, 0, 0)
Ttl = Annotated[int, msgspec.Meta(ge=1, le=TTL_SECONDS_MAX)]


class AskBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The body of `POST /v1/reservations`."""

    provider: Name | None = None
    model: Dimension | None = None
    team: Dimension | None = None
    customer: Dimension | None = None
    agent: Dimension | None = None
    user: Dimension | None = None
    feature: Dimension | None = None
    session: Dimension | None = None
    task: Dimension | None = None
    trace: Dimension | None = None
    tool: Name | None = None
    operation: Literal["llm", "embedding", "tool", "other"] | None = None
    source: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    service_tier: Name | None = None
    task_type: Name | None = None
    complexity: Annotated[int, msgspec.Meta(ge=0, le=10)] | None = None
    amount_usd: str | int | float | None = None
    input_tokens: Count | None = None
    max_output_tokens: Count | None = None
    estimate: Literal["max", "expected"] = "max"
    ttl_seconds: Ttl = TTL_SECONDS_DEFAULT


class ExtendBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/reservations/{id}/extend`."""

    ttl_seconds: Ttl = TTL_SECONDS_DEFAULT


_decode_ask = msgspec.json.Decoder(AskBody).decode
_decode_extend = msgspec.json.Decoder(ExtendBody).decode


def decode_ask(body: bytes) -> AskBody:
    """The body as the contract has it. Raises MalformedBody or InvalidRequest."""
    ask: AskBody = _decode(_decode_ask, body)
    _require_amount(ask)
    return ask


def decode_extend(body: bytes) -> ExtendBody:
    """The body of an extension; an empty one asks for the default."""
    extension: ExtendBody = _decode(_decode_extend, body if body.strip() else b"{}")
    return extension


def _decode(decode: Any, body: bytes) -> Any:
    require_shallow(body)
    try:
        found = decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    if b"\\u0000" in body and holds_nul(found):
        raise InvalidRequest("A string holds the character NUL.")
    return found


def _invalid(text: str) -> InvalidRequest:
    message, _, path = text.partition(" - at `$")
    pointer = path.rstrip("`").replace(".", "/")
    where = f"{pointer[1:]!r}: " if pointer else ""
    detail = f"{where}{message}."
    code = "unknown_field" if "unknown field" in message else "invalid_value"
    return InvalidRequest(detail, errors=[{"pointer": pointer, "code": code, "detail": detail}])


def _require_amount(ask: AskBody) -> None:
    """Raise InvalidRequest where nothing says how much the call may cost."""
    has_tokens = ask.input_tokens is not None and ask.max_output_tokens is not None
    if ask.amount_usd is None and not has_tokens and not is_tool_call(ask):
        raise _missing(
            "Say how much to hold: 'amount_usd', or 'input_tokens' and 'max_output_tokens'.",
            pointer="/max_output_tokens" if ask.input_tokens is not None else "/amount_usd",
        )
    if ask.amount_usd is not None:
        try:
            nanos = nanos_from_usd(ask.amount_usd)
        except ValueError as error:
            detail = f"'amount_usd' {error}."
            raise InvalidRequest(detail, errors=[_error("/amount_usd", detail)]) from error
        if nanos > COST_NANOS_MAX:
            detail = f"'amount_usd' is more than {usd_from_nanos(COST_NANOS_MAX)} USD."
            raise InvalidRequest(detail, errors=[_error("/amount_usd", detail)])
    elif has_tokens and ask.model is None and not is_tool_call(ask):
        raise _missing("Tokens need a 'model' to be priced by.", pointer="/model")
    if max(ask.input_tokens or 0, ask.max_output_tokens or 0) > TOKENS_MAX:
        detail = f"No call uses more than {TOKENS_MAX:,} tokens."
        raise InvalidRequest(detail, errors=[_error("/input_tokens", detail)])


def _missing(detail: str, *, pointer: str) -> InvalidRequest:
    return InvalidRequest(
        detail, errors=[{"pointer": pointer, "code": "missing_field", "detail": detail}]
    )


def _error(pointer: str, detail: str) -> dict[str, str]:
    return {"pointer": pointer, "code": "invalid_value", "detail": detail}


def is_tool_call(ask: AskBody) -> bool:
    """Whether the ask is for a tool: said so, or a tool and nothing that a model uses."""
    return operation_of(ask) == "tool"


def operation_of(ask: AskBody) -> str:
    """The operation as said, or as implied by what is asked for."""
    if ask.operation is not None:
        return ask.operation
    is_tool = ask.tool is not None and ask.model is None and ask.input_tokens is None
    return "tool" if is_tool else "llm"


def values_of(ask: AskBody, *, provider: str | None, model: str | None) -> Values:
    """The dimensions in the order of MATCHABLE, for the model that would be used."""
    return (
        ask.team or "",
        ask.customer or "",
        ask.agent or "",
        ask.user or "",
        ask.feature or "",
        ask.session or "",
        ask.task or "",
        ask.trace or "",
        model or "",
        provider or "",
        ask.tool or "",
        operation_of(ask),
        "success",
        ask.source or "",
    )


class Offer(NamedTuple):
    """One way to do what is asked: with the model that was named, or with a cheaper one.

    `checked` is what is compared with limits: at least one of what nobody could tell (a cost
    without a price, tokens that were not named), so that what is not known is never unlimited.
    """

    provider: str
    model: str
    values: Values
    amounts: Amounts
    checked: Amounts
    is_unpriced: bool
    windows: tuple[WindowKey, ...]


def route_of(body: AskBody, configuration: Configuration) -> RouteRule | None:
    """The route of what is asked, where its tokens say what each model would cost."""
    if not configuration.routes or body.model is None or body.input_tokens is None:
        return None
    return configuration.routes.choose(body.task_type)


class Ask:
    """A reservation that is asked for, judged by one version of the configuration."""

    __slots__ = (
        "at",
        "body",
        "cheaper",
        "estimate",
        "key_prefix",
        "offer",
        "sizes",
        "top",
        "top_nanos",
    )

    def __init__(self, body: AskBody, *, key_prefix: str, at: datetime) -> None:
        self.body = body
        self.key_prefix = key_prefix
        self.at = at
        self.estimate = "amount" if body.amount_usd is not None else body.estimate
        # What such calls usually use, by model; the caller looks it up.
        self.sizes: Mapping[str, ExpectedSize] = {}
        # Not judged yet: nothing is known but the values.
        self.offer = Offer(
            provider=body.provider or "",
            model=body.model or "",
            values=values_of(body, provider=body.provider, model=body.model),
            amounts=NOTHING,
            checked=NOTHING,
            is_unpriced=False,
            windows=(),
        )
        self.cheaper: Offer | None = None
        self.top: tuple[str, str] | None = None
        self.top_nanos: int | None = None

    def judge(self, configuration: Configuration) -> None:
        """Price what is asked and find its windows, and those of a cheaper model."""
        body = self.body
        self.offer = self._offer(configuration, body.provider, body.model)
        self.cheaper = self.top = self.top_nanos = None
        route = route_of(body, configuration)
        if route is None:
            return
        self.top = (route.top.provider, route.top.model)
        self.top_nanos = self._nanos(configuration, *self.top, _worst_tokens(body))
        tier = route.tier_for(body.complexity)
        if tier.model != body.model:
            cheaper = self._offer(configuration, tier.provider, tier.model)
            if not cheaper.is_unpriced and cheaper.amounts[0] < self.offer.amounts[0]:
                self.cheaper = cheaper

    def window_keys(self) -> tuple[WindowKey, ...]:
        """Every window that may be held."""
        if self.cheaper is None:
            return self.offer.windows
        return tuple({*self.offer.windows, *self.cheaper.windows})

    def _offer(
        self, configuration: Configuration, provider: str | None, model: str | None
    ) -> Offer:
        body = self.body
        values = values_of(body, provider=provider, model=model)
        used = self._tokens(model)
        tokens = used.input_tokens + used.output_tokens
        cost: int | None
        if body.amount_usd is not None:
            cost = nanos_from_usd(body.amount_usd)
        else:
            cost = self._nanos(configuration, provider, model, used)
        is_unpriced = cost is None
        if cost is None:
            cost = configuration.assumed_nanos(used) or 0
        size = self.sizes.get(model or "")
        if size is not None and tokens <= size.tokens:
            # Such calls are cheaper than their tokens say: much of their input is cached.
            cost = min(cost, size.cost_nanos)
        is_tool = values[11] == "tool"
        amounts = Amounts(cost, tokens, 0 if is_tool else 1, 1 if is_tool else 0)
        return Offer(
            provider=provider or "",
            model=model or "",
            values=values,
            amounts=amounts,
            checked=amounts._replace(
                cost_nanos=cost or (1 if is_unpriced else 0),
                tokens=tokens or (1 if body.max_output_tokens is None and not is_tool else 0),
            ),
            is_unpriced=is_unpriced,
            windows=configuration.budgets.windows_of(values, self.at),
        )

    def _tokens(self, model: str | None) -> Tokens:
        """What is held of tokens: the worst case, or what such calls usually write."""
        worst = _worst_tokens(self.body)
        size = self.sizes.get(model or "")
        if size is None or self.body.amount_usd is not None:
            return worst
        return Tokens(
            input_tokens=worst.input_tokens,
            output_tokens=min(worst.output_tokens, size.output_tokens),
        )

    def _nanos(
        self,
        configuration: Configuration,
        provider: str | None,
        model: str | None,
        used: Tokens,
    ) -> int | None:
        """What the call costs with these tokens, None without a price."""
        body = self.body
        rating = configuration.prices.rate(
            provider=provider,
            model=model,
            at=self.at,
            tokens=used,
            service_tier=body.service_tier,
            tool=body.tool,
            operation=operation_of(body),
        )
        return None if rating.source == "unpriced" else rating.cost_nanos


def _worst_tokens(body: AskBody) -> Tokens:
    return Tokens(input_tokens=body.input_tokens or 0, output_tokens=body.max_output_tokens or 0)
