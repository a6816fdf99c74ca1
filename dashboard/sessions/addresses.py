"""Addresses of sessions, traces and calls, whose names can hold any character."""

from typing import Final
from urllib.parse import quote, unquote

from django.urls import reverse

# What a browser resolves before it asks, and what stands for no text.
_WRITTEN: Final = {"": "~", "~": "%7E", ".": "%2E", "..": "%2E%2E"}


class AnyText:
    """The rest of an address, slashes and line breaks included."""

    regex = r"[\s\S]+"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class Segment:
    """A text as one segment: encoded once more, so that what a server decodes holds no slash and is
    not taken for a step up.
    """

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return "" if value == _WRITTEN[""] else unquote(value)

    def to_url(self, value: str) -> str:
        return _WRITTEN.get(value) or quote(value, safe=" ")


def call_address(source: str, sent_id: str) -> str:
    """The page of a call."""
    return reverse("dashboard:call", args=[source, sent_id])
