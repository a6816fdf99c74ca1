"""`/v1/incidents`: what people should look at, and how they handle it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from django.db.models import Q, QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from msgspec import Meta
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.deliveries import DeliveryAnswer, delivery_answer
from alerts.incident_lists import having_status, having_values
from alerts.incidents import SNOOZE_MAX, acknowledge, assign, comment, resolve, snooze
from alerts.messages import outside
from alerts.models import STATUSES, Anomaly, EntryKind, Incident, IncidentKind, Severity
from alerts.routing import link_to
from alerts.series import MONEY_MEASURES
from common.api.fields import (
    Count,
    OptionalBody,
    StrictSerializer,
    Text,
    Timestamp,
    problem_at,
    read_body,
)
from common.api.pagination import PAGE_PARAMETERS
from common.api.parameters import TIMESTAMP_SCHEMA, InvalidParameter, read_timestamp
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of, usd_or_none
from common.json_bodies import JsonObject
from common.money import usd_from_nanos
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import FILTER_PARAMETERS, read_filters
from metering.reporting.question import unknown_dimension
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.models import User

SNOOZE_SECONDS_MAX: Final = int(SNOOZE_MAX.total_seconds())
TEXT_CHARACTERS_MAX: Final = 5000
# The latest of each, so that what lasts for weeks is answered quickly too.
TIMELINE_MAX: Final = 500
ANOMALIES_MAX: Final = 100
DELIVERIES_MAX: Final = 100
VALUES_BY_FILTER: Final[Mapping[str, tuple[str, ...]]] = {
    "status": STATUSES,
    "kind": tuple(IncidentKind.values),
    "severity": tuple(Severity.values),
}


class IncidentAnswer(Answer):
    """Something people should look at: one for a cause as long as it lasts."""

    id: int
    kind: Annotated[str, one_of(IncidentKind.values)]
    severity: Annotated[str, one_of(Severity.values)]
    status: Annotated[str, one_of(STATUSES)]
    title: str
    summary: Annotated[str, about("With the figures as last observed.")]
    match: Annotated[JsonObject, about("Dimensions and the values that it is about.")]
    facts: Annotated[
        JsonObject, about("Figures, by kind of incident; money in members that end in `_usd`.")
    ]
    excess_usd: Annotated[
        AmountUsd | None, about("Spent beyond what was expected or allowed, as far as it is known.")
    ]
    observations: Annotated[int, about("How often the cause was seen.")]
    opened_at: UtcTimestamp
    seen_at: Annotated[UtcTimestamp, about("When the cause was last seen.")]
    acknowledged_at: UtcTimestamp | None
    acknowledged_by: str | None
    assigned_to: Annotated[str | None, Meta(extra_json_schema={"format": "email"})]
    snoozed_until: UtcTimestamp | None
    resolved_at: UtcTimestamp | None
    resolved_by: Annotated[str | None, about("Null with `resolved_at`: it ended by itself.")]
    link: Annotated[str, about("Its page.")]


class EntryAnswer(Answer):
    """A line of an incident's timeline."""

    at: UtcTimestamp
    kind: Annotated[str, one_of(EntryKind.values)]
    actor: Annotated[str, about("A person, a key, or `spendgate` for the service.")]
    text: str


class AnomalyAnswer(Answer):
    """One measure of one series that was not as expected. Money is in the members `_usd`."""

    dimension: Annotated[str, about("Empty: the tenant as a whole.")]
    value: str
    measure: str
    is_above: bool
    began_at: UtcTimestamp
    seen_at: UtcTimestamp
    ended_at: UtcTimestamp | None
    score: float
    actual: Annotated[float | None, about("Null if it is money.")]
    expected: float | None
    actual_usd: AmountUsd | None
    expected_usd: AmountUsd | None
    excess_usd: AmountUsd


class IncidentDetailAnswer(IncidentAnswer):
    """An incident with what happened to it: the latest 500 lines, 100 anomalies and deliveries."""

    timeline: Annotated[list[EntryAnswer], about("Oldest first.")]
    anomalies: Annotated[list[AnomalyAnswer], about("Newest first.")]
    deliveries: Annotated[list[DeliveryAnswer], about("Newest first.")]


