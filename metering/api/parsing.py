"""Request bodies of the management API: JSON as strict as for events."""

import json
import zlib
from collections.abc import Callable
from typing import Any, Final, NoReturn

from rest_framework.parsers import BaseParser

from metering.decoders.native import holds_nul, require_shallow, require_utf8
from metering.errors import MalformedBody, MeteringError

BODY_BYTES_MAX: Final = 10 * 1024 * 1024
# The most that is read of a body to no avail before it is refused.
DRAIN_BYTES_MAX: Final = 256 * 1024 * 1024
TOO_LARGE: Final = "The body is larger than 10 MiB after decompression."


class BodyTooLarge(MeteringError):
    """The body is over the limit, as sent or once decompressed."""

    code = "too_large"


class StrictJSONParser(BaseParser):
    """JSON without NaN, NUL, half surrogates or deep nesting."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        body = read_body(stream.read)
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLarge(TOO_LARGE)
        request = (parser_context or {}).get("request")
        if request is not None:
            body = decompress(body, request.headers.get("Content-Encoding", ""))
        return parse_json(body)


def parse_json(body: bytes) -> Any:
    """The JSON value of a body. Raises MalformedBody."""
    require_utf8(body)
    require_shallow(body)
    try:
        value = json.loads(body, parse_constant=_refuse)
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedBody("malformed_json", "A string holds half of a surrogate pair.") from error
    except (ValueError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    if "\\u0000" in text and holds_nul(value):
        raise MalformedBody("invalid_value", "A string holds the character NUL.")
    return value


def _refuse(constant: str) -> NoReturn:
    raise MalformedBody("malformed_json", f"{constant} is not JSON.")


def read_body(read: Callable[[int], bytes]) -> bytes:
    """The body as sent, cut off one byte beyond the limit.

    What is beyond is read and dropped: a client that is still sending would not see the answer.
    """
    body = read(BODY_BYTES_MAX + 1)
    dropped = 0
    while len(body) > BODY_BYTES_MAX and dropped < DRAIN_BYTES_MAX and (chunk := read(1 << 20)):
        dropped += len(chunk)
    return body


def decompress(body: bytes, encoding: str) -> bytes:
    """The body as its sender wrote it. Stops at the limit: a bomb costs no more than that."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLarge(TOO_LARGE)
        return body
    if encoding != "gzip":
        raise UnsupportedEncoding(
            f"The content encoding {encoding[:40]!r} is not understood; use gzip."
        )
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, BODY_BYTES_MAX + 1)
    except zlib.error as error:
        raise MalformedBody("malformed_gzip", "The body is not gzip.") from error
    if len(plain) > BODY_BYTES_MAX:
        raise BodyTooLarge(TOO_LARGE)
    if not decompressor.eof:
        raise MalformedBody("malformed_gzip", "The gzip body ends too early.")
    return _further_members(plain, decompressor.unused_data)


def _further_members(plain: bytes, rest: bytes) -> bytes:
    """gzip files may be put one after another; the limit counts for all of them."""
    while rest:
        decompressor = zlib.decompressobj(wbits=31)
        try:
            plain += decompressor.decompress(rest, BODY_BYTES_MAX + 1 - len(plain))
        except zlib.error as error:
            raise MalformedBody("malformed_gzip", "The body is not gzip.") from error
        if len(plain) > BODY_BYTES_MAX:
            raise BodyTooLarge(TOO_LARGE)
        if not decompressor.eof:
            raise MalformedBody("malformed_gzip", "The gzip body ends too early.")
        rest = decompressor.unused_data
    return plain


class UnsupportedEncoding(MeteringError):
    """A content encoding other than gzip."""

    code = "unsupported_media_type"
