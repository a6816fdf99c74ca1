"""The admin pages: one tenant at a time, by the role of the person in it.

What people may see and do follows from their membership in the present tenant; Django's own
permissions and the staff flag mean nothing here. Writes go through the domain's functions, which
keep the audit log, so Django's log of admin actions is off.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.decorators import csp_replace
from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import BaseModelAdmin
from django.core.exceptions import (
    PermissionDenied,
    SuspiciousOperation,
    ValidationError,
)
from django.db import models
from django.forms import BaseForm
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    QueryDict,
)
from django.template.response import SimpleTemplateResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.timezone import localtime, override
from unfold.admin import ModelAdmin, TabularInline
from unfold.sites import UnfoldAdminSite

from common.errors import MeteringError
from common.times import require_known_year
from tenants.admin_forms import FilledForm
from tenants.admin_navigation import ACCENT, model_groups, sidebar
from tenants.admin_questions import (
    CONFIRMED,
    EDITS,
    PREVIEWS,
    Question,
    Unconfirmed,
    ask_about_form,
)
from tenants.form_tokens import (
    FORM_FIELD,
    AlreadySent,
    claim_form,
    is_of_other_tenant,
    new_form_token,
)
from tenants.middleware import TenantRequest
from tenants.models import Tenant
from tenants.roles import Role

# What a view adds to what its template is rendered with.
Context = dict[str, object] | None
View = TypeVar("View", bound=Callable[..., HttpResponseBase])

# Django's own classes take type arguments for the type checker alone.
if TYPE_CHECKING:
    AnyModelAdmin = BaseModelAdmin[Any]
else:
    AnyModelAdmin = BaseModelAdmin

# The admin's Alpine evaluates expressions, and its templates have style attributes; under its paths
# alone that is allowed.
ADMIN_SOURCES: Final = {"script-src": [SELF, UNSAFE_EVAL], "style-src": [SELF, UNSAFE_INLINE]}
# All rows of the admin have whole numbers for keys.
ROW_ID: Final = re.compile(r"[0-9]{1,20}")
PARAMETERS_MAX: Final = 100
PARAMETER_CHARACTERS_MAX: Final = 2000
# What the filters of lists add to the name of their field.
FILTER_LOOKUPS: Final = ("", "__exact", "__isnull")


def tenant_of(request: HttpRequest) -> Tenant:
    """The tenant that the person looks at."""
    return cast(TenantRequest, request).tenant


def role_of(request: HttpRequest) -> Role | None:
    """The person's role in the present tenant; None without a membership."""
    return getattr(request, "role", None)


def actor_of(request: HttpRequest) -> str:
    """Who acts, for the audit log."""
    return str(request.user)


def shown_moment(at: datetime) -> str:
    """An instant as lists and forms of the admin show it: in the tenant's zone, which it names."""
    return date_format(localtime(at), "DATETIME_FORMAT")


