"""What every view of the API has in common: strict parameters, one representation, who acts."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from common.errors import InvalidRequest
from common.spelling import did_you_mean
from tenants.keys import KeyHolder
from tenants.models import Tenant

FILTER: Final = re.compile(r"filter\[(.+)\]", re.DOTALL)


class UnknownParameter(InvalidRequest):
    """A query parameter that the address does not know, or not as often."""

    code = "unknown_parameter"


class InvalidValue(InvalidRequest):
    """A query parameter whose value no request may have."""

    code = "invalid_value"


class OneRepresentation(BaseContentNegotiation):
    """Answers in the view's one format whatever `Accept` says, so that errors are never HTML."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class ApiView(APIView):
    """A view of the API. `parameters` names the query parameters that each method takes; a GET with
    `filters` takes `filter[name]` for each of these, more than once.
    """

    content_negotiation_class = OneRepresentation
    # OPTIONS would describe forms, which the schema does.
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}
    filters: ClassVar[tuple[str, ...]] = ()

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer, and let go of what the body held. The framework's requests and serializers are
        cycles, which this process looks for rarely: they would keep it for many requests more.
        """
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            data: Any = getattr(self.request, "_full_data", None)
            if type(data) in (dict, list):  # not a form, which nobody may change
                data.clear()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        method = "GET" if request.method == "HEAD" else request.method or ""
        if method in self.parameters or hasattr(self, method.lower()):
            known = self.parameters.get(method, frozenset())
            _require_known_parameters(
                request, known, filters=self.filters if method == "GET" else ()
            )


def _require_known_parameters(
    request: Request, known: frozenset[str], *, filters: tuple[str, ...]
) -> None:
    """Raise UnknownParameter for what is not known or comes twice, InvalidValue for NUL."""
    errors = []
    for name, values in request.query_params.lists():
        is_filter = bool(filters) and FILTER.fullmatch(name) is not None
        if name not in known and not is_filter:
            code = "unknown_parameter"
            near = _near_parameter(name, known, filters=filters)
            detail = f"The query parameter {name[:100]!r} is not known here.{near}"
        elif any("\x00" in value for value in values):
            code, detail = "invalid_value", f"The query parameter {name!r} holds the character NUL."
        elif len(values) > 1 and not is_filter:
            code, detail = "repeated_parameter", f"The query parameter {name!r} is given twice."
        else:
            continue
        errors.append({"pointer": f"?{name[:100]}", "code": code, "detail": detail})
    if errors:
        is_known = errors[0]["code"] == "invalid_value"
        kind = InvalidValue if is_known else UnknownParameter
        raise kind(errors[0]["detail"], errors=errors)


def _near_parameter(name: str, known: frozenset[str], *, filters: tuple[str, ...]) -> str:
    if not filters:
        return did_you_mean(name, tuple(sorted(known)))
    if name in filters:
        return f" Did you mean 'filter[{name}]'?"
    return did_you_mean(name, (*sorted(known), *(f"filter[{each}]" for each in filters)))


def tenant_of(request: Request) -> Tenant:
    """The tenant that the key of this request belongs to."""
    tenant: Tenant = request._request.tenant  # type: ignore[attr-defined]
    return tenant


def actor_of(request: Request) -> str:
    """Who acts, for the audit log."""
    return f"API key sg_{holder_of(request).prefix}"


def holder_of(request: Request) -> KeyHolder:
    """What the key of this request stands for."""
    holder: Any = request.auth
    assert isinstance(holder, KeyHolder), "views without a key have no holder"
    return holder
