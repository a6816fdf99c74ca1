"""The words of a page, as a person reads them."""

import re
from html import unescape


def words(text: str) -> str:
    """Return the text of a page, of its tags or a sentence, in one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text))).strip()
