"""`/v1/prices`: the tenant's own prices, what applies to a model, and rating a period again."""

from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Annotated, Any, Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Flag,
    StrictSerializer,
    Text,
    Timestamp,
    Usd,
    Value,
    problem_at,
    read_body,
)
from common.api.pagination import PAGE_PARAMETERS, page_answer, page_of, read_page
from common.api.parameters import TIMESTAMP_SCHEMA, read_flag, read_timestamp
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of
from common.errors import Conflict, InvalidRequest, NotFound
from common.json_bodies import JsonObject
from common.values import normal_value
from metering.api.jobs import JobAnswer, RerateAnswer, accepted, job_answer, rerate_answer
from metering.api.rates import (
    RATES_REFERENCE,
    TIERS_SCHEMA,
    NamedRates,
    Tiers,
    rates_answer,
    stored_rates,
)
from metering.configuration.prices import (
    Validity,
    add_price,
    add_tool_price,
    end_price,
    find_long_pricing,
)
from metering.core.event_stretches import AT_ONCE_MAX, are_few_events
from metering.intake.rerate import rerate, start_rerating
from metering.models import CataloguePrice, TenantPrice, ToolPrice
from metering.models.prices import price_row
from metering.pricing.book import OVERRIDE, load_price_book
from metering.pricing.rates import Rate, parse_rates
from metering.pricing.schedule import CATALOGUE
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, holder_of, tenant_of
from tenants.scope import tenant_scope

AnyPrice = CataloguePrice | TenantPrice | ToolPrice
# What belongs to the other kind of price.
OTHER_MEMBERS: Final = {"model": ("call_usd",), "tool": ("provider", "rates", "tiers")}


class PriceBody(StrictSerializer):
    """A price for a model (`model` and `rates`) or for a tool (`tool` and `call_usd`)."""

    model = Value(required=False)
    provider = Value(required=False, help_text="Without it, the price is for any provider.")
    rates = NamedRates(required=False)
    tiers = Tiers(required=False)
    tool = Value(required=False)
    call_usd = Usd(source="call_nanos", required=False)
    effective_from = Timestamp(required=False, help_text="Now, unless given; may lie in the past.")
    effective_to = Timestamp(required=False, allow_null=True)
    note = Text(required=False, max_length=500, allow_blank=True)

    def validate(self, attrs: JsonObject) -> JsonObject:
        if ("model" in attrs) == ("tool" in attrs):
            raise problem_at("model", "a price is for a 'model' or for a 'tool'")
        self._require_members(attrs)
        attrs.setdefault("effective_from", timezone.now())
        ends_at = attrs.get("effective_to")
        if ends_at is not None and ends_at <= attrs["effective_from"]:
            raise problem_at("effective_to", "must be later than 'effective_from'")
        if "model" in attrs:
            attrs["rates"] = stored_rates(attrs["rates"], attrs.pop("tiers", []))
        return attrs

    def _require_members(self, attrs: Mapping[str, object]) -> None:
        kind = "model" if "model" in attrs else "tool"
        needed = "rates" if kind == "model" else "call_usd"
        if self.fields[needed].source not in attrs:
            raise problem_at(needed, "is missing", "required")
        for name in OTHER_MEMBERS[kind]:
            if self.fields[name].source in attrs:
                raise problem_at(name, f"does not go with {kind!r}")


class PriceAnswer(Answer):
    """A price. `id` is what events carry as `price_id`: below zero for the tenant's own."""

    id: int
    source: Annotated[str, one_of([CATALOGUE, OVERRIDE])]
    model: str | None
    provider: str | None
    rates: Annotated[Any, Meta(extra_json_schema={"anyOf": [RATES_REFERENCE, {"type": "null"}]})]
    tiers: Annotated[Any, Meta(extra_json_schema=TIERS_SCHEMA)]
    tool: str | None
    call_usd: AmountUsd | None
    effective_from: UtcTimestamp | None
    effective_to: UtcTimestamp | None
    note: str


class AddedPriceAnswer(PriceAnswer):
    """A price that was added."""

    job: Annotated[JobAnswer | UnsetType, about("The job that prices usage that had no price.")] = (
        UNSET
    )


class RerateBody(StrictSerializer):
    """Which events to rate again, by their time."""

    to = Timestamp()
    dry_run = Flag(required=False, help_text="Report what would change, without changing anything.")

    def get_fields(self) -> JsonObject:
        # `from` is a word of Python's own, so it cannot be declared as the others are.
        return {"from": Timestamp(), **super().get_fields()}

    def validate(self, attrs: JsonObject) -> JsonObject:
        if attrs["from"] >= attrs["to"]:
            raise problem_at("to", "must be later than 'from'")
        return attrs


