"""`/v1/alert-settings`: what the tenant wants to hear, and when not."""

import re
from datetime import time
from typing import Any, Final

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.models import AlertSettings, Severity
from alerts.rule_settings import (
    COOL_DOWN_SECONDS_MAX,
    THRESHOLD_MAX,
    change_settings_and_rules,
    default_rule,
    rule_values,
)
from alerts.rules import RULES
from alerts.settings import settings_of
from common.api.fields import Choice, Count, Flag, StrictSerializer
from tenants.api.views import ApiView, actor_of, tenant_of

CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@extend_schema_field(
    {"type": "string", "pattern": f"^({CLOCK.pattern})$", "example": "22:00", "maxLength": 5}
)
class Clock(serializers.Field[time, Any, str, Any]):
    """A time of day in the tenant's zone, as 22:00."""

    def to_internal_value(self, data: Any) -> time:
        if not isinstance(data, str) or not CLOCK.fullmatch(data):
            raise serializers.ValidationError("must be a time of day, as 22:00")
        return time.fromisoformat(data)

    def to_representation(self, value: time) -> str:
        return f"{value:%H:%M}"


class QuietHoursBody(StrictSerializer):
    """When people are left in peace. They go past midnight where `until` is earlier."""

    # `from` is no name that Python lets a class have.
    def get_fields(self) -> dict[str, Any]:
        return {"from": Clock(), "until": Clock()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["from"] == attrs["until"]:
            raise serializers.ValidationError("must not end when they begin; send null for none")
        return attrs


class RuleBody(StrictSerializer):
    """How a rule differs from what it is by default."""

    threshold = Count(required=False, max_value=THRESHOLD_MAX)
    severity = Choice(choices=Severity.values, required=False)
    on = Flag(required=False)


class RuleValues(serializers.Serializer[Any]):
    """What a rule is judged by."""

    threshold = serializers.IntegerField()
    severity = serializers.ChoiceField(choices=Severity.values)
    on = serializers.BooleanField()


class RuleAnswer(RuleValues):
    """A rule as it is judged."""

    words = serializers.CharField(help_text="What it looks for.")
    unit = serializers.CharField(help_text="Of the threshold.")
    default = RuleValues(help_text="What a member is where the tenant does not say.")


@extend_schema_field(
    {
        "type": "object",
        "description": "Rules by name, each with the members that change; null: as by default.",
        "properties": {
            name: {
                "type": ["object", "null"],
                "description": rule.words,
                "properties": {
                    "threshold": {"type": "integer", "minimum": 1, "maximum": THRESHOLD_MAX},
                    "severity": {"type": "string", "enum": Severity.values},
                    "on": {"type": "boolean"},
                },
                "additionalProperties": False,
            }
            for name, rule in RULES.items()
        },
        "additionalProperties": False,
    }
)
class Rules(serializers.Field[dict[str, Any], Any, dict[str, Any], Any]):
    """Changes of rules by name; None takes a rule back to what it is by default."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object of rules by name")
        changes: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for name, given in data.items():
            try:
                changes[name] = _read_rule(name, given)
            except serializers.ValidationError as error:
                errors[str(name)[:100]] = error.detail
        if errors:
            raise serializers.ValidationError(errors)
        return changes


def _read_rule(name: str, given: Any) -> dict[str, Any] | None:
    if name not in RULES:
        raise serializers.ValidationError(
            f"is no rule; rules are {', '.join(RULES)}", code="unknown_rule"
        )
    if given is None:
        return None
    body = RuleBody(data=given)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


class AlertSettingsBody(StrictSerializer):
    """The tenant's wishes. A PATCH changes the members it names."""

    quiet_hours = QuietHoursBody(
        required=False,
        allow_null=True,
        help_text="In the tenant's zone. What is not critical waits until they are over.",
    )
    cool_down_seconds = Count(
        required=False,
        min_value=0,
        max_value=COOL_DOWN_SECONDS_MAX,
        help_text="The same cause is not told again within this time, unless it became more"
        " severe.",
    )
    digest_at = Clock(
        required=False,
        help_text="When daily and weekly digests leave, in the tenant's zone; weekly ones on"
        " Monday.",
    )
    halts_loops = Flag(required=False, help_text="Halt a session that goes round in circles.")
    anomaly_limit_percent = Count(
        required=False,
        allow_null=True,
        max_value=99,
        help_text="What budgets' limits count while a critical anomaly lasts; null: as ever.",
    )
    rules = Rules(required=False)

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        """The body as changes of the row."""
        attrs = dict(super().run_validation(data))
        if "quiet_hours" in attrs:
            hours = attrs.pop("quiet_hours") or {"from": None, "until": None}
            attrs |= {"quiet_from": hours["from"], "quiet_until": hours["until"]}
        return attrs


class AlertSettingsAnswer(serializers.Serializer[Any]):
    """The tenant's wishes."""

    quiet_hours = QuietHoursBody(allow_null=True)
    cool_down_seconds = serializers.IntegerField()
    digest_at = Clock()
    halts_loops = serializers.BooleanField()
    anomaly_limit_percent = serializers.IntegerField(allow_null=True)
    rules = serializers.DictField(child=RuleAnswer(), help_text="All rules, by name.")


class AlertSettingsView(ApiView):
    """The tenant's alert settings."""

    @extend_schema(summary="Show the alert settings", responses=AlertSettingsAnswer)
    def get(self, request: Request) -> Response:
        return Response(_answer(settings_of(tenant_of(request).id)))

    @extend_schema(
        summary="Change the alert settings",
        description="What waits already leaves as it would have.",
        request=AlertSettingsBody,
        responses=AlertSettingsAnswer,
    )
    def patch(self, request: Request) -> Response:
        body = AlertSettingsBody(data=request.data)
        body.is_valid(raise_exception=True)
        changes = dict(body.validated_data)
        changed = change_settings_and_rules(
            tenant=tenant_of(request),
            actor=actor_of(request),
            rules=changes.pop("rules", {}),
            changes=changes,
        )
        return Response(_answer(changed))


def _answer(stored: AlertSettings) -> dict[str, Any]:
    has_quiet_hours = stored.quiet_from is not None and stored.quiet_until is not None
    facts = {
        "quiet_hours": {"from": stored.quiet_from, "until": stored.quiet_until}
        if has_quiet_hours
        else None,
        "cool_down_seconds": stored.cool_down_seconds,
        "digest_at": stored.digest_at,
        "halts_loops": stored.halts_loops,
        "anomaly_limit_percent": stored.anomaly_limit_percent,
        "rules": {name: _rule_answer(name, stored) for name in RULES},
    }
    answer: dict[str, Any] = AlertSettingsAnswer(facts).data
    return answer


def _rule_answer(name: str, stored: AlertSettings) -> dict[str, Any]:
    default = default_rule(name)
    return {
        "words": RULES[name].words,
        "unit": RULES[name].unit,
        **rule_values(name, stored.rules),
        "default": default,
    }
