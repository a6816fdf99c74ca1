"""Pages of rows that are counted."""

import pytest

from dashboard.paging import Numbered, numbered_page


@pytest.mark.parametrize(
    ("page", "total", "expected"),
    [
        (1, 0, Numbered(1, 0, 0, None, None)),
        (1, 25, Numbered(1, 25, 25, None, None)),
        (1, 26, Numbered(1, 25, 26, None, "?2")),
        (2, 60, Numbered(26, 50, 60, "?1", "?3")),
        (3, 60, Numbered(51, 60, 60, "?2", None)),
    ],
)
def test_a_page_knows_its_rows_and_its_neighbors(page: int, total: int, expected: Numbered) -> None:
    result = numbered_page(page, total, per_page=25, address=lambda number: f"?{number}")
    assert result == expected
    assert len(range(total)[result.rows]) == max(0, result.last - result.first + 1)
