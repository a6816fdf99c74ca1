"""Amounts in bodies of credit: decimals in the currency of a customer."""

from decimal import Decimal

from billing.currencies import minor_units
from common.expectations import as_sentence
from common.json_bodies import JsonObject
from metering.core.validation import Problem, require


def in_minor_units(fields: JsonObject, currency: str, *names: str) -> JsonObject:
    """Return the fields with these amounts in minor units. Raises ValidationError by field, as the
    domain does, for more digits than the currency has.
    """
    amounts = {}
    for name in names:
        if fields.get(name) is not None:
            try:
                amounts[name] = minor_units(fields[name], currency)
            except ValueError as error:
                require([Problem(name, as_sentence(str(error)))])
    return {**fields, **amounts}


def percent_text(percent: Decimal) -> str:
    """Return a percentage as it is answered: 20, 17.5."""
    return f"{percent.normalize():f}"
