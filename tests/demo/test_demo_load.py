"""Loading the demo over HTTP loses nothing and stores nothing twice, whatever the network does."""

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

import pytest

from common.json_bodies import JsonObject
from demo import client as demo_client
from demo import replay
from demo.client import Client, LoadFailed

END = datetime(2026, 11, 21, 13, tzinfo=UTC)
COUNT = 12_000


class Service(ThreadingHTTPServer):
    """A stand-in for the service: stores events by id and fails every third request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = Lock()
        self.stored: dict[str, JsonObject] = {}
        self.made: dict[str, list[JsonObject]] = {"/v1/teams": [], "/v1/budgets": []}
        self.requests = 0
        self.fails_every = 3
        self.refuses_with: int | None = None
        self.rejected_call = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, events: list[JsonObject]) -> JsonObject:
        """Store what is new; answer as the ingest contract has it."""
        answer: JsonObject = {
            "accepted": 0,
            "merged": 0,
            "duplicates": 0,
            "rejected": 0,
            "unpriced": 0,
        }
        answer["errors"] = []
        for event in events:
            if self.rejected_call and event["id"].endswith(self.rejected_call):
                answer["rejected"] += 1
                answer["errors"].append({"id": event["id"], "code": "odd", "detail": "No."})
            elif self.stored.setdefault(event["id"], event) is event:
                answer["accepted"] += 1
            else:
                assert self.stored[event["id"]] == event
                answer["duplicates"] += 1
        return answer


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        newest = list(self.server.stored.values())[-1:]
        listed = newest if path == "/v1/events" else self.server.made.get(path)
        if listed is None:
            self.answer(404, {"detail": "Page not found."})
        else:
            self.answer(200, {"data": listed, "next_cursor": None})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests += 1
            turn = self.server.requests
            if self.server.refuses_with:
                self.answer(self.server.refuses_with, {"detail": "This key is not known."})
            elif turn % self.server.fails_every == 0:
                self.fail(turn, body)
            elif self.path == "/v1/events":
                self.answer(200, self.server.take(body))
            elif self.path in self.server.made:
                self.server.made[self.path].append(body)
                self.answer(201, body)
            else:
                self.answer(404, {"detail": "Page not found."})

    def fail(self, turn: int, body: Any) -> None:
        """Be busy, or take the events and hang up before the answer."""
        if turn % 2:
            self.answer(503, {"detail": "Too busy."})
            return
        if self.path == "/v1/events":
            self.server.take(body)
        self.close_connection = True

    def answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(demo_client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(replay, "now", lambda: END)
    with Service() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_retries_lose_nothing_and_a_second_load_is_all_duplicates(service: Service) -> None:
    summary = replay.load(service.url, "sg_key", count=COUNT, end=END)
    assert len(service.stored) == COUNT
    assert summary.accepted + summary.duplicates == COUNT
    assert summary.duplicates > 0
    assert summary.rejected == 0
    again = replay.load(service.url, "sg_key", count=COUNT, end=END)
    assert (again.accepted, again.duplicates) == (0, COUNT)


def test_a_later_load_finds_where_the_earlier_one_ended(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay.load(service.url, "sg_key", count=2_000)
    monkeypatch.setattr(replay, "now", lambda: END.replace(hour=16, minute=40))
    again = replay.load(service.url, "sg_key", count=2_000)
    assert again.end == END
    assert again.accepted == 0
    assert len(service.stored) == 2_000


def test_teams_and_budgets_are_made_once_and_what_is_missing_is_said(service: Service) -> None:
    summary = replay.load(service.url, "sg_key", count=5_000, end=END)
    replay.load(service.url, "sg_key", count=5_000, end=END)
    names = [budget["name"] for budget in service.made["/v1/budgets"]]
    assert len(names) == len(set(names)) == 6
    assert len(service.made["/v1/teams"]) == 8
    assert [remark.partition(" ")[0] for remark in summary.remarks] == [
        "/v1/prices",
        "/v1/unit-counts",
        "/v1/annotations",
        "/v1/plans",
    ]
    assert summary.remarks[0].startswith("/v1/prices is not offered")


def test_tickets_are_those_of_the_days_answers_and_deploys_are_posted_once(
    service: Service,
) -> None:
    service.made |= {"/v1/unit-counts": [], "/v1/annotations": []}
    for _ in range(2):
        replay.load(service.url, "sg_key", count=5_000, end=END)
    answers = Counter(
        event["time"][:10]
        for event in service.stored.values()
        if event.get("feature") == "ticket_answers" and event.get("status", "success") == "success"
    )
    counts = service.made["/v1/unit-counts"]
    assert {count["name"] for count in counts} == {"tickets solved"}
    assert {count["day"]: count["count"] for count in counts} == {
        day: number // 3 for day, number in answers.items()
    }
    assert len(service.made["/v1/annotations"]) == 2


def test_a_refused_key_fails_with_a_sentence(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.refuses_with = 401
    arguments = ["--url", service.url, "--api-key", "sg_wrong", "--events", "1000", "--quiet"]
    assert replay.main(arguments) == 1
    assert "refused the API key (401): This key is not known." in capsys.readouterr().err


def test_a_rejected_event_fails_the_load_and_is_named(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.rejected_call = "-servegen-000007"
    arguments = ["--url", service.url, "--api-key", "sg_key", "--events", "1000", "--quiet"]
    assert replay.main(arguments) == 1
    assert "servegen-000007: odd, No." in capsys.readouterr().err
    assert len(service.stored) == 999


def test_a_service_that_never_answers_fails_with_a_sentence() -> None:
    with Service() as closed:
        url = closed.url
    client = Client(url=url, api_key="sg_key", patience_seconds=0.1)
    with pytest.raises(LoadFailed, match=r"could not be used for 0\.1 seconds"):
        client.get("/v1/events")


def test_a_load_that_is_stopped_does_not_wait_for_its_patience() -> None:
    with Service() as closed:
        url = closed.url
    stopping = Event()
    stopping.set()
    started = time.monotonic()
    with pytest.raises(LoadFailed, match="The load was stopped"):
        Client(url=url, api_key="sg_key", stopping=stopping).get("/v1/events")
    assert time.monotonic() - started < 5


def test_an_address_that_is_none_fails_with_a_sentence() -> None:
    with pytest.raises(LoadFailed, match="is not an address like"):
        Client(url="localhost:8000", api_key="sg_key")


def test_bodies_are_packed_for_the_network_but_not_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[bytes, dict[str, str]]] = []

    def ask(
        client: Client, method: str, path: str, *, body: bytes, headers: dict[str, str]
    ) -> None:
        sent.append((body, headers))

    monkeypatch.setattr(Client, "ask", ask)
    for url in ("http://127.0.0.1:1", "https://spend.example.com"):
        Client(url=url, api_key="sg_key").post("/v1/events", [])
    assert sent[0][0] == b"[]"
    assert "Content-Encoding" not in sent[0][1]
    assert gzip.decompress(sent[1][0]) == b"[]"
    assert sent[1][1]["Content-Encoding"] == "gzip"
