"""The measure of an incident by time, as a figure. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from dashboard.chart_notes import with_shade
from dashboard.charts import COUNT, FIRST, LINE, MONEY, SHARE, TEXT, Figure, height, line, over_time
from dashboard.incidents.course import Course, Stretch

UNITS: Final = {"money": MONEY, "count": COUNT, "share": SHARE}


def incident_figure(course: Course, *, starts: Sequence[datetime], cause: Stretch) -> Figure:
    """Bars of what adds up, a line of what does not; the incident shaded, the week before dotted.

    `starts` and `cause` are by the tenant's clock.
    """
    # Ratios are no whole nano-dollars: the measure rounds them.
    unit = UNITS[course.measure.unit]._replace(text=course.measure.text, exact=course.measure.exact)
    places = _places(starts)
    actual = line(course.measure.words, course.actual, places, unit=unit)
    if course.measure.is_sum:
        actual = actual | {"type": "bar", "marker": {"color": FIRST, "line": {"width": 0}}}
        del actual["mode"], actual["line"]
    traces = [actual]
    if course.before is not None:
        traces.append(
            line("A week earlier", course.before, places, unit=unit, color=LINE, dash="dot")
        )
    figure = over_time(traces, starts=starts, interval=course.interval, unit=unit)
    first, last = _places(cause)
    figure = with_shade(figure, first, last)
    if course.expected is not None:
        figure["layout"]["shapes"].append(
            {
                "type": "line",
                "xref": "x",
                "x0": first,
                "x1": last,
                "y0": height(course.expected, unit),
                "y1": height(course.expected, unit),
                "line": {"color": TEXT, "width": 1.5, "dash": "dash"},
                "label": {
                    "text": "expected",
                    "textposition": "top left",
                    "font": {"color": TEXT},
                },
            }
        )
    return figure


def _places(moments: Sequence[datetime]) -> list[str]:
    """Moments as plotly takes them: the clock's time, without a zone."""
    return [moment.replace(tzinfo=None).isoformat() for moment in moments]
