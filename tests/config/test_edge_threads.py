"""On which threads the edge handles a body: those of many events hold up no one on the loop."""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from config.edge import SMALL_PLAIN_BYTES, Edge
from metering.api.fast_path import (
    Endpoint,
    HotRequest,
    HotResponse,
    Steps,
    Submission,
    TooLargeHere,
)
from metering.core.committer import Done
from tests.metering.requests import request_of


class Work:
    """Something to commit that can be watched."""


class Committed:
    """A committer that has everything committed immediately, and keeps nothing."""

    def enqueue(self, work: Work, done: Done) -> None:
        done(None)


@pytest.fixture
def threads() -> dict[str, str]:
    """The names of the threads that did each step."""
    return {}


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge(threads=1)
    yield edge
    for lane in edge._lanes:
        lane.stop()


def answer(edge: Edge, threads: dict[str, str], *, is_large: bool) -> HotResponse:
    def note(step: str) -> None:
        threads[step] = threading.current_thread().name.partition("_")[0]

    def begin(request: HotRequest) -> Steps:
        if is_large and request.plain_bytes_max == SMALL_PLAIN_BYTES:
            raise TooLargeHere
        note("judge")
        work = Work()
        weakref.finalize(work, note, "let go")
        committer: Any = Committed()
        yield Submission(committer, work)
        note("count")
        return HotResponse(200, {}, b"{}")

    async def handle() -> HotResponse:
        edge.__rsgi_init__(asyncio.get_running_loop())
        scope: Any = SimpleNamespace(method="POST")
        endpoint = Endpoint(begin, "/v1/events")
        given = await edge._answer_directly(scope, endpoint, request_of({}, b"[]"), "caller")
        return HotResponse(given.status, dict(given.headers), given.body)

    return asyncio.run(handle())


def test_a_small_body_never_leaves_the_loop(edge: Edge, threads: dict[str, str]) -> None:
    assert answer(edge, threads, is_large=False).status == 200
    assert threads == dict.fromkeys(["judge", "count", "let go"], "MainThread")


def test_a_body_of_many_events_is_judged_counted_and_let_go_beside_the_loop(
    edge: Edge, threads: dict[str, str]
) -> None:
    assert answer(edge, threads, is_large=True).status == 200
    assert threads == {"judge": "batches", "count": "endings", "let go": "endings"}
