"""What a person typed into a form that could not be taken: they were signed out meanwhile, or the
form was out of date. It is kept until they have signed in, and shown again, never sent by itself.

It is kept in the browser's own session, sealed, for an hour, and for the same person and tenant
alone: a signed cookie names who looked at what last. The cookie gives no rights. Strangers have
none, so that nothing of theirs is kept. Passwords and secrets are not kept.
"""

import re
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import ResolverMatch, reverse
from django_htmx.http import HttpResponseClientRedirect

from common.sealing import Unreadable, seal, unseal
from tenants.middleware import SESSION_TENANT
from tenants.models import Membership

SESSION_KEY: Final = "kept_input"
# What was typed is sealed for this purpose alone.
PURPOSE: Final = "kept input"
COOKIE: Final = "spendgate_last"
COOKIE_SECONDS: Final = 60 * 24 * 3600
COOKIE_RENEWED_SECONDS: Final = 30 * 24 * 3600
KEPT_SECONDS: Final = 3600
CHARACTERS_MAX: Final = 200_000
# Forms in several tabs.
FORMS_MAX: Final = 3
SIGNED_OUT: Final = "You were signed out before this was saved: nothing was changed."
OUT_OF_DATE: Final = "This form was out of date: nothing was changed."
CHECK: Final = "Check and save again."
# Not kept: what is secret, and what belongs to the request rather than to the person.
NEVER_KEPT: Final = re.compile(
    "csrfmiddlewaretoken|password|secret|credential|_save|_edit|_confirmed|_preview", re.IGNORECASE
)
# What is sent there has no page to come back to.
NO_PAGES: Final = frozenset({"dashboard:switch_tenant"})
# Kept, and not shown.
HIDDEN: Final = frozenset({"back", "form_token", "post", "next"})


class Person(NamedTuple):
    """Who looked at which tenant in this browser last."""

    user_id: int
    tenant_id: int


class KeptInput(NamedTuple):
    """The fields of a form that was not taken."""

    person: Person
    fields: list[tuple[str, list[str]]]
    at: float
    words: str
    has_secrets: bool

    @property
    def shown(self) -> list[tuple[str, str]]:
        """What a person has typed or chosen."""
        return [
            (name, value) for name, values in self.fields if name not in HIDDEN for value in values
        ]

    @property
    def labelled(self) -> list[tuple[str, str, str]]:
        """The same, with words for the names."""
        return [(name.replace("_", " ").capitalize(), name, value) for name, value in self.shown]

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """What goes with it."""
        return [(name, value) for name, values in self.fields if name in HIDDEN for value in values]

    @property
    def data(self) -> QueryDict:
        """The fields as they were sent."""
        data = QueryDict(mutable=True)
        for name, values in self.fields:
            data.setlist(name, values)
        return data

    @property
    def sentence(self) -> str:
        """Return the message for the person."""
        words = f"{self.words} {CHECK}"
        return f"{words} Passwords and secrets are not kept." if self.has_secrets else words


class KeptInputMiddleware:
    """Keep what was sent by who has to sign in first; show it when they are back at the form."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if _sends_to_login(request, response):
            return _on_the_way_to_login(request, response)
        _note_person(request, response)
        return response

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: object
    ) -> HttpResponseBase | None:
        """Show a form again to the person who filled it in."""
        is_members = hasattr(request, "memberships")  # no session is read for programs and health
        if request.method != "GET" or not is_members or SESSION_KEY not in request.session:
            return None
        kept = _find(request)
        if kept is None:
            return None
        if kept.person != _present_person(request):
            return _in_its_tenant(request, kept)
        _drop(request)
        if _shows_it_again(request.resolver_match):
            request.kept_input = kept.data  # type: ignore[attr-defined]
        elif kept.shown:
            return _form_again(request, kept)
        messages.warning(request, kept.sentence)
        return None


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without the token of the present session, such as one opened before signing in again
    in another tab. What was typed is kept, unless another site may have sent it.
    """
    is_ours = reason.startswith("CSRF") and (
        request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    )
    person = _present_person(request) or _last_person(request)
    is_kept = is_ours and person is not None and _keep(request, person, OUT_OF_DATE)
    return render(
        request,
        "403_csrf.html",
        {"again": request.get_full_path() if is_kept else None},
        status=403,
    )


