"""The one page that shows a secret."""

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from tenants.admin_site import TenantModelAdmin


def shown_once(
    page: TenantModelAdmin, request: HttpRequest, *, title: str, secret: str, words: str
) -> HttpResponse:
    """The one page that shows a secret. It is stored nowhere, so a reload cannot show it again."""
    response = TemplateResponse(
        request,
        "admin/shown_once.html",
        {
            **page.admin_site.each_context(request),
            "opts": page.opts,
            "title": title,
            "secret": secret,
            "words": words,
        },
    )
    response["Cache-Control"] = "no-store"
    return response
