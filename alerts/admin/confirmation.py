"""The page that asks once more before a person's deed is done, and what it needs to know."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from tenants.admin_site import TenantModelAdmin
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# Who may act on incidents: whoever is on call, besides those who may change what is configured.
ON_CALL_ROLES: Final = frozenset(
    role for role in Role if {Scope.ENFORCE, Scope.MANAGE} & SCOPES_BY_ROLE[role]
)


class Question(NamedTuple):
    """What is about to be done, in words."""

    title: str
    verb: str
    consequence: str
    facts: Sequence[tuple[str, str]]
    # Where to go instead.
    back: str


def sent(request: HttpRequest) -> Any:
    """What a form was sent with; None while the question is only asked."""
    return request.POST if request.method == "POST" else None


def ask(
    page: TenantModelAdmin, request: HttpRequest, *, question: Question, form: forms.Form
) -> HttpResponse:
    """The question as a page. Nothing is done by a GET."""
    return TemplateResponse(
        request,
        "admin/alerts/confirm.html",
        {
            **page.admin_site.each_context(request),
            **question._asdict(),
            "opts": page.opts,
            "form": form,
        },
    )
