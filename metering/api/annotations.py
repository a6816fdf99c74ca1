"""`/v1/annotations`: moments that time charts show, such as deploys."""

from typing import Annotated, Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view

from common.api.fields import StrictSerializer, Text, Timestamp
from common.api.pagination import PAGE_PARAMETERS
from common.api.parameters import TIMESTAMP_SCHEMA, read_timestamp
from common.api.structs import Answer, UtcTimestamp, about
from common.json_bodies import JsonObject
from metering.configuration.annotations import add_annotation, remove_annotation
from metering.fields.body import Match
from metering.models import Annotation
from metering.models.annotations import TEXT_CHARACTERS_MAX
from tenants.api.resources import Resource
from tenants.roles import Scope


class AnnotationBody(StrictSerializer):
    """What happened, and when."""

    time = Timestamp(required=False, help_text="Now, unless given.")
    text = Text(max_length=TEXT_CHARACTERS_MAX)
    filter = Match(required=False, help_text="The usage it concerns, by dimension; empty: all.")


class AnnotationAnswer(Answer):
    """A moment on time charts."""

    id: int
    time: UtcTimestamp
    text: str
    filter: Annotated[JsonObject, about("The usage it concerns, by dimension; empty: all.")]
    actor: Annotated[str, about("Who posted it.")]
    created_at: UtcTimestamp


@extend_schema_view(
    list=extend_schema(
        summary="List annotations, newest first",
        description="Those that were posted. Charts also show changes of prices, budgets and halts,"
        " which are in `/v1/audit-log`.",
    ),
    create=extend_schema(
        summary="Put a moment on the time charts",
        description="Takes the scope `ingest`, so that a deploy script needs no key that can change"
        " limits. It is shown on charts of usage that `filter` may be about.",
    ),
)
class Annotations(Resource[Annotation]):
    """The annotations of the tenant."""

    model = Annotation
    noun = "annotation"
    body = AnnotationBody
    answer = AnnotationAnswer
    order = ("-time", "-id")
    write_scope = Scope.INGEST
    parameters = {
        "list": (
            *PAGE_PARAMETERS,
            OpenApiParameter("from", TIMESTAMP_SCHEMA, description="Included."),
            OpenApiParameter("to", TIMESTAMP_SCHEMA, description="Not included."),
        )
    }

    def listed_rows(self) -> QuerySet[Annotation]:
        rows = self.rows()
        if (starts_at := read_timestamp(self.request, "from")) is not None:
            rows = rows.filter(time__gte=starts_at)
        if (ends_at := read_timestamp(self.request, "to")) is not None:
            rows = rows.filter(time__lt=ends_at)
        return rows

    def answers(self, rows: Any) -> list[AnnotationAnswer]:
        return [AnnotationAnswer.of(row, filter=row.match) for row in rows]

    def create_row(self, fields: JsonObject) -> Annotation:
        return add_annotation(
            tenant=self.tenant,
            time=fields.get("time", timezone.now()),
            text=fields["text"],
            match=fields.get("filter", {}),
            actor=self.actor,
        )


@extend_schema_view(destroy=extend_schema(summary="Take a moment off the time charts"))
class AnnotationRemoval(Resource[Annotation]):
    """One annotation; to remove it takes `manage`."""

    model = Annotation
    noun = "annotation"

    def delete_row(self, row: Annotation) -> None:
        remove_annotation(annotation=row, actor=self.actor)
