"""Adding, changing and removing channels: each kind has its own fields; secrets are shown once."""

from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.postgres.forms import SimpleArrayField
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from alerts.channel_settings import (
    CONTACT_MAX_CHARACTERS,
    CONTACTS_MAX,
    NAME_MAX_CHARACTERS,
    create_channel,
    remove_channel,
    rotate_secret,
    shown_fields,
    signing_secret,
    update_channel,
)
from alerts.channels import KINDS, Field
from alerts.errors import WrongChannel
from alerts.models import Channel, ChannelKind, Digest, Severity
from dashboard.access import PageRequest, may_manage
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data, shown_once
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of

VALUE_CHARACTERS_MAX: Final = 2000
# Begins the names of the kind's fields: some settings of all kinds have the same names.
PREFIX: Final = "config_"
SECRETS: Final = frozenset(
    PREFIX + field.name for kind in KINDS.values() for field in kind.fields if field.is_secret
)
SIGNING_NOTE: Final = (
    "Anyone who has it can sign messages that look like ours. Put it where they are verified."
)
DIGEST_WORDS: Final = {
    Digest.NONE: "Not at all",
    Digest.HOURLY: "In an hourly digest",
    Digest.DAILY: "In a daily digest",
    Digest.WEEKLY: "In a weekly digest",
}


class Lines(forms.CharField):
    """A list, one value a line."""

    widget = forms.Textarea(attrs={"rows": 3})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        return [line.strip() for line in text.splitlines() if line.strip()]


def field_of(field: Field, *, is_new: bool) -> forms.Field:
    """The form field for a field of a kind. A secret is never shown, not even to keep it."""
    options: dict[str, Any] = {
        "label": field.label,
        "required": field.is_required and (is_new or not field.is_secret),
        "max_length": VALUE_CHARACTERS_MAX,
        "help_text": field.help,
    }
    if field.is_list:
        return Lines(**{**options, "help_text": f"{field.help} One per line."})
    if field.is_secret:
        if not is_new:
            options["help_text"] = f"{field.help} Leave it empty to keep it."
        widget = forms.PasswordInput(attrs={"autocomplete": "new-password"})
        return forms.CharField(**options, widget=widget)
    return forms.CharField(**options)


class ChannelForm(forms.Form):
    """A channel of one kind."""

    name = forms.CharField(label="Name", max_length=NAME_MAX_CHARACTERS)
    severities = forms.MultipleChoiceField(
        label="Send immediately",
        required=False,
        choices=Severity.choices,
        widget=forms.CheckboxSelectMultiple(),
    )
    digest = forms.ChoiceField(
        label="Send everything else", choices=[(one.value, DIGEST_WORDS[one]) for one in Digest]
    )
    contacts = SimpleArrayField(
        forms.CharField(max_length=CONTACT_MAX_CHARACTERS),
        label="Contacts",
        required=False,
        max_length=CONTACTS_MAX,
        widget=forms.TextInput(attrs={"placeholder": "team_lead, finance"}),
        help_text="Contacts in budget levels that this channel reaches, separated by commas. Leave "
        "empty for any, by severity.",
    )

    def __init__(self, request: PageRequest, kind: str, channel: Channel | None) -> None:
        initial: dict[str, Any] = {"severities": list(KINDS[kind].severities)}
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

    @property
    def changed_fields(self) -> dict[str, Any]:
        """The kind's fields that were typed; what is shown in part stays as it is."""
        changed = set(self.changed_data)
        return {
            field.name: self.cleaned_data[PREFIX + field.name]
            for field in self.kind.fields
            if PREFIX + field.name in changed
        }

    def refusal_of(self, error: WrongChannel) -> ValidationError:
        """What the domain refuses, at its field."""
        name = PREFIX + error.field if PREFIX + error.field in self.fields else error.field
        return ValidationError({name: f"This {error.reason}."})


@form_page("channels", may=may_manage, secret_fields=SECRETS)
def add(request: PageRequest) -> HttpResponse:
    """Add a channel: its kind first, then the fields of the kind."""
    kind = request.GET.get("kind", "")
    context = frame(request, filter_bar_of(request), page="channels") | {
        "headline": "Add a channel",
        "crumb": reverse("dashboard:channels"),
        "crumb_words": "Channels",
    }
    if kind not in KINDS:
        context["kinds"] = [(name, one.label, one.fields[0].help) for name, one in KINDS.items()]
        return render(request, "dashboard/incidents/choose_kind.html", context)
    form = ChannelForm(request, kind, None)

    def save() -> Channel:
        try:
            return create_channel(
                tenant=request.tenant,
                actor=actor_of(request),
                kind=kind,
                fields=form.changed_fields,
                **form.own,
            )
        except WrongChannel as error:
            raise form.refusal_of(error) from error

    channel = save_once(request, form, save)
    if channel is None:
        context |= {
            "headline": f"Add a channel: {KINDS[kind].label}",
            "form": form,
            "verb": "Add channel",
            "cancel": reverse("dashboard:channels"),
            **form_token(request),
        }
        return render(request, "dashboard/settings/form.html", context)
    secret = signing_secret(channel)
    if secret is None:
        messages.success(
            request, f"“{channel.name}” was added. Send a test to check that it works."
        )
        return HttpResponseRedirect(reverse("dashboard:channels"))
    context["headline"] = f"The signing secret of “{channel.name}”"
    return shown_once(request, context, secret=secret, words=SIGNING_NOTE, back="channels")


@form_page("channels", may=may_manage, secret_fields=SECRETS)
def change(request: PageRequest, channel_id: int) -> HttpResponse:
    """Change a channel, or remove it."""
    channel = find_channel(request, channel_id)
    form = ChannelForm(request, channel.kind, channel)

    def save() -> Channel:
        changes = {**form.own, "fields": form.changed_fields}
        try:
            return update_channel(channel=channel, actor=actor_of(request), changes=changes)
        except WrongChannel as error:
            raise form.refusal_of(error) from error

    saved = save_once(request, form, save)
    if saved is not None:
        messages.success(request, f"“{saved.name}” was changed.")
        return HttpResponseRedirect(reverse("dashboard:channels"))
    context = frame(request, filter_bar_of(request), page="channels") | {
        "headline": channel.name,
        "sub": KINDS[channel.kind].label,
        "crumb": reverse("dashboard:channels"),
        "crumb_words": "Channels",
        "channel": channel,
        "form": form,
        "is_webhook": channel.kind == ChannelKind.WEBHOOK,
        **form_token(request),
    }
    return render(request, "dashboard/incidents/channel.html", context)


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
    found = channels.filter(id=channel_id).first()
    if found is None:
        raise Http404
    return found
