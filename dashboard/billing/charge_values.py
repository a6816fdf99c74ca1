"""The values of a stored charge, as the fields of its form have them. Pure."""

from decimal import Decimal
from typing import Final

from billing.terms import Charge, FlatCharge

# Beside the models of usage charges in the form's choice.
FLAT: Final = "flat"


def initial_of(charge: Charge | None) -> dict[str, object]:
    """The values of a stored charge as the form has them."""
    if charge is None:
        return {"model": FLAT}
    if isinstance(charge, FlatCharge):
        return {
            "name": charge.name,
            "model": FLAT,
            "amount": plain_amount(charge.amount),
            "when": charge.when.value,
            "proration": charge.proration.value,
        }
    filters = {}
    for index, (name, wanted) in enumerate(charge.filter.items()):
        filters[f"filter-{index}"] = name
        filters[f"values-{index}"] = wanted if isinstance(wanted, str) else "\n".join(wanted)
    return {
        "name": charge.name,
        "model": charge.model.value,
        "metric": charge.metric.value,
        "unit_amount": plain_amount(charge.unit_amount),
        "per": str(charge.per),
        "package_size": charge.package_size,
        "package_amount": plain_amount(charge.package_amount),
        "percent": plain_amount(charge.percent),
        "included_units": plain_amount(charge.included_units) if charge.included_units else "",
        "minimum_amount": plain_amount(charge.minimum_amount),
        "cap_amount": plain_amount(charge.cap_amount),
        "tiers": [
            {
                "up_to": plain_amount(tier.up_to),
                "unit_amount": plain_amount(tier.unit_amount),
                "flat_amount": plain_amount(tier.flat_amount) if tier.flat_amount else "",
            }
            for tier in charge.tiers
        ],
        "markups": [
            {
                "provider": markup.provider or "",
                "model": markup.model or "",
                "percent": plain_amount(markup.percent),
            }
            for markup in charge.markups
        ],
        **filters,
    }


def plain_amount(amount: Decimal | None) -> str:
    return "" if amount is None else f"{amount:f}"
