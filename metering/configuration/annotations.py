"""Annotations: moments that a tenant's own tools or people put on its time charts."""

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction

from metering.models import Annotation
from tenants.audit import create_audited, delete_audited
from tenants.models import Tenant


@transaction.atomic
def add_annotation(
    *, tenant: Tenant, time: datetime, text: str, match: Mapping[str, object], actor: str
) -> Annotation:
    """Put a moment on the charts of the usage that `match` is about; an empty one: on all."""
    note = Annotation(tenant=tenant, time=time, text=text, match=dict(match), actor=actor[:300])
    return create_audited(note, actor=actor)


@transaction.atomic
def remove_annotation(*, annotation: Annotation, actor: str) -> None:
    """Take a moment off the charts. The audit log keeps what it said."""
    delete_audited(annotation, actor=actor)
