"""Figures: valid for plotly, exact in words, and harmless with any name."""

from datetime import UTC, datetime, timedelta

import plotly.graph_objects as go
import pytest

from common.json_bodies import JsonObject
from common.money import NANOS_PER_USD
from dashboard.chart_notes import Level, Mark, with_levels, with_marks, with_shade
from dashboard.charts import (
    COUNT,
    FIRST,
    MONEY,
    SHARE,
    Buckets,
    Column,
    Figure,
    amount_ticks,
    band,
    line,
    over_time,
    stacked_bars,
)
from dashboard.colors import OTHER, PALETTE
from dashboard.composition import Part, Stream, flow
from dashboard.lying_bars import change_bars
from dashboard.spend import Series
from dashboard.spend_chart import spend_figure
from tests.dashboard.tokens import resolved

START = datetime(2026, 11, 16, tzinfo=UTC)
STARTS = [START + timedelta(days=day) for day in range(3)]


def make_series(**changes: object) -> Series:
    fields: JsonObject = {
        "starts": STARTS,
        "interval": "day",
        "amounts": {"one": [1_000_000_001, 0, 5], "": [0, 0, 7]},
        "others": [1, 2, 3],
        "unfinished": 2,
        "before": [4, 5, 6],
    }
    return Series(**{**fields, **changes})


def drawn(series: Series, marks: list[Mark] | None = None) -> Figure:
    figure = spend_figure(series, split="agent", greatest=[], starts=series.starts)
    return with_marks(figure, marks or [])


def accepted(figure: Figure) -> go.Figure:
    """The figure as plotly's own classes take it; they raise for what is not in the schema."""
    return go.Figure(resolved(figure))


@pytest.mark.parametrize("interval", ["hour", "day", "month"])
def test_plotly_accepts_the_figure(interval: str) -> None:
    assert len(accepted(drawn(make_series(interval=interval))).data) == 4


def test_bars_stand_on_each_other_with_exact_amounts_and_the_running_one_hatched() -> None:
    before, first, nameless, others = drawn(make_series())["data"]
    assert first["customdata"][0] == ["$1.00", "$1.000000001"]
    assert first["marker"]["pattern"]["shape"] == ["", "", "/"]
    assert nameless["name"] == "no agent"
    assert nameless["base"] == [1.000000001, 0, 5e-9]
    assert others["base"] == [1.000000001, 0, 12e-9]
    assert before["width"] > first["width"]


def test_a_click_filters_by_a_value_and_never_by_the_rest() -> None:
    figure = drawn(make_series())
    assert figure["layout"]["meta"]["parameter"] == "filter[agent]"
    assert [each.get("meta", {}).get("value") for each in figure["data"]] == [None, "one", "", None]


def test_the_hover_has_the_total_and_the_change() -> None:
    series = make_series(
        amounts={"one": [3 * NANOS_PER_USD, 0, 0]}, others=None, before=[2 * NANOS_PER_USD, 0, 5]
    )
    assert drawn(series)["layout"]["meta"]["hover"] == [
        ["Mon, Nov 16, 2026", "$3.00", "$2.00", "+50%"],
        ["Tue, Nov 17, 2026", "$0", "$0", ""],
        ["Wed, Nov 18, 2026", "$0", "$0.000000005", "\u2212100%"],
    ]


def test_names_with_markup_are_shown_and_not_read() -> None:
    figure = drawn(make_series(amounts={"<b onclick='x'>&": [1, 1, 1]}))
    bars = figure["data"][1]
    assert bars["name"] == "&lt;b onclick='x'&gt;&amp;"
    assert bars["meta"]["value"] == "<b onclick='x'>&"
    mark = Mark(0, "warning", "<i>x</i>", 2, '/incidents/1?a="')
    note = drawn(make_series(), [mark])["layout"]["annotations"][0]
    assert note["hovertext"] == "&lt;i&gt;x&lt;/i&gt; and 1 more"


def test_an_empty_period_has_a_figure_without_bars() -> None:
    figure = drawn(make_series(amounts={}, others=None, before=None, unfinished=None))
    assert figure["data"] == []
    assert accepted(figure).layout.barmode == "overlay"


