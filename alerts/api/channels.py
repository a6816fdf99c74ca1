"""`/v1/channels`: where alerts go."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.deliveries import DeliveryDetailAnswer, detail_answer
from alerts.api.requests import answer_page, find, read_body
from alerts.channel_settings import (
    CONTACT_MAX_CHARACTERS,
    CONTACTS_MAX,
    create_channel,
    remove_channel,
    rotate_secret,
    shown_fields,
    signing_secret,
    update_channel,
)
from alerts.channels import KINDS, Field
from alerts.delivery import test_channel
from alerts.errors import WrongChannel
from alerts.models import Channel, ChannelKind, Digest, Severity
from common.api.fields import Choice, Flag, Items, Moment, StrictSerializer, Text, problem_at
from common.api.pagination import PAGE_PARAMETERS, PAGE_SCHEMA, page_serializer
from common.api.structs import Answer
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of

VALUE_CHARACTERS_MAX: Final = 2000
VALUES_MAX: Final = 50


def _field_schema(field: Field) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": VALUE_CHARACTERS_MAX}
    shown = "Shown masked." if field.is_secret else ""
    described = {"description": " ".join(filter(None, (field.help, shown)))}
    if field.is_list:
        return {"type": "array", "items": text, "maxItems": VALUES_MAX, **described}
    return {**text, **described}


@extend_schema_field(
    {
        "description": "The fields of the channel's kind.",
        "anyOf": [
            {
                "title": kind.label,
                "type": "object",
                "properties": {field.name: _field_schema(field) for field in kind.fields},
                "additionalProperties": False,
            }
            for kind in KINDS.values()
        ],
        "example": {"url": "https://hooks.example.com/services/T0/B0/secret"},
    }
)
class Config(serializers.Field[dict[str, Any], Any, dict[str, Any], Any]):
    """Fields by name, as the channel's kind has them."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object of the kind's fields")
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        return value


class ChannelBody(StrictSerializer):
    """A channel. A PATCH changes the members it names, and of `config` the fields."""

    id = serializers.IntegerField(read_only=True)
    name = Text()
    kind = Choice(choices=ChannelKind.values)
    config = Config(source="fields", help_text="What is secret is answered masked.")
    contacts = Items(
        child=Text(max_length=CONTACT_MAX_CHARACTERS),
        required=False,
        max_length=CONTACTS_MAX,
        help_text="Names in budget levels' `notify` that are reached here.",
    )
    severities = Items(
        child=Choice(choices=Severity.values),
        required=False,
        max_length=len(Severity.values),
        help_text="Severities that are sent immediately; the rest waits for the digest.",
    )
    digest = Choice(choices=Digest.values, required=False)
    is_paused = Flag(required=False, help_text="Nothing is sent while it is.")
    created_at = Moment(read_only=True)
    delivered_at = Moment(read_only=True, allow_null=True)
    failed_at = Moment(read_only=True, allow_null=True)
    last_error = serializers.CharField(read_only=True, allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if (
            self.instance is not None
            and attrs.pop("kind", self.instance.kind) != self.instance.kind
        ):
            raise problem_at("kind", "stays as it is; add another channel", "fixed")
        return attrs


class NewChannelAnswer(ChannelBody):
    """A channel, and what is shown this once."""

    secret = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="What signatures are verified with, of a webhook; shown this once.",
    )


class SecretAnswer(Answer):
    """A secret that is shown this once."""

    secret: str


class ChannelsView(ApiView):
    """All channels of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List channels, oldest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(ChannelBody),
    )
    def get(self, request: Request) -> Response:
        return answer_page(request, _channels(request), channel_answer, is_newest_first=False)

    @extend_schema(
        summary="Add a channel",
        description="What it needs to know is in `config`, by its kind.",
        request=ChannelBody,
        responses={201: NewChannelAnswer},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = read_body(ChannelBody, request)
        with refusals():
            channel = create_channel(tenant=tenant_of(request), actor=actor_of(request), **body)
        answer = {**channel_answer(channel), "secret": signing_secret(channel)}
        return Response(answer, status=201)


class ChannelView(ApiView):
    """One channel."""

    @extend_schema(summary="Show a channel", responses=ChannelBody)
    def get(self, request: Request, channel_id: int) -> Response:
        return Response(channel_answer(find(_channels(request), channel_id)))

    @extend_schema(
        summary="Change a channel",
        description="What waits for it is sent as it is then.",
        request=ChannelBody,
        responses=ChannelBody,
    )
    def patch(self, request: Request, channel_id: int) -> Response:
        channel = find(_channels(request), channel_id)
        changes = read_body(ChannelBody, request, instance=channel, partial=True)
        with refusals():
            changed = update_channel(channel=channel, actor=actor_of(request), changes=changes)
        return Response(channel_answer(changed))

    @extend_schema(
        summary="Remove a channel; its deliveries stay to be read",
        description="What waits for it is not sent any more.",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, channel_id: int) -> Response:
        remove_channel(channel=find(_channels(request), channel_id), actor=actor_of(request))
        return Response(status=204)


class ProbeView(ApiView):
    """A test of one channel."""

    also_answers = {"POST": (409, 429)}

    @extend_schema(
        summary="Send a test message",
        description="The answer is given before it is tried: see the delivery's `state` and"
        " `attempts` later. At most 5 of a channel and 30 in all are sent within a minute.",
        request=None,
        responses={202: DeliveryDetailAnswer},
    )
    @idempotent
    def post(self, request: Request, channel_id: int) -> Response:
        delivery = test_channel(
            channel=find(_channels(request), channel_id), actor=actor_of(request)
        )
        return Response(detail_answer(delivery), status=202)


class RotateView(ApiView):
    """A new secret for one channel."""

    @extend_schema(
        summary="Give a webhook a new secret, shown this once",
        description="For 24 hours messages are signed with the old one too.",
        request=None,
        responses={200: SecretAnswer},
    )
    @idempotent
    def post(self, request: Request, channel_id: int) -> Response:
        with refusals():
            secret = rotate_secret(
                channel=find(_channels(request), channel_id), actor=actor_of(request)
            )
        return Response(SecretAnswer(secret=secret))


@contextmanager
def refusals() -> Iterator[None]:
    """What the domain refuses of a channel, at the member that is wrong."""
    try:
        yield
    except WrongChannel as error:
        wrong = {error.field: serializers.ErrorDetail(error.reason, code="invalid")}
        is_own = error.field in ChannelBody().fields
        raise serializers.ValidationError(wrong if is_own else {"config": wrong}) from error


def channel_answer(channel: Channel) -> dict[str, Any]:
    """A channel as the API shows it."""
    answer: dict[str, Any] = ChannelBody({**vars(channel), "fields": shown_fields(channel)}).data
    return answer


def _channels(request: Request) -> QuerySet[Channel]:
    return Channel.objects.filter(tenant=tenant_of(request), removed_at__isnull=True)
