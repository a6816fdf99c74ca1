"""Which outputs count as the same."""

import re
from collections import deque
from collections.abc import Iterable
from typing import Final

SIMHASH: Final = re.compile(r"simhash:([0-9a-fA-F]{16})")
DISTANCE_MAX_BITS: Final = 3
# A similarity hash is compared with this many earlier ones: a loop repeats what is recent.
COMPARED_MAX: Final = 10


def output_names(hashes: Iterable[str | None]) -> list[str | None]:
    """For each output hash a name that outputs alike share: the hash of the first of them."""
    known: deque[tuple[int, str]] = deque(maxlen=COMPARED_MAX)
    return [_name(output_hash, known) for output_hash in hashes]


def _name(output_hash: str | None, known: deque[tuple[int, str]]) -> str | None:
    if not output_hash or (match := SIMHASH.fullmatch(output_hash)) is None:
        return output_hash or None
    bits = int(match[1], 16)
    for earlier, name in known:
        if (bits ^ earlier).bit_count() <= DISTANCE_MAX_BITS:
            return name
    known.append((bits, output_hash))
    return output_hash
