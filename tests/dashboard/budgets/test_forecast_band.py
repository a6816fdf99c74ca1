"""The band around a window's forecast: how wide, and between which bounds."""

from datetime import UTC, datetime, timedelta

from dashboard.budgets.burn import Burn
from dashboard.budgets.forecast_band import Band, band_of

START = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make_burn(used: list[int], *, ahead: tuple[datetime, int] | None) -> Burn:
    """A day of which so many hours are over, and half of one."""
    times = [START + HOUR * at for at in range(len(used) - 1)]
    return Burn(
        interval="hour",
        starts_at=START,
        ends_at=START + timedelta(days=1),
        times=[*times, times[-1] + HOUR / 2],
        used=used,
        limits=[],
        crossings=[],
        ahead=ahead,
    )


def read_band(used: list[int], end: int, *, highest: int | None = None) -> Band:
    result = band_of(make_burn(used, ahead=(START + timedelta(days=1), end)), highest=highest)
    assert result is not None
    return result


def test_even_use_leaves_no_doubt() -> None:
    band = read_band([0, 10, 20, 30, 40, 45], 240)
    assert band.low == band.high
    assert (band.low[0], band.low[-1]) == (45, 240)


def test_uneven_use_opens_the_band_with_time() -> None:
    # Four hours that used 0, 20, 0 and 20 deviate by 11.547; 19.5 are ahead:
    # 1.2816 * 11.547 * sqrt(19.5 * (1 + 19.5 / 4)) = 158.39.
    band = read_band([0, 0, 20, 20, 40, 45], 240)
    assert (band.low[-1], band.high[-1]) == (240 - 158, 240 + 158)
    widths = [high - low for low, high in zip(band.low, band.high, strict=True)]
    assert widths == sorted(widths)
    assert widths[0] == 0


def test_what_was_used_stays_used_and_a_limit_that_refuses_is_kept() -> None:
    band = read_band([0, 0, 200, 200, 200, 200], 240, highest=300)
    assert min(band.low) == 200
    assert max(band.high) == 300


def test_an_overrun_beyond_the_limit_is_drawn_where_it_is() -> None:
    band = read_band([0, 0, 200, 200, 400, 400], 500, highest=300)
    assert all(low <= high for low, high in zip(band.low, band.high, strict=True))
    assert set(band.high) == {400}


def test_without_a_forecast_or_with_too_little_seen_there_is_no_band() -> None:
    end = START + timedelta(days=1)
    assert band_of(make_burn([0, 1, 2, 3, 4, 4], ahead=None), highest=None) is None
    assert band_of(make_burn([0, 1, 2, 3, 3], ahead=(end, 20)), highest=None) is None
