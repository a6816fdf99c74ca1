"""Tables of words beside the code that reads them, checked when they are read."""

from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a file, or a part of one."""


def read_table(module_file: str, name: str, form: type[T]) -> T:
    """Return the TOML file of this name beside a module. Raises msgspec.ValidationError."""
    return msgspec.toml.decode((Path(module_file).parent / name).read_bytes(), type=form)
