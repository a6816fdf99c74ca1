"""A real web process on the tests' database, and clients that behave badly."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from django.db import connection

from config.environment import read_environment
from config.parts import arguments_of

START_SECONDS = 60.0


class Reply(NamedTuple):
    """An answer, with JSON read."""

    status: int
    body: Any
    headers: Mapping[str, str]


class WebProcess:
    """How to reach it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(
        self, method: str, path: str, api_key: str = "", body: object = None, **headers: str
    ) -> Reply:
        """One request of a client that behaves."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        if api_key:
            request.add_header("Authorization", f"Bearer {api_key}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return _reply(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error)

    def send(self, head: str, *, api_key: str = "", body: bytes = b"") -> socket.socket:
        """Send this much of a request, and read nothing. The caller closes the socket."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        client.sendall(f"{head}\r\nHost: localhost\r\n{authorization}".encode() + body)
        return client


def _reply(answer: Any) -> Reply:
    content = answer.read()
    with suppress(ValueError):
        content = json.loads(content)
    return Reply(answer.status, content, dict(answer.headers))


@contextmanager
def web_process(**variables: str) -> Iterator[WebProcess]:
    """Start one, on this process's database, and end it."""
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port = attempt.getsockname()[1]
    known = connection.settings_dict
    where = urlencode({"host": known["HOST"], "port": known["PORT"] or "5432"})
    url = f"postgresql://{quote(known['USER'])}:{quote(known['PASSWORD'])}@/{known['NAME']}?{where}"
    environ = {**os.environ, "DATABASE_URL": url, "PORT": str(port), **variables}
    environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    process = subprocess.Popen(arguments_of("web", read_environment(environ)), env=environ)
    web = WebProcess(port)
    try:
        _wait_for(web, process)
        yield web
    finally:
        process.terminate()
        try:
            assert process.wait(30) == 0, "it stops cleanly"
        finally:
            process.kill()
            process.wait()


def _wait_for(web: WebProcess, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            if web.call("GET", "/healthz").status == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the web process does not answer")
