"""The form field for what a budget counts: rows of a dimension and its values, no JSON in sight."""

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanSwitchWidget,
)

from common.json_bodies import JsonObject
from common.values import normal_value
from metering.core.dimensions import MATCHABLE
from metering.core.match import problems_by_dimension, wanted_values

ROWS: Final = 4
DIMENSION_CHOICES: Final = [("", "any"), *((name, name) for name in MATCHABLE)]

Row = tuple[str, str, bool]


class MatchWidget(forms.MultiWidget):
    """Rows of: a dimension, its values one per line, and whether events without one count too."""

    template_name = "metering/match_widget.html"

    def __init__(self, rows: int) -> None:
        self.row_count = rows
        widgets: list[forms.Widget] = []
        for row in range(rows):
            label = f"row {row + 1}"
            widgets += [
                UnfoldAdminSelectWidget(
                    choices=DIMENSION_CHOICES, attrs={"aria-label": f"Dimension, {label}"}
                ),
                UnfoldAdminTextareaWidget(
                    attrs={
                        "rows": 2,
                        "aria-label": f"Values, {label}",
                        "placeholder": "one value per line",
                    }
                ),
                UnfoldBooleanSwitchWidget(attrs={"aria-label": f"Also without a value, {label}"}),
            ]
        super().__init__(widgets)

    def decompress(self, value: JsonObject | None) -> list[object]:
        """A stored match as the rows' values."""
        parts: list[object] = []
        for name, wanted in (value or {}).items():
            values = wanted_values(wanted)
            parts += [name, "\n".join(sorted(values - {""})), "" in values]
        return parts + ["", "", False] * (self.row_count - len(parts) // 3)

    def get_context(self, name: str, value: object, attrs: dict[str, object] | None) -> JsonObject:
        """The widgets as rows, for the template."""
        context = super().get_context(name, value, attrs)
        parts = context["widget"]["subwidgets"]
        context["rows"] = [parts[first : first + 3] for first in range(0, len(parts), 3)]
        return context


class MatchField(forms.MultiValueField):
    """A budget's match. A value for each dimension, or a list of them; null for events without."""

    def __init__(self, *, rows: int = ROWS, **kwargs: Any) -> None:
        fields: list[forms.Field] = []
        for _ in range(rows):
            fields += [
                forms.ChoiceField(choices=DIMENSION_CHOICES, required=False),
                forms.CharField(required=False, strip=False, max_length=100_000),
                forms.BooleanField(required=False),
            ]
        super().__init__(
            fields=fields, widget=MatchWidget(rows), require_all_fields=False, **kwargs
        )

    def compress(self, data_list: list[Any]) -> JsonObject:
        """The rows as a match. Raises ValidationError with a sentence."""
        match: JsonObject = {}
        for first in range(0, len(data_list), 3):
            name, values = _read_row(data_list[first : first + 3])
            if not name:
                continue
            if name in match:
                raise ValidationError(
                    f"The dimension {name} is chosen twice; put all its values into one row."
                )
            match[name] = values[0] if len(values) == 1 else values
        return match


def _read_row(row: list[Any]) -> tuple[str, list[str | None]]:
    name, text, has_none = row
    lines = (text or "").replace("\r\n", "\n").split("\n")
    given = [normal_value(line) for line in lines]
    values: list[str | None] = list(dict.fromkeys(value for value in given if value))
    if has_none:
        values.append(None)
    if not name:
        if values:
            raise ValidationError("Choose the dimension that these values are of.")
        return "", []
    if not values:
        raise ValidationError(f"Give at least one value of {name}, or choose “any”.")
    if problem := problems_by_dimension({name: values}).get(name):
        raise ValidationError(f"{name.capitalize()}: {problem}")
    return name, values


def rows_for(match: Mapping[str, object]) -> int:
    """How many rows show a match with room for one dimension more."""
    return min(len(MATCHABLE), max(ROWS, len(match) + 1))
