"""Figures: valid for plotly, exact in words, and harmless with any name."""

from datetime import UTC, datetime, timedelta

import plotly.graph_objects as go
import pytest

from dashboard.charts import THEMES, spend_figure
from dashboard.spend import Series
from tests.json_object import JsonObject

START = datetime(2026, 11, 16, tzinfo=UTC)


def make_series(**changes: object) -> Series:
    fields: JsonObject = {
        "starts": [START + timedelta(days=day) for day in range(3)],
        "interval": "day",
        "amounts": {"one": [1_000_000_001, 0, 5], "": [0, 0, 7]},
        "others": [1, 2, 3],
        "unfinished": 2,
        "before": [4, 5, 6],
    }
    return Series(**{**fields, **changes})


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("interval", ["hour", "day", "month"])
def test_plotly_accepts_the_figure(theme: str, interval: str) -> None:
    series = make_series(interval=interval)
    figure = spend_figure(series, greatest=[], starts=series.starts, theme=THEMES[theme])
    assert len(go.Figure(figure).data) == 4


def test_bars_tell_exact_amounts_and_the_running_one_is_hatched() -> None:
    series = make_series()
    figure = spend_figure(series, greatest=[], starts=series.starts, theme=THEMES["light"])
    first, nameless, others, before = figure["data"]
    assert first["customdata"][0] == ["$1.00", "$1.000000001"]
    assert first["marker"]["pattern"]["shape"] == ["", "", "/"]
    assert (nameless["name"], nameless["meta"]) == ("(none)", {"value": ""})
    assert others["name"] == "other"
    assert before["line"]["dash"] == "dot"


def test_names_with_markup_are_shown_and_not_read() -> None:
    series = make_series(amounts={"<b onclick='x'>&": [1, 1, 1]})
    figure = spend_figure(series, greatest=[], starts=series.starts, theme=THEMES["dark"])
    assert figure["data"][0]["name"] == "&lt;b onclick='x'&gt;&amp;"
    assert figure["data"][0]["meta"] == {"value": "<b onclick='x'>&"}


def test_an_empty_period_has_a_figure_without_bars() -> None:
    series = make_series(amounts={}, others=None, before=None, unfinished=None)
    figure = spend_figure(series, greatest=[], starts=series.starts, theme=THEMES["light"])
    assert figure["data"] == []
    assert go.Figure(figure).layout.barmode == "stack"
