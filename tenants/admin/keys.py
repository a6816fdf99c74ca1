"""Admin pages of API keys."""

from typing import ClassVar, cast

from django.contrib.admin import display, register
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display as labelled

from tenants.admin.secrets import shown_once
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import TenantModelAdmin, actor_of, site, tenant_of
from tenants.forms import KeyFields
from tenants.keys import create_api_key, revoke_api_key
from tenants.middleware import TenantRequest
from tenants.models import ApiKey, User
from tenants.roles import ROLES_THAT_GRANT


class KeyForm(KeyFields, RowForm):
    """A new key."""

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "expires_at")
        help_texts: ClassVar[dict[str, str]] = {
            "expires_at": "In the workspace's zone. Empty: it never expires."
        }


@register(ApiKey, site=site)
class KeyAdmin(TenantModelAdmin):
    """Keys by which programs act for the tenant."""

    form = KeyForm
    writers = ROLES_THAT_GRANT
    list_select_related = ("created_by",)
    list_display = ("name", "begins_with", "may", "state", "last_used_at", "created_by")
    search_fields = ("name", "prefix")
    ordering = ("-id",)
    fields = ("name", "scopes", "expires_at")
    end_verb = "Revoke key"
    end_consequence = (
        "Everything that uses this key is refused within a second. This cannot be undone: create "
        "a new key first if one is needed."
    )
    end_done = "revoked."

    @display(description="Prefix")
    def begins_with(self, obj: ApiKey) -> str:
        return f"sg_{obj.prefix}_"

    @display(description="Scopes")
    def may(self, obj: ApiKey) -> str:
        return ", ".join(obj.scopes)

    @labelled(
        description="State", label={"in use": "success", "revoked": "danger", "expired": "warning"}
    )
    def state(self, obj: ApiKey) -> str:
        if obj.revoked_at is not None:
            return "revoked"
        is_expired = obj.expires_at is not None and obj.expires_at <= timezone.now()
        return "expired" if is_expired else "in use"

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("name", "scopes", "expires_at")
        shown = ("name", "begins_with", "may", "state", "expires_at", "revoked_at", "last_used_at")
        return (*shown, "created_by", "created_at")

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return self.may_write(request) and (obj is None or obj.revoked_at is None)

    def write(self, request: HttpRequest, filled: FilledForm) -> ApiKey:
        assert isinstance(request.user, User)
        key, text = create_api_key(
            tenant=tenant_of(request),
            name=filled.data["name"],
            scopes=filled.data["scopes"],
            expires_at=filled.data["expires_at"],
            created_by=request.user,
            actor=actor_of(request),
        )
        cast(TenantRequest, request).shown_once = text
        return key

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return shown_once(
            self,
            request,
            title=f"The key “{obj.name}”",
            secret=cast(TenantRequest, request).shown_once or "",
            words="Only its hash is stored. Copy it now to where it is used; anyone who has it can "
            "act for this tenant.",
        )

    def end(self, request: HttpRequest, obj: ApiKey) -> None:
        revoke_api_key(key=obj, actor=actor_of(request))
