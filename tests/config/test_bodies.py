"""How slowly a body may come, and how much of all is kept. On a loop, without a server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import OperationalError
from granian.rsgi import HTTPProtocol, Scope

from config import bodies, edge
from config.bodies import Body, BodyQuota, Incomplete, QuotaExceeded, TooSlow, drain
from config.edge import Edge
from config.lanes import Lane, Overloaded


class Sender:
    """A request's body as the server gives it: pieces, and after them silence or the end."""

    def __init__(self, pieces: list[bytes], *, pause: float = 0.0, stalls: bool = False) -> None:
        self.pieces, self.pause, self.stalls = pieces, pause, stalls
        self.sent = 0

    async def __call__(self) -> bytes:
        return b"".join([piece async for piece in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            self.sent += 1
            yield piece
        if self.stalls:
            await asyncio.sleep(60)


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRACE_SECONDS", "SILENCE_SECONDS", "DRAIN_SECONDS", "DRAIN_SILENCE_SECONDS"):
        monkeypatch.setattr(bodies, name, 0.05)


def protocol(sender: Sender) -> HTTPProtocol:
    return cast(HTTPProtocol, sender)


def receive(sender: Sender, *, length: str = "", bytes_max: int = 1000) -> Body:
    body = Body(BodyQuota(10_000, 10_000), "tenant", bytes_max)
    asyncio.run(body.receive(protocol(sender), length))
    return body


@pytest.mark.parametrize("length", ["", "6"])
def test_a_body_is_read_however_it_is_cut(length: str) -> None:
    assert receive(Sender([b"abc", b"def"]), length=length).read() == b"abcdef"


@pytest.mark.parametrize("length", ["7", "100000"])
def test_a_body_that_ends_too_early_is_none(length: str) -> None:
    with pytest.raises(Incomplete):
        receive(Sender([b"abc", b"def"]), length=length)


@pytest.mark.parametrize("length", ["", "6", "100000"])
def test_a_body_that_stalls_is_given_up(length: str) -> None:
    with pytest.raises(TooSlow):
        receive(Sender([b"abc"], stalls=True), length=length)


def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_SECONDS", 60)
    dripping = Sender([b"x"] * 100, pause=0.005)
    with pytest.raises(TooSlow):
        receive(dripping)
    assert dripping.sent < 50
    monkeypatch.setattr(bodies, "BYTES_PER_SECOND_MIN", 10)
    assert receive(dripping).size == 100


def test_of_a_body_over_the_limit_one_byte_more_is_kept_and_the_rest_read() -> None:
    sender = Sender([b"x" * 600] * 4)
    body = receive(sender)
    assert (body.size, len(body.read()), body.is_over, sender.sent) == (1001, 1001, True, 4)


def test_a_body_that_nobody_reads_is_drained_for_a_little_while() -> None:
    sender = Sender([b"x"] * 3)
    asyncio.run(drain(protocol(sender)))
    assert sender.sent == 3
    asyncio.run(drain(protocol(Sender([b"x"], stalls=True))))


def test_bodies_of_one_caller_leave_room_for_others() -> None:
    quota = BodyQuota(1500, 1000)
    kept = [Body(quota, caller, 2000) for caller in ("greedy", "greedy", "other", "third")]
    asyncio.run(kept[0].receive(protocol(Sender([b"x" * 900])), ""))
    with pytest.raises(QuotaExceeded):
        asyncio.run(kept[1].receive(protocol(Sender([b"x" * 200])), ""))
    asyncio.run(kept[2].receive(protocol(Sender([b"x" * 500])), ""))
    with pytest.raises(QuotaExceeded):
        asyncio.run(kept[3].receive(protocol(Sender([b"x" * 200])), ""))
    for body in kept:
        body.close()
    assert (quota._size, quota._by_caller) == (0, {})


def test_callers_of_a_lane_take_turns() -> None:
    async def scenario() -> list[str]:
        lane, order, first = Lane("test", threads=1), [], asyncio.Event()
        loop = asyncio.get_running_loop()

        def work(name: str) -> Callable[[], None]:
            return lambda: order.append(name)

        def hold() -> None:
            asyncio.run_coroutine_threadsafe(first.wait(), loop).result()

        begun = [asyncio.create_task(lane.run("greedy", hold))]
        await asyncio.sleep(0)
        begun += [asyncio.create_task(lane.run("greedy", work(f"greedy {n}"))) for n in range(5)]
        await asyncio.sleep(0)
        begun.append(asyncio.create_task(lane.run("other", work("other"))))
        await asyncio.sleep(0)
        first.set()
        await asyncio.gather(*begun)
        lane.stop()
        return order

    order = asyncio.run(scenario())
    assert order.index("other") <= 1
    assert len(order) == 6


def test_a_caller_of_a_lane_has_a_share_of_its_threads_and_a_bound_on_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("config.lanes.CALLER_WAITING_MAX", 3)
    monkeypatch.setattr("config.lanes.WAIT_SECONDS", 0.05)

    async def scenario() -> list[Any]:
        lane, end = Lane("test", threads=4, caller_share=0.5), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold() -> str:
            asyncio.run_coroutine_threadsafe(end.wait(), loop).result()
            return "held"

        tasks = [asyncio.create_task(lane.run("greedy", hold)) for _ in range(6)]
        await asyncio.sleep(0)
        # Two run, three wait, one was refused at once; there is room for another caller.
        assert await lane.run("other", lambda: "served") == "served"
        await asyncio.wait(tasks[2:], timeout=30)
        end.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        lane.stop()
        return outcomes

    outcomes = asyncio.run(scenario())
    assert outcomes[:2] == ["held", "held"]
    assert [type(outcome) for outcome in outcomes[2:]] == [Overloaded] * 4


def test_a_body_is_not_taken_for_empty_where_its_key_cannot_be_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(text: str) -> None:
        raise OperationalError("no server")

    answers: list[tuple[int, bytes]] = []
    scope = SimpleNamespace(
        method="POST",
        path="/v1/reservations",
        query_string="",
        client="127.0.0.1:1",
        headers={"authorization": "Bearer sg_a_b", "content-length": "2"},
    )
    proto = SimpleNamespace(
        response_bytes=lambda status, headers, body: answers.append((status, body))
    )
    monkeypatch.setattr(edge, "find_key_holder", fail)
    asyncio.run(Edge(threads=1).__rsgi__(cast(Scope, scope), cast(HTTPProtocol, proto)))
    assert [(status, b"database" in body) for status, body in answers] == [(503, True)]
