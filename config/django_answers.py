"""Django's answers to requests of the event loop: complete, and made on a thread."""

import io
from collections.abc import Mapping
from typing import IO, Any

from django.core.handlers.wsgi import WSGIHandler
from granian.rsgi import Scope

from config.answers import Answer, Headers
from config.bodies import Body

django_application = WSGIHandler()


class _FileToSend:
    """WSGI's `file_wrapper`: Django hands over the file of an answer unread."""

    def __init__(self, file: IO[bytes], block_size: int = 0) -> None:
        self.file = file


def environ_of(scope: Scope, headers: Mapping[str, str], body: Body) -> dict[str, object]:
    """Return a request as WSGI has it."""
    body.file.seek(0)
    host, _, port = scope.server.rpartition(":")
    environ: dict[str, object] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": address_of(scope),
        "CONTENT_TYPE": headers.get("content-type", ""),
        "CONTENT_LENGTH": str(body.size),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": body.file,
        "wsgi.errors": io.StringIO(),
        "wsgi.file_wrapper": _FileToSend,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        # A header that spells another's name with an underscore must not pass for it.
        if "_" not in name and name not in ("content-type", "content-length"):
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ.setdefault("HTTP_HOST", scope.authority or "")
    return environ


def answer_of_django(environ: dict[str, Any]) -> Answer:
    """Return Django's complete answer, for which nothing more is read from the database."""
    started: list[tuple[int, Headers]] = []

    def start_response(status: str, headers: Headers, *_: object) -> Any:
        started.append((int(status[:3]), headers))

    response: Any = django_application(environ, start_response)
    status, headers = started[0]
    if isinstance(response, _FileToSend):
        if isinstance(getattr(response.file, "name", None), str):
            return Answer(status, headers, b"", response.file)
        response = response.file  # a part of one
    try:
        return Answer(status, headers, b"".join(response))
    finally:
        response.close()


def address_of(scope: Scope) -> str:
    """Return the address that a request came from."""
    return scope.client.rpartition(":")[0].strip("[]")
