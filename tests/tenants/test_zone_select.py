"""The select of time zones, which is written without Django's templates."""

from django import forms
from django.test.html import parse_html

from tenants.forms import ZoneField, ZoneSelect


class Plain(forms.Form):
    zone = forms.ChoiceField(widget=forms.Select)


class Quick(forms.Form):
    zone = ZoneField()


def test_it_is_written_as_djangos_own() -> None:
    choices = [("", "Same as the browser"), ("UTC", "UTC"), ("<a>", "<b> & “c”")]
    for value in ("UTC", "", "<a>", "unknown"):
        plain, quick = (form(data={"zone": value}) for form in (Plain, Quick))
        for form in (plain, quick):
            form.fields["zone"].choices = choices  # type: ignore[attr-defined]
            form.fields["zone"].widget.attrs = {"class": "wide", "autofocus": True, "lang": False}
        assert isinstance(quick.fields["zone"].widget, ZoneSelect)
        assert parse_html(str(plain["zone"])) == parse_html(str(quick["zone"]))
