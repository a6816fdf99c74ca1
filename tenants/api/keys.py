"""`/v1/keys`: API keys, whose text is answered once."""

from datetime import datetime

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Choice,
    Items,
    StrictSerializer,
    Text,
    Timestamp,
    problem_at,
    read_body,
)
from common.json_bodies import JsonObject
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.api.views import holder_of
from tenants.keys import create_api_key, revoke_api_key
from tenants.models import ApiKey
from tenants.roles import ALL_SCOPES


class KeyBody(StrictSerializer):
    """A key. Its text is not kept, so only the answer that makes it holds it."""

    id = serializers.IntegerField(read_only=True)
    name = Text()
    prefix = serializers.SerializerMethodField(help_text="How the key's text begins.")
    scopes = Items(child=Choice(choices=ALL_SCOPES), min_length=1, max_length=len(ALL_SCOPES))
    expires_at = Timestamp(required=False, allow_null=True)
    created_at = Timestamp(read_only=True)
    revoked_at = Timestamp(read_only=True, allow_null=True)
    last_used_at = Timestamp(read_only=True, allow_null=True)

    def get_prefix(self, key: ApiKey) -> str:
        return f"sg_{key.prefix}_"

    def validate(self, attrs: JsonObject) -> JsonObject:
        expires_at = attrs.get("expires_at")
        if expires_at is not None and expires_at <= timezone.now():
            raise problem_at("expires_at", "must lie in the future")
        return attrs


class NewKeyAnswer(KeyBody):
    """A key with its text, this once."""

    key = serializers.CharField(read_only=True)


@extend_schema_view(
    list=extend_schema(summary="List API keys, oldest first"),
    create=extend_schema(summary="Create an API key", responses={201: NewKeyAnswer}),
    destroy=extend_schema(summary="Revoke an API key, everywhere within a second"),
)
class Keys(Resource[ApiKey]):
    """The API keys of the tenant, revoked ones included."""

    model = ApiKey
    noun = "key"
    body = KeyBody

    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        fields = read_body(KeyBody, request)
        # Processes learn a little later that a key was revoked: what it makes would outlive it.
        makers = self.rows().select_related("created_by").select_for_update(of=("self",))
        maker = makers.get(id=holder_of(request).key_id)
        has_expired = maker.expires_at is not None and maker.expires_at <= timezone.now()
        if maker.revoked_at is not None or has_expired:
            raise NotAuthenticated("This key was revoked or has expired.")
        _require_no_more(maker, fields["scopes"], fields.get("expires_at"))
        # When the person who made both leaves, both are revoked.
        key, text = create_api_key(
            tenant=self.tenant, actor=self.actor, created_by=maker.created_by, **fields
        )
        return Response({**KeyBody(key).data, "key": text}, status=201)

    def delete_row(self, row: ApiKey) -> object:
        return revoke_api_key(key=row, actor=self.actor)


def _require_no_more(maker: ApiKey, scopes: list[str], expires_at: datetime | None) -> None:
    """Raise PermissionDenied if a key would have a scope that its maker lacks, or outlive it."""
    if missing := sorted(set(scopes) - set(maker.scopes)):
        raise PermissionDenied(f"This key lacks the scope {missing[0]!r}, so it cannot grant it.")
    end = maker.expires_at
    if end is not None and (expires_at is None or expires_at > end):
        raise PermissionDenied(
            f"This key expires at {end:%Y-%m-%dT%H:%M:%SZ}, so 'expires_at' of a key that it makes"
            " must not be later."
        )
