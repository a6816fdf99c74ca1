"""The audit log: one entry for every change of configuration, in the change's own transaction.

`create_audited`, `audited_change` and `delete_audited` are how configuration is written; where no
single row is written, `record_change` adds the entry.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from django.db import models

from common.errors import NotFound
from common.json_bodies import JsonObject
from tenants.models import AuditEntry, Tenant

# What must never reach the log, even hashed.
SECRET_FIELDS = frozenset({"secret_hash", "token_hash", "password", "secrets"})

Row = TypeVar("Row", bound=models.Model)


@dataclass(frozen=True)
class RowChange(Generic[Row]):
    """A locked row that is being changed, and what the log knows of it from before."""

    row: Row
    before: Mapping[str, object]

    def concerns(self, names: Sequence[str]) -> bool:
        """Return whether one of these columns has changed by now."""
        now = facts_of(self.row)
        return any(now[name] != self.before[name] for name in names)


def create_audited(row: Row, *, actor: str) -> Row:
    """Store a new row."""
    row.save()
    _record(row, actor=actor, action="create", after=facts_of(row))
    return row


@contextmanager
def audited_change(
    row: Row,
    *,
    actor: str,
    action: str = "update",
    changes: Mapping[str, object] | None = None,
    details: Callable[[Row], Mapping[str, object]] | None = None,
) -> Iterator[RowChange[Row]]:
    """Lock a row as it is stored and make the changes; save it after the block, which may change
    more of it. `details` returns what the log knows of a row if that is more than its columns.
    """
    read = details or facts_of
    stored = lock_stored(row)
    change = RowChange(stored, read(stored))
    for name, value in (changes or {}).items():
        setattr(stored, name, value)
    yield change
    stored.save()
    _record(stored, actor=actor, action=action, before=change.before, after=read(stored))


def lock_stored(row: Row) -> Row:
    """Lock a row until commit, and return it as it is stored. Raises NotFound if it is gone."""
    # Not against foreign keys: who adds a row that refers to this one need not wait.
    stored = _stored(row).select_for_update(no_key=True).first()
    if stored is None:
        raise NotFound.of(str(row._meta.verbose_name), row.pk)
    return stored


def delete_audited(row: models.Model, *, actor: str) -> None:
    """Remove a row. One that is gone already changes nothing."""
    for stored in _stored(row).select_for_update():
        _record(stored, actor=actor, action="delete", before=facts_of(stored))
        stored.delete()


def _stored(row: Row) -> models.QuerySet[Row]:
    rows = type(row)._default_manager.filter(pk=row.pk)
    return rows if isinstance(row, Tenant) else rows.filter(tenant_id=_tenant_id(row))


def _tenant_id(row: models.Model) -> int:
    return int(row.pk if isinstance(row, Tenant) else row.serializable_value("tenant_id"))


def _record(row: models.Model, **entry: Any) -> None:
    record_change(tenant_id=_tenant_id(row), subject=row, **entry)


def record_change(
    *,
    tenant_id: int,
    actor: str,
    action: str,
    subject: models.Model,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> AuditEntry | None:
    """Write who changed what, in values of `facts_of`; nothing if it is as it was before."""
    changes = _differences(before or {}, after or {})
    if before is not None and not changes:
        return None
    entry = _entry(subject, changes, tenant_id=tenant_id, actor=actor, action=action)
    entry.save()
    return entry


def record_changes(
    *,
    tenant_id: int,
    actor: str,
    action: str,
    after: Mapping[models.Model, Mapping[str, object]],
) -> None:
    """Write what several rows have now, by one statement."""
    AuditEntry.objects.bulk_create(
        _entry(subject, _differences({}, facts), tenant_id=tenant_id, actor=actor, action=action)
        for subject, facts in after.items()
    )


def _entry(
    subject: models.Model, changes: JsonObject, *, tenant_id: int, actor: str, action: str
) -> AuditEntry:
    return AuditEntry(
        tenant_id=tenant_id,
        actor=actor[:300],
        action=action,
        object_type=subject._meta.model_name or "",
        object_id=str(subject.pk),
        changes=changes,
    )


def facts_of(subject: models.Model) -> JsonObject:
    """A model's own columns as JSON values, without secrets."""
    return {
        field.attname: _as_json(getattr(subject, field.attname))
        for field in subject._meta.concrete_fields
        if field.attname not in SECRET_FIELDS
    }


def _differences(
    before: Mapping[str, object], after: Mapping[str, object]
) -> dict[str, list[object]]:
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }


def _as_json(value: object) -> object:
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