def test_what_a_running_bucket_will_come_to_is_outlined() -> None:
    column = Column("one", [1, 1, 1], PALETTE[0], "one")
    figure = stacked_bars([column], Buckets(STARTS, "day", 2, 4), unit=COUNT)
    (outline,) = figure["layout"]["shapes"]
    assert (outline["y0"], outline["y1"], outline["line"]["dash"]) == (1, 4, "dash")
    accepted(figure)


def test_limits_shades_and_marks_are_drawn_over_any_chart() -> None:
    places = [start.isoformat() for start in STARTS]
    traces = [*band([1, 2, 3], [3, 4, 5], places), line("Forecast", [2, 3, 4], places, dash="dash")]
    figure = over_time(traces, starts=STARTS, interval="day")
    figure = with_levels(figure, [Level(5, "Limit $5", True), Level(4, "80%")])
    figure = with_shade(figure, places[0], places[1], "No data")
    figure = with_marks(figure, [Mark(0, "critical", "Loop", 1, "/incidents/1")])
    assert [shape["type"] for shape in figure["layout"]["shapes"]] == ["line", "line", "rect"]
    assert "No data" in figure["layout"]["shapes"][2]["label"]["text"]
    accepted(figure)
    rates = line("Rate", [0.1, None, 0.2], places, unit=SHARE)
    accepted(over_time([rates], starts=STARTS, interval="hour", unit=SHARE))


def test_the_largest_change_stands_on_top_and_out() -> None:
    figure = change_bars([("scout", 700 * NANOS_PER_USD), ("<b>", -2 * NANOS_PER_USD)])
    bars = figure["data"][0]
    assert bars["y"] == ["&lt;b&gt;", "scout"]
    assert bars["text"] == ["\u2212$2.00", "+$700.00"]
    assert bars["marker"]["color"] == [OTHER, "var(--critical-fill)"]
    accepted(figure)


@pytest.mark.parametrize(
    ("highest", "words"),
    [
        (740 * NANOS_PER_USD, ["$0", "$200", "$400", "$600", "$800"]),
        (12_345_678, ["$0", "$0.005", "$0.01", "$0.015"]),
        (0, ["$0"]),
    ],
)
def test_an_axis_has_few_round_amounts_in_words(highest: int, words: list[str]) -> None:
    assert amount_ticks(highest, MONEY)["ticktext"] == words


def test_a_line_is_named_in_text() -> None:
    """Plotly reads markup in a trace's name; the legend and the hover take `meta` as text."""
    drawn = line("Per <b>ticket</b>", [1], ["2026-11-30T00:00:00"])
    assert drawn["name"] == "Per &lt;b&gt;ticket&lt;/b&gt;"
    assert drawn["meta"]["name"] == "Per <b>ticket</b>"


@pytest.mark.parametrize(
    ("hours", "line_form", "bar_text"),
    [(24, "%-I %p", "11 PM"), (72, "%b %-d", "Wed 11 PM")],
)
def test_hours_of_several_days_name_their_day(hours: int, line_form: str, bar_text: str) -> None:
    first = datetime(2026, 11, 16 if hours == 72 else 18, tzinfo=UTC)
    starts = [first + timedelta(hours=hour) for hour in range(hours)]
    amounts = [NANOS_PER_USD] * hours
    places = [start.isoformat() for start in starts]
    lines = over_time([line("Spend", amounts, places)], starts=starts, interval="hour")
    assert lines["layout"]["xaxis"]["tickformat"] == line_form
    bars = stacked_bars([Column("a", amounts, "var(--c1)")], Buckets(starts, "hour"))
    assert bars["layout"]["xaxis"]["ticktext"][-1] == bar_text


def test_streams_are_numbered_after_the_parts_between_which_they_are() -> None:
    left = [Part("<b>", 3, FIRST, "?a"), Part("", 1, FIRST, "?b")]
    figure = flow(left, [Part("x", 4, FIRST, "?c")], [Stream(0, 0, 3), Stream(1, 0, 0)], unit=COUNT)
    [trace] = accepted(figure).data
    assert trace.node.label == ("&lt;b&gt;", "(none)", "x")
    assert (trace.link.source, trace.link.target, trace.link.value) == ((0,), (2,), (3,))
    told = figure["layout"]["meta"]
    assert told["parts"] == 3
    assert told["hover"][3][:2] == ["<b> → x", "3 · 100%"]
    assert told["addresses"] == ["?a", "?b", "?c", ""]
