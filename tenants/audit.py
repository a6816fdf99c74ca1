"""The audit log: one entry for every change of configuration, in the change's own transaction."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db import models

from tenants.models import AuditEntry

# What must never reach the log, even hashed.
SECRET_FIELDS = frozenset({"secret_hash", "token_hash", "password", "secrets"})


def record_change(
    *,
    tenant_id: int,
    actor: str,
    action: str,
    subject: models.Model,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry | None:
    """Write who changed what, in values of `facts_of`; an update without change writes nothing."""
    changes = _differences(before or {}, after or {})
    if action == "update" and not changes:
        return None
    return AuditEntry.objects.create(
        tenant_id=tenant_id,
        actor=actor[:300],
        action=action,
        object_type=subject._meta.model_name or "",
        object_id=str(subject.pk),
        changes=changes,
    )


def facts_of(subject: models.Model) -> dict[str, Any]:
    """A model's own columns as JSON values, without secrets."""
    return {
        field.attname: _as_json(getattr(subject, field.attname))
        for field in subject._meta.concrete_fields
        if field.attname not in SECRET_FIELDS
    }


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, str | int | float | bool | dict) or value is None:
        return value
    return str(value)
