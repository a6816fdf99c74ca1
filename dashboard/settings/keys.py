"""API keys: which programs act for the tenant, a new one, and an end to one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import F, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, may_grant, member_page
from dashboard.buttons import button_of
from dashboard.forms import form_page, moment_field, save_once, sent_data, show_form, shown_once
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of
from tenants.forms import KeyFields
from tenants.keys import create_api_key, revoke_api_key
from tenants.models import ApiKey
from tenants.roles import SCOPE_WORDS, Scope

KEYS_MAX: Final = 500
ENDED_MAX: Final = 50
ADVICE: Final = (
    "Only its hash is stored. Put it where it is used; anyone who has it can act for this tenant."
)


@dataclass(frozen=True)
class KeyLine:
    """A key as the page shows it."""

    row: ApiKey
    now: datetime

    @property
    def key(self) -> str:
        """Tells its parts of the page from those of others."""
        return str(self.row.id)

    @property
    def has_expired(self) -> bool:
        return self.row.expires_at is not None and self.row.expires_at <= self.now

    @property
    def breaks(self) -> str:
        """What revoking it would break, as far as one can tell."""
        does = "; ".join(SCOPE_WORDS[Scope(scope)] for scope in self.row.scopes)
        return (
            f"Everything that uses it to {does} is refused within a second. This can't be undone: "
            "create a new key first if one is needed."
        )


class KeyForm(KeyFields):
    """A new key."""

    expires_at = moment_field("Expires", required=False, help_text="Leave empty to never expire.")

    def __init__(self, request: PageRequest) -> None:
        super().__init__(sent_data(request))


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Which programs act for the tenant?"""
    now = timezone.now()
    rows = ApiKey.objects.filter(tenant=request.tenant).select_related("created_by")
    has_ended = Q(revoked_at__isnull=False) | Q(expires_at__lte=now)
    newest = F("last_used_at").desc(nulls_last=True)
    working = [KeyLine(row, now) for row in rows.exclude(has_ended).order_by(newest)[:KEYS_MAX]]
    ended = [KeyLine(row, now) for row in rows.filter(has_ended).order_by("-id")[:ENDED_MAX]]
    context = frame(request, filter_bar_of(request), page="keys") | {
        "headline": headline_of(working),
        "working": working,
        "ended": ended,
        "ended_max": ENDED_MAX,
    }
    return render(request, "dashboard/settings/keys.html", context)


@form_page("keys", may=may_grant)
def add(request: PageRequest) -> HttpResponse:
    """Create a key, and show its text once."""
    form = KeyForm(request)
    made = save_once(
        request,
        form,
        lambda: create_api_key(
            tenant=request.tenant,
            created_by=request.user,
            actor=actor_of(request),
            **form.cleaned_data,
        ),
    )
    if made is not None:
        key, text = made
        context = frame(request, filter_bar_of(request), page="keys")
        context["headline"] = f"The key “{key.name}”"
        return shown_once(request, context, secret=text, words=ADVICE, back="keys")
    return show_form(request, form, page="keys", headline="Create API key", verb="Create key")


@button_of("keys", may=may_grant)
def revoke(request: PageRequest, key_id: int) -> str:
    """Refuse a key from now on."""
    key = get_object_or_404(ApiKey, tenant=request.tenant, id=key_id)
    revoke_api_key(key=key, actor=actor_of(request))
    return f"“{key.name}” was revoked. Requests with it are refused within a second."


def headline_of(working: list[KeyLine]) -> str:
    """The finding: how many keys work, and how many of them no one uses."""
    if not working:
        return "No API key works. Nothing can report usage."
    unused = sum(line.row.last_used_at is None for line in working)
    words = "1 API key works" if len(working) == 1 else f"{len(working):,} API keys work"
    if not unused:
        return f"{words}."
    return f"{words}; {unused:,} {'was' if unused == 1 else 'were'} never used."