def _sends_to_login(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether a page asks to sign in first, and to come back then."""
    if response.status_code != 302:
        return False
    address = urlsplit(response["Location"])
    is_login = address.path in {settings.LOGIN_URL, reverse("admin:login")}
    return is_login and QueryDict(address.query).get("next") == request.get_full_path()


def _on_the_way_to_login(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    match = request.resolver_match
    if match is not None and match.view_name in NO_PAGES:
        messages.warning(request, SIGNED_OUT)
        return HttpResponseRedirect(settings.LOGIN_URL)
    if request.method == "POST":
        person = _last_person(request)
        if person is None or not _keep(request, person, SIGNED_OUT):
            messages.warning(request, SIGNED_OUT)
    htmx = getattr(request, "htmx", None)
    if not htmx:
        return response
    # A part of a page cannot be replaced by the login: the whole page goes there.
    is_page = request.method == "POST" or htmx.boosted
    following = request.get_full_path() if is_page else htmx.current_url_abs_path or "/"
    return HttpResponseClientRedirect(f"{settings.LOGIN_URL}?{urlencode({'next': following})}")


def _keep(request: HttpRequest, person: Person, words: str) -> bool:
    """Keep a form's fields in the session; False where there is too much, and for the pages of
    accounts, which hold little but passwords.
    """
    if not hasattr(request, "tenant_id"):
        return False
    secret = _secret_names(request.resolver_match)
    sent = [(name, [str(value) for value in values]) for name, values in request.POST.lists()]
    fields = [
        (name, values)
        for name, values in sent
        if not NEVER_KEPT.search(name) and name not in secret
    ]
    if sum(len(name) + sum(map(len, values)) for name, values in fields) > CHARACTERS_MAX:
        return False
    has_secrets = any(
        any(values) and (name in secret or re.search("password|secret|credential", name))
        for name, values in sent
    )
    kept = KeptInput(person, fields, time.time(), words, has_secrets)
    others = dict(request.session.get(SESSION_KEY, {}))
    others.pop(request.get_full_path(), None)
    newest = list(others.items())[-(FORMS_MAX - 1) :]
    sealed = seal(kept._asdict(), purpose=PURPOSE).decode()
    request.session[SESSION_KEY] = {**dict(newest), request.get_full_path(): sealed}
    return True


def _secret_names(match: ResolverMatch | None) -> frozenset[str]:
    """The fields of a form that are secret whatever they are called."""
    view = match.func if match else None
    return getattr(getattr(view, "model_admin", view), "secret_fields", frozenset())


def _find(request: HttpRequest) -> KeptInput | None:
    """What was kept of the form at this address, for the person who is signed in."""
    sealed = request.session[SESSION_KEY].get(request.get_full_path())
    if sealed is None or not request.user.is_authenticated:
        return None
    try:
        kept = _opened(unseal(sealed.encode(), purpose=PURPOSE))
    except Unreadable:
        return None
    is_theirs = kept.person.user_id == request.user.pk
    return kept if is_theirs and time.time() - kept.at < KEPT_SECONDS else None


def _opened(stored: dict[str, Any]) -> KeptInput:
    """As it was before it was stored as JSON."""
    fields = [(name, list(values)) for name, values in stored["fields"]]
    return KeptInput(**{**stored, "person": Person(*stored["person"]), "fields": fields})


def _drop(request: HttpRequest) -> None:
    forms = dict(request.session[SESSION_KEY])
    del forms[request.get_full_path()]
    request.session[SESSION_KEY] = forms


def _in_its_tenant(request: HttpRequest, kept: KeptInput) -> HttpResponse | None:
    """Look at the tenant that the form was for, if the person still belongs to it."""
    memberships: list[Membership] = getattr(request, "memberships", [])
    if kept.person.tenant_id in {membership.tenant_id for membership in memberships}:
        request.session[SESSION_TENANT] = kept.person.tenant_id
        return HttpResponseRedirect(request.get_full_path())
    _drop(request)
    messages.warning(request, f"{kept.words} You no longer belong to the tenant that it was for.")
    return None


def _shows_it_again(match: ResolverMatch | None) -> bool:
    """Whether the page shows the form again by itself, with its errors: those of
    `dashboard.forms.form_page`, and the admin's, with their rows.
    """
    if match is None:
        return False
    is_admin_form = (match.url_name or "").endswith(("_add", "_change"))
    return hasattr(match.func, "shows_kept_input") or (
        hasattr(match.func, "model_admin") and is_admin_form
    )


def _form_again(request: HttpRequest, kept: KeptInput) -> HttpResponse:
    """The fields on a page of their own, to check and to send."""
    response = render(
        request,
        "dashboard/kept_input.html",
        {"kept": kept, "action": request.get_full_path(), "start": reverse("dashboard:overview")},
    )
    response["Cache-Control"] = "no-store"
    return response


def _present_person(request: HttpRequest) -> Person | None:
    """Who is signed in, and the tenant that they look at."""
    tenant_id: int | None = getattr(request, "tenant_id", None)
    if tenant_id is None or not request.user.is_authenticated:
        return None
    return Person(request.user.pk, tenant_id)


def _last_person(request: HttpRequest, max_age: int = COOKIE_SECONDS) -> Person | None:
    try:
        return Person(*signing.loads(request.COOKIES.get(COOKIE, ""), salt=COOKIE, max_age=max_age))
    except signing.BadSignature:
        return None


def _note_person(request: HttpRequest, response: HttpResponseBase) -> None:
    """Set the cookie of who looks at what; leave none when a person signs out on purpose."""
    if not hasattr(request, "memberships"):
        return
    person = _present_person(request)
    if person is None:
        if request.method == "POST" and request.path == reverse("dashboard:logout"):
            response.delete_cookie(COOKIE, samesite="Lax")
        return
    if _last_person(request, COOKIE_RENEWED_SECONDS) == person:
        return
    response.set_cookie(
        COOKIE,
        signing.dumps(list(person), salt=COOKIE),
        max_age=COOKIE_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
