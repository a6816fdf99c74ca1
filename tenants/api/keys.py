"""`/v1/keys`: API keys, whose text is answered once."""

from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Choice, Items, Moment, StrictSerializer, Text, problem_at
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import NotFound
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, holder_of, tenant_of
from tenants.keys import create_api_key, revoke_api_key
from tenants.models import ApiKey, User
from tenants.roles import ALL_SCOPES


class KeyBody(StrictSerializer):
    """A key. Its text is not kept, so only the answer that makes it holds it."""

    id = serializers.IntegerField(read_only=True)
    name = Text()
    prefix = serializers.SerializerMethodField(help_text="How the key's text begins.")
    scopes = Items(child=Choice(choices=ALL_SCOPES), min_length=1, max_length=len(ALL_SCOPES))
    expires_at = Moment(required=False, allow_null=True)
    created_at = Moment(read_only=True)
    revoked_at = Moment(read_only=True, allow_null=True)
    last_used_at = Moment(read_only=True, allow_null=True)

    def get_prefix(self, key: ApiKey) -> str:
        return f"sg_{key.prefix}_"

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        expires_at = attrs.get("expires_at")
        if expires_at is not None and expires_at <= timezone.now():
            raise problem_at("expires_at", "must lie in the future")
        return attrs


class NewKeyAnswer(KeyBody):
    """A key with its text, this once."""

    key = serializers.CharField(read_only=True)


class KeysView(ApiView):
    """All keys of the tenant, revoked ones included."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List API keys, oldest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(KeyBody),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        keys = ApiKey.objects.filter(
            tenant=tenant_of(request), id__gt=page.after[0] if page.after else 0
        )
        rows = list(keys.order_by("id")[: page.limit + 1])
        return Response(
            page_answer(
                rows, page=page, answer=lambda row: KeyBody(row).data, key=lambda row: [row.id]
            )
        )

    @extend_schema(summary="Make an API key", request=KeyBody, responses={201: NewKeyAnswer})
    @idempotent
    def post(self, request: Request) -> Response:
        body = KeyBody(data=request.data)
        body.is_valid(raise_exception=True)
        _require_held(request, body.validated_data["scopes"])
        _require_outlived(request, body.validated_data.get("expires_at"))
        key, text = create_api_key(
            tenant=tenant_of(request),
            actor=actor_of(request),
            created_by=_maker(request),
            **body.validated_data,
        )
        return Response({**KeyBody(key).data, "key": text}, status=201)


class KeyView(ApiView):
    """One key."""

    @extend_schema(
        summary="Revoke an API key, everywhere within a second", request=None, responses={204: None}
    )
    def delete(self, request: Request, key_id: int) -> Response:
        key = ApiKey.objects.filter(tenant=tenant_of(request), id=key_id).first()
        if key is None:
            raise NotFound(f"There is no key {key_id}.")
        revoke_api_key(key=key, actor=actor_of(request))
        return Response(status=204)


def _maker(request: Request) -> User | None:
    """Who made the key that makes this one: when that person leaves, both are theirs to revoke."""
    rows = ApiKey.objects.filter(tenant=tenant_of(request), id=holder_of(request).key_id)
    maker = rows.select_related("created_by").first()
    return maker.created_by if maker else None


def _require_held(request: Request, scopes: list[str]) -> None:
    """A key hands on no more than it has itself."""
    if missing := sorted(set(scopes) - holder_of(request).scopes):
        raise PermissionDenied(f"This key lacks the scope {missing[0]!r}, so it cannot hand it on.")


def _require_outlived(request: Request, expires_at: datetime | None) -> None:
    """A key that expires hands on nothing that lasts longer."""
    own = ApiKey.objects.values_list("expires_at", flat=True).get(id=holder_of(request).key_id)
    if own is not None and (expires_at is None or expires_at > own):
        raise PermissionDenied(
            f"This key expires at {own:%Y-%m-%dT%H:%M:%SZ}, so 'expires_at' of a key that it makes"
            " must not be later."
        )
