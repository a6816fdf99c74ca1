"""A reservation request: decoded, priced, and matched to the windows that it would hold."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec

from common.errors import InvalidRequest, MalformedBody, RejectEvent
from common.json_bodies import holds_nul, require_shallow
from common.money import nanos_from_usd, usd_from_nanos
from common.values import COUNT_MAX
from metering.budgets.index import WindowKey
from metering.calls.preparation import TOKENS_MAX
from metering.calls.prepared_event import COST_NANOS_MAX
from metering.core.amounts import NOTHING, Amounts
from metering.core.dimensions import MATCHABLE
from metering.core.match import POSITION, Values
from metering.limits.estimates import ExpectedSize, expected_size
from metering.pricing.book import UNPRICED, Rating
from metering.pricing.worst_case import CACHE_5M, Shape
from metering.snapshot import Configuration
from metering.usage.decoders.native import Count, Dimension, Name, Source, Usd, field_problem
from metering.usage.decoders.values import with_normal_values
from metering.usage.shapes import INFERENCE_GEO, UNITS, Tokens

TTL_SECONDS_DEFAULT: Final = 300
TTL_SECONDS_MAX: Final = 3600
CHOICES_MAX: Final = 1024
Ttl = Annotated[int, msgspec.Meta(ge=1, le=TTL_SECONDS_MAX)]
Modality = Literal["text", "image", "audio", "video"]
Quantity = (
    Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
    | Annotated[float, msgspec.Meta(ge=0, le=COUNT_MAX)]
)


class CacheControl(msgspec.Struct):
    """A provider's own way to say what to cache."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = CACHE_5M


class ReservationBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
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
    # What is not billed by tokens, by usage key: `input_characters`, for example.
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


_decode_reservation = msgspec.json.Decoder(ReservationBody).decode
_decode_extend = msgspec.json.Decoder(ExtendBody).decode


Body = TypeVar("Body", bound=msgspec.Struct)


def decode_reservation(data: bytes) -> ReservationBody:
    """Decode a body by the contract. Raises MalformedBody or InvalidRequest."""
    body: ReservationBody = _decode(_decode_reservation, data, ReservationBody)
    try:
        body = with_normal_values(body)
    except RejectEvent as error:
        rejection = error.rejection
        raise _invalid(rejection.pointer, rejection.code, rejection.detail) from error
    _require_amount(body)
    return body


def decode_extend(data: bytes) -> ExtendBody:
    """Decode the body of an extension; an empty one asks for the default."""
    body: ExtendBody = _decode(_decode_extend, data if data.strip() else b"{}", ExtendBody)
    return body


def _decode(decode: Callable[[bytes], Body], data: bytes, kind: type[Body]) -> Body:
    require_shallow(data)
    try:
        body = decode(data)
    except msgspec.ValidationError as error:
        code, detail, pointer = field_problem(error, kind)
        raise _invalid(pointer, code, detail) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    if b"\\u0000" in data and holds_nul(body):
        raise InvalidRequest("A string holds the character NUL.")
    return body


def _invalid(pointer: str | None, code: str, detail: str) -> InvalidRequest:
    problem = {"pointer": pointer or "", "code": code, "detail": detail}
    return InvalidRequest(detail, errors=[problem])


def _require_amount(body: ReservationBody) -> None:
    """Raise InvalidRequest if nothing says how much the call may cost."""
    is_tool_call = operation_of(body) == "tool"
    if body.amount_usd is None and not has_size(body) and not is_tool_call:
        raise _invalid(
            "/max_output_tokens" if body.input_tokens is not None else "/amount_usd",
            "missing_field",
            "Say how much to hold: 'amount_usd', or 'input_tokens' and 'max_output_tokens'.",
        )
    if body.amount_usd is not None:
        _check_amount(body.amount_usd)
    elif body.model is None and not is_tool_call:
        detail = "Tokens and units need a 'model' to be priced by."
        raise _invalid("/model", "missing_field", detail)
    output_tokens = (body.max_output_tokens or 0) * (body.choices or 1)
    if max(body.input_tokens or 0, output_tokens) > TOKENS_MAX:
        detail = f"No call uses more than {TOKENS_MAX:,} tokens."
        raise _invalid("/input_tokens", "invalid_value", detail)
    for unit in body.units or ():
        if unit not in UNITS:
            name = unit[:100]
            detail = f"{name!r} is no unit; there are {', '.join(sorted(UNITS))}."
            raise _invalid(f"/units/{name}", "invalid_value", detail)


