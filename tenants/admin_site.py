"""The admin pages: one tenant at a time, by the role of the person in it.

What people may see and do follows from their membership in the present tenant; Django's own
permissions and the staff flag mean nothing here. Writes go through the domain's functions, which
keep the audit log, so Django's log of admin actions is off.
"""

import re
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from urllib.parse import urlencode

from csp.constants import SELF, UNSAFE_EVAL
from django.contrib import messages
from django.core.exceptions import PermissionDenied, SuspiciousOperation, ValidationError
from django.forms import BaseForm, ModelForm
from django.forms.models import BaseInlineFormSet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.templatetags.static import static
from django.urls import reverse
from unfold.admin import ModelAdmin, TabularInline
from unfold.sites import UnfoldAdminSite

from tenants.admin_questions import (
    CONFIRMED,
    EDITS,
    PREVIEWS,
    Question,
    Unconfirmed,
    ask_about_form,
)
from tenants.models import IdempotencyRecord, Tenant
from tenants.roles import Role

# Django's own classes take type arguments for the type checker alone.
if TYPE_CHECKING:
    RowForm = ModelForm[Any]
    RowFormSet = BaseInlineFormSet[Any, Any, Any]
else:
    RowForm = ModelForm
    RowFormSet = BaseInlineFormSet

# The admin's Alpine evaluates expressions; under its paths alone that is allowed.
SCRIPT_SOURCES: Final = [SELF, UNSAFE_EVAL]
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
TOKEN_FORM: Final = re.compile(r"[0-9a-zA-Z.-]{0,64}")
# All rows of the admin have whole numbers for keys.
ROW_ID: Final = re.compile(r"[0-9]{1,20}")
PARAMETERS_MAX: Final = 100
PARAMETER_CHARACTERS_MAX: Final = 2000
# What the filters of lists add to the name of their field.
FILTER_LOOKUPS: Final = ("", "__exact", "__isnull")

ACCENT: Final = {
    "50": "#eef4ff",
    "100": "#dbe6fe",
    "200": "#bfd3fe",
    "300": "#93b4fd",
    "400": "#6f9bf8",
    "500": "#4a7bee",
    "600": "#1f55c4",
    "700": "#1b469f",
    "800": "#1b3c82",
    "900": "#1b356b",
    "950": "#142144",
}


class Item(NamedTuple):
    """A line of the navigation: words, icon, and the model or the address that it leads to."""

    title: str
    icon: str
    target: str


NAVIGATION: Final = (
    (
        "Watch",
        (Item("Overview", "monitoring", "dashboard:overview"),),
    ),
    (
        "Spending limits",
        (
            Item("Budgets", "savings", "metering.budget"),
            Item("Crossings", "flag", "metering.crossing"),
            Item("Raises", "trending_up", "metering.budgetraise"),
            Item("Halts", "front_hand", "metering.halt"),
            Item("Breakers", "electric_bolt", "metering.breaker"),
            Item("Rate limits", "speed", "metering.ratelimit"),
            Item("Routes", "alt_route", "metering.modelroute"),
        ),
    ),
    (
        "Alerts",
        (
            Item("Incidents", "crisis_alert", "dashboard:incidents"),
            Item("Channels", "campaign", "alerts.channel"),
            Item("Deliveries", "outbox", "dashboard:deliveries"),
            Item("Alert settings", "notifications_paused", "alerts.alertsettings"),
            Item("Maintenance windows", "engineering", "alerts.maintenancewindow"),
        ),
    ),
    (
        "Prices",
        (
            Item("Model prices", "sell", "metering.tenantprice"),
            Item("Tool prices", "build", "metering.toolprice"),
            Item("Catalogue", "menu_book", "metering.catalogueprice"),
        ),
    ),
    (
        "Access",
        (
            Item("Members", "group", "tenants.membership"),
            Item("Invitations", "mail", "tenants.invitation"),
            Item("Teams", "groups", "tenants.team"),
            Item("API keys", "key", "tenants.apikey"),
        ),
    ),
    (
        "Tenant",
        (
            Item("Settings", "tune", "tenants.tenant"),
            Item("Jobs", "pending_actions", "metering.backgroundjob"),
            Item("Audit log", "history", "tenants.auditentry"),
        ),
    ),
)


class AlreadySent(Exception):
    """The same form was sent before, by a second click or a reload."""


def tenant_of(request: HttpRequest) -> Tenant:
    """The tenant that the person looks at."""
    tenant: Tenant = request.tenant  # type: ignore[attr-defined]
    return tenant


def role_of(request: HttpRequest) -> Role | None:
    """The person's role in the present tenant; None without a membership."""
    role: Role | None = getattr(request, "role", None)
    return role


def actor_of(request: HttpRequest) -> str:
    """Who acts, for the audit log."""
    return str(request.user)


