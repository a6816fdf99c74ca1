"""Admin pages whose rows the functions of a kind write, and pages that are only looked at."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.http import HttpRequest

from common.errors import MeteringError
from tenants.admin_forms import FilledForm
from tenants.admin_site import TenantModelAdmin, actor_of, tenant_of
from tenants.kinds import Kind


class KindAdmin(TenantModelAdmin):
    """Rows that are made, changed and removed by the functions of their kind."""

    end_done = "removed."
    kind: ClassVar[Kind]

    def write(self, request: HttpRequest, filled: FilledForm) -> Any:
        fields = {name: filled.data[name] for name in filled.form.fields}
        actor = actor_of(request)
        try:
            if filled.is_change:
                return self.kind.update(filled.row, actor=actor, changes=fields)
            return self.kind.create(tenant=tenant_of(request), actor=actor, **fields)
        except MeteringError as error:
            raise ValidationError(error.detail) from error

    def end(self, request: HttpRequest, obj: Any) -> None:
        self.kind.delete(obj, actor=actor_of(request))

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return self.has_change_permission(request, obj)


class ReadOnlyAdmin(TenantModelAdmin):
    """Rows to look at."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False
