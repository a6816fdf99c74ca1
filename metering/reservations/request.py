"""What a reservation asks for: decoded, priced, and matched to windows. No database."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from common.errors import InvalidRequest, MalformedBody, RejectEvent
from common.json_bodies import holds_nul, require_shallow
from common.money import nanos_from_usd, usd_from_nanos
from metering.budgets.index import WindowKey
from metering.calls.preparation import TOKENS_MAX
from metering.calls.prepared_event import COST_NANOS_MAX
from metering.core.amounts import Amounts
from metering.core.match import Values
from metering.limits.estimates import ExpectedSize
from metering.limits.routes import RouteRule
from metering.pricing.book import UNPRICED, Rating
from metering.pricing.worst_case import CACHE_5M, Shape
from metering.snapshot import Configuration
from metering.usage.decoders.native import (
    COUNT_MAX,
    Count,
    Dimension,
    Name,
    Source,
    Usd,
    field_problem,
)
from metering.usage.decoders.values import with_normal_values
from metering.usage.shapes import INFERENCE_GEO, UNITS, Tokens

TTL_SECONDS_DEFAULT: Final = 300
TTL_SECONDS_MAX: Final = 3600
CHOICES_MAX: Final = 1024

NOTHING: Final = Amounts(0, 0, 0, 0)
Ttl = Annotated[int, msgspec.Meta(ge=1, le=TTL_SECONDS_MAX)]


Modality = Literal["text", "image", "audio", "video"]
Quantity = (
    Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
    | Annotated[float, msgspec.Meta(ge=0, le=COUNT_MAX)]
)


class CacheControl(msgspec.Struct):
    """A provider's own word for what it shall cache."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = CACHE_5M


class AskBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The body of `POST /v1/reservations`."""

    provider: Dimension | None = None
    model: Dimension | None = None
    team: Dimension | None = None
    customer: Dimension | None = None
    agent: Dimension | None = None
    user: Dimension | None = None
    feature: Dimension | None = None
    session: Dimension | None = None
    task: Dimension | None = None
    trace: Dimension | None = None
    tool: Dimension | None = None
    operation: Literal["llm", "embedding", "tool", "other"] | None = None
    source: Source | None = None
    service_tier: Name | None = None
    task_type: Name | None = None
    complexity: Annotated[int, msgspec.Meta(ge=0, le=10)] | None = None
    amount_usd: Usd | None = None
    input_tokens: Count | None = None
    max_output_tokens: Count | None = None
    # Of `max_output_tokens` each.
    choices: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] | None = None
    web_searches: Count | None = None
    # What is billed by something else than tokens, by usage key: `input_characters`, say.
    units: dict[str, Quantity] | None = None
    cache_control: Literal["none", "5m", "1h"] | CacheControl | None = None
    input_modalities: list[Modality] | None = None
    modalities: list[Modality] | None = None
    inference_geo: Name | None = None
    estimate: Literal["max", "expected"] = "max"
    ttl_seconds: Ttl = TTL_SECONDS_DEFAULT


class ExtendBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/reservations/{id}/extend`."""

    ttl_seconds: Ttl = TTL_SECONDS_DEFAULT


_decode_ask = msgspec.json.Decoder(AskBody).decode
_decode_extend = msgspec.json.Decoder(ExtendBody).decode


def decode_ask(body: bytes) -> AskBody:
    """The body as the contract has it. Raises MalformedBody or InvalidRequest."""
    ask: AskBody = _decode(_decode_ask, body, AskBody)
    try:
        ask = with_normal_values(ask)
    except RejectEvent as error:
        rejection = error.rejection
        problem = {
            "pointer": rejection.pointer,
            "code": rejection.code,
            "detail": rejection.detail,
        }
        raise InvalidRequest(rejection.detail, errors=[problem]) from error
    _require_amount(ask)
    return ask


def decode_extend(body: bytes) -> ExtendBody:
    """The body of an extension; an empty one asks for the default."""
    extension: ExtendBody = _decode(_decode_extend, body if body.strip() else b"{}", ExtendBody)
    return extension


