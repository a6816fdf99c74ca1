"""CSV files, which people open in spreadsheets. Pure."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# With what a spreadsheet begins a formula, a command or a field of its own, in both widths. White
# space and characters that cannot be seen before it do not stop every spreadsheet.
_FORMULA: Final = re.compile(
    r"(?:\s|[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff])*"
    r"[=+\-@|%\t\r\n\uff1d\uff0b\uff0d\uff20\uff5c\uff05\u2212\ufe62-\ufe63\ufe66\ufe6b]"
)


def csv_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The rows as lines of a CSV file, whose every cell is safe to open.

    All cells are quoted: a spreadsheet may split at other characters than commas.
    """
    writer = csv.writer(line := _Line(), quoting=csv.QUOTE_ALL)
    for row in rows:
        writer.writerow([safe_cell(cell) for cell in row])
        yield line.text


class _Line:
    """What `csv` has written last."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def safe_cell(text: str) -> str:
    """Text that a spreadsheet shows and does not run: an apostrophe goes before what it would take
    for a formula. Numbers stay numbers.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
