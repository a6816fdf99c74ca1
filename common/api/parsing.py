"""Request bodies: how much of one is kept, how it is decompressed, and JSON of the management API,
which is as strict as that of events.
"""

import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, NoReturn

from rest_framework.parsers import BaseParser

from common.errors import MalformedBody, MeteringError
from common.json_bodies import holds_nul, require_shallow, require_utf8

BODY_BYTES_MAX: Final = 10 * 1024 * 1024
# The most that is read of a body to no avail before it is refused.
DRAIN_BYTES_MAX: Final = 256 * 1024 * 1024
# Telemetry and callbacks carry prompts, and are sent once: a refusal loses them.
LARGE_BODY_BYTES_MAX: Final = 64 * 1024 * 1024
# Of JSON of the management API.
COMMAS_MAX: Final = 20_000
# What is larger waits for its turn in a file.
MEMORY_BYTES_MAX: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 16
# Sizes of pieces and of compressed members are bounded, and so is the work for a body of tiny ones.
_MEMBERS_MAX: Final = 4096
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_DEFLATE: Final = "deflate"
# Tells zlib what surrounds the compressed data.
_GZIP_WINDOW: Final = 31
_ZLIB_WINDOW: Final = 15
_RAW_WINDOW: Final = -15


class BodyTooLarge(MeteringError):
    """The body is over the limit, as sent or once decompressed."""

    code = "too_large"

    def __init__(self, bytes_max: int = BODY_BYTES_MAX) -> None:
        super().__init__(f"The body is larger than {bytes_max >> 20} MiB after decompression.")


class StrictJSONParser(BaseParser):
    """JSON without NaN, NUL, half surrogates or deep nesting."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        with keep_body(stream.read, BODY_BYTES_MAX) as (kept, size):
            if size > BODY_BYTES_MAX:
                raise BodyTooLarge
            body = kept.read()
        request = (parser_context or {}).get("request")
        if request is not None:
            body = decompress(body, request.headers.get("Content-Encoding", ""))
        return parse_json(body)


def parse_json(body: bytes) -> Any:
    """The JSON value of a body. Raises MalformedBody."""
    require_utf8(body)
    require_shallow(body)
    # Commas bound the members and items from above; as Python's objects each takes some 100 bytes.
    if body.count(b",") > COMMAS_MAX:
        detail = f"The body holds more than {COMMAS_MAX:,} commas; no request needs as many."
        raise MalformedBody("too_many_members", detail)
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


@contextmanager
def keep_body(read: Callable[[int], bytes], bytes_max: int) -> Iterator[tuple[IO[bytes], int]]:
    """The body as a file at its begin, with its size: up to one byte beyond the limit.

    What is beyond is read and dropped: a client that is still sending would not see the answer.
    """
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX) as body:
        size = 0
        while size < DRAIN_BYTES_MAX and (piece := read(_PIECE_BYTES)):
            body.write(piece[: max(0, bytes_max + 1 - size)])
            size += len(piece)
        body.seek(0)
        yield body, min(size, bytes_max + 1)


def decompress(body: bytes, encoding: str, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The body as its sender wrote it. Stops at the limit: a bomb costs no more than that."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        if len(body) > bytes_max:
            raise BodyTooLarge(bytes_max)
        return body
    plain = io.BytesIO()
    if encoding in _GZIP:
        begin = members = 0
        # gzip files may be put one after another; the limit counts for all of them.
        while begin < len(body) or not members:
            members += 1
            if members > _MEMBERS_MAX:
                detail = f"The body has more than {_MEMBERS_MAX:,} gzip members; send one."
                raise MalformedBody("malformed_gzip", detail)
            begin = _inflate(plain, body, begin, _GZIP_WINDOW, bytes_max)
    elif encoding == _DEFLATE:
        if _inflate(plain, body, 0, _window_of(body), bytes_max) < len(body):
            raise MalformedBody("malformed_deflate", "Something follows the compressed body.")
    else:
        raise UnsupportedEncoding(
            f"The content encoding {encoding[:40]!r} is not understood; use gzip or deflate."
        )
    return plain.getvalue()


def _window_of(body: bytes) -> int:
    """HTTP's deflate has zlib's header around it, which some senders leave out."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _ZLIB_WINDOW if has_header else _RAW_WINDOW


def _inflate(plain: io.BytesIO, body: bytes, begin: int, window: int, bytes_max: int) -> int:
    """Write to `plain` what is compressed from `begin` on, and answer where it ends."""
    name = "gzip" if window == _GZIP_WINDOW else _DEFLATE
    decompressor = zlib.decompressobj(wbits=window)
    while not decompressor.eof:
        piece = decompressor.unconsumed_tail
        if not piece:
            piece = body[begin : begin + _PIECE_BYTES]
            begin += len(piece)
        try:
            more = decompressor.decompress(piece, _PIECE_BYTES)
        except zlib.error as error:
            raise MalformedBody(f"malformed_{name}", f"The body is not {name}.") from error
        if not piece and not more:
            raise MalformedBody(f"malformed_{name}", f"The {name} body ends too early.")
        plain.write(more)
        if plain.tell() > bytes_max:
            raise BodyTooLarge(bytes_max)
    return begin - len(decompressor.unused_data)


class UnsupportedEncoding(MeteringError):
    """A content encoding that is not understood."""

    code = "unsupported_media_type"
