"""Rows that the API and the admin make, change and remove alike: by three functions."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """The domain's functions for one model: `create(tenant=, actor=, **fields)`,
    `update(row, actor=, changes=)`, `delete(row, actor=)`. They keep the audit log.
    """

    create: Callable[..., Any]
    update: Callable[..., Any]
    delete: Callable[..., object]
