"""`/v1/provider-bills`: what providers say that usage cost."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models import ProviderBillLine
from billing.provider_bills.focus import read_focus
from billing.provider_bills.importing import import_bill
from billing.provider_bills.lines import TEXT_CHARACTERS_MAX
from billing.provider_bills.reports import read_report
from common.api.days import DAY_PARAMETERS, read_day
from common.api.pagination import PAGE_PARAMETERS, page_of, paginate
from common.api.parameters import InvalidParameter
from common.api.parsing import BODY_BYTES_MAX, BodyTooLarge, decompress, keep_body
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.roles import Scope

JSON: Final = "application/json"
CSV: Final = "text/csv"
PAGE: Final = {
    "type": "object",
    "properties": {"data": {"type": "array", "items": {"type": "object"}}},
    "required": ["data"],
}
REPORT_BODY: Final = {"anyOf": [PAGE, {"type": "array", "items": PAGE}]}
ACCOUNT: Final = OpenApiParameter(
    "account",
    {"type": "string", "maxLength": TEXT_CHARACTERS_MAX},
    description="Which of your accounts with the provider, where you have several.",
)


class _Bytes(BaseParser):
    """The body as it is, for numbers that must be read from their digits."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        with keep_body(stream.read, BODY_BYTES_MAX) as (kept, size):
            if size > BODY_BYTES_MAX:
                raise BodyTooLarge
            body = kept.read()
        request = (parser_context or {})["request"]
        return decompress(body, request.headers.get("Content-Encoding", ""))


class ReportParser(_Bytes):
    """A provider's report in JSON."""

    media_type = JSON


class CsvParser(_Bytes):
    """A bill in CSV."""

    media_type = CSV


class ProviderBillLineAnswer(Answer):
    """What a provider billed for a day and a model."""

    provider: str
    account: str
    day: Annotated[date, about("A day in UTC.")]
    model: Annotated[str, about("As the price catalogue spells it. Empty: see `line_item`.")]
    line_item: Annotated[
        str, about("What is no model's. Empty with `model`: all that the day cost.")
    ]
    amount_usd: AmountUsd
    source: Annotated[str, about("`openai`, `anthropic` or `focus`.")]
    imported_at: UtcTimestamp


class ImportedBillAnswer(Answer):
    """What an import did."""

    source: str
    lines: Annotated[int, about("Of the bill, by day and model.")]
    days: Annotated[int, about("Days of a provider that the bill is of.")]
    changed_days: Annotated[int, about("Days that were not known, or otherwise.")]
    skipped: Annotated[int, about("Lines that are not usage of AI services.")]


class ProviderBillsView(ApiView):
    """Bills of providers."""

    write_scope = Scope.BILLING
    parser_classes = [ReportParser, CsvParser]
    parameters = {
        "GET": (*PAGE_PARAMETERS, OpenApiParameter("provider", str), ACCOUNT, *DAY_PARAMETERS),
        "POST": (ACCOUNT,),
    }

    @extend_schema(
        summary="List what providers billed, by when it was imported",
        responses=page_of(ProviderBillLineAnswer),
    )
    def get(self, request: Request) -> Response:
        rows = ProviderBillLine.objects.filter(tenant=tenant_of(request))
        for name in ("provider", "account"):
            if (value := request.query_params.get(name)) is not None:
                rows = rows.filter(**{name: value})
        if (first := read_day(request, "from")) is not None:
            rows = rows.filter(day__gte=first)
        if (last := read_day(request, "to")) is not None:
            rows = rows.filter(day__lte=last)
        return Response(
            paginate(request, rows, lambda page: [ProviderBillLineAnswer.of(row) for row in page])
        )

    @extend_schema(
        summary="Import a provider's bill",
        description="JSON: an answer of OpenAI's `/v1/organization/costs` or Anthropic's"
        " `/v1/organizations/cost_report` by day, or a list of its pages. CSV: a bill in FOCUS 1.x."
        " The same bill again changes nothing; a newer report of a provider's day replaces that"
        " day. Every faulty line is named, and then nothing is stored.",
        request={JSON: REPORT_BODY, CSV: OpenApiTypes.STR},
        responses={200: ImportedBillAnswer},
    )
    def post(self, request: Request) -> Response:
        account = request.query_params.get("account", "")
        if len(account) > TEXT_CHARACTERS_MAX:
            detail = f"'account' must have at most {TEXT_CHARACTERS_MAX} characters."
            raise InvalidParameter.of("account", "invalid_request", detail)
        sent: Any = request.data
        body = sent if isinstance(sent, bytes) else b""  # no body is an empty form
        is_csv = (request.content_type or "").partition(";")[0].strip().lower() == CSV
        imported = import_bill(
            tenant=tenant_of(request),
            actor=actor_of(request),
            account=account.strip(),
            bill=read_focus(body) if is_csv else read_report(body),
        )
        return Response(ImportedBillAnswer.of(imported))
