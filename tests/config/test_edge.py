"""Clients that stall, stop reading or come in crowds, and a web process that goes on for others."""

import gzip
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.test import Client

from tests.config.web_process import WebProcess, web_process
from tests.factories import Account, make_event
from tests.metering.api.caller import caller

# Few, so that few leaks of a connection would be enough to be seen.
VIEW_THREADS = 4
CALLERS = 12
BY_HTTPS = {"X-Forwarded-Proto": "https"}
SOME_ID = "01a22928-6e0b-7e96-bd9c-4bbb3b799a7f"


@pytest.fixture(scope="module")
def web(django_db_setup: None) -> Iterator[WebProcess]:
    variables = {"WEB_THREADS": str(VIEW_THREADS), "PUBLIC_URL": "https://spendgate.example.com"}
    with web_process(**variables) as running:
        yield running


def require_service(web: WebProcess, other: Account, why: str) -> None:
    """Another tenant is served: without the database, from memory, and by Django."""
    assert web.call("GET", "/healthz").status == 200, why
    ask = {"agent": "a", "amount_usd": "0.01"}
    assert web.call("POST", "/v1/reservations", other.api_key, ask).status == 201, why
    assert web.call("GET", "/v1/teams", other.api_key).status == 200, why


def test_half_sent_requests_hold_up_nobody(
    web: WebProcess, account: Account, stranger: Account
) -> None:
    announced = "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with ExitStack() as stack:
        for path, key in (
            ("/v1/events", ""),
            ("/v1/events", account.api_key),
            ("/v1/budgets", account.api_key),
            ("/v1/budgets", "sg_nobody_nothing"),
            ("/login", ""),
        ):
            head = f"POST {path} HTTP/1.1"
            for _ in range(40):
                client = web.send(head, api_key=key, body=announced.encode())
                stack.enter_context(client)
        for _ in range(300):
            stack.enter_context(web.send("GET /v1/usage HTTP/1.1\r\nX-Half: a"))
        require_service(web, stranger, "while requests are half sent")


def test_callers_at_once_and_polling_leave_connections_for_all(
    web: WebProcess, account: Account
) -> None:
    ask = {"agent": "a", "amount_usd": "0.01"}

    def reserve(_: int) -> int:
        return web.call("POST", "/v1/reservations", account.api_key, ask).status

    def poll(_: int) -> int:
        return web.call("GET", "/v1/halts", account.api_key).status

    with ThreadPoolExecutor(64) as crowd:
        assert set(crowd.map(reserve, range(64))) == {201}
        assert set(crowd.map(poll, range(60))) == {200}
    require_service(web, account, "after a crowd")


def requests_of_the_schema(account: Account) -> list[tuple[str, str]]:
    document = Client().get("/v1/schema").json()
    return [
        (method.upper(), re.sub(r"\{[^}]*\}", "1", path.replace("{reservation_id}", SOME_ID)))
        for path, operations in document["paths"].items()
        for method in operations
        if method in ("get", "post", "put", "patch", "delete") and path != "/v1/keys/{key_id}"
    ]


def test_no_endpoint_keeps_a_connection_for_clients_that_stop_reading(
    web: WebProcess, account: Account, stranger: Account
) -> None:
    many = [make_event(id=str(number), customer=f"c-{number}") for number in range(2000)]
    assert caller(account).post("/v1/events", many).body["accepted"] == 2000
    walked = requests_of_the_schema(account)
    assert len(walked) > 60
    for method, path in walked:
        target = path
        if path == "/v1/usage":
            target += "?group_by=customer&limit=500"
        if path == "/v1/export/focus.csv":
            target += "?month=2026-11"
        head = f"{method} {target} HTTP/1.1"
        with ExitStack() as stack:
            for _ in range(CALLERS):
                body = b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                stack.enter_context(web.send(head, api_key=account.api_key, body=body))
            require_service(web, stranger, f"while nobody reads {method} {path}")


