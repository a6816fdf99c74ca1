"""Reasons of decisions as sentences for people. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from common.money import NANOS_PER_USD
from dashboard.enforcement.matches import calls_of
from metering.core.amounts import format_amount

AMOUNTS: Final = ("limit", "spent", "reserved", "asked")


def sentence_of(reason: Mapping[str, Any]) -> str:
    """Why a rule decided: a budget's limit on an amount in the words of pages, other reasons as the
    API answered them.
    """
    limit, spent, reserved, asked = (amount_of(reason, name) for name in AMOUNTS)
    if reason.get("part") == "seconds" or not (limit and spent and reserved and asked):
        return str(reason.get("detail", ""))
    verb = "is" if "spent_usd" in reason or reason["spent"] == 1 else "are"
    group = reason.get("group")
    calls = f" for {calls_of(group)}" if group else ""
    allowing = f"the budget “{reason.get('name', '')}” allows{calls}"
    level = f"its level of {reason.get('level_percent')}%"
    return (
        f"{spent} {verb} spent of the {limit} that {allowing} at {level}; {reserved} reserved, and"
        f" this call asks for {asked}."
    )


def amount_of(reason: Mapping[str, Any], name: str) -> str:
    """An amount of a reason in its unit; empty where it has none."""
    usd = reason.get(f"{name}_usd")
    if usd is not None:
        return format_amount("cost_nanos", int(Decimal(usd) * NANOS_PER_USD))
    return format_amount(str(reason.get("part", "")), reason[name]) if name in reason else ""