class AssignBody(StrictSerializer):
    """Who has the incident. Validated for the tenant in the context."""

    assigned_to = Text(
        max_length=254, allow_null=True, help_text="A member's email address; null: no one."
    )

    def validate_assigned_to(self, value: str | None) -> User | None:
        if value is None:
            return None
        members = User.objects.filter(memberships__tenant=self.context["tenant"])
        user = members.filter(email__iexact=value.strip()).first()
        if user is None:
            raise serializers.ValidationError("is no member of this tenant", code="unknown_member")
        return user


class RemarkBody(OptionalBody):
    """A note from the person who resolves an incident."""

    text = Text(required=False, max_length=TEXT_CHARACTERS_MAX, allow_blank=True)


class CommentBody(StrictSerializer):
    """A line for the timeline."""

    text = Text(max_length=TEXT_CHARACTERS_MAX)


class SnoozeBody(StrictSerializer):
    """How long no one is notified, unless it becomes critical. `until` of null ends a snooze."""

    until = Timestamp(required=False, allow_null=True, help_text="At most 90 days from now.")
    seconds = Count(required=False, max_value=SNOOZE_SECONDS_MAX, help_text="Instead of `until`.")

    def validate(self, attrs: JsonObject) -> JsonObject:
        if ("until" in attrs) == ("seconds" in attrs):
            raise problem_at("until", "give this or 'seconds', and not both", "required")
        now = timezone.now()
        if "seconds" in attrs:
            return {"until": now + timedelta(seconds=attrs["seconds"])}
        if attrs["until"] is not None and not now < attrs["until"] <= now + SNOOZE_MAX:
            raise problem_at("until", f"must lie within the next {SNOOZE_MAX.days} days")
        return attrs