def _check_amount(amount_usd: str | int | float) -> None:
    try:
        nanos = nanos_from_usd(amount_usd)
    except ValueError as error:
        raise _invalid("/amount_usd", "invalid_value", f"'amount_usd' {error}.") from error
    if nanos > COST_NANOS_MAX:
        detail = f"'amount_usd' is more than {usd_from_nanos(COST_NANOS_MAX)} USD."
        raise _invalid("/amount_usd", "invalid_value", detail)


def has_size(body: ReservationBody) -> bool:
    """Whether the body says how much the model may read and write at most."""
    has_tokens = body.input_tokens is not None and body.max_output_tokens is not None
    return has_tokens or any((body.units or {}).values())


def operation_of(body: ReservationBody) -> str:
    """Return the operation as stated, or as implied: a tool and nothing that a model uses."""
    if body.operation is not None:
        return body.operation
    is_tool = body.tool is not None and body.model is None and body.input_tokens is None
    return "tool" if is_tool else "llm"


def _values_of(body: ReservationBody) -> Values:
    """Return the dimensions in the order of MATCHABLE."""
    values: list[str] = [getattr(body, name, None) or "" for name in MATCHABLE]
    values[POSITION["operation"]] = operation_of(body)
    values[POSITION["status"]] = "success"
    return tuple(values)


