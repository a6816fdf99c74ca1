"""What every view of the API has in common: strict parameters, one representation, who acts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from common.api.parameters import require_known_parameters
from tenants.keys import KeyHolder
from tenants.middleware import TenantRequest
from tenants.models import Tenant
from tenants.roles import Scope


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
    """A view of the API. `parameters` are the query parameters of each method, or of each action of
    a resource; a list with `filters` also takes `filter[name]` for each of these.
    """

    content_negotiation_class = OneRepresentation
    # OPTIONS would describe forms, which the schema does.
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    parameters: ClassVar[Mapping[str, Sequence[OpenApiParameter]]] = {}
    filters: ClassVar[tuple[str, ...]] = ()
    # Refusals beyond those that every operation may answer, by method or action.
    also_answers: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    read_scopes: tuple[Scope, ...] = (Scope.READ,)
    write_scope = Scope.MANAGE

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        """Answer, and let go of what the body held. The framework's requests and serializers are
        cycles, which this process looks for rarely: they would keep it for many requests more.
        """
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            data: Any = getattr(self.request, "_full_data", None)
            if type(data) in (dict, list):  # not a form, which is immutable
                data.clear()

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        if any("\x00" in str(value) for value in kwargs.values()):
            raise Http404  # PostgreSQL stores no NUL, so nothing has this name
        method = "GET" if request.method == "HEAD" else request.method or ""
        if hasattr(self, method.lower()):
            action = getattr(self, "action", None) or method
            filters = self.filters if action in ("GET", "list") else ()
            require_known_parameters(request, self.parameters.get(action, ()), filters=filters)


def tenant_of(request: Request) -> Tenant:
    """The tenant that the key of this request belongs to."""
    return cast(TenantRequest, request._request).tenant


def actor_of(request: Request) -> str:
    """Who acts, for the audit log."""
    return f"API key sg_{holder_of(request).prefix}"


def holder_of(request: Request) -> KeyHolder:
    """What the key of this request stands for."""
    holder: object = request.auth
    assert isinstance(holder, KeyHolder), "views without a key have no holder"
    return holder
