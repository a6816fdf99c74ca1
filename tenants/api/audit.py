"""`/v1/audit-log`: who changed what, newest first."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Moment
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from tenants.api.views import ApiView, tenant_of
from tenants.models import AuditEntry

FILTERS = ("object_type", "object_id", "action", "actor")


class AuditEntryAnswer(serializers.Serializer[Any]):
    """One change of configuration."""

    id = serializers.IntegerField()
    at = Moment()
    actor = serializers.CharField(help_text="A person's address, a key, or a command.")
    action = serializers.CharField()
    object_type = serializers.CharField()
    object_id = serializers.CharField()
    changes = serializers.DictField(help_text="Field to its values before and after.")


class AuditLogView(ApiView):
    """Every change of configuration."""

    parameters = {"GET": PAGE_PARAMETERS | set(FILTERS)}

    @extend_schema(
        summary="List changes of configuration, newest first",
        parameters=[*PAGE_SCHEMA, *(OpenApiParameter(name, str) for name in FILTERS)],
        responses=page_serializer(AuditEntryAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        entries = AuditEntry.objects.filter(tenant=tenant_of(request))
        for name in FILTERS:
            if name in request.query_params:
                entries = entries.filter(**{name: request.query_params[name]})
        if page.after is not None:
            entries = entries.filter(id__lt=page.after[0])
        rows = list(entries.order_by("-id")[: page.limit + 1])
        return Response(
            page_answer(
                rows,
                page=page,
                answer=lambda row: AuditEntryAnswer(row).data,
                key=lambda row: [row.id],
            )
        )