def test_exports_that_nobody_reads_hold_up_nobody(
    web: WebProcess, account: Account, stranger: Account
) -> None:
    head = "GET /v1/export/focus.csv?month=2026-11 HTTP/1.1"
    with ExitStack() as stack:
        clients = [
            stack.enter_context(web.send(head, api_key=account.api_key, body=b"\r\n"))
            for _ in range(100)
        ]
        require_service(web, stranger, "while 100 exports are open")
        assert clients[0].recv(12) == b"HTTP/1.1 200"


def test_a_small_body_that_is_large_once_decompressed_is_judged_apart(
    web: WebProcess, account: Account
) -> None:
    """By each of the lanes that it may turn out to need."""
    for size in (10, 2_000, 20_000):
        body = gzip.compress(json.dumps([make_event() for _ in range(size)]).encode())
        head = f"POST /v1/events HTTP/1.1\r\nContent-Length: {len(body)}"
        client = web.send(
            head + "\r\nContent-Type: application/json\r\nContent-Encoding: gzip",
            api_key=account.api_key,
            body=b"\r\n" + body,
        )
        with client:
            status = client.recv(12)
        assert status == (b"HTTP/1.1 413" if size > 10_000 else b"HTTP/1.1 200"), size


def test_a_body_without_a_key_is_not_kept(web: WebProcess, account: Account) -> None:
    big = {"x": "y" * (3 << 20)}
    for path in ("/v1/events", "/v1/budgets"):
        reply = web.call("POST", path, "sg_nobody_nothing", big)
        assert (reply.status, reply.body["code"]) == (401, "unauthenticated"), path


def test_every_kind_of_answer_gets_through(web: WebProcess, account: Account) -> None:
    """Small and large, from memory and from files, whole and in part."""
    events = [make_event(id=str(number), error_type="x" * 150) for number in range(900)]
    taken = web.call("POST", "/v1/events", account.api_key, events)
    assert (taken.status, taken.body["accepted"]) == (200, 900)
    wrong = web.call("POST", "/v1/events", account.api_key, [{"id": 1}] * 9_000)
    assert (wrong.status, len(wrong.body["errors"])) == (422, 9_000)
    assert int(wrong.headers["content-length"]) > 256 * 1024
    listed = web.call("GET", "/v1/events?limit=500", account.api_key)
    assert len(listed.body["data"]) == 500
    style = web.call("GET", "/static/dashboard/dashboard.css", **BY_HTTPS)
    part = web.call("GET", "/static/dashboard/dashboard.css", Range="bytes=10-19", **BY_HTTPS)
    assert (style.status, part.status) == (200, 206)
    assert part.body == style.body[10:20]
    assert web.call("HEAD", "/static/dashboard/dashboard.css", **BY_HTTPS).body == b""
    assert web.call("GET", "/login", **BY_HTTPS).status == 200
    tag = web.call("GET", "/v1/halts", account.api_key).headers["etag"]
    same = web.call("GET", "/v1/halts", account.api_key, None, **{"If-None-Match": tag})
    assert (same.status, same.body) == (304, b"")
    gone: Any = web.call("GET", "/v1/nothing", account.api_key)
    assert (gone.status, gone.body["code"]) == (404, "not_found")


def test_where_people_come_by_https_plain_http_gets_no_page_and_takes_no_key(
    settings: Any, account: Account, web: WebProcess
) -> None:
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 31_536_000
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    moved = Client().get("/login")
    assert (moved.status_code, moved["Location"]) == (301, "https://testserver/login")
    page = Client().get("/login", headers={"X-Forwarded-Proto": "https"})
    assert page["Strict-Transport-Security"] == "max-age=31536000"
    assert Client().get("/healthz").status_code == 200
    for path in ("/v1/events", "/v1/budgets"):
        clear = web.call("POST", path, account.api_key, {}, **{"X-Forwarded-Proto": "http"})
        assert (clear.status, clear.body["code"]) == (403, "forbidden")
        assert "https" in clear.body["detail"]
    event = make_event()
    assert web.call("POST", "/v1/events", account.api_key, event, **BY_HTTPS).status == 200
