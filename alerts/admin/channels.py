"""Admin pages of channels: a form for each kind, and a new secret."""

from typing import Any, ClassVar, Final, cast

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import action
from unfold.decorators import display as labelled

from alerts.channel_settings import (
    create_channel,
    remove_channel,
    rotate_secret,
    shown_fields,
    signing_secret,
    update_channel,
)
from alerts.channels import KINDS
from alerts.errors import WrongChannel
from alerts.forms import PREFIX, SECRETS, SIGNING_NOTE, ChannelFields, field_of
from alerts.models import Channel, ChannelKind
from metering.fields.forms import MONEY_ROLES
from tenants.admin.secrets import shown_once
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_questions import Question, ask, sent
from tenants.admin_site import Context, TenantModelAdmin, actor_of, shown_moment, site, tenant_of
from tenants.middleware import TenantRequest

ROUTING_FIELDS: Final = ("severities", "contacts", "digest", "is_paused")
OWN_FIELDS: Final = ("name", *ROUTING_FIELDS)
ABOUT: Final = ("name", "kind", "to", "severities_shown", "contacts_shown")


class ChannelForm(ChannelFields, RowForm):
    """The settings of all channels; `form_of` adds the fields of a kind."""

    kind: ClassVar[str]

    class Meta:
        model = Channel
        fields = OWN_FIELDS
        labels = {"is_paused": "Paused"}
        help_texts = {"is_paused": "Nothing is sent while it is paused."}

    def prepare(self) -> None:
        if self.instance._state.adding:
            self.initial["severities"] = list(KINDS[self.kind].severities)
            return
        shown = shown_fields(self.instance)
        for field in KINDS[self.kind].fields:
            if field.is_secret:
                self.fields[PREFIX + field.name] = field_of(field, is_new=False)
            else:
                self.initial[PREFIX + field.name] = shown.get(field.name, "")

    def clean(self) -> dict[str, object]:
        """Validate a new channel here, so that its form is shown again. A change is validated with
        what is stored.
        """
        data = super().clean() or self.cleaned_data
        if self.instance._state.adding and not self.errors:
            try:
                KINDS[self.kind].read(self.changed_fields())
            except WrongChannel as error:
                self.add_error(PREFIX + error.field, f"This {error.reason}.")
        return data


def form_of(kind: str) -> type[ChannelForm]:
    """Return the form of a kind of channel."""
    fields: dict[str, Any] = {
        PREFIX + field.name: field_of(field, is_new=True) for field in KINDS[kind].fields
    }
    return type("ChannelForm", (ChannelForm,), {**fields, "kind": kind})


