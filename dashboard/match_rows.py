"""The field of forms for which calls a rule is about: rows of a dimension and its values."""

from collections.abc import Mapping

from django import forms

from metering.fields.match_widget import DIMENSION_CHOICES, MatchField, MatchWidget, rows_for


def match_rows(match: Mapping[str, object]) -> MatchField:
    """The field, with a row for each dimension of a match and some to fill in."""
    rows = rows_for(match)
    field = MatchField(rows=rows, label="Applies to", required=False)
    field.widget = RuleMatchWidget(rows)
    return field


class RuleMatchWidget(MatchWidget):
    """The rows of a match, the first of them as a part of the sentence."""

    template_name = "components/match_rows.html"

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        plain: list[forms.Widget] = []
        for row in range(rows):
            label = f"row {row + 1}"
            plain += [
                forms.Select(
                    choices=DIMENSION_CHOICES,
                    attrs={"class": "slot", "aria-label": f"Applies to, {label}"},
                ),
                forms.Textarea(
                    attrs={
                        "class": "slot",
                        "rows": 1,
                        "aria-label": f"Values, {label}, one a line",
                        "placeholder": "all",
                    }
                ),
                forms.CheckboxInput(attrs={"aria-label": f"Include calls without one, {label}"}),
            ]
        self.widgets = plain
