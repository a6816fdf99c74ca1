"""The known name that a misspelt one is nearest to. Pure, and cheap however many are asked for."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

# No name that the service knows is longer; what is longer is no slip of the pen.
NAME_CHARACTERS_MAX: Final = 60
# In shorter names one letter more or less makes another word.
SLIP_CHARACTERS_MIN: Final = 4
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    """A sentence that names the nearest known name, with a space before it; "" if none is near."""
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near is not None else ""


def nearest(name: str, known: tuple[str, ...]) -> str | None:
    """The known name that differs only by case, separators, a word at the end, or a letter or two
    that were swapped, doubled, mistyped or left out. None if there is no such name.

    The known names are indexed once, so that a name takes microseconds.
    """
    if len(name) > NAME_CHARACTERS_MAX:
        return None
    index = _index(known)
    return next((index[form] for form in _forms(name) if form in index), None)


@lru_cache(maxsize=64)
def _index(known: tuple[str, ...]) -> dict[str, str]:
    """Every form of the known names. The closer form of one name wins over those of others."""
    forms = [list(_forms(name)) for name in known]
    stems = Counter(of_name[1] for of_name in forms)
    index: dict[str, str] = {}
    for rank in range(max(map(len, forms), default=0)):
        for name, of_name in zip(known, forms, strict=True):
            # A beginning that several names share says nothing.
            if rank < len(of_name) and (rank != 1 or stems[of_name[1]] == 1):
                index.setdefault(of_name[rank], name)
    return index


def _forms(name: str) -> Iterator[str]:
    """The name's letters and digits, the same without its last word, then without each one of
    them. Two names that share a form are near.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    plain = "".join(words)
    yield plain
    yield "".join(words[:-1]) or plain
    if len(plain) >= SLIP_CHARACTERS_MIN:
        yield from (plain[:index] + plain[index + 1 :] for index in range(len(plain)))