@register(Channel, site=site)
class ChannelAdmin(TenantModelAdmin):
    """Where alerts go. Those who may only look get no form."""

    writers = MONEY_ROLES
    secret_fields = SECRETS
    list_display = (*ABOUT, "state", "delivered")
    list_filter = ("kind",)
    search_fields = ("name",)
    ordering = ("name",)
    actions_detail = ("new_secret",)
    end_verb = "Remove channel"
    end_consequence = (
        "Nothing more is sent here, including pending messages. Sent messages can still be viewed."
    )
    end_done = "removed."
    shown = (*ABOUT, "digest", "state", "delivered", "last_error")

    @display(description="To")
    def to(self, obj: Channel) -> str:
        values = shown_fields(obj).values()
        words = (", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values)
        return "; ".join(filter(None, words))

    @display(description="Sent immediately")
    def severities_shown(self, obj: Channel) -> str:
        return ", ".join(obj.severities) or "nothing"

    @display(description="Contacts")
    def contacts_shown(self, obj: Channel) -> str:
        return ", ".join(obj.contacts) or "—"

    @labelled(
        description="State", label={"ready": "success", "failing": "danger", "paused": "warning"}
    )
    def state(self, obj: Channel) -> str:
        return "paused" if obj.is_paused else "failing" if obj.is_failing else "ready"

    @display(description="Last delivered", ordering="delivered_at")
    def delivered(self, obj: Channel) -> str:
        return shown_moment(obj.delivered_at) if obj.delivered_at else "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Channel]:
        rows: QuerySet[Channel] = super().get_queryset(request)
        return rows.filter(removed_at__isnull=True)

    def has_delete_permission(self, request: HttpRequest, obj: Channel | None = None) -> bool:
        return self.may_write(request)

    def has_rotate_permission(self, request: HttpRequest, object_id: str = "0") -> bool:
        """Only webhooks have a secret that is made here."""
        webhooks = Channel.objects.filter(
            tenant=tenant_of(request), id=object_id, kind=ChannelKind.WEBHOOK
        )
        return self.may_write(request) and webhooks.exists()

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Context = None
    ) -> HttpResponse:
        """Choose the kind first: it has its own form."""
        if self.has_add_permission(request) and _kind_asked_for(request) is None:
            return TemplateResponse(
                request,
                "admin/alerts/choose_kind.html",
                {
                    **self.admin_site.each_context(request),
                    "opts": self.opts,
                    "title": "Choose a channel type",
                    "kinds": [(f"?kind={name}", kind.label) for name, kind in KINDS.items()],
                },
            )
        response: HttpResponse = super().add_view(request, form_url, extra_context)
        return response

    def get_form(
        self, request: HttpRequest, obj: Channel | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if self.may_write(request):
            kwargs["form"] = form_of(_kind(request, obj))
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        if not self.may_write(request):
            return ((None, {"fields": self.shown}),)
        kind = _kind(request, obj)
        names = [PREFIX + field.name for field in KINDS[kind].fields]
        routing = [name for name in ROUTING_FIELDS if name != "digest" or KINDS[kind].has_digests]
        top = ("name", *names) if obj is None else ("name", *names, "state", "last_error")
        return ((KINDS[kind].label, {"fields": top}), ("What is sent", {"fields": tuple(routing)}))

    def get_readonly_fields(
        self, request: HttpRequest, obj: Channel | None = None
    ) -> tuple[str, ...]:
        return ("state", "last_error") if self.may_write(request) else self.shown

    def write(self, request: HttpRequest, filled: FilledForm) -> Channel:
        actor, form = actor_of(request), filled.form
        fields: dict[str, Any] = {
            name: filled.data[name] for name in OWN_FIELDS if name in filled.data
        }
        if filled.is_change:
            fields["fields"] = form.changed_fields()
            return update_channel(channel=filled.row, actor=actor, changes=fields)
        channel = create_channel(
            tenant=tenant_of(request),
            actor=actor,
            kind=_kind(request, None),
            fields=form.changed_fields(),
            **fields,
        )
        cast(TenantRequest, request).shown_once = signing_secret(channel)
        return channel

    def response_add(
        self, request: HttpRequest, obj: Channel, post_url_continue: str | None = None
    ) -> HttpResponse:
        secret = cast(TenantRequest, request).shown_once
        if secret is not None:
            return shown_once(
                self,
                request,
                title=f"The secret of “{obj.name}”",
                secret=secret,
                words=SIGNING_NOTE,
            )
        messages.success(request, f"{obj.name} was added. Send a test to check that it works.")
        return HttpResponseRedirect(reverse("dashboard:channels"))

    def end(self, request: HttpRequest, obj: Channel) -> None:
        remove_channel(channel=obj, actor=actor_of(request))

    @action(description="New secret", permissions=["rotate"], icon="key")
    def new_secret(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, then show the secret once."""
        channel = self._find(request, object_id)
        form = forms.Form(sent(request))
        if form.is_valid():
            secret = rotate_secret(channel=channel, actor=actor_of(request))
            return shown_once(
                self,
                request,
                title=f"The new secret of “{channel}”",
                secret=secret,
                words=SIGNING_NOTE,
            )
        question = Question(
            title=f"Give “{channel}” a new secret?",
            verb="Create a new secret",
            consequence="For 24 hours messages are signed with the old one too, so that the "
            "receiver can switch.",
            details=[("To", self.to(channel))],
            back=reverse("admin:alerts_channel_change", args=[channel.id]),
        )
        return ask(self, request, question=question, form=form)

    def _find(self, request: HttpRequest, object_id: str) -> Channel:
        return get_object_or_404(self.get_queryset(request), id=object_id)


def _kind_asked_for(request: HttpRequest) -> str | None:
    kind = request.GET.get("kind")
    return kind if kind in KINDS else None


def _kind(request: HttpRequest, channel: Channel | None) -> str:
    """Return the kind of the channel, or of the one that is being added."""
    kind = channel.kind if channel is not None else _kind_asked_for(request)
    assert kind is not None, "a channel is added by its kind's form only"
    return kind
