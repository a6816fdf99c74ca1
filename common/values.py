"""Names as people and programs write them: two that look alike are one."""

import re
import unicodedata
from typing import Final

# The largest whole number that every JSON client holds exactly.
COUNT_MAX: Final = 2**53
# Longer than any value is before what cannot be seen is taken out of it.
RAW_CHARACTERS_MAX: Final = 1_000
# What Unicode calls default ignorable and is of no category of format or control characters:
# joiners, fillers, and selectors of variants. Unassigned code points of these blocks will be such.
_IGNORABLE: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff"
)
# Blanks of other categories than spaces.
_BLANK: Final = "\u2800\U0001d159"
_IS_IGNORABLE: Final = re.compile(f"[{_IGNORABLE}]")
_SPACES: Final = re.compile(rf"[\s{_BLANK}]+")


def normal_value(value: str) -> str:
    """The value as it is stored, matched and compared: what looks alike is the same.

    Unicode's composed form (NFC), without control, format and other invisible characters (joiners,
    marks of direction, soft hyphens, variation selectors, tags), every run of white space one plain
    space, none at the ends. Case is kept. "" where nothing is left to see.
    """
    if value.isascii() and value.isprintable():
        return " ".join(value.split()) if " " in value else value
    # Spaces first: some of them are control characters.
    spaced = _SPACES.sub(" ", value)
    seen = "".join([each for each in spaced if unicodedata.category(each) not in ("Cc", "Cf")])
    composed = unicodedata.normalize("NFC", _IS_IGNORABLE.sub("", seen))
    return " ".join(composed.split())
