"""Adding, changing and removing channels: each kind has its own fields; secrets are shown once."""

from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from alerts.channel_settings import (
    NAME_MAX_CHARACTERS,
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
from alerts.models import Channel, ChannelKind, Digest
from dashboard.access import PageRequest, may_manage
from dashboard.buttons import button_of
from dashboard.forms import form_page, save_once, sent_data, show_form, shown_once
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of

DIGEST_WORDS: Final = {
    Digest.NONE: "Not at all",
    Digest.HOURLY: "In an hourly digest",
    Digest.DAILY: "In a daily digest",
    Digest.WEEKLY: "In a weekly digest",
}


class ChannelForm(ChannelFields):
    """A channel of one kind."""

    name = forms.CharField(label="Name", max_length=NAME_MAX_CHARACTERS)
    digest = forms.ChoiceField(
        label="Send everything else", choices=[(pace.value, DIGEST_WORDS[pace]) for pace in Digest]
    )

    def __init__(self, request: PageRequest, kind: str, channel: Channel | None) -> None:
        initial: dict[str, object] = {"severities": list(KINDS[kind].severities)}
        if channel is not None:
            initial = {name: getattr(channel, name) for name in self.base_fields}
            initial |= {PREFIX + name: value for name, value in shown_fields(channel).items()}
        super().__init__(sent_data(request), initial=initial)
        self.kind = KINDS[kind]
        for field in self.kind.fields:
            self.fields[PREFIX + field.name] = field_of(field, is_new=channel is None)
        if not self.kind.has_digests:
            del self.fields["digest"]
        self.order_fields(["name", *(PREFIX + field.name for field in self.kind.fields)])

    @property
    def own(self) -> dict[str, Any]:
        """What all kinds have."""
        return {name: self.cleaned_data[name] for name in self.base_fields if name in self.fields}

    def refusal_of(self, error: WrongChannel) -> ValidationError:
        """What the domain refuses, at its field."""
        name = PREFIX + error.field if PREFIX + error.field in self.fields else error.field
        return ValidationError({name: f"This {error.reason}."})


@form_page("channels", may=may_manage, secret_fields=SECRETS)
def add(request: PageRequest) -> HttpResponse:
    """Add a channel: its kind first, then the fields of the kind."""
    kind = request.GET.get("kind", "")
    if kind not in KINDS:
        context = frame(request, filter_bar_of(request), page="channels") | {
            "headline": "Add a channel",
            "crumb": reverse("dashboard:channels"),
            "crumb_words": "Channels",
            "kinds": [(name, each.label, each.fields[0].help) for name, each in KINDS.items()],
        }
        return render(request, "dashboard/incidents/choose_kind.html", context)
    form = ChannelForm(request, kind, None)

    def save() -> Channel:
        try:
            return create_channel(
                tenant=request.tenant,
                actor=actor_of(request),
                kind=kind,
                fields=form.changed_fields(),
                **form.own,
            )
        except WrongChannel as error:
            raise form.refusal_of(error) from error

    channel = save_once(request, form, save)
    if channel is None:
        return show_form(
            request,
            form,
            page="channels",
            headline=f"Add a channel: {KINDS[kind].label}",
            verb="Add channel",
        )
    secret = signing_secret(channel)
    if secret is None:
        messages.success(
            request, f"“{channel.name}” was added. Send a test to check that it works."
        )
        return HttpResponseRedirect(reverse("dashboard:channels"))
    context = frame(request, filter_bar_of(request), page="channels")
    context["headline"] = f"The signing secret of “{channel.name}”"
    return shown_once(request, context, secret=secret, words=SIGNING_NOTE, back="channels")


@form_page("channels", may=may_manage, secret_fields=SECRETS)
def change(request: PageRequest, channel_id: int) -> HttpResponse:
    """Change a channel, or remove it."""
    channel = find_channel(request, channel_id)
    form = ChannelForm(request, channel.kind, channel)

    def save() -> Channel:
        changes = {**form.own, "fields": form.changed_fields()}
        try:
            return update_channel(channel=channel, actor=actor_of(request), changes=changes)
        except WrongChannel as error:
            raise form.refusal_of(error) from error

    saved = save_once(request, form, save)
    if saved is not None:
        messages.success(request, f"“{saved.name}” was changed.")
        return HttpResponseRedirect(reverse("dashboard:channels"))
    return show_form(
        request,
        form,
        page="channels",
        headline=channel.name,
        template="dashboard/incidents/channel.html",
        sub=KINDS[channel.kind].label,
        channel=channel,
        is_webhook=channel.kind == ChannelKind.WEBHOOK,
    )


@form_page("channels", may=may_manage)
def new_secret(request: PageRequest, channel_id: int) -> HttpResponse:
    """Give a webhook a new secret, and show it once."""
    channel = find_channel(request, channel_id)
    form = forms.Form(request.POST if request.method == "POST" else None)
    secret = save_once(
        request, form, lambda: rotate_secret(channel=channel, actor=actor_of(request))
    )
    if secret is None:
        return HttpResponseRedirect(reverse("dashboard:change_channel", args=[channel.id]))
    context = frame(request, filter_bar_of(request), page="channels")
    context["headline"] = f"The new signing secret of “{channel.name}”"
    return shown_once(request, context, secret=secret, words=SIGNING_NOTE, back="channels")


@button_of("channels", may=may_manage)
def remove(request: PageRequest, channel_id: int) -> str:
    """Remove a channel."""
    channel = find_channel(request, channel_id)
    remove_channel(channel=channel, actor=actor_of(request))
    return f"“{channel.name}” was removed. Nothing more is sent to it."


def find_channel(request: PageRequest, channel_id: int) -> Channel:
    """A channel of the tenant that was not removed."""
    channels = Channel.objects.filter(tenant=request.tenant, removed_at=None)
    return get_object_or_404(channels, id=channel_id)
