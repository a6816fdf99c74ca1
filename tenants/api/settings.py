"""`/v1/settings`: how the tenant's usage is judged where its budgets and prices do not say."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Choice, Flag, StrictSerializer, Timezone, Usd, problem_at, read_body
from common.json_bodies import JsonObject
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.models import Tenant, UnpricedPolicy
from tenants.settings import change_settings


class AssumedRatesBody(StrictSerializer):
    """What a model without a price is assumed to cost, where the policy is `assume`."""

    input_per_mtok_usd = Usd(source="assumed_input_nanos_per_mtok", required=False, allow_null=True)
    output_per_mtok_usd = Usd(
        source="assumed_output_nanos_per_mtok", required=False, allow_null=True
    )


class SettingsBody(StrictSerializer):
    """The tenant's settings. A PATCH changes the members it names."""

    tenant = serializers.CharField(source="name", read_only=True)
    timezone = Timezone(required=False)
    unpriced_policy = Choice(choices=UnpricedPolicy.values, required=False)
    assumed_rates = AssumedRatesBody(source="*", required=False)
    trusts_given_costs = Flag(
        required=False, help_text="Take cost attributes inside OTLP and LiteLLM payloads as true."
    )

    def validate(self, attrs: JsonObject) -> JsonObject:
        assert isinstance(self.instance, Tenant)
        merged = {**vars(self.instance), **attrs}
        has_rates = (
            merged["assumed_input_nanos_per_mtok"] is not None
            and merged["assumed_output_nanos_per_mtok"] is not None
        )
        if merged["unpriced_policy"] == UnpricedPolicy.ASSUME and not has_rates:
            raise problem_at("assumed_rates", "the policy 'assume' needs both rates", "required")
        return attrs


class SettingsView(ApiView):
    """The tenant's settings."""

    @extend_schema(summary="Show the settings", responses=SettingsBody)
    def get(self, request: Request) -> Response:
        return Response(SettingsBody(tenant_of(request)).data)

    @extend_schema(summary="Change the settings", request=SettingsBody, responses=SettingsBody)
    def patch(self, request: Request) -> Response:
        tenant = tenant_of(request)
        changes = read_body(SettingsBody, request, tenant)
        changed = change_settings(tenant=tenant, actor=actor_of(request), changes=changes)
        return Response(SettingsBody(changed).data)
