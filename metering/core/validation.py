"""How rules of configuration refuse a row: an error for each field, in a sentence that the API
shows at the member of the body and a form beside its input.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db import models

from metering.core.match import group_key, problems_by_dimension


class Problem(NamedTuple):
    """What is wrong with a field; what is inside it is named with dots, as in `levels.0.notify`."""

    field: str
    message: str
    code: str = "invalid"


def require(problems: Iterable[Problem]) -> None:
    """Raise ValidationError with these problems by field, if there are any."""
    errors: defaultdict[str, list[ValidationError]] = defaultdict(list)
    for problem in problems:
        errors[problem.field].append(ValidationError(problem.message, code=problem.code))
    if errors:
        raise ValidationError(dict(errors))


def require_row(row: models.Model, problems: Iterable[Problem]) -> None:
    """Raise ValidationError for values that the row's columns do not take, else for the problems,
    which may rely on the columns' types.
    """
    fixed = {field.name for field in row._meta.fields if not field.editable or field.is_relation}
    row.clean_fields(exclude=fixed)
    require(problems)


def require_known_before_call(match: Mapping[str, object]) -> None:
    """Raise ValidationError unless this is a match of calls that have not run yet."""
    require(askable_match_problems(match))


def askable_match_problems(match: Mapping[str, object]) -> Iterator[Problem]:
    """Judge a match of calls that have not run yet."""
    yield from match_problems(match)
    if "status" in match:
        yield Problem("match.status", "How a call ends is not known before it has run.")


def match_problems(match: Mapping[str, object]) -> Iterator[Problem]:
    """Judge a match of calls."""
    for name, message in problems_by_dimension(match).items():
        yield Problem(f"match.{name}", message)


def per_problems(per: Sequence[str], names: Sequence[str], *, most: int) -> Iterator[Problem]:
    """Judge what calls are counted by: at most this many of these names, each once."""
    if len(per) > most:
        yield Problem("per", f"Choose at most {most}.")
    if len(set(per)) < len(per):
        yield Problem("per", "A dimension is named twice.")
    if unknown := sorted(set(per) - set(names)):
        yield Problem("per", f"{', '.join(unknown)}: not one of {', '.join(names)}.")


def amount_problems(row: object, **bounds: tuple[int, int]) -> Iterator[Problem]:
    """Judge numbers that may be left out, by the least and the most that each may be."""
    for name, (least, most) in bounds.items():
        value = getattr(row, name)
        if value is None or least <= value <= most:
            continue
        is_nothing = value == 0 and least == 1
        yield Problem(name, "Give more than 0." if is_nothing else f"Give {least:,} to {most:,}.")


def group_key_of(per: Sequence[str], values: Mapping[str, str]) -> str:
    """Return the key of the group with these values of `per`. Raises ValidationError unless each
    dimension of it is named.
    """
    require(group_problems(per, values))
    return group_key([values[name] for name in per])


def group_problems(per: Sequence[str], values: Mapping[str, str]) -> Iterator[Problem]:
    """Judge the dimensions of a group: those of `per`."""
    if values.keys() != set(per):
        yield Problem("group", f"Must name {', '.join(per) or 'no dimension'}, as 'per' does.")
