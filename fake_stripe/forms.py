"""What a request's form says. Values of forms are texts; those of these names mean something else.

Tests read requests by Stripe's own document instead, and compare what the two make of each.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

BOOLEANS: Final = {"true": True, "false": False}
FLAGS: Final = frozenset({"auto_advance", "discountable", "enabled"})
NUMBERS: Final = frozenset(
    {
        *("amount", "days_until_due", "divide_by", "due_date", "end", "end_time", "flat_amount"),
        *("gte", "interval_count", "limit", "lte", "start", "start_time", "timestamp", "up_to"),
    }
)
# What is in these is the client's own.
FREE: Final = frozenset({"metadata", "payload"})


class Mismatch(ValueError):
    """A value is not what Stripe describes."""


def read_form(text: str) -> dict[str, object]:
    """Return what a form or query says, `a[b][0]=c` as nested objects and lists of texts."""
    form: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)):
        head, *rest = re.findall(r"[^\[\]]+|(?<=\[)(?=\])", name)
        holder = form
        for key in [head, *rest][:-1]:
            holder = holder.setdefault(key, {})
        key = rest[-1] if rest else head
        holder[key or str(len(holder))] = value
    read = _lists(form)
    assert isinstance(read, dict), "a form has names"
    return read


def _lists(value: object) -> object:
    if not isinstance(value, dict):
        return value
    read = {key: _lists(inner) for key, inner in value.items()}
    if read and all(key.isdecimal() for key in read):
        return [read[key] for key in sorted(read, key=int)]
    return read


def read_values(form: Mapping[str, object]) -> dict[str, object]:
    """Return a form with numbers and booleans in place of their texts. Raises Mismatch."""
    return {name: _value(name, inner) for name, inner in form.items()}


def _value(name: str, value: Any) -> object:
    if isinstance(value, dict):
        return value if name in FREE else read_values(value)
    if isinstance(value, list):
        return [_value(name, each) for each in value]
    if name in FLAGS:
        return boolean(value, name)
    if name in NUMBERS and value != "inf":
        return whole_number(value, name)
    return value


def boolean(text: str, at: str) -> bool:
    if text not in BOOLEANS:
        raise Mismatch(f"{at} is {text!r}, which is no boolean")
    return BOOLEANS[text]


def whole_number(text: str, at: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise Mismatch(f"{at} is {text!r}, which is no whole number")
    return int(text)