class TenantAdminSite(UnfoldAdminSite):
    """The admin of the tenant that the person looks at."""

    index_title = "Settings"

    def has_permission(self, request: HttpRequest) -> bool:
        """Let every member look; what one may change follows from the role."""
        return bool(request.user.is_active and role_of(request) is not None)

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        inner = csp_replace(ADMIN_SOURCES)(super().admin_view(view, cacheable))

        @wraps(inner)
        def judged(request: HttpRequest, *args: object, **kwargs: Any) -> HttpResponseBase:
            _judge_address(request, kwargs.get("object_id"))
            tenant: Tenant | None = getattr(request, "tenant", None)
            # Times are typed and shown in the tenant's zone, so it is rendered while that holds.
            with override(ZoneInfo(tenant.timezone) if tenant else UTC):
                response: HttpResponseBase = inner(request, *args, **kwargs)
                return (
                    response.render() if isinstance(response, SimpleTemplateResponse) else response
                )

        return cast(View, judged)

    def login(self, request: HttpRequest, extra_context: Context = None) -> HttpResponse:
        """Lead to the one page to sign in, with its limits."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied("You are not a member of this tenant.")
        following = request.GET.get("next") or reverse("admin:index")
        return HttpResponseRedirect(
            f"{reverse('dashboard:login')}?{urlencode({'next': following})}"
        )

    def logout(self, request: HttpRequest, extra_context: Context = None) -> Any:
        # 307 keeps the POST: signing out is never a GET.
        return HttpResponse(status=307, headers={"Location": reverse("dashboard:logout")})

    def password_change(self, request: HttpRequest, extra_context: Context = None) -> Any:
        return HttpResponseRedirect(reverse("dashboard:password"))

    def each_context(self, request: HttpRequest) -> dict[str, object]:
        """Return the look of the other pages: their mark and their accent."""
        context: dict[str, Any] = super().each_context(request)
        mark = {"rel": "icon", "type": "image/svg+xml", "href": static("dashboard/mark.svg")}
        role = role_of(request)
        return context | {
            "site_subheader": f"{tenant_of(request)} · {role.value}" if role else "",
            "site_favicons": [mark],
            "colors": {**context["colors"], "primary": ACCENT},
        }

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, object]]:
        return sidebar(request.path, role_of(request))

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the first page: the models of the navigation, in its words."""
        return model_groups(super().get_app_list(request, app_label))


def _judge_address(request: HttpRequest, object_id: str | None) -> None:
    """Refuse with 400 or 404 what no link of the admin leads to and a query would fail on."""
    if object_id is not None and not ROW_ID.fullmatch(object_id):
        raise Http404
    values = [text for name, given in request.GET.lists() for text in (name, *given)]
    if len(values) > PARAMETERS_MAX or any(
        "\0" in text or len(text) > PARAMETER_CHARACTERS_MAX for text in values
    ):
        raise SuspiciousOperation("The query holds too much, or what no database takes.")


site = TenantAdminSite(name="admin")


