"""The axis of a waterfall: round times that do not run into each other."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.sessions.waterfall import Span
from dashboard.templatetags.sessions import axis_of

START = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(0), ["0 s"]),
        (timedelta(milliseconds=7), ["0 s", "2 ms", "4 ms"]),
        (timedelta(milliseconds=900), ["0 s", "500 ms"]),
        (timedelta(seconds=7), ["0 s", "2 s", "4 s"]),
        (timedelta(minutes=6, seconds=8), ["0 s", "2 min", "4 min"]),
        (timedelta(minutes=100), ["0 s", "30 min", "1 h"]),
        (timedelta(days=30), ["0 s", "8 d", "16 d", "24 d"]),
    ],
)
def test_an_axis_names_few_round_times(length: timedelta, words: list[str]) -> None:
    assert [text for _, text in axis_of(Span(START, START + length))] == words


def test_a_time_stands_where_it_is_on_the_axis() -> None:
    places = [index for index, _ in axis_of(Span(START, START + timedelta(minutes=8)))]
    assert places == [0, 25, 50, 75]