class Candidate(NamedTuple):
    """One way to make the call: with the model that was named, or with a cheaper one.

    `checked` is what is compared with limits: at least one of everything unknown (a cost without a
    price, tokens that were not named) and of what is stated as nothing, so that neither is ever
    unlimited. `unknown` says why the cost is unknown, if it is.
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


class _Estimate(NamedTuple):
    """What a call of one model may use and cost; with the usual size of such calls, if asked."""

    tokens: Tokens
    rating: Rating
    size: ExpectedSize | None


class ReservationRequest:
    """A call that asks before it spends, priced by one version of the configuration."""

    __slots__ = (
        "at",
        "body",
        "candidate",
        "cheaper",
        "estimate",
        "key_prefix",
        "shape",
        "top",
        "top_nanos",
    )

    def __init__(self, body: ReservationBody, *, key_prefix: str, at: datetime) -> None:
        self.body = body
        self.key_prefix = key_prefix
        self.at = at
        self.estimate = "amount" if body.amount_usd is not None else body.estimate
        self.shape = _shape_of(body)
        # Only the values are known until the request is priced.
        self.candidate = Candidate(
            provider=body.provider or "",
            model=body.model or "",
            values=_values_of(body),
            amounts=NOTHING,
            checked=NOTHING,
            windows=(),
        )
        self.cheaper: Candidate | None = None
        # The best model of the route, against which a cheaper one saves.
        self.top: tuple[str, str] | None = None
        self.top_nanos: int | None = None

    def price(self, configuration: Configuration) -> None:
        """Price the call and find its windows, and those of a cheaper model.

        Reads the usual size of such calls if the request asks for that estimate and the process
        has not read it within the last minute.
        """
        body = self.body
        estimate = self._estimate(configuration, body.provider, body.model)
        values = self.candidate.values
        self.candidate = self._candidate(configuration, values, estimate)
        self.cheaper = self.top = self.top_nanos = None
        if not configuration.routes or body.model is None or body.input_tokens is None:
            return
        route = configuration.routes.choose(body.task_type)
        if route is None:
            return
        self.top = (route.top.provider, route.top.model)
        if self.top != (body.provider, body.model):
            estimate = self._estimate(configuration, *self.top)
        rating = estimate.rating
        self.top_nanos = None if rating.source == UNPRICED else rating.cost_nanos
        tier = route.tier_for(body.complexity)
        if tier.model != body.model:
            if self.top != (tier.provider, tier.model):
                estimate = self._estimate(configuration, tier.provider, tier.model)
            values = _with_model(values, tier.provider, tier.model)
            cheaper = self._candidate(configuration, values, estimate)
            if not cheaper.is_unpriced and cheaper.amounts[0] < self.candidate.amounts[0]:
                self.cheaper = cheaper

    def window_keys(self) -> tuple[WindowKey, ...]:
        """Return every window that may be held."""
        if self.cheaper is None:
            return self.candidate.windows
        return tuple({*self.candidate.windows, *self.cheaper.windows})

    def _candidate(
        self, configuration: Configuration, values: Values, estimate: _Estimate
    ) -> Candidate:
        body, rating, size = self.body, estimate.rating, estimate.size
        provider, model = values[POSITION["provider"]], values[POSITION["model"]]
        is_tool = values[POSITION["operation"]] == "tool"
        tokens = estimate.tokens.input_tokens + estimate.tokens.output_tokens
        cost = configuration.cost_of(rating, estimate.tokens) or 0
        unknown = _why_unknown(rating, model)
        if body.amount_usd is not None:
            amount = nanos_from_usd(body.amount_usd)
            if amount:
                unknown = ""
            elif not is_tool and not unknown and not has_size(body) and not rating.is_free:
                unknown = f"an amount of $0 holds nothing for a call of the model {model!r}"
            # The stated size is what the call may cost, however small the stated amount.
            cost = max(amount, rating.cost_nanos if amount else cost)
        if size is not None and tokens <= size.tokens:
            # Such calls are cheaper than their tokens say: much of their input is cached.
            cost = min(cost, size.cost_nanos)
        amounts = Amounts(cost, tokens, 0 if is_tool else 1, 1 if is_tool else 0)
        is_surely_free = is_tool or (not unknown and rating.is_free)
        return Candidate(
            provider=provider,
            model=model,
            values=values,
            amounts=amounts,
            checked=amounts._replace(
                cost_nanos=cost or int(not is_surely_free or body.amount_usd is not None),
                tokens=tokens or (1 if body.max_output_tokens is None and not is_tool else 0),
            ),
            windows=configuration.budgets.windows_of(values, self.at),
            unknown=unknown,
        )

    def _estimate(
        self, configuration: Configuration, provider: str | None, model: str | None
    ) -> _Estimate:
        """Return what the call is expected to use and cost, or else the most that it may."""
        body, worst = self.body, self.shape.as_tokens()
        size = self._expected_size(configuration.tenant_id, model)
        operation = self.candidate.values[POSITION["operation"]]
        geo = (body.inference_geo or "").lower() or None
        if size is not None and body.amount_usd is None:
            tokens = rated = msgspec.structs.replace(
                worst,
                output_tokens=min(worst.output_tokens, size.output_tokens),
                extra={**(worst.extra or {}), INFERENCE_GEO: geo} if geo else worst.extra,
            )
        elif operation == "tool":
            tokens, rated = worst, Tokens()
        else:
            rating = configuration.prices.worst_case(
                provider=provider,
                model=model,
                # The call may begin while the hold lasts, and prices change by date and hour.
                moments=(self.at, self.at + timedelta(seconds=body.ttl_seconds)),
                shape=self.shape,
                service_tier=body.service_tier,
                geo=geo,
            )
            return _Estimate(worst, rating, size)
        rating = configuration.prices.rate(
            provider=provider,
            model=model,
            at=self.at,
            tokens=rated,
            service_tier=body.service_tier,
            tool=body.tool,
            operation=operation,
        )
        return _Estimate(tokens, rating, size)

    def _expected_size(self, tenant_id: int, model: str | None) -> ExpectedSize | None:
        body = self.body
        if body.estimate != "expected":
            return None
        agent, feature = body.agent or "", body.feature or ""
        return expected_size(tenant_id, agent=agent, feature=feature, model=model or "")


def _with_model(values: Values, provider: str, model: str) -> Values:
    changed = list(values)
    changed[POSITION["provider"]], changed[POSITION["model"]] = provider, model
    return tuple(changed)


def _why_unknown(rating: Rating, model: str) -> str:
    """Say why the cost of the call is unknown; empty if it is known."""
    if rating.source != UNPRICED:
        return ""
    name = f"the model {model!r}" if model else "a call without a model"
    if not rating.unrated:
        return f"{name} has no price"
    return f"the price of {name} has no rate for {', '.join(rating.unrated)}"


def _shape_of(body: ReservationBody) -> Shape:
    """Return what the call may use, as far as the body says."""
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
