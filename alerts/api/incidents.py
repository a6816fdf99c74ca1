"""`/v1/incidents`: what people should look at, and what they do with it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from django.db.models import Q, QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.deliveries import DeliveryAnswer, delivery_answer
from alerts.incident_lists import STATUSES, about, having_status
from alerts.incidents import SNOOZE_MAX, acknowledge, assign, comment, resolve, snooze, status_of
from alerts.messages import outside
from alerts.models import Anomaly, EntryKind, Incident, IncidentEntry, IncidentKind, Severity
from alerts.routing import link_to
from alerts.series import MONEY_MEASURES
from common.api.fields import Count, Moment, StrictSerializer, Text, Usd, moment_text, problem_at
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import InvalidRequest, NotFound
from common.money import usd_from_nanos
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import FILTER_SCHEMA, MOMENT_SCHEMA, filters_of, moment_of
from metering.reporting.question import unknown_dimension
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.models import User

SNOOZE_SECONDS_MAX: Final = int(SNOOZE_MAX.total_seconds())
TEXT_CHARACTERS_MAX: Final = 5000
# The latest of each, so that what lasts for weeks is answered at once too.
TIMELINE_MAX: Final = 500
ANOMALIES_MAX: Final = 100
DELIVERIES_MAX: Final = 100
# Measures whose unit is nano-dollars.
WORDS_BY_FILTER: Final[Mapping[str, tuple[str, ...]]] = {
    "status": STATUSES,
    "kind": tuple(IncidentKind.values),
    "severity": tuple(Severity.values),
}
LIST_SCHEMA: Final = [
    *(
        OpenApiParameter(
            name,
            {"type": "array", "items": {"type": "string", "enum": list(words)}, "minItems": 1},
            explode=False,
            description="One or several, separated by commas.",
        )
        for name, words in WORDS_BY_FILTER.items()
    ),
    OpenApiParameter("from", MOMENT_SCHEMA, description="Not what was resolved before."),
    OpenApiParameter("to", MOMENT_SCHEMA, description="Not what was opened then or later."),
]


class IncidentAnswer(serializers.Serializer[Any]):
    """Something people should look at: one for a cause as long as it lasts."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=IncidentKind.values)
    severity = serializers.ChoiceField(choices=Severity.values)
    status = serializers.ChoiceField(choices=STATUSES)
    title = serializers.CharField()
    summary = serializers.CharField(help_text="With the figures as last observed.")
    match = serializers.DictField(help_text="Dimensions and the values that it is about.")
    facts = serializers.DictField(
        help_text="Figures, by kind of incident; money in members that end in `_usd`."
    )
    excess_usd = Usd(
        allow_null=True,
        help_text="Spent beyond what was expected or allowed, as far as it is known.",
    )
    observations = serializers.IntegerField(help_text="How often the cause was seen.")
    opened_at = Moment()
    seen_at = Moment(help_text="When the cause was last seen.")
    acknowledged_at = Moment(allow_null=True)
    acknowledged_by = serializers.CharField(allow_null=True)
    assigned_to = serializers.EmailField(allow_null=True)
    snoozed_until = Moment(allow_null=True)
    resolved_at = Moment(allow_null=True)
    resolved_by = serializers.CharField(
        allow_null=True, help_text="Null with `resolved_at`: it ended by itself."
    )
    link = serializers.CharField(help_text="Its page.")


class EntryAnswer(serializers.Serializer[Any]):
    """A line of an incident's timeline."""

    at = Moment()
    kind = serializers.ChoiceField(choices=EntryKind.values)
    actor = serializers.CharField(help_text="A person, a key, or `spendgate` for the service.")
    text = serializers.CharField(allow_blank=True)


class AnomalyAnswer(serializers.Serializer[Any]):
    """One measure of one series that was not as expected. Money is in the members `_usd`."""

    dimension = serializers.CharField(allow_blank=True, help_text="Empty: the tenant as a whole.")
    value = serializers.CharField(allow_blank=True)
    measure = serializers.CharField()
    is_above = serializers.BooleanField()
    began_at = Moment()
    seen_at = Moment()
    ended_at = Moment(allow_null=True)
    score = serializers.FloatField()
    actual = serializers.FloatField(allow_null=True, help_text="Null where it is money.")
    expected = serializers.FloatField(allow_null=True)
    actual_usd = Usd(allow_null=True)
    expected_usd = Usd(allow_null=True)
    excess_usd = Usd()


class IncidentDetailAnswer(IncidentAnswer):
    """An incident with what happened to it: the latest 500 lines, 100 anomalies and deliveries."""

    timeline = EntryAnswer(many=True, help_text="Oldest first.")
    anomalies = AnomalyAnswer(many=True, help_text="Newest first.")
    deliveries = DeliveryAnswer(many=True, help_text="Newest first.")


