"""`/v1/audit-log`: who changed what, newest first."""

from typing import Annotated, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view

from common.api.pagination import PAGE_PARAMETERS
from common.api.structs import Answer, UtcTimestamp, about
from common.json_bodies import JsonObject
from tenants.api.resources import Resource
from tenants.models import AuditEntry

FILTERS: Final = ("object_type", "object_id", "action", "actor")


class AuditEntryAnswer(Answer):
    """One change of configuration."""

    id: int
    at: UtcTimestamp
    actor: Annotated[str, about("A person's address, a key, or a command.")]
    action: str
    object_type: str
    object_id: str
    changes: Annotated[JsonObject, about("Field to its values before and after.")]


@extend_schema_view(list=extend_schema(summary="List changes of configuration, newest first"))
class AuditLog(Resource[AuditEntry]):
    """Every change of configuration."""

    model = AuditEntry
    answer = AuditEntryAnswer
    order = ("-id",)
    parameters = {"list": (*PAGE_PARAMETERS, *(OpenApiParameter(name, str) for name in FILTERS))}

    def listed_rows(self) -> QuerySet[AuditEntry]:
        query = self.request.query_params
        return self.rows().filter(**{name: query[name] for name in FILTERS if name in query})
