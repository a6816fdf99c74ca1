"""Requests for the handlers of the fast path."""

import io
from collections.abc import Mapping

from metering.api.fast_path import HotRequest


def request_of(headers: Mapping[str, str], body: bytes) -> HotRequest:
    """A request whose body is at hand."""
    lower = {name.lower(): value for name, value in headers.items()}
    return HotRequest(lower, io.BytesIO(body).read, len(body))