@extend_schema_view(
    list=extend_schema(summary="List incidents, newest first"),
    retrieve=extend_schema(
        summary="Show an incident with its timeline, anomalies and deliveries",
        responses=IncidentDetailAnswer,
    ),
)
class Incidents(Resource[Incident]):
    """The incidents of the tenant."""

    model = Incident
    noun = "incident"
    answer = IncidentAnswer
    related = ("assigned_to",)
    order = ("-id",)
    filters = MATCHABLE
    parameters = {
        "list": (
            *PAGE_PARAMETERS,
            *(
                OpenApiParameter(
                    name,
                    {
                        "type": "array",
                        "items": {"type": "string", "enum": list(values)},
                        "minItems": 1,
                    },
                    explode=False,
                    description="One or several, separated by commas.",
                )
                for name, values in VALUES_BY_FILTER.items()
            ),
            OpenApiParameter("from", TIMESTAMP_SCHEMA, description="Not what was resolved before."),
            OpenApiParameter(
                "to", TIMESTAMP_SCHEMA, description="Not what was opened then or later."
            ),
            *FILTER_PARAMETERS,
        )
    }
    also_answers = {"acknowledge": (409,)}

    def listed_rows(self) -> QuerySet[Incident]:
        return self.rows().filter(_filters(self.request))

    def answer_of(self, row: Incident) -> IncidentAnswer:
        return incident_answer(row)

    def full_answer(self, row: Incident) -> IncidentAnswer:
        entries = list(row.entries.order_by("-id")[:TIMELINE_MAX])
        anomalies = row.anomalies.order_by("-id")[:ANOMALIES_MAX]
        deliveries = row.delivery_set.order_by("-id")[:DELIVERIES_MAX]
        return incident_answer(
            row,
            IncidentDetailAnswer,
            timeline=[EntryAnswer.of(entry) for entry in reversed(entries)],
            anomalies=[_anomaly_answer(anomaly) for anomaly in anomalies],
            deliveries=[delivery_answer(delivery) for delivery in deliveries],
        )

    @extend_schema(
        summary="Assign an incident to a member, or to no one",
        request=AssignBody,
        responses=IncidentDetailAnswer,
    )
    def partial_update(self, request: Request, **path: object) -> Response:
        incident = self.row()
        user = read_body(AssignBody, request, tenant=self.tenant)["assigned_to"]
        return Response(self.full_answer(assign(incident=incident, actor=self.actor, user=user)))

    @extend_schema(
        summary="Acknowledge an incident",
        description="A second time changes nothing. Pagers stop paging.",
        request=None,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def acknowledge(self, request: Request, **path: object) -> Response:
        return Response(self.full_answer(acknowledge(incident=self.row(), actor=self.actor)))

    @extend_schema(
        summary="Resolve an incident",
        description="A second time changes nothing. The cause may open another incident once it"
        " has rested for the tenant's cool-down.",
        request=RemarkBody,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def resolve(self, request: Request, **path: object) -> Response:
        incident, text = self.row(), read_body(RemarkBody, request).get("text", "")
        return Response(self.full_answer(resolve(incident=incident, actor=self.actor, text=text)))

    @extend_schema(
        summary="Snooze an incident: notify no one for a while",
        request=SnoozeBody,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def snooze(self, request: Request, **path: object) -> Response:
        incident, until = self.row(), read_body(SnoozeBody, request)["until"]
        return Response(self.full_answer(snooze(incident=incident, actor=self.actor, until=until)))

    @extend_schema(
        summary="Add a comment to an incident's timeline, even after it was resolved",
        request=CommentBody,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def comment(self, request: Request, **path: object) -> Response:
        incident, text = self.row(), read_body(CommentBody, request)["text"]
        return Response(self.full_answer(comment(incident=incident, actor=self.actor, text=text)))


def _filters(request: Request) -> Q:
    """Return the condition in a request's filters."""
    now = timezone.now()
    dimensions = read_filters(request)
    for name in dimensions:
        if name not in MATCHABLE:
            raise unknown_dimension(name)
    condition = having_values(dimensions)
    if (statuses := _values(request, "status")) is not None:
        condition &= Q(*(having_status(status, now) for status in statuses), _connector=Q.OR)
    for name in ("kind", "severity"):
        if (values := _values(request, name)) is not None:
            condition &= Q(**{f"{name}__in": values})
    if (starts_at := read_timestamp(request, "from")) is not None:
        condition &= Q(resolved_at__isnull=True) | Q(resolved_at__gte=starts_at)
    if (ends_at := read_timestamp(request, "to")) is not None:
        condition &= Q(opened_at__lt=ends_at)
    return condition


def _values(request: Request, name: str) -> list[str] | None:
    """Return the values of a filter, or None if it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    values, known = text.split(","), VALUES_BY_FILTER[name]
    if not set(values) <= set(known):
        detail = f"{name!r} must be of {', '.join(known)}, separated by commas."
        raise InvalidParameter.of(name, "invalid_request", detail)
    return values


def incident_answer(
    incident: Incident, kind: type[IncidentAnswer] = IncidentAnswer, **further: object
) -> IncidentAnswer:
    """Return an incident as lists show it, or as a kind that has further fields."""
    return kind.of(
        incident,
        facts=outside(incident.facts),
        excess_usd=usd_or_none(incident.excess_nanos),
        acknowledged_by=incident.acknowledged_by or None,
        assigned_to=incident.assigned_to.email if incident.assigned_to else None,
        resolved_by=incident.resolved_by or None,
        link=link_to(incident.id),
        **further,
    )


def _anomaly_answer(anomaly: Anomaly) -> AnomalyAnswer:
    is_money = anomaly.measure in MONEY_MEASURES
    actual, expected = anomaly.actual, anomaly.expected
    return AnomalyAnswer.of(
        anomaly,
        actual=None if is_money else actual,
        expected=None if is_money else expected,
        actual_usd=usd_from_nanos(round(actual)) if is_money else None,
        expected_usd=usd_from_nanos(round(expected)) if is_money else None,
        excess_usd=usd_from_nanos(anomaly.excess_nanos),
    )