def _decode(decode: Any, body: bytes, kind: type[msgspec.Struct]) -> Any:
    require_shallow(body)
    try:
        found = decode(body)
    except msgspec.ValidationError as error:
        code, detail, pointer = field_problem(error, kind.__struct_fields__)
        problem = {"pointer": pointer or "", "code": code, "detail": detail}
        raise InvalidRequest(detail, errors=[problem]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    if b"\\u0000" in body and holds_nul(found):
        raise InvalidRequest("A string holds the character NUL.")
    return found


def _require_amount(ask: AskBody) -> None:
    """Raise InvalidRequest where nothing says how much the call may cost."""
    if ask.amount_usd is None and not has_size(ask) and not is_tool_call(ask):
        raise _missing(
            "Say how much to hold: 'amount_usd', or 'input_tokens' and 'max_output_tokens'.",
            pointer="/max_output_tokens" if ask.input_tokens is not None else "/amount_usd",
        )
    if ask.amount_usd is not None:
        _check_amount(ask.amount_usd)
    elif ask.model is None and not is_tool_call(ask):
        raise _missing("Tokens and units need a 'model' to be priced by.", pointer="/model")
    if max(ask.input_tokens or 0, (ask.max_output_tokens or 0) * (ask.choices or 1)) > TOKENS_MAX:
        raise _invalid_value("/input_tokens", f"No call uses more than {TOKENS_MAX:,} tokens.")
    for unit in ask.units or ():
        if unit not in UNITS:
            known = ", ".join(sorted(UNITS))
            raise _invalid_value(
                f"/units/{unit[:100]}", f"{unit[:100]!r} is no unit; there are {known}."
            )


def _check_amount(amount_usd: str | int | float) -> None:
    try:
        nanos = nanos_from_usd(amount_usd)
    except ValueError as error:
        raise _invalid_value("/amount_usd", f"'amount_usd' {error}.") from error
    if nanos > COST_NANOS_MAX:
        most = usd_from_nanos(COST_NANOS_MAX)
        raise _invalid_value("/amount_usd", f"'amount_usd' is more than {most} USD.")


def has_size(ask: AskBody) -> bool:
    """Whether the ask says how much the model may read and write at most."""
    has_tokens = ask.input_tokens is not None and ask.max_output_tokens is not None
    return has_tokens or any((ask.units or {}).values())


def _missing(detail: str, *, pointer: str) -> InvalidRequest:
    return InvalidRequest(
        detail, errors=[{"pointer": pointer, "code": "missing_field", "detail": detail}]
    )


def _invalid_value(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        detail, errors=[{"pointer": pointer, "code": "invalid_value", "detail": detail}]
    )


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
    without a price, tokens that were not named) and of what is stated as nothing, so that neither
    is ever unlimited. `unknown` says why nobody can tell the cost, where that is so.
    """

    provider: str
    model: str
    values: Values
    amounts: Amounts
    checked: Amounts
    windows: tuple[WindowKey, ...]
    unknown: str = ""

    @property
    def is_unpriced(self) -> bool:
        return bool(self.unknown)


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
        top = self._rating(configuration, *self.top)
        self.top_nanos = None if top.source == UNPRICED else top.cost_nanos
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
        is_tool = values[11] == "tool"
        used = self._expected_tokens(model) or _shape_of(body).as_tokens()
        tokens = used.input_tokens + used.output_tokens
        rating = self._rating(configuration, provider, model)
        cost = configuration.cost_of(rating, used) or 0
        unknown = _why_unknown(rating, model)
        if body.amount_usd is not None:
            amount = nanos_from_usd(body.amount_usd)
            if amount:
                unknown = ""
            elif not is_tool and not unknown and not has_size(body) and not rating.is_free:
                unknown = f"an amount of $0 holds nothing for a call of the model {model!r}"
            # What the call says of its size is what it may cost, however small an amount it states.
            cost = max(amount, rating.cost_nanos if amount else cost)
        size = self.sizes.get(model or "")
        if size is not None and tokens <= size.tokens:
            # Such calls are cheaper than their tokens say: much of their input is cached.
            cost = min(cost, size.cost_nanos)
        amounts = Amounts(cost, tokens, 0 if is_tool else 1, 1 if is_tool else 0)
        is_nothing_sure = is_tool or (not unknown and rating.is_free)
        return Offer(
            provider=provider or "",
            model=model or "",
            values=values,
            amounts=amounts,
            checked=amounts._replace(
                cost_nanos=cost or int(not is_nothing_sure or body.amount_usd is not None),
                tokens=tokens or (1 if body.max_output_tokens is None and not is_tool else 0),
            ),
            windows=configuration.budgets.windows_of(values, self.at),
            unknown=unknown,
        )

    def _expected_tokens(self, model: str | None) -> Tokens | None:
        """What such calls usually write, where that is known and asked for; their input as said."""
        size = self.sizes.get(model or "")
        if size is None or self.body.amount_usd is not None:
            return None
        worst = _shape_of(self.body).as_tokens()
        geo = self.body.inference_geo
        return msgspec.structs.replace(
            worst,
            output_tokens=min(worst.output_tokens, size.output_tokens),
            extra={**(worst.extra or {}), INFERENCE_GEO: geo.lower()} if geo else worst.extra,
        )

    def _rating(
        self, configuration: Configuration, provider: str | None, model: str | None
    ) -> Rating:
        """What the call is expected to cost, or else the most that it may."""
        body = self.body
        operation = operation_of(body)
        expected = self._expected_tokens(model)
        if operation == "tool" or expected is not None:
            return configuration.prices.rate(
                provider=provider,
                model=model,
                at=self.at,
                tokens=expected or Tokens(),
                service_tier=body.service_tier,
                tool=body.tool,
                operation=operation,
            )
        return configuration.prices.worst_case(
            provider=provider,
            model=model,
            # The call may begin while the hold lasts, and prices change by the date and the hour.
            moments=(self.at, self.at + timedelta(seconds=body.ttl_seconds)),
            shape=_shape_of(body),
            service_tier=body.service_tier,
            geo=(body.inference_geo or "").lower() or None,
        )


def _why_unknown(rating: Rating, model: str | None) -> str:
    """Why nobody can tell what the call costs; empty where one can."""
    if rating.source != UNPRICED:
        return ""
    name = f"the model {model!r}" if model else "a call without a model"
    if not rating.unrated:
        return f"{name} has no price"
    return f"the price of {name} has no rate for {', '.join(rating.unrated)}"


def _shape_of(body: AskBody) -> Shape:
    """What the request allows, as far as it says."""
    searches = {"web_searches": body.web_searches} if body.web_searches else {}
    cache = body.cache_control
    return Shape(
        input_tokens=body.input_tokens or 0,
        output_tokens=(body.max_output_tokens or 0) * (body.choices or 1),
        units={**(body.units or {}), **searches},
        cache=cache.ttl if isinstance(cache, CacheControl) else cache,
        input_modalities=body.input_modalities,
        output_modalities=body.modalities,
    )
