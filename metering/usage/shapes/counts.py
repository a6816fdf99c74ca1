"""Reading counts out of a usage object, and refusing what cannot be one."""

from collections.abc import Iterable, Mapping

from metering.usage.shapes.tokens import UnknownUsage

Usage = Mapping[str, object]

MOST_TOKENS = 2**53  # larger whole numbers do not survive a JSON reader that uses doubles

NOTHING: Usage = {}

# Words of keys that speak of tokens but count none that were used.
_NOT_A_COUNT = ("per_second", "persecond", "max", "limit", "remaining", "cost", "price", "time")


def count(holder: Usage, key: str) -> int:
    """Return the count under `key`; 0 when it is absent or null."""
    value = holder.get(key)
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= MOST_TOKENS:
        return value
    raise UnknownUsage(f"{key} must be a whole number from 0 to 2**53")


def largest(holder: Usage, keys: Iterable[str]) -> int:
    """Return the count that stands under several names."""
    most = 0
    for key in keys:
        if key in holder and (used := count(holder, key)) > most:
            most = used
    return most


def seconds(holder: Usage, key: str) -> int | float:
    """Return a duration, the one count that comes with fractions. Mistral writes none as `{}`."""
    value = holder.get(key)
    if value is None or value == {}:
        return 0
    if isinstance(value, int | float) and type(value) is not bool and 0 <= value <= MOST_TOKENS:
        return value
    raise UnknownUsage(f"{key} must be a number from 0 to 2**53")


def part(holder: Usage, key: str) -> Usage:
    """Return the object under `key`; empty when it is absent or null."""
    value = holder.get(key)
    if value is None:
        return NOTHING
    if type(value) is dict or isinstance(value, Mapping):  # the first is much the faster test
        return value
    raise UnknownUsage(f"{key} must be an object")


def merged_parts(holder: Usage, keys: Iterable[str]) -> Usage:
    """Return the objects under several names for the same thing, as one."""
    parts = [inner for key in keys if (inner := part(holder, key))]
    return parts[0] if len(parts) == 1 else {key: each[key] for each in parts for key in each}


def require_one(holder: Usage, keys: Iterable[str]) -> None:
    """Refuse a shape whose defining counts are all absent or null: it says nothing, not zero."""
    for key in keys:
        if holder.get(key) is not None:
            return
    raise UnknownUsage(f"usage holds none of {', '.join(keys)}")


def fills_total(total: int, *sums: int) -> bool:
    """Return whether the parts add up to the total that the provider gives: then nothing can stand
    beside them, and what no one knows says more of what is counted already.
    """
    return total > 0 and total in sums


def refuse_unknown(holder: Usage, known: frozenset[str]) -> None:
    """Refuse a positive count of tokens under a key that no one has given a meaning.

    Times, costs, identifiers and the like are let through; tokens that no one can place could
    be money, so they are never dropped in silence.
    """
    for key in unknown_parts(holder, known):
        raise UnknownUsage(f"{key} counts tokens in a way that is not known")


def judge_unknown(is_whole: bool, *parts: tuple[Usage, frozenset[str]]) -> dict[str, object]:
    """Return what no one knows in objects, each beside the keys that are known in it.

    Where the counts add up to the total without it, it says more of what is counted already, and is
    kept; else it is refused.
    """
    unknown: dict[str, object] = {}
    for holder, known in parts:
        if not is_whole:
            refuse_unknown(holder, known)
        elif not holder.keys() <= known:
            unknown |= unknown_parts(holder, known)
    return unknown


def unknown_parts(holder: Usage, known: frozenset[str]) -> dict[str, object]:
    """Return the members that count tokens under keys that no one has given a meaning."""
    if holder.keys() <= known:
        return {}
    return {
        key: holder[key]
        for key in sorted(holder.keys() - known)
        if _holds_tokens(key, holder[key], False)
    }


def _holds_tokens(key: str, value: object, inside: bool) -> bool:
    name = key.lower()
    if any(word in name for word in _NOT_A_COUNT):
        return False
    inside = inside or "token" in name
    if isinstance(value, Mapping):
        return any(_holds_tokens(str(inner), value[inner], inside) for inner in value)
    if isinstance(value, list):
        return any(_holds_tokens(key, item, inside) for item in value)
    if not inside or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value != 0
