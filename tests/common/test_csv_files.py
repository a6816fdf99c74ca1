"""CSV files that are safe to open."""

import csv

import pytest

from common.csv_files import csv_lines, safe_cell


@pytest.mark.parametrize(
    "cell",
    [
        *(f"{start}cmd|' /C calc'!A0" for start in "=+-@|%"),
        *(f"{start}SUM(1)" for start in "\uff1d\uff0b\uff0d\uff20\ufe66\u2212"),
        *(f"{white}=1" for white in (" ", "\n", "\t", "\r", "\r\n ", "\u00a0", "\u200b", "\ufeff")),
        "\n@x",
        "\ttext",
        "-1+2",
        "+1",
        "=",
    ],
    ids=ascii,
)
def test_a_formula_is_shown_and_not_run(cell: str) -> None:
    assert safe_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "-5", "-0.001234567", "12.5", "a=b", "acme", " acme", "'x"])
def test_numbers_and_other_texts_stay(cell: str) -> None:
    assert safe_cell(cell) == cell


def test_a_cell_stays_one_cell_wherever_a_spreadsheet_splits() -> None:
    rows = [["name", "usd"], ['a;=1+1\t"x",\ny', "-1.5"]]
    text = "".join(csv_lines(rows))
    assert list(csv.reader(text.splitlines(keepends=True))) == rows
    assert text == '"name","usd"\r\n"a;=1+1\t""x"",\ny","-1.5"\r\n'
