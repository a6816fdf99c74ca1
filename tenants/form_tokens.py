"""Tokens of the admin's forms: each is taken once, and in the tenant that it was opened for."""

import re
import uuid
from typing import Final

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest

from tenants.models import IdempotencyRecord, Tenant

FORM_FIELD: Final = "form_token"
TOKEN_FORM: Final = re.compile(r"[0-9a-zA-Z.-]{0,64}")


class AlreadySent(Exception):
    """The same form was sent before, by a second click or a reload."""


def new_form_token(tenant: Tenant) -> str:
    """Return a token for a form of this tenant."""
    return f"{tenant.id}.{uuid.uuid4().hex}"


def is_of_other_tenant(request: HttpRequest, tenant: Tenant) -> bool:
    """Return whether a form was opened while the person looked at another tenant."""
    tenant_id, has_tenant, _ = request.POST.get(FORM_FIELD, "").partition(".")
    return bool(has_tenant) and tenant_id != str(tenant.id)


def claim_form(request: HttpRequest, tenant: Tenant) -> None:
    """Take a form's token for this request alone. Raises AlreadySent if another request had it.

    The unique key makes the second of two clicks wait for the first and then see that it is second.
    """
    token = request.POST.get(FORM_FIELD, "")
    if not token:
        return
    if not TOKEN_FORM.fullmatch(token):
        raise SuspiciousOperation("The form's token was not made here.")
    _, is_first = IdempotencyRecord.objects.get_or_create(
        tenant=tenant, key=f"form {token}", defaults={"request_hash": b""}
    )
    if not is_first:
        raise AlreadySent