class AssignBody(StrictSerializer):
    """Who has the incident. Validated for the tenant in the context."""

    assigned_to = Text(
        max_length=254, allow_null=True, help_text="A member's e-mail address; null: nobody."
    )

    def validate_assigned_to(self, value: str | None) -> User | None:
        if value is None:
            return None
        members = User.objects.filter(memberships__tenant=self.context["tenant"])
        user = members.filter(email__iexact=value.strip()).first()
        if user is None:
            raise serializers.ValidationError("is no member of this tenant", code="unknown_member")
        return user


class RemarkBody(StrictSerializer):
    """What whoever resolves an incident wants to say about it."""

    text = Text(required=False, min_length=0, max_length=TEXT_CHARACTERS_MAX, allow_blank=True)

    def run_validation(self, data: Any = empty) -> Any:
        """Null says nothing."""
        return {} if data is None else super().run_validation(data)


class CommentBody(StrictSerializer):
    """A line for the timeline."""

    text = Text(max_length=TEXT_CHARACTERS_MAX)


class SnoozeBody(StrictSerializer):
    """How long nobody is told, unless it becomes critical. `until` of null ends a snooze."""

    until = Moment(required=False, allow_null=True, help_text="At most 90 days from now.")
    seconds = Count(required=False, max_value=SNOOZE_SECONDS_MAX, help_text="Instead of `until`.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("until" in attrs) == ("seconds" in attrs):
            raise problem_at("until", "give this or 'seconds', and not both", "required")
        now = timezone.now()
        if "seconds" in attrs:
            return {"until": now + timedelta(seconds=attrs["seconds"])}
        if attrs["until"] is not None and not now < attrs["until"] <= now + SNOOZE_MAX:
            raise problem_at("until", f"must lie within the next {SNOOZE_MAX.days} days")
        return attrs


class IncidentsView(ApiView):
    """All incidents of the tenant."""

    filters = MATCHABLE
    parameters = {"GET": PAGE_PARAMETERS | {"from", "to"} | WORDS_BY_FILTER.keys()}

    @extend_schema(
        summary="List incidents, newest first",
        parameters=[*PAGE_SCHEMA, *LIST_SCHEMA, *FILTER_SCHEMA],
        responses=page_serializer(IncidentAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        incidents = Incident.objects.filter(_wanted(request), tenant=tenant_of(request))
        if page.after is not None:
            incidents = incidents.filter(id__lt=page.after[0])
        rows = list(incidents.select_related("assigned_to").order_by("-id")[: page.limit + 1])
        return Response(
            page_answer(
                rows,
                page=page,
                answer=incident_answer,
                key=lambda row: [row.id],
            )
        )


class IncidentView(ApiView):
    """One incident."""

    @extend_schema(
        summary="Show an incident with its timeline, anomalies and deliveries",
        responses=IncidentDetailAnswer,
    )
    def get(self, request: Request, incident_id: int) -> Response:
        return _detail(_find(request, incident_id))

    @extend_schema(
        summary="Give an incident to a member, or to nobody",
        request=AssignBody,
        responses=IncidentDetailAnswer,
    )
    def patch(self, request: Request, incident_id: int) -> Response:
        incident = _find(request, incident_id)
        body = AssignBody(data=request.data, context={"tenant": tenant_of(request)})
        body.is_valid(raise_exception=True)
        user = body.validated_data["assigned_to"]
        return _detail(assign(incident=incident, actor=actor_of(request), user=user))


class AcknowledgeView(ApiView):
    """Somebody looks at it."""

    also_answers = {"POST": (409,)}

    @extend_schema(
        summary="Acknowledge an incident",
        description="A second time changes nothing. Pagers stop paging.",
        request=None,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident = _find(request, incident_id)
        return _detail(acknowledge(incident=incident, actor=actor_of(request)))


class ResolveView(ApiView):
    """It is dealt with."""

    @extend_schema(
        summary="Resolve an incident",
        description="A second time changes nothing. The cause may open another incident once it"
        " has rested for the tenant's cool-down.",
        request=RemarkBody,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident = _find(request, incident_id)
        body = RemarkBody(data=request.data)
        body.is_valid(raise_exception=True)
        resolved = resolve(
            incident=incident, actor=actor_of(request), text=body.validated_data.get("text", "")
        )
        return _detail(resolved)


class SnoozeView(ApiView):
    """It can wait."""

    @extend_schema(
        summary="Tell nobody of an incident for a while",
        request=SnoozeBody,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident = _find(request, incident_id)
        body = SnoozeBody(data=request.data)
        body.is_valid(raise_exception=True)
        until = body.validated_data["until"]
        return _detail(snooze(incident=incident, actor=actor_of(request), until=until))


class CommentView(ApiView):
    """Something to say about it."""

    @extend_schema(
        summary="Write a line into an incident's timeline, also after it was resolved",
        request=CommentBody,
        responses={200: IncidentDetailAnswer},
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident = _find(request, incident_id)
        body = CommentBody(data=request.data)
        body.is_valid(raise_exception=True)
        text = body.validated_data["text"]
        return _detail(comment(incident=incident, actor=actor_of(request), text=text))


def _wanted(request: Request) -> Q:
    """The condition in a request's filters."""
    now = timezone.now()
    wanted = about(_dimension_filters(request))
    if (statuses := _words(request, "status")) is not None:
        wanted &= Q(*(having_status(one, now) for one in statuses), _connector=Q.OR)
    if (kinds := _words(request, "kind")) is not None:
        wanted &= Q(kind__in=kinds)
    if (severities := _words(request, "severity")) is not None:
        wanted &= Q(severity__in=severities)
    if (starts_at := moment_of(request, "from")) is not None:
        wanted &= Q(resolved_at__isnull=True) | Q(resolved_at__gte=starts_at)
    if (ends_at := moment_of(request, "to")) is not None:
        wanted &= Q(opened_at__lt=ends_at)
    return wanted


def _dimension_filters(request: Request) -> Mapping[str, tuple[str, ...]]:
    filters = filters_of(request)
    for name in filters:
        if name not in MATCHABLE:
            raise unknown_dimension(name)
    return filters


def _words(request: Request, name: str) -> list[str] | None:
    """The words of a filter, or None when it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    words = text.split(",")
    known = WORDS_BY_FILTER[name]
    if not set(words) <= set(known):
        raise InvalidRequest(f"{name!r} must be of {', '.join(known)}, separated by commas.")
    return words


def _find(request: Request, incident_id: int) -> Incident:
    found = (
        Incident.objects.filter(tenant=tenant_of(request), id=incident_id)
        .select_related("assigned_to")
        .first()
    )
    if found is None:
        raise NotFound(f"There is no incident {incident_id}.")
    return found


def _detail(incident: Incident) -> Response:
    newest_entries = list(incident.entries.order_by("-id")[:TIMELINE_MAX])
    anomalies: QuerySet[Anomaly] = incident.anomalies.order_by("-id")[:ANOMALIES_MAX]
    deliveries = incident.delivery_set.order_by("-id")[:DELIVERIES_MAX]
    return Response(
        {
            **incident_answer(incident),
            "timeline": [_entry_answer(entry) for entry in reversed(newest_entries)],
            "anomalies": [_anomaly_answer(anomaly) for anomaly in anomalies],
            "deliveries": [delivery_answer(delivery) for delivery in deliveries],
        }
    )


def incident_answer(incident: Incident) -> dict[str, Any]:
    """An incident as lists show it."""
    facts = {
        **vars(incident),
        "status": status_of(incident),
        "facts": outside(incident.facts),
        "excess_usd": incident.excess_nanos,
        "acknowledged_by": incident.acknowledged_by or None,
        "assigned_to": incident.assigned_to.email if incident.assigned_to else None,
        "resolved_by": incident.resolved_by or None,
        "link": link_to(incident.id),
    }
    answer: dict[str, Any] = IncidentAnswer(facts).data
    return answer


def _entry_answer(entry: IncidentEntry) -> dict[str, Any]:
    return {
        "at": moment_text(entry.at),
        "kind": entry.kind,
        "actor": entry.actor,
        "text": entry.text,
    }


def _anomaly_answer(anomaly: Anomaly) -> dict[str, Any]:
    is_money = anomaly.measure in MONEY_MEASURES
    figures = {"actual": anomaly.actual, "expected": anomaly.expected}
    return {
        "dimension": anomaly.dimension,
        "value": anomaly.value,
        "measure": anomaly.measure,
        "is_above": anomaly.is_above,
        "began_at": moment_text(anomaly.began_at),
        "seen_at": moment_text(anomaly.seen_at),
        "ended_at": moment_text(anomaly.ended_at) if anomaly.ended_at else None,
        "score": anomaly.score,
        **{name: None if is_money else figure for name, figure in figures.items()},
        **{
            f"{name}_usd": usd_from_nanos(round(figure)) if is_money else None
            for name, figure in figures.items()
        },
        "excess_usd": usd_from_nanos(anomaly.excess_nanos),
    }
