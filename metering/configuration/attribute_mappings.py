"""Attribute mappings as configuration: a tenant's list, replaced as a whole."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from django.db import transaction

from common.json_bodies import JsonObject
from common.spelling import did_you_mean
from metering.core.validation import Problem, require
from metering.models import AttributeMappings
from metering.usage.attribute_mappings import read_attribute_mappings
from metering.usage.decoders.otlp.dimension_keys import MAPPABLE, OWN, AttributeMapping
from metering.usage.decoders.otlp.spans import is_needed
from tenants.audit import audited_change
from tenants.models import Tenant
from tenants.scope import change_configuration, hold_configuration

MAPPINGS_MAX: Final = 100
ATTRIBUTE_CHARACTERS_MAX: Final = 200

Mappings = Sequence[AttributeMapping]


def validate_mappings(mappings: Mappings) -> None:
    """Raise ValidationError with an error for each mapping that is wrong, named by its index."""
    require(_problems(mappings))


def _problems(mappings: Mappings) -> Iterator[Problem]:
    if len(mappings) > MAPPINGS_MAX:
        yield Problem("mappings", f"Give at most {MAPPINGS_MAX} mappings.", "too_many")
        return
    mapped: dict[str, str] = {}
    for index, (attribute, dimension) in enumerate(mappings):
        if wrong := _attribute_problem(attribute):
            yield Problem(f"{index}.attribute", wrong)
        elif attribute in mapped:
            words = f"This attribute is mapped already, to {mapped[attribute][:60]}."
            yield Problem(f"{index}.attribute", words, "duplicate")
        mapped.setdefault(attribute, dimension)
        if dimension not in MAPPABLE:
            yield Problem(f"{index}.dimension", _unknown(dimension), "unknown_dimension")


def _unknown(dimension: str) -> str:
    near = did_you_mean(dimension, MAPPABLE)
    return f"Unknown dimension {dimension[:60]!r}.{near} Choose one of {', '.join(MAPPABLE)}."


def _attribute_problem(attribute: str) -> str | None:
    if not 1 <= len(attribute) <= ATTRIBUTE_CHARACTERS_MAX:
        return f"Give 1 to {ATTRIBUTE_CHARACTERS_MAX} characters."
    if not attribute.isprintable() or attribute != attribute.strip():
        return "Give visible characters, without a space at either end."
    if attribute.startswith(OWN):
        return f"Attributes that begin with {OWN!r} always mean what they name."
    if not is_needed(attribute):
        return "Prompts and definitions of tools are never read."
    return None


def set_attribute_mappings(*, tenant: Tenant, actor: str, mappings: Mappings) -> Mappings:
    """Replace the tenant's mappings, for spans that are read after the commit. What is as it was
    changes nothing. Raises ValidationError.
    """
    return change_attribute_mappings(tenant=tenant, actor=actor, change=lambda _: mappings)


@transaction.atomic
def change_attribute_mappings(
    *, tenant: Tenant, actor: str, change: Callable[[Mappings], Mappings]
) -> Mappings:
    """Replace the tenant's mappings by what `change` makes of them; no one else changes them
    meanwhile. Raises ValidationError.
    """
    hold_configuration(tenant.id)
    before = read_attribute_mappings(tenant.id)
    after = list(change(before))
    validate_mappings(after)
    if after == before:
        return after
    change_configuration(tenant.id)
    row, _ = AttributeMappings.objects.get_or_create(tenant=tenant)
    with audited_change(row, actor=actor, details=_by_dimension) as changed:
        changed.row.mappings = [mapping._asdict() for mapping in after]
    return after


def _by_dimension(row: AttributeMappings) -> JsonObject:
    """The attributes of each dimension, the first that counts first: the audit log's view."""
    attributes: JsonObject = {}
    for mapping in row.mappings:
        attributes.setdefault(mapping["dimension"], []).append(mapping["attribute"])
    return attributes
