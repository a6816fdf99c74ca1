"""`/v1/channels`: where alerts go."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.deliveries import DeliveryDetailAnswer, detail_answer
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
from common.api.fields import (
    Choice,
    Flag,
    Items,
    Spoken,
    StrictSerializer,
    Text,
    Timestamp,
    problem_at,
    read_body,
)
from common.api.structs import Answer
from common.expectations import must_be_object
from common.json_bodies import JsonObject
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource

VALUE_CHARACTERS_MAX: Final = 2000
VALUES_MAX: Final = 50


def _field_schema(field: Field) -> JsonObject:
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
class Config(Spoken):
    """Fields by name, as the channel's kind has them."""

    def to_internal_value(self, data: object) -> JsonObject:
        if not isinstance(data, dict):
            raise serializers.ValidationError(
                must_be_object({"url": "https://hooks.example.com/x"})
            )
        return data

    def to_representation(self, value: JsonObject) -> JsonObject:
        return value


class ChannelBody(StrictSerializer):
    """A channel. A PATCH changes the members it names, and of `config` the fields."""

    id = serializers.IntegerField(read_only=True)
    name = Text()
    kind = Choice(choices=ChannelKind.values)
    config = Config(source="fields", help_text="Secret values are masked.")
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
        help_text="Severities that are sent immediately; everything else waits for the digest.",
    )
    digest = Choice(choices=Digest.values, required=False)
    is_paused = Flag(required=False, help_text="Nothing is sent while it is paused.")
    created_at = Timestamp(read_only=True)
    delivered_at = Timestamp(read_only=True, allow_null=True)
    failed_at = Timestamp(read_only=True, allow_null=True)
    last_error = serializers.CharField(read_only=True, allow_blank=True)

    def validate(self, attrs: JsonObject) -> JsonObject:
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


@extend_schema_view(
    list=extend_schema(summary="List channels, oldest first"),
    retrieve=extend_schema(summary="Show a channel"),
    partial_update=extend_schema(
        summary="Change a channel", description="Pending messages are sent with the new settings."
    ),
    destroy=extend_schema(
        summary="Remove a channel; its deliveries stay readable",
        description="Pending messages are not sent.",
    ),
)
class Channels(Resource[Channel]):
    """The channels of the tenant."""

    model = Channel
    noun = "channel"
    body = ChannelBody
    also_answers = {"test": (409, 429)}

    def rows(self) -> QuerySet[Channel]:
        return super().rows().filter(removed_at__isnull=True)

    def answer_of(self, row: Channel) -> JsonObject:
        return channel_answer(row)

    @extend_schema(
        summary="Add a channel",
        description="Its settings go into `config`, depending on its kind.",
        responses={201: NewChannelAnswer},
    )
    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        fields = read_body(ChannelBody, request)
        with refusals():
            channel = create_channel(tenant=self.tenant, actor=self.actor, **fields)
        answer = {**channel_answer(channel), "secret": signing_secret(channel)}
        return Response(answer, status=201)

    def update_row(self, row: Channel, changes: JsonObject) -> Channel:
        with refusals():
            return update_channel(channel=row, actor=self.actor, changes=changes)

    def delete_row(self, row: Channel) -> object:
        return remove_channel(channel=row, actor=self.actor)

    @extend_schema(
        summary="Send a test message",
        description="The answer comes before the attempt: see the delivery's `state` and"
        " `attempts` later. At most 5 of a channel and 30 in all are sent within a minute.",
        request=None,
        responses={202: DeliveryDetailAnswer},
    )
    @idempotent
    def test(self, request: Request, **path: object) -> Response:
        delivery = test_channel(channel=self.row(), actor=self.actor)
        return Response(detail_answer(delivery), status=202)

    @extend_schema(
        summary="Give a webhook a new secret, shown this once",
        description="For 24 hours messages are signed with the old one too.",
        request=None,
        responses={200: SecretAnswer},
    )
    @idempotent
    def rotate_secret(self, request: Request, **path: object) -> Response:
        with refusals():
            secret = rotate_secret(channel=self.row(), actor=self.actor)
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


def channel_answer(channel: Channel) -> JsonObject:
    """A channel as the API shows it."""
    answer: JsonObject = ChannelBody({**vars(channel), "fields": shown_fields(channel)}).data
    return answer