class PricesView(ApiView):
    """The tenant's own prices, or with `catalogue=true` what applies to a model."""

    parameters = {
        "GET": (
            *PAGE_PARAMETERS,
            OpenApiParameter(
                "catalogue", bool, description="Answer the price that applies to `model`."
            ),
            OpenApiParameter("model", str),
            OpenApiParameter("provider", str),
            OpenApiParameter("at", TIMESTAMP_SCHEMA, description="Now, if not given."),
        )
    }

    @extend_schema(
        summary="List the tenant's own prices, oldest first, or what applies to a model",
        responses=page_of(PriceAnswer),
    )
    def get(self, request: Request) -> Response:
        at = read_timestamp(request, "at") or timezone.now()
        if read_flag(request, "catalogue"):
            return Response({"data": _applying(request, at), "next_cursor": None})
        page = read_page(request)
        rows = _own_prices(request, after=page.after[0] if page.after else 0, limit=page.limit + 1)
        answer = page_answer(
            rows,
            page=page,
            answers=lambda prices: [price_answer(price) for price in prices],
            key=lambda price: [-price.price_id],
        )
        return Response(answer)

    @extend_schema(
        summary="Add a price",
        description="Usage that had no price and gets one by this is priced immediately, or by the"
        " job that `job` shows if there is much of it. Usage that has a price keeps it until"
        " `/v1/prices/rerate`.",
        request=PriceBody,
        responses={201: AddedPriceAnswer},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        price = _add(request, read_body(PriceBody, request))
        job = find_long_pricing(price)
        going_on = UNSET if job is None else job_answer(job)
        return Response(price_answer(price, kind=AddedPriceAnswer, job=going_on), status=201)


class PriceView(ApiView):
    """One price, by the `price_id` that events carry: the tenant's own or the catalogue's."""

    also_answers = {"DELETE": (409,)}

    @extend_schema(
        summary="Show a price, the tenant's own or the catalogue's", responses=PriceAnswer
    )
    def get(self, request: Request, price_id: int) -> Response:
        return Response(price_answer(_find(request, price_id)))

    @extend_schema(
        summary="End a price: it applies to no usage from now on",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, price_id: int) -> Response:
        price = _find(request, price_id)
        if isinstance(price, CataloguePrice):
            raise Conflict(
                "A price of the catalogue cannot be ended; add a price of your own over it."
            )
        end_price(price=price, actor=actor_of(request))
        return Response(status=204)


class RerateView(ApiView):
    """Rating a period again."""

    also_answers = {"POST": (409,)}

    @extend_schema(
        summary="Rate a period's usage again at the prices known now",
        description="Changes no tokens and no given cost; balances move by correcting entries. 200"
        f" with the result where the period holds at most {AT_ONCE_MAX:,} events; else 202 with a"
        " job, whose `result` it is in the end.",
        request=RerateBody,
        responses={200: RerateAnswer, 202: JobAnswer},
    )
    def post(self, request: Request) -> Response:
        fields = read_body(RerateBody, request)
        period: JsonObject = {
            "tenant_id": holder_of(request).tenant_id,
            "from_": fields["from"],
            "to": fields["to"],
            "is_dry_run": fields.get("dry_run", False),
        }
        # In transactions of its own (see the middleware), and safe to repeat without a key.
        with tenant_scope(period["tenant_id"]):
            if not are_few_events(
                tenant_id=period["tenant_id"], from_=period["from_"], to=period["to"]
            ):
                return accepted(start_rerating(**period, actor=actor_of(request)))
        summary = rerate(**period)
        return Response(rerate_answer(summary, is_dry_run=period["is_dry_run"]))


def _add(request: Request, fields: JsonObject) -> TenantPrice | ToolPrice:
    validity = Validity(
        fields.pop("effective_from"), fields.pop("effective_to", None), fields.pop("note", "")
    )
    add = add_price if "model" in fields else add_tool_price
    return add(tenant=tenant_of(request), actor=actor_of(request), validity=validity, **fields)


def _own_prices(request: Request, *, after: int, limit: int) -> list[TenantPrice | ToolPrice]:
    """Prices of models and tools in the order in which they were added, roughly: by |price_id|."""
    tenant = tenant_of(request)
    for_models = TenantPrice.objects.filter(tenant=tenant, id__gt=after // 2).order_by("id")
    # Odd ids are tools': row 7 has 15.
    for_tools = ToolPrice.objects.filter(tenant=tenant, id__gt=(after - 1) // 2).order_by("id")
    rows: list[TenantPrice | ToolPrice] = [*for_models[:limit], *for_tools[:limit]]
    return sorted(rows, key=lambda row: -row.price_id)[:limit]


def _find(request: Request, price_id: int) -> AnyPrice:
    table, row_id = price_row(price_id)
    rows: Any = table._default_manager.filter(id=row_id)
    if table is not CataloguePrice:
        rows = rows.filter(tenant=tenant_of(request))
    price: AnyPrice | None = rows.first()
    if price is None:
        raise NotFound.of("price", price_id)
    return price


def _applying(request: Request, at: datetime) -> list[PriceAnswer]:
    """The price that a call to the model has at a moment, if there is one."""
    query = request.query_params
    model = normal_value(query.get("model", ""))
    if not 1 <= len(model) <= 200:
        raise InvalidRequest("'catalogue=true' needs 'model', the name of a model.")
    price = load_price_book(tenant_of(request).id).price_at(
        provider=query.get("provider") or None, model=model, at=at
    )
    if price is None:
        return []
    # Of a catalogue row the rates may be variants' too, so the compiled ones count.
    return [price_answer(_find(request, price.price_id), rates=price.rates)]


def price_answer(
    price: AnyPrice,
    *,
    rates: Mapping[str, Rate] | None = None,
    kind: type[PriceAnswer] = PriceAnswer,
    **computed: object,
) -> PriceAnswer:
    """A price as the API shows it. `rates` replace those of its row."""
    if isinstance(price, CataloguePrice):
        day = price.effective_from
        computed |= {
            "effective_from": datetime.combine(day, time.min, UTC) if day else None,
            "effective_to": price.superseded_at,
            "note": f"From {price.catalogue_version}.",
        }
    if isinstance(price, ToolPrice):
        computed |= {**dict.fromkeys(("model", "provider", "rates")), "tiers": []}
    else:
        computed |= {"provider": price.provider or None, "tool": None, "call_usd": None}
        computed |= rates_answer(parse_rates(price.rates) if rates is None else rates)
    source = CATALOGUE if isinstance(price, CataloguePrice) else OVERRIDE
    return kind.of(price, id=price.price_id, source=source, **computed)
