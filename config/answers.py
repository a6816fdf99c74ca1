"""Answers of the event loop: sent whole from memory or from a file, or refused in a sentence."""

import asyncio
import json
import tempfile
from http import HTTPStatus
from typing import IO, Final, NamedTuple

from granian.rsgi import HTTPProtocol, Scope

from common.api.problems import CONTENT_TYPE, problem

# A larger answer waits for its reader in a file instead of memory.
MEMORY_BYTES_MAX: Final = 256 * 1024
# The server opens an answer's file within this time.
FILE_OPEN_SECONDS: Final = 60.0

Headers = list[tuple[str, str]]


class Answer(NamedTuple):
    """A complete answer; a `file` is sent from the disk instead of a body."""

    status: int
    headers: Headers
    body: bytes
    file: IO[bytes] | None = None


def is_api_path(path: str) -> bool:
    """Whether programs call this address, with a key, and expect JSON."""
    return path.startswith(("/v1/", "/api/"))


def send_answer(proto: HTTPProtocol, answer: Answer) -> None:
    """Hand an answer over to the server."""
    status, headers, body, file = answer
    if status == HTTPStatus.NOT_MODIFIED:
        proto.response_empty(status, headers)
        return
    if file is None and len(body) > MEMORY_BYTES_MAX:
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed below, once it was opened
        file.write(body)
        file.flush()
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("content-length", str(len(body))))
    if file is None:
        proto.response_bytes(status, headers, body)
        return
    proto.response_file(status, headers, file.name)
    if isinstance(file, tempfile._TemporaryFileWrapper):
        # The server opens it by its name, soon; an open file stays readable without the name.
        asyncio.get_running_loop().call_later(FILE_OPEN_SECONDS, file.close)
    else:
        file.close()


def send_refusal(proto: HTTPProtocol, scope: Scope, status: int, sentence: str) -> None:
    """Refuse a request and close the connection: the rest of its body may still come."""
    headers: Headers = [("connection", "close")]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("retry-after", "1"))
    if is_api_path(scope.path):
        headers.append(("content-type", CONTENT_TYPE))
        body = json.dumps(problem(status, detail=sentence)).encode()
    else:
        headers.append(("content-type", "text/plain; charset=utf-8"))
        body = sentence.encode()
    proto.response_bytes(status, headers, body)