class OfTenant(AnyModelAdmin):
    """What every page of the admin has in common: the tenant's rows alone, and rights by role."""

    # Who may write. Every other member may look.
    writers: ClassVar[frozenset[Role]] = frozenset()
    is_global: ClassVar[bool] = False

    def may_write(self, request: HttpRequest) -> bool:
        return role_of(request) in self.writers

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return role_of(request) is not None

    def has_module_permission(self, request: HttpRequest) -> bool:
        return role_of(request) is not None

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Filter by tenant, although row-level security does so too."""
        rows = super().get_queryset(request)
        return rows if self.is_global else rows.filter(tenant_id=tenant_of(request).id)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Take no times that dates cannot be reckoned with from."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if isinstance(db_field, models.DateTimeField) and field is not None:
            field.validators = [*field.validators, require_known_year]
        return field

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer no row of another tenant."""
        related = db_field.remote_field.model
        if any(field.name == "tenant" for field in related._meta.fields):
            kwargs["queryset"] = related._default_manager.filter(tenant=tenant_of(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


def _sentence(refusal: ValidationError | MeteringError) -> str:
    return refusal.detail if isinstance(refusal, MeteringError) else " ".join(refusal.messages)


def _leave_to_audit_log(*args: object) -> None:
    """Take the place of Django's own log of the admin's actions."""


class TenantModelAdmin(OfTenant, ModelAdmin):
    """A model of one tenant. Subclasses write through the domain in `write` and `end`."""

    actions = None
    list_per_page = 50
    show_full_result_count = False
    change_form_before_template = "admin/form_token.html"
    delete_confirmation_template = "admin/confirm.html"
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

    def lookup_allowed(
        self, lookup: str, value: object, request: HttpRequest | None = None
    ) -> bool:
        """Allow only what the list's filters ask for. Django takes every lookup on a row's own
        columns, and some fail in the database: `?name__regex=\\`.
        """
        names = [
            each if isinstance(each, str) else cast(type[SimpleListFilter], each).parameter_name
            for each in self.list_filter
        ]
        return lookup in {
            *self.linked_lookups,
            *(f"{name}{suffix}" for name in names for suffix in FILTER_LOOKUPS),
        }

    def write(self, request: HttpRequest, filled: FilledForm) -> models.Model:
        """Call the domain and return the row. What it refuses is shown as a message."""
        raise NotImplementedError

    def end(self, request: HttpRequest, obj: Any) -> None:
        """Call the domain function that ends a row."""
        raise NotImplementedError

    def question(self, request: HttpRequest, filled: FilledForm) -> Question | None:
        """Return what to ask the person before a valid form is written, if anything."""
        return None

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Context = None,
    ) -> Any:
        kept: QueryDict | None = getattr(request, "kept_input", None)
        if kept is not None:
            # Shown as it was sent; `get_form` keeps it from being saved. Files are read first,
            # since reading them later would put the empty body of the request in place of this.
            assert not request.FILES, "a GET brings no files"
            request.method = "POST"
            request.POST = kept  # type: ignore[assignment]
        token = request.POST.get(FORM_FIELD, "")
        if is_of_other_tenant(request, tenant_of(request)):
            words = (
                f"This form was opened for another tenant; you are in “{tenant_of(request)}” now."
            )
            messages.warning(request, f"{words} Nothing was saved. Check and save again.")
            token = ""
        context = {
            **(extra_context or {}),
            FORM_FIELD: token or new_form_token(tenant_of(request)),
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
        except (ValidationError, MeteringError) as error:
            # A rule that only the domain can judge. Nothing was written.
            messages.error(request, _sentence(error))
            return HttpResponseRedirect(request.get_full_path())
        return HttpResponseRedirect(reverse(f"admin:{self._address()}_changelist"))

    def _address(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        is_kept = hasattr(request, "kept_input")
        if is_kept or EDITS in request.POST or is_of_other_tenant(request, tenant_of(request)):
            form.is_valid = _check_only
        return form

    def save_model(self, request: HttpRequest, obj: object, form: object, change: bool) -> None:
        """Do nothing: `save_related` writes a row together with what belongs to it."""

    def save_related(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> None:
        filled = FilledForm(form, formsets, change)
        question = None if CONFIRMED in request.POST else self.question(request, filled)
        if question is not None:
            raise Unconfirmed(question)
        if not change:
            claim_form(request, tenant_of(request))
        form.instance.pk = self.write(request, filled).pk
        for formset in formsets:
            formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []

    def get_deleted_objects(
        self, objs: Iterable[object], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Name only the rows: ending one removes nothing that belongs to others."""
        return [str(obj) for obj in objs], {}, set(), []

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Context = None
    ) -> Any:
        back = reverse(f"admin:{self._address()}_change", args=[object_id])
        question = Question(f"{self.end_verb}?", self.end_verb, self.end_consequence, back=back)
        context = {**question._asdict(), **(extra_context or {})}
        try:
            return super().delete_view(request, object_id, context)
        except (ValidationError, MeteringError) as error:
            messages.error(request, _sentence(error))
            return HttpResponseRedirect(back)

    def delete_model(self, request: HttpRequest, obj: object) -> None:
        self.end(request, obj)

    def response_delete(
        self, request: HttpRequest, obj_display: str, obj_id: object
    ) -> HttpResponse:
        messages.success(request, f"{obj_display}: {self.end_done}")
        return HttpResponseRedirect(reverse(f"admin:{self._address()}_changelist"))

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Context = None
    ) -> HttpResponse:
        """Lead to the audit log of this row."""
        query = urlencode({"object_type": self.opts.model_name, "object_id": object_id})
        return HttpResponseRedirect(f"{reverse('admin:tenants_auditentry_changelist')}?{query}")

    log_addition = log_change = log_deletions = cast(Any, _leave_to_audit_log)


class TenantInline(OfTenant, TabularInline):
    """Rows that are edited within the form of what they belong to."""

    extra = 0
    hide_title = True

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)


def _check_only(form: BaseForm) -> bool:
    """Replace a form's `is_valid`: show what was typed again, with its errors, and save nothing."""
    BaseForm.is_valid(form)
    return False
