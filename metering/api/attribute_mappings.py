"""`/v1/attribute-mappings`: which attributes of telemetry name the dimensions of its calls."""

from collections.abc import Iterable, Mapping
from typing import Final

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Bodies, StrictSerializer, Text
from metering.configuration.attribute_mappings import (
    MAPPINGS_MAX,
    Mappings,
    set_attribute_mappings,
    validate_mappings,
)
from metering.fields.body import errors_at_members
from metering.usage.attribute_mappings import read_attribute_mappings
from metering.usage.decoders.otlp.dimension_keys import MAPPABLE, AttributeMapping
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.roles import Scope

PRECEDENCE: Final = (
    "Applies to spans of `POST /v1/traces` that arrive after the change; calls until then keep what"
    " they have. What is nearest to the call counts: its own span, then the spans around it, then"
    " its resource. Within each of them, `spendgate.<dimension>` comes first, then the mapped"
    " attributes in the order of this list, then the usual attributes of OpenTelemetry's dialects."
    " An attribute without a usable value (a boolean, a fraction, a list) is passed over."
)


@extend_schema_field({"type": "string", "enum": list(MAPPABLE)})
class MappableDimension(Text):
    """A dimension, judged together with the rest of the list."""

    example = MAPPABLE[0]


class AttributeMappingList(Bodies):
    """The list as a whole."""

    def validate(self, attrs: Iterable[Mapping[str, str]]) -> list[AttributeMapping]:
        mappings = [AttributeMapping(**fields) for fields in attrs]
        with errors_at_members(self):
            validate_mappings(mappings)
        return mappings


class AttributeMappingBody(StrictSerializer):
    """An attribute of spans or resources, and the dimension that its value is."""

    attribute = Text(help_text="The attribute's full name, as in `team.id`. Each is mapped once.")
    dimension = MappableDimension()

    class Meta:
        list_serializer_class = AttributeMappingList


class AttributeMappingsView(ApiView):
    """The tenant's attribute mappings, a list that is replaced as a whole."""

    read_scopes = (Scope.READ, Scope.MANAGE)

    @extend_schema(
        summary="List the attribute mappings, in order of precedence",
        description=PRECEDENCE,
        responses=AttributeMappingBody(many=True),
    )
    def get(self, request: Request) -> Response:
        return _answer(read_attribute_mappings(tenant_of(request).id))

    @extend_schema(
        summary="Replace the attribute mappings",
        description=f"At most {MAPPINGS_MAX}. The same list again changes nothing. {PRECEDENCE}",
        request=AttributeMappingBody(many=True),
        responses=AttributeMappingBody(many=True),
    )
    def put(self, request: Request) -> Response:
        body = AttributeMappingList(
            data=request.data, child=AttributeMappingBody(), max_length=MAPPINGS_MAX
        )
        body.is_valid(raise_exception=True)
        return _answer(
            set_attribute_mappings(
                tenant=tenant_of(request), actor=actor_of(request), mappings=body.validated_data
            )
        )


def _answer(mappings: Mappings) -> Response:
    return Response([mapping._asdict() for mapping in mappings])
