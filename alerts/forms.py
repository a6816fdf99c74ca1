"""What forms of alert settings and channels ask for, on pages and in the admin alike."""

from typing import Any, Final

from django import forms
from django.contrib.postgres.forms import SimpleArrayField

from alerts.channel_settings import CONTACT_MAX_CHARACTERS, CONTACTS_MAX
from alerts.channels import KINDS, Field
from alerts.models import AlertSettings, Severity
from alerts.rules import COOL_DOWN_SECONDS_MAX, RULES, THRESHOLD_MAX, RuleChange, rule_values
from metering.fields.forms import count_field

SETTINGS: Final = (
    "quiet_from",
    "quiet_until",
    "cool_down_seconds",
    "digest_at",
    "halts_loops",
    "anomaly_limit_percent",
)
RULE_PARTS: Final = ("on", "threshold", "severity")
VALUE_CHARACTERS_MAX: Final = 2000
# Begins the names of the kind's fields: some settings of all kinds have the same names.
PREFIX: Final = "config_"
SECRETS: Final = frozenset(
    PREFIX + field.name for kind in KINDS.values() for field in kind.fields if field.is_secret
)
SIGNING_NOTE: Final = (
    "Anyone who has it can sign messages that look like ours. Put it where they are verified."
)


def _clock_field(label: str, **options: Any) -> forms.TimeField:
    """Return a field for a time of day in the tenant's zone."""
    widget = forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    return forms.TimeField(label=label, widget=widget, **options)


class AlertSettingsFields(forms.Form):
    """Quiet hours, cool-down, digests and automatic actions. `rule_fields` come on top."""

    quiet_from = _clock_field("Quiet hours from", required=False)
    quiet_until = _clock_field(
        "Quiet hours until",
        required=False,
        help_text="What is not critical waits until they are over. Leave both empty for none.",
    )
    digest_at = _clock_field(
        "Digests leave at", help_text="Daily and weekly ones; weekly ones on Monday."
    )
    cool_down_seconds = count_field(
        "Cool-down, seconds",
        minimum=0,
        maximum=COOL_DOWN_SECONDS_MAX,
        help_text="The same cause is not reported again within this time, unless it became more "
        "severe.",
    )
    halts_loops = forms.BooleanField(
        label="Halt sessions that loop",
        required=False,
        help_text="Their next calls are refused until someone lifts the halt.",
    )
    anomaly_limit_percent = count_field(
        "During a critical anomaly, reduce affected budgets to, %",
        maximum=99,
        required=False,
        help_text="Leave empty to keep them unchanged.",
    )

    def clean(self) -> dict[str, object]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        begins, ends = data.get("quiet_from"), data.get("quiet_until")
        if (begins is None) != (ends is None):
            missing = "quiet_from" if begins is None else "quiet_until"
            self.add_error(missing, "Set both ends of the quiet hours, or leave both empty.")
        elif begins is not None and begins == ends:
            self.add_error("quiet_until", "The two ends must differ.")
        return data

    def changes(self) -> dict[str, Any]:
        """Return the settings as the form has them."""
        return {name: self.cleaned_data[name] for name in SETTINGS}

    def rules(self) -> dict[str, RuleChange | None]:
        """Return every rule as the form has it."""
        data = self.cleaned_data
        return {
            name: RuleChange(
                on=data[f"{name}_on"],
                threshold=data[f"{name}_threshold"],
                severity=data[f"{name}_severity"],
            )
            for name in RULES
        }


def rule_fields() -> dict[str, forms.Field]:
    """Return three fields for each rule: whether it is on, its threshold and its severity."""
    fields: dict[str, forms.Field] = {}
    for name, rule in RULES.items():
        about = rule.description
        fields[f"{name}_on"] = forms.BooleanField(
            label="On",
            required=False,
            widget=forms.CheckboxInput(attrs={"aria-label": f"On: {about}"}),
        )
        fields[f"{name}_threshold"] = count_field(
            "%" if rule.unit == "percent" else rule.unit.capitalize(),
            maximum=THRESHOLD_MAX,
            help_text=f"Default: {rule.threshold}.",
        )
        fields[f"{name}_threshold"].widget.attrs["aria-label"] = f"Threshold: {about}"
        fields[f"{name}_severity"] = forms.ChoiceField(
            label="Severity",
            choices=Severity.choices,
            widget=forms.Select(attrs={"aria-label": f"Severity: {about}"}),
        )
    return fields


def initial_of_rules(settings: AlertSettings) -> dict[str, object]:
    """Return what the fields of rules begin with."""
    return {
        f"{name}_{part}": value
        for name in RULES
        for part, value in rule_values(name, settings.rules).items()
    }


class Lines(forms.CharField):
    """A list, one value a line."""

    widget = forms.Textarea(attrs={"rows": 3})

    def prepare_value(self, value: object) -> object:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: object) -> object:
        text = super().clean(value)
        return [line.strip() for line in text.splitlines() if line.strip()]


def field_of(field: Field, *, is_new: bool) -> forms.Field:
    """Return the form field for a field of a kind. A secret is never shown, not even to keep it."""
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


class ChannelFields(forms.Form):
    """What all channels have; each kind has fields of its own besides."""

    severities = forms.MultipleChoiceField(
        label="Send immediately",
        required=False,
        choices=Severity.choices,
        widget=forms.CheckboxSelectMultiple(),
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

    def changed_fields(self) -> dict[str, object]:
        """Return the kind's fields that were typed; what is shown in part stays as it is."""
        changed = (name for name in self.changed_data if name.startswith(PREFIX))
        return {name.removeprefix(PREFIX): self.cleaned_data[name] for name in changed}
