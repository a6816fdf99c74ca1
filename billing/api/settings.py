"""`/v1/billing-settings`: who statements are from, and what happens by itself."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.email import Email
from billing.settings import FINALIZE_AFTER_DAYS_MAX, billing_settings, change_billing_settings
from common.api.fields import Count, StrictSerializer, Text, read_body
from metering.fields.body import errors_at_members
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.roles import Scope


class BillingSettingsBody(StrictSerializer):
    """How the tenant bills. A PATCH changes the members it names."""

    legal_name = Text(
        required=False,
        allow_blank=True,
        help_text="On statements; empty: the workspace's name.",
    )
    address = Text(required=False, allow_blank=True, max_length=1000)
    email = Email(required=False, allow_blank=True, help_text="For questions.")
    vat_id = Text(required=False, allow_blank=True, max_length=50)
    statement_prefix = Text(required=False, allow_blank=True, max_length=20)
    credit_note_prefix = Text(required=False, allow_blank=True, max_length=20)
    finalize_after_days = Count(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=FINALIZE_AFTER_DAYS_MAX,
        help_text="Days after a period's end at which its statement is finalized; null: by hand.",
    )


class BillingSettingsView(ApiView):
    """How the tenant bills."""

    write_scope = Scope.BILLING

    @extend_schema(summary="Show how the tenant bills", responses=BillingSettingsBody)
    def get(self, request: Request) -> Response:
        return Response(BillingSettingsBody(billing_settings(tenant_of(request).id)).data)

    @extend_schema(
        summary="Change how the tenant bills",
        description="Final statements stay as they are.",
        request=BillingSettingsBody,
        responses=BillingSettingsBody,
    )
    def patch(self, request: Request) -> Response:
        tenant = tenant_of(request)
        changes = read_body(BillingSettingsBody, request, billing_settings(tenant.id))
        with errors_at_members(BillingSettingsBody()):
            changed = change_billing_settings(tenant, actor=actor_of(request), changes=changes)
        return Response(BillingSettingsBody(changed).data)
