"""Attribute mappings: which attributes of telemetry name the team, customer … of its calls."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from common.errors import NotFound
from dashboard.access import PageRequest, may_grant
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from metering.configuration.attribute_mappings import (
    ATTRIBUTE_CHARACTERS_MAX,
    Mappings,
    change_attribute_mappings,
)
from metering.usage.attribute_mappings import read_attribute_mappings
from metering.usage.decoders.otlp.dimension_keys import MAPPABLE, AttributeMapping
from tenants.admin_site import actor_of

SUB: Final = (
    "Applies to OpenTelemetry spans that arrive from now on. “spendgate.team”, “spendgate.customer”"
    " and so on always work, and count first."
)


class MappingLine(NamedTuple):
    """A mapping as the page shows it; `above` is what counts before it for its dimension."""

    attribute: str
    dimension: str
    above: str | None


class MappingForm(forms.Form):
    """A new mapping."""

    attribute = forms.CharField(
        label="Attribute",
        max_length=ATTRIBUTE_CHARACTERS_MAX,
        help_text="Of a span or a resource, spelled as it is sent, such as “team.id”.",
    )
    dimension = forms.ChoiceField(
        label="Dimension", choices=[(name, name.capitalize()) for name in MAPPABLE]
    )


@form_page("attribute_mappings", may=may_grant, is_readable=True)
def page(request: PageRequest) -> HttpResponse:
    """Which attributes name whose calls these are?"""
    form = MappingForm(sent_data(request)) if may_grant(request) else None
    if form is not None and save_once(request, form, lambda: _add(request, form)) is not None:
        messages.success(
            request,
            f"“{form.cleaned_data['attribute']}” sets the {form.cleaned_data['dimension']} of spans"
            " that arrive from now on. Calls until now keep what they have.",
        )
        return HttpResponseRedirect(reverse("dashboard:attribute_mappings"))
    bar = filter_bar_of(request)
    lines = lines_of(read_attribute_mappings(request.tenant.id))
    context = frame(request, bar, page="attribute_mappings") | {
        "headline": headline_of(lines),
        "sub": SUB,
        "lines": lines,
        "form": form,
        "sees_calls": bar.teams is None,
        **form_token(request),
    }
    return render(request, "dashboard/settings/attribute_mappings.html", context)


def _add(request: PageRequest, form: forms.Form) -> Mappings:
    """Add a mapping, which counts last. Raises ValidationError by the form's fields."""
    new = AttributeMapping(**form.cleaned_data)
    try:
        return change_attribute_mappings(
            tenant=request.tenant, actor=actor_of(request), change=lambda known: [*known, new]
        )
    except ValidationError as error:
        fields = {name.rpartition(".")[2]: each for name, each in error.error_dict.items()}
        raise ValidationError(fields) from error


@button_of("attribute_mappings", may=may_grant)
def remove(request: PageRequest) -> str:
    """Let an attribute name nothing from now on."""
    attribute = _posted(request, "attribute")
    change_attribute_mappings(
        tenant=request.tenant,
        actor=actor_of(request),
        change=lambda known: [m for m in known if m.attribute != attribute],
    )
    return f"“{attribute}” is not mapped any more. Calls until now keep what they have."


@button_of("attribute_mappings", may=may_grant)
def move(request: PageRequest) -> str:
    """Let an attribute count before another one of the same dimension."""
    attribute, before = _posted(request, "attribute"), _posted(request, "before")
    change_attribute_mappings(
        tenant=request.tenant,
        actor=actor_of(request),
        change=lambda known: moved(known, attribute, before),
    )
    return f"“{attribute}” counts before “{before}”."


def _posted(request: PageRequest, name: str) -> str:
    """The attribute that a button names. Raises NotFound for one that is not mapped (any more)."""
    attribute = request.POST.get(name, "")
    mappings = read_attribute_mappings(request.tenant.id)
    if attribute not in {mapping.attribute for mapping in mappings}:
        raise NotFound("This attribute is not mapped; reload the page.")
    return attribute


def moved(mappings: Mappings, attribute: str, before: str) -> Mappings:
    """Return the mappings with one of them right before another, if it is not before it yet."""
    order = [mapping.attribute for mapping in mappings]
    if attribute not in order or before not in order[: order.index(attribute)]:
        return mappings
    rest = [mapping for mapping in mappings if mapping.attribute != attribute]
    rest.insert(order.index(before), mappings[order.index(attribute)])
    return rest


def lines_of(mappings: Mappings) -> list[MappingLine]:
    """Return the mappings by dimension, those of one in the order in which they count."""
    lines: list[MappingLine] = []
    for dimension in MAPPABLE:
        attributes = [m.attribute for m in mappings if m.dimension == dimension]
        lines += [
            MappingLine(attribute, dimension, above)
            for attribute, above in zip(attributes, [None, *attributes], strict=False)
        ]
    return lines


def headline_of(lines: Sequence[MappingLine]) -> str:
    """The finding: what is named by attributes of the tenant's own."""
    if not lines:
        return "No attribute is mapped to a dimension"
    dimensions = list(dict.fromkeys(line.dimension for line in lines))
    listed = ", ".join(dimensions[:-1])
    named = f"{listed} and {dimensions[-1]}" if listed else dimensions[0]
    words = "1 attribute names" if len(lines) == 1 else f"{len(lines):,} attributes name"
    return f"{words} the {named} of spans"
