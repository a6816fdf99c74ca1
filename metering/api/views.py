"""What every view of the API has in common: strict parameters, one representation, who acts."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from metering.errors import InvalidRequest
from tenants.keys import KeyHolder
from tenants.models import Tenant


class UnknownParameter(InvalidRequest):
    """A query parameter that the address does not know."""

    code = "unknown_parameter"


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
    """A view of the API. `parameters` names the query parameters that each method takes."""

    content_negotiation_class = OneRepresentation
    metadata_class = None
    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method in self.parameters or hasattr(self, (request.method or "").lower()):
            require_known_parameters(
                request, self.parameters.get(request.method or "", frozenset())
            )


def require_known_parameters(request: Request, known: frozenset[str]) -> None:
    """Raise UnknownParameter for a query parameter that is not among `known`, or comes twice."""
    errors = []
    for name in request.query_params:
        if name not in known:
            detail = f"The query parameter {name[:100]!r} is not known here."
            errors.append(
                {"pointer": f"?{name[:100]}", "code": "unknown_parameter", "detail": detail}
            )
        elif "\x00" in request.query_params[name]:
            detail = f"The query parameter {name!r} holds the character NUL."
            errors.append({"pointer": f"?{name}", "code": "invalid_value", "detail": detail})
        elif len(request.query_params.getlist(name)) > 1:
            detail = f"The query parameter {name!r} is given twice."
            errors.append({"pointer": f"?{name}", "code": "repeated_parameter", "detail": detail})
    if errors:
        raise UnknownParameter(errors[0]["detail"], errors=errors)


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
