"""Sessions that go round in circles become incidents, and are halted where that is wished."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from alerts import session_checks
from alerts.incidents import Observation
from alerts.loops import CALLS_MAX, OUTPUT_TOKENS_MIN, SessionVerdict, judge, may_loop
from alerts.models import Incident, Severity
from alerts.session_checks import check_sessions, end_loops, tenants_to_check
from alerts.settings import change_alert_settings
from common.json_bodies import JsonObject
from metering.limits.halts import lift_halt
from metering.models import Halt
from metering.reporting.session_calls import latest_calls, likenesses
from metering.rollups import roll_up
from tenants.scope import platform_scope
from tests.alerts.scene import timeline
from tests.factories import Account, make_event, send
from tests.metering.api.caller import caller

RANDOM_SESSIONS = 100


def turns(
    count: int,
    *,
    session: str = "s-1",
    cost_usd: str = "0.05",
    seconds: int = 20,
    **fields: object,
) -> Iterator[JsonObject]:
    """An agent that asks the same tool the same thing again and again, the last time just now."""
    began_at = datetime.now(UTC) - timedelta(seconds=seconds * count)
    for number in range(count):
        at = began_at + timedelta(seconds=seconds * number)
        shared = {"session": session, "agent": "researcher", "team": "growth", **fields}
        yield make_event(
            time=at.isoformat(), cost_usd=cost_usd, output_hash="same", step=2 * number, **shared
        )
        yield make_event(
            time=(at + timedelta(seconds=1)).isoformat(),
            operation="tool",
            tool="search",
            tool_arguments_hash="same",
            step=2 * number + 1,
            input_tokens=...,
            output_tokens=...,
            model=...,
            provider=...,
            **shared,
        )


def check(account: Account) -> int:
    with account.scope():
        return check_sessions(tenant_id=account.tenant.id, now=datetime.now(UTC))


def test_a_loop_is_one_incident_with_what_it_has_cost(account: Account) -> None:
    send(account, list(turns(8)))
    assert check(account) == 1
    assert check(account) == 0
    with platform_scope("tests"):
        assert tenants_to_check() == []
    with account.scope():
        (incident,) = Incident.objects.all()
    assert incident.cause == "loop:s-1"
    assert incident.match == {"session": "s-1", "team": "growth", "agent": "researcher"}
    assert incident.facts["cost_nanos"] == 400_000_000
    assert 0 < incident.facts["wasted_nanos"] <= 400_000_000
    assert "It has cost $0.40 so far" in incident.summary
    assert "another hour costs" in incident.summary
    assert incident.severity == Severity.WARNING


def test_it_is_seen_before_and_after_its_batches_are_rolled_up(account: Account) -> None:
    events = list(turns(8))
    send(account, events[:6])
    with account.scope():
        roll_up(tenant_id=account.tenant.id)
    send(account, events[6:])
    assert check(account) == 2
    with account.scope():
        assert Incident.objects.count() == 1


def test_a_session_that_works_is_left_alone(account: Account) -> None:
    send(
        account,
        [
            make_event(
                session="s-2", output_hash=f"{number}", step=number, input_tokens=900 + number
            )
            for number in range(12)
        ],
    )
    assert check(account) == 1
    with account.scope():
        assert not Incident.objects.exists()


def repeating(pick: random.Random) -> Iterator[JsonObject]:
    """Sessions whose calls repeat some of a few values, most of them short: loops and others."""
    now = datetime.now(UTC)
    for session in range(RANDOM_SESSIONS):
        agents, outputs, inputs = (pick.randint(1, most) for most in (2, 12, 3))
        tool_share = pick.choice((0, 0.5, 1))
        for number in range(pick.choice((5, 12, 12, 13, 40))):
            is_tool = pick.random() < tool_share
            hashed = pick.choice(("", "hash-", "simhash:00000000000000f"))
            output = pick.randrange(outputs)
            yield make_event(
                time=(now - timedelta(seconds=600 - 10 * number)).isoformat(),
                session=f"random-{session}",
                step=number,
                agent=f"agent-{pick.randrange(agents)}",
                operation="tool" if is_tool else "llm",
                tool="search" if is_tool else ...,
                tool_arguments_hash=pick.choice((..., f"a-{output}")),
                output_hash=f"{hashed}{output}" if hashed else ...,
                input_tokens=900 + 50 * pick.randrange(inputs) + number * (session % 2) * 40,
                output_tokens=90 + output if pick.random() < 0.8 else 5,
                status="error" if pick.random() < 0.1 * (session % 6) else "success",
            )


def barely_looping() -> Iterator[JsonObject]:
    """Sessions with as little of what proves a loop as there can be."""
    now = datetime.now(UTC)

    def call(session: str, number: int, **fields: object) -> JsonObject:
        at = now - timedelta(seconds=600 - 5 * number)
        return make_event(session=session, step=number, time=at.isoformat(), **fields)

    def tool(session: str, number: int, **fields: object) -> JsonObject:
        none = dict.fromkeys(("input_tokens", "output_tokens", "model", "provider"), ...)
        return call(session, number, operation="tool", tool="search", **none, **fields)

    for number in range(12):
        is_third = number in (7, 9, 11)
        yield call(
            "third-time",
            number,
            output_hash="x" if is_third else f"o{number}",
            input_tokens=1000 if is_third else 900 + 70 * number,
            output_tokens=50,
        )
        yield call(
            "no-progress", 2 * number, input_tokens=900 + 300 * number, output_tokens=600 + number
        )
        yield tool("no-progress", 2 * number + 1)
        if number < 8:
            yield tool("failures", number, status="error", error_type="timeout")


def test_no_loop_is_in_a_session_whose_calls_are_counted_alone(account: Account) -> None:
    pick = random.Random(seed := random.randrange(2**32))
    events = [*barely_looping(), *repeating(pick)]
    for start in range(0, len(events), 100):
        send(account, events[start : start + 100])
    sessions = list(dict.fromkeys(str(event["session"]) for event in events))
    since = datetime.now(UTC) - timedelta(hours=1)
    with account.scope():
        alike = likenesses(
            tenant_id=account.tenant.id,
            sessions=sessions,
            since=since,
            limit=CALLS_MAX,
            output_tokens_min=OUTPUT_TOKENS_MIN,
        )
        calls = latest_calls(
            tenant_id=account.tenant.id, sessions=sessions, since=since, limit=CALLS_MAX
        )
    looping = {
        session
        for session in sessions
        if (verdict := judge([session_checks._call(call) for call in calls[session]]))
        and verdict.is_loop
    }
    assert looping >= {"third-time", "failures", "no-progress"}, f"seed {seed}"
    passed_over = {session for session in looping if not may_loop(*alike[session])}
    assert not passed_over, f"seed {seed}"


def test_sessions_that_repeat_nothing_are_not_read(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(session: str) -> list[JsonObject]:
        return [
            make_event(session=session, output_hash=f"{n}", step=n, input_tokens=900 + n)
            for n in range(12)
        ]

    read = Mock(wraps=latest_calls)
    monkeypatch.setattr(session_checks, "latest_calls", read)
    send(account, [*work("s-1"), *turns(8, session="s-2")])
    check(account)
    assert read.call_args.kwargs["sessions"] == ["s-2"]


def test_what_wastes_much_money_is_critical(account: Account) -> None:
    send(account, list(turns(8, cost_usd="2")))
    check(account)
    with account.scope():
        assert Incident.objects.get().severity == Severity.CRITICAL


def test_a_tenant_that_wishes_it_has_the_session_halted_once(account: Account) -> None:
    with account.scope():
        change_alert_settings(tenant=account.tenant, actor="tests", changes={"halts_loops": True})
    send(account, list(turns(8)))
    check(account)
    api = caller(account)
    ask = {"amount_usd": "1", "session": "s-1"}
    refused = api.post("/v1/reservations", ask)
    assert (refused.status, refused.body["code"]) == (423, "breaker_open")
    assert api.post("/v1/reservations", {"amount_usd": "1", "session": "s-2"}).status == 201
    with account.scope():
        (halt,) = Halt.objects.all()
        lift_halt(halt=halt, actor="ann@example.com")
    send(account, list(turns(3)))
    check(account)
    with account.scope():
        assert Halt.objects.count() == 1
        assert "halted" in timeline(Incident.objects.get())
    assert api.post("/v1/reservations", ask).status == 201


def test_history_that_is_sent_later_wakes_nobody_and_halts_nothing(account: Account) -> None:
    with account.scope():
        change_alert_settings(tenant=account.tenant, actor="tests", changes={"halts_loops": True})
    old = [
        {**event, "time": (datetime.fromisoformat(event["time"]) - timedelta(days=3)).isoformat()}
        for event in turns(8)
    ]
    send(account, old)
    assert check(account) == 1
    with account.scope():
        assert not Incident.objects.exists()
        assert not Halt.objects.exists()


def test_a_loop_that_rests_is_over(account: Account) -> None:
    send(account, list(turns(8)))
    check(account)
    now = datetime.now(UTC)
    with account.scope():
        assert end_loops(tenant_id=account.tenant.id, now=now) == 0
        assert end_loops(tenant_id=account.tenant.id, now=now + timedelta(minutes=31)) == 1
        assert Incident.objects.get().status == "resolved"


def test_a_slow_loop_is_not_over_while_it_pauses(account: Account) -> None:
    # Forty calls, an hour apart: further back than a day, and nothing but tool calls.
    calls = [turn for turn in turns(40, seconds=3600) if turn.get("tool")]
    send(account, calls)
    check(account)
    now = datetime.now(UTC)
    with account.scope():
        assert end_loops(tenant_id=account.tenant.id, now=now + timedelta(minutes=100)) == 0
        assert end_loops(tenant_id=account.tenant.id, now=now + timedelta(minutes=125)) == 1


def test_another_tenants_session_of_the_same_name_is_its_own(
    account: Account, stranger: Account
) -> None:
    events = list(turns(8))
    send(account, events[:8])
    send(stranger, events[8:])
    check(account)
    with account.scope():
        calls = Incident.objects.get().facts["cost_nanos"] if Incident.objects.exists() else 0
    assert calls in {0, 200_000_000}


def test_a_loop_that_was_over_before_anybody_looked_is_noted_with_what_it_cost(
    account: Account,
) -> None:
    work = [
        make_event(
            session="s-1",
            agent="researcher",
            step=100 + number,
            output_hash=f"{number}",
            input_tokens=5000 + 170 * number * number,
            output_tokens=100 + 37 * number,
        )
        for number in range(14)
    ]
    send(account, [*turns(8), *work])
    check(account)
    with account.scope():
        (incident,) = Incident.objects.all()
    assert incident.status == "resolved"
    assert incident.summary.endswith("It got out by itself.")
    assert "since the first repeat" in incident.summary


def test_a_worker_killed_between_two_sessions_leaves_its_batches_to_the_next(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [*turns(8, session="s-1"), *turns(8, session="s-2")])
    monkeypatch.setattr(session_checks, "SESSIONS_PER_TRANSACTION", 1)
    observe_loop = session_checks._observe

    def killed(tenant_id: int, observation: Observation, verdict: SessionVerdict) -> Any:
        if observation.cause == "loop:s-2":
            raise SystemExit
        return observe_loop(tenant_id, observation, verdict)

    tenant_id, now = account.tenant.id, datetime.now(UTC)
    with monkeypatch.context() as patched:
        patched.setattr(session_checks, "_observe", killed)
        with pytest.raises(SystemExit):
            check_sessions(tenant_id=tenant_id, now=now)
    with account.scope():
        assert [incident.cause for incident in Incident.objects.all()] == ["loop:s-1"]
    assert check_sessions(tenant_id=tenant_id, now=now) == 1
    assert check_sessions(tenant_id=tenant_id, now=now) == 0
    with account.scope():
        incidents = list(Incident.objects.order_by("cause"))
        assert [incident.cause for incident in incidents] == ["loop:s-1", "loop:s-2"]
        assert timeline(incidents[0]) == timeline(incidents[1])


def test_of_many_loops_that_rest_each_turn_ends_some(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_checks, "ENDED_MAX", 2)
    send(account, [event for name in "abc" for event in turns(8, session=name)])
    check(account)
    with account.scope():
        later = datetime.now(UTC) + timedelta(hours=1)
        ended = [end_loops(tenant_id=account.tenant.id, now=later) for _ in range(3)]
    assert ended == [2, 1, 0]