class TenantAdminSite(UnfoldAdminSite):  # type: ignore[misc]
    """The admin of the tenant that the person looks at."""

    index_title = "Settings"

    def has_permission(self, request: HttpRequest) -> bool:
        """Every member may look; what one may change follows from the role."""
        return bool(request.user.is_active and role_of(request) is not None)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        inner = super().admin_view(view, cacheable)

        def with_policy(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            _judge_address(request, kwargs.get("object_id"))
            response: HttpResponse = inner(request, *args, **kwargs)
            response._csp_replace = {"script-src": SCRIPT_SOURCES}  # type: ignore[attr-defined]
            return response

        with_policy.csrf_exempt = getattr(inner, "csrf_exempt", False)  # type: ignore[attr-defined]
        return with_policy

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The pages' own: one place to sign in, with one set of limits."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied("You are no member of this tenant.")
        following = request.GET.get("next") or reverse("admin:index")
        return HttpResponseRedirect(
            f"{reverse('dashboard:login')}?{urlencode({'next': following})}"
        )

    def logout(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # 307 keeps the POST: signing out is never a GET.
        return HttpResponse(status=307, headers={"Location": reverse("dashboard:logout")})

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return HttpResponseRedirect(reverse("dashboard:password"))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """The look of the other pages: their mark and their accent."""
        context: dict[str, Any] = super().each_context(request)
        mark = {"rel": "icon", "type": "image/svg+xml", "href": static("dashboard/mark.svg")}
        return context | {
            "site_favicons": [mark],
            "colors": {**context["colors"], "primary": ACCENT},
        }

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """The navigation, in the order in which people look for things."""
        return [
            {
                "title": title,
                "separator": False,
                "items": [self._line(request, one) for one in items],
            }
            for title, items in NAVIGATION
        ]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """The first page: what the navigation has, in its words."""
        found = {
            f"{app['app_label']}.{model['object_name'].lower()}": model
            for app in super().get_app_list(request, app_label)
            for model in app["models"]
        }
        groups = [
            {
                "name": title,
                "app_label": title,
                "app_url": None,
                "models": [
                    {**found[one.target], "name": one.title} for one in items if one.target in found
                ],
            }
            for title, items in NAVIGATION
        ]
        return [group for group in groups if group["models"]]

    def _line(self, request: HttpRequest, item: Item) -> dict[str, Any]:
        if ":" in item.target:
            link = reverse(item.target)
        else:
            label, _, name = item.target.partition(".")
            link = reverse(f"admin:{label}_{name}_changelist")
        return {
            "title": item.title,
            "icon": item.icon,
            "link": link,
            "has_permission": True,
            "active": len(link) > 1 and request.path.startswith(link),
        }


def _judge_address(request: HttpRequest, object_id: str | None) -> None:
    """Refuse, with 400 or 404, what no link of the admin leads to and some query would fail on."""
    if object_id is not None and not ROW_ID.fullmatch(object_id):
        raise Http404
    values = [text for name, given in request.GET.lists() for text in (name, *given)]
    if len(values) > PARAMETERS_MAX or any(
        "\0" in text or len(text) > PARAMETER_CHARACTERS_MAX for text in values
    ):
        raise SuspiciousOperation("The query holds too much, or what no database takes.")


site = TenantAdminSite(name="admin")


class OfTenant:
    """What every page of the admin has in common: the tenant's rows alone, and rights by role."""

    # Who may write. Everybody else who is a member may look.
    writers: ClassVar[frozenset[Role]] = frozenset()
    is_global: ClassVar[bool] = False

    def may_write(self, request: HttpRequest) -> bool:
        return role_of(request) in self.writers

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return role_of(request) is not None

    def has_module_permission(self, request: HttpRequest) -> bool:
        return role_of(request) is not None

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        """Named here besides the row-level security behind it."""
        rows = super().get_queryset(request)  # type: ignore[misc]
        return rows if self.is_global else rows.filter(tenant_id=tenant_of(request).id)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """No choice of a form names another tenant's rows."""
        related = db_field.remote_field.model
        if any(field.name == "tenant" for field in related._meta.fields):
            kwargs["queryset"] = related._default_manager.filter(tenant=tenant_of(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]


class TenantModelAdmin(OfTenant, ModelAdmin):  # type: ignore[misc]
    """A model of one tenant. Subclasses write through the domain in `write` and `end`."""

    actions = None
    list_per_page = 50
    show_full_result_count = False
    change_form_before_template = "admin/form_token.html"
    delete_confirmation_template = "admin/end_confirmation.html"
    # Columns by which other pages link to this list, besides its filters.
    linked_lookups: ClassVar[Sequence[str]] = ()
    # What ending a row is called, and what follows from it.
    end_verb: ClassVar[str] = "Remove"
    end_consequence: ClassVar[str] = ""
    end_done: ClassVar[str] = "Done."
    # Whether `question` can tell what saving would do, before it is asked to.
    has_preview: ClassVar[bool] = False
    # Fields whose values are never kept for a person who has to sign in first.
    secret_fields: ClassVar[frozenset[str]] = frozenset()

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what the list's filters ask for. Django takes every lookup on a row's own columns,
        and some fail in the database: `?name__regex=\\`.
        """
        names = [one if isinstance(one, str) else one.parameter_name for one in self.list_filter]
        return lookup in {
            *self.linked_lookups,
            *(f"{name}{suffix}" for name in names for suffix in FILTER_LOOKUPS),
        }

    def write(self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool) -> Any:
        """Call the domain; answer the row. ValidationError is shown as a message."""
        raise NotImplementedError

    def end(self, request: HttpRequest, obj: Any) -> None:
        """Call the domain function that ends a row."""
        raise NotImplementedError

    def question(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Question | None:
        """What the person is asked before a valid form is written; None: nothing."""
        return None

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        kept: QueryDict | None = getattr(request, "kept_input", None)
        if kept is not None:
            # Shown as it was sent; `get_form` keeps it from being saved. Files are read first,
            # since reading them later would put the empty body of the request in place of this.
            assert not request.FILES, "a GET brings no files"
            request.method = "POST"
            request.POST = kept  # type: ignore[assignment]
        token = request.POST.get(FORM_TOKEN, "")
        if _is_of_other_tenant(request):
            words = (
                f"This form was opened for another tenant; you are in “{tenant_of(request)}” now."
            )
            messages.warning(request, f"{words} Nothing was saved. Check and save again.")
            token = ""
        context = {
            **(extra_context or {}),
            FORM_TOKEN: token or f"{tenant_of(request).id}.{uuid.uuid4().hex}",
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            "end_verb": self.end_verb,
            "previews": PREVIEWS if self.has_preview else "",
        }
        try:
            return super().changeform_view(request, object_id, form_url, context)
        except Unconfirmed as unconfirmed:
            return ask_about_form(self, request, unconfirmed.question)
        except AlreadySent:
            messages.info(request, "This form was sent already; nothing was done twice.")
        except ValidationError as error:
            # A rule that only the domain can judge. Nothing was written.
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(request.get_full_path())
        return HttpResponseRedirect(reverse(f"admin:{self._address()}_changelist"))

    def _address(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        is_kept = hasattr(request, "kept_input")
        if is_kept or EDITS in request.POST or _is_of_other_tenant(request):
            form.is_valid = _check_only
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Nothing yet: `save_related` writes a row and what belongs to it at once."""

    def save_related(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> None:
        is_confirmed = CONFIRMED in request.POST
        question = None if is_confirmed else self.question(request, form, formsets, change)
        if question is not None:
            raise Unconfirmed(question)
        if not change:
            _claim_form(request)
        form.instance.pk = self.write(request, form, formsets, change).pk
        for formset in formsets:
            formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Ending a row removes nothing that belongs to others."""
        return [str(one) for one in objs], {}, set(), []

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        context = {
            "end_verb": self.end_verb,
            "end_consequence": self.end_consequence,
            "title": f"{self.end_verb}?",
            **(extra_context or {}),
        }
        try:
            return super().delete_view(request, object_id, context)
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(
                reverse(f"admin:{self._address()}_change", args=[object_id])
            )

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.end(request, obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> HttpResponse:
        messages.success(request, f"{obj_display}: {self.end_done}")
        return HttpResponseRedirect(reverse(f"admin:{self._address()}_changelist"))

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The audit log of this row."""
        query = urlencode({"object_type": self.opts.model_name, "object_id": object_id})
        return HttpResponseRedirect(f"{reverse('admin:tenants_auditentry_changelist')}?{query}")

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """The audit log has it."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """The audit log has it."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:
        """The audit log has it."""


class TenantInline(OfTenant, TabularInline):  # type: ignore[misc]
    """Rows that are edited within the form of what they belong to."""

    extra = 0
    hide_title = True

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)


class ReadOnlyAdmin(TenantModelAdmin):
    """Rows to look at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _check_only(form: BaseForm) -> bool:
    """In place of a form's `is_valid`: what was typed is shown again with its errors, not saved."""
    BaseForm.is_valid(form)
    return False


def _is_of_other_tenant(request: HttpRequest) -> bool:
    """Whether a form was opened while the person looked at another tenant."""
    tenant_id, has_tenant, _ = request.POST.get(FORM_TOKEN, "").partition(".")
    return bool(has_tenant) and tenant_id != str(tenant_of(request).id)


def _claim_form(request: HttpRequest) -> None:
    """Take a form's token for this request alone; AlreadySent when another request had it.

    The unique key makes the second of two clicks wait for the first and then see that it is second.
    """
    token = request.POST.get(FORM_TOKEN, "")
    if not token:
        return
    if not TOKEN_FORM.fullmatch(token):
        raise SuspiciousOperation("The form's token was not made here.")
    _, is_first = IdempotencyRecord.objects.get_or_create(
        tenant=tenant_of(request), key=f"form {token}", defaults={"request_hash": b""}
    )
    if not is_first:
        raise AlreadySent
