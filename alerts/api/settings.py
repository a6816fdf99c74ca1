"""`/v1/alert-settings`: what the tenant is notified of, and when."""

import re
from datetime import time
from typing import Annotated, Final

import msgspec
from drf_spectacular.utils import extend_schema, extend_schema_field
from msgspec import Meta
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.models import AlertSettings, Severity
from alerts.rules import COOL_DOWN_SECONDS_MAX, RULES, THRESHOLD_MAX, default_rule, rule_values
from alerts.settings import change_alert_settings, settings_of
from common.api.fields import Choice, Count, Flag, Spoken, StrictSerializer, read_body
from common.api.structs import Answer, about, one_of
from common.json_bodies import JsonObject
from common.spelling import did_you_mean
from tenants.api.views import ApiView, actor_of, tenant_of

CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


CLOCK_SCHEMA: Final = {
    "type": "string",
    "pattern": f"^({CLOCK.pattern})$",
    "example": "22:00",
    "maxLength": 5,
}
ClockTime = Annotated[str, Meta(extra_json_schema=CLOCK_SCHEMA)]


@extend_schema_field(CLOCK_SCHEMA)
class Clock(Spoken):
    """A time of day in the tenant's zone, as 22:00."""

    def to_internal_value(self, data: object) -> time:
        if not isinstance(data, str) or not CLOCK.fullmatch(data):
            raise serializers.ValidationError("must be a time of day, such as 22:00")
        return time.fromisoformat(data)


class QuietHoursBody(StrictSerializer):
    """When people are left in peace. They go past midnight if `until` is earlier."""

    # `from` is no name that Python lets a class have.
    def get_fields(self) -> JsonObject:
        return {"from": Clock(), "until": Clock()}

    def validate(self, attrs: JsonObject) -> JsonObject:
        if attrs["from"] == attrs["until"]:
            raise serializers.ValidationError("must not end when they begin; send null for none")
        return attrs


class RuleBody(StrictSerializer):
    """How a rule differs from what it is by default."""

    threshold = Count(required=False, max_value=THRESHOLD_MAX)
    severity = Choice(choices=Severity.values, required=False)
    on = Flag(required=False)


class RuleValues(Answer):
    """What a rule is judged by."""

    threshold: int
    severity: Annotated[str, one_of(Severity.values)]
    on: bool


class RuleAnswer(RuleValues):
    """A rule as it is judged."""

    words: Annotated[str, about("What it looks for.")]
    unit: Annotated[str, about("Of the threshold.")]
    default: Annotated[RuleValues, about("What a member is if the tenant does not say.")]


class RulesBody(StrictSerializer):
    """Rules by name, each with the members that change; null resets a rule to its defaults."""

    unknown_code = "unknown_rule"

    def get_fields(self) -> JsonObject:
        return {
            name: RuleBody(required=False, allow_null=True, help_text=rule.description)
            for name, rule in RULES.items()
        }

    def unknown(self, name: str) -> str:
        near = did_you_mean(name, tuple(RULES))
        return f"Unknown rule {name[:100]!r}.{near} Rules are {', '.join(RULES)}."


class AlertSettingsBody(StrictSerializer):
    """The tenant's alert settings. A PATCH changes the members it names."""

    quiet_hours = QuietHoursBody(
        required=False,
        allow_null=True,
        help_text="In the tenant's zone. What is not critical waits until they are over.",
    )
    cool_down_seconds = Count(
        required=False,
        min_value=0,
        max_value=COOL_DOWN_SECONDS_MAX,
        help_text="The same cause is not reported again within this time, unless it became more"
        " severe.",
    )
    digest_at = Clock(
        required=False,
        help_text="When daily and weekly digests leave, in the tenant's zone; weekly ones on"
        " Monday.",
    )
    halts_loops = Flag(required=False, help_text="Halt sessions that loop.")
    anomaly_limit_percent = Count(
        required=False,
        allow_null=True,
        max_value=99,
        help_text="The percentage of budgets' limits that counts while a critical anomaly lasts;"
        " null: all of it.",
    )
    rules = RulesBody(required=False)

    def run_validation(self, data: object = empty) -> JsonObject:
        """The body as changes of the row."""
        attrs = dict(super().run_validation(data))
        if "quiet_hours" in attrs:
            hours = attrs.pop("quiet_hours") or {"from": None, "until": None}
            attrs |= {"quiet_from": hours["from"], "quiet_until": hours["until"]}
        return attrs


class QuietHours(Answer):
    """When people are left in peace."""

    starts: ClockTime = msgspec.field(name="from")
    until: ClockTime


class AlertSettingsAnswer(Answer):
    """The tenant's alert settings."""

    quiet_hours: QuietHours | None
    cool_down_seconds: int
    digest_at: ClockTime
    halts_loops: bool
    anomaly_limit_percent: int | None
    rules: Annotated[dict[str, RuleAnswer], about("All rules, by name.")]


class AlertSettingsView(ApiView):
    """The tenant's alert settings."""

    @extend_schema(summary="Show the alert settings", responses=AlertSettingsAnswer)
    def get(self, request: Request) -> Response:
        return Response(_answer(settings_of(tenant_of(request).id)))

    @extend_schema(
        summary="Change the alert settings",
        description="Messages already waiting are sent as before.",
        request=AlertSettingsBody,
        responses=AlertSettingsAnswer,
    )
    def patch(self, request: Request) -> Response:
        changes = read_body(AlertSettingsBody, request)
        changed = change_alert_settings(
            tenant=tenant_of(request),
            actor=actor_of(request),
            rules=changes.pop("rules", {}),
            changes=changes,
        )
        return Response(_answer(changed))


def _answer(stored: AlertSettings) -> AlertSettingsAnswer:
    starts, until = stored.quiet_from, stored.quiet_until
    has_quiet_hours = starts is not None and until is not None
    return AlertSettingsAnswer.of(
        stored,
        quiet_hours=QuietHours(starts=f"{starts:%H:%M}", until=f"{until:%H:%M}")
        if has_quiet_hours
        else None,
        digest_at=f"{stored.digest_at:%H:%M}",
        rules={
            name: RuleAnswer.of(
                rule,
                words=rule.description,
                default=RuleValues.of(rule, **default_rule(name)),
                **rule_values(name, stored.rules),
            )
            for name, rule in RULES.items()
        },
    )
