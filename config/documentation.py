"""The OpenAPI document and its page, whose scripts come from an installed package."""

from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.renderers import TemplateHTMLRenderer

from tenants.api.views import OneRepresentation


class JsonDocument(OpenApiJsonRenderer2):
    """The document as plain JSON."""

    media_type = "application/json"


class SchemaView(SpectacularAPIView):
    """`GET /v1/schema`: JSON, or YAML where only that is accepted."""

    renderer_classes = [JsonDocument, OpenApiYamlRenderer]
    permission_classes = ()
    authentication_classes = ()


class DocumentationView(SpectacularSwaggerSplitView):
    """`GET /v1/docs`: the document as a page. Its script is a file, as CSP wants it."""

    url_name = "schema"
    renderer_classes = [TemplateHTMLRenderer]
    content_negotiation_class = OneRepresentation
    permission_classes = ()
    authentication_classes = ()
