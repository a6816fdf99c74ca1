"""The service on loopback, in this process and on the tests' database."""

import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.db import connections

from common.json_bodies import JsonObject
from tests.wsgi import application


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = False  # what they began must end before the tables are emptied
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tests need no access log."""


def _answer(environ: JsonObject, start_response: Any) -> Iterable[bytes]:
    """One request on a thread of its own, which leaves no connection behind."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    try:
        return list(application(environ, start_response))
    finally:
        connections.close_all()


@contextmanager
def serving() -> Iterator[str]:
    """The service's address while it answers."""
    server = make_server("127.0.0.1", 0, _answer, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
