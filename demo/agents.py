"""Calls of agents: recorded sessions with their steps, tool calls and prompt-cache reads.

The runaway loops among them are real: a session that gives one exact answer five times or more.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from demo.calls import DAY_SECONDS, SPAN_DAYS, Call, Model, Pace, Speed, fold_into_span, pace
from demo.recordings import AgentCall, AgentSession, agent_sessions

SMALLEST_CACHED_PREFIX = 1_024  # providers cache no shorter prompt for the models used here
LOOP_SPACING_MS = 19 * 3_600_000
HOUR_MS = 3_600_000


class Program(NamedTuple):
    """What a recorded agent program stands for."""

    team: str
    feature: str
    agents: tuple[str, ...]
    model: Model
    customers: tuple[str, ...]


PROGRAMS = {
    "magagent": Program(
        "research",
        "web_research",
        ("web-researcher", "market-scout", "fact-checker"),
        Model("openai", "gpt-5", "openai", Speed(400, 8_000, 80)),
        ("meadow-travel", "birch-legal", "harbour-bank"),
    ),
    "miniswe": Program(
        "engineering",
        "issue_fixing",
        ("code-fixer", "test-repairer"),
        Model("anthropic", "claude-sonnet-4-5", "anthropic", Speed(300, 8_000, 120)),
        (),
    ),
}


class Run(NamedTuple):
    """One play of a recorded session. `replay` counts how often it was played before."""

    number: int
    session: AgentSession
    replay: int
    start_ms: int


def agent_calls(*, at_most: int, end_ms: int, random: np.random.Generator) -> list[Call]:
    """Return whole sessions in order of time, as many as fit.

    Loops come first and once each, then the other sessions in turn, over and over.
    """
    calls: list[Call] = []
    for run in runs(end_ms=end_ms, random=random):
        steps = list(steps_of(run, random=random))
        if len(calls) + len(steps) > at_most:
            break
        calls += steps
    return sorted(calls, key=lambda call: call.time_ms)


def runs(*, end_ms: int, random: np.random.Generator) -> Iterator[Run]:
    """Yield loops over the last days, the newest just before the end; others in working hours."""
    numbered = list(enumerate(agent_sessions()))
    loops = [pair for pair in numbered if pair[1].label == "loop"]
    for turn, (number, session) in enumerate(loops):
        over_ms = end_ms - HOUR_MS // 4 - turn * LOOP_SPACING_MS
        yield Run(number, session, 0, over_ms - duration_ms(session))
    others = [pair for pair in numbered if pair[1].label != "loop"]
    replay = 0
    while True:
        for number, session in others:
            start_ms = working_time_ms(session, end_ms=end_ms, random=random)
            yield Run(number, session, replay, start_ms)
        replay += 1


def working_time_ms(session: AgentSession, *, end_ms: int, random: np.random.Generator) -> int:
    """Draw a start between 8:00 and 18:00 UTC from which the session is over by the end."""
    day_ms = DAY_SECONDS * 1000
    day, hour = random.integers(0, SPAN_DAYS), 8 + 10 * random.random()
    wanted_ms = end_ms - end_ms % day_ms - int(day) * day_ms + int(hour * HOUR_MS)
    latest_ms = end_ms - duration_ms(session)
    return int(fold_into_span(np.array(wanted_ms), end_ms=latest_ms))


def duration_ms(session: AgentSession) -> int:
    return session.calls[-1].offset_ms + 60_000  # the last call's own time is not recorded


def steps_of(run: Run, *, random: np.random.Generator) -> Iterator[Call]:
    """Yield a session's model calls, each followed by the tool call that its answer asks for.

    Its last model call is modelled as that of another agent, which checks the result. A loop has
    no result.
    """
    template = template_of(run)
    asking: Call | None = None
    model = PROGRAMS[run.session.program].model
    times = session_pace(run.session, model=model, random=random)
    step = 0
    for index, call in enumerate(run.session.calls):
        read, written = cached_tokens(run.session.calls, index=index, model=model)
        step += 1
        giver, is_last = asking, index == len(run.session.calls) - 1
        asking = replace(
            as_step(template, step=step),
            time_ms=run.start_ms + call.offset_ms,
            model=model,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_hash=once_per_replay(call.output_hash, replay=run.replay),
            prefix_hash=call.prefix_hash or None,
            latency_ms=times.total_ms[index],
            time_to_first_token_ms=times.first_ms[index],
        )
        if giver is not None and is_last and run.session.label != "loop":
            asking = handed_over(asking, giver=giver, run=run)
        yield asking
        if call.tool:
            step += 1
            yield replace(
                as_step(template, step=step),
                time_ms=asking.time_ms + asking.latency_ms,
                agent=asking.agent,
                parent_span=asking.span,
                tool=call.tool,
                tool_arguments_hash=once_per_replay(call.tool_arguments_hash, replay=run.replay),
                latency_ms=max(1, asking.latency_ms // 3),
            )


def template_of(run: Run) -> Call:
    """Return what all steps of a session have in common, without a step and a time."""
    program = PROGRAMS[run.session.program]
    name = f"{run.session.session[:8]}-{run.replay:02d}"
    turn = run.number + run.replay
    return Call(
        id=f"agent-{name}",
        time_ms=run.start_ms,
        dataset="lmcache_agent_traces",
        team=program.team,
        agent=program.agents[run.number % len(program.agents)],
        feature=program.feature,
        user=f"{program.team}-{turn % 5}",
        customer=program.customers[turn % len(program.customers)] if program.customers else None,
        session=name,
        task=f"task-{name}",
        trace=digest(name)[:32],
        latency_ms=0,
    )


def handed_over(call: Call, *, giver: Call, run: Run) -> Call:
    """Return a call as made by the program's next agent, out of another one's answer."""
    agents = PROGRAMS[run.session.program].agents
    receiver = agents[(run.number + 1) % len(agents)]
    return replace(call, agent=receiver, parent_span=giver.span, is_handoff=True)


def as_step(template: Call, *, step: int) -> Call:
    """Return the template as one step of its trace; model calls hang under the first one."""
    return replace(
        template,
        id=f"{template.id}-{step:03d}",
        span=span_of(template, step=step),
        parent_span=None if step == 1 else span_of(template, step=1),
        step=step,
    )


def span_of(template: Call, *, step: int) -> str:
    return digest(f"{template.trace} {step}")[:16]


def session_pace(session: AgentSession, *, model: Model, random: np.random.Generator) -> Pace:
    """Model latencies, shortened so that a call and its tool end before the next call begins."""
    calls = session.calls
    modelled = pace(
        speeds=[model.speed] * len(calls),
        input_tokens=np.array([call.input_tokens or 0 for call in calls]),
        output_tokens=np.array([call.output_tokens for call in calls]),
        random=random,
    )
    starts = [call.offset_ms for call in calls]
    room_ms = [later - start for start, later in pairwise(starts)]
    limits = [*(int(room * 0.7) for room in room_ms), 30_000]
    total_ms = [max(1, min(pair)) for pair in zip(modelled.total_ms, limits, strict=True)]
    first_ms = [min(pair) for pair in zip(modelled.first_ms, total_ms, strict=True)]
    return Pace(first_ms, total_ms)


def cached_tokens(calls: tuple[AgentCall, ...], *, index: int, model: Model) -> tuple[int, int]:
    """Return the input tokens read from and written to the prompt cache.

    What a call shares with the one before is read. What the next one will read beyond that must
    have been written now. Only one provider here counts its writes.
    """
    read = cached_prefix(calls[index])
    if model.usage_format != "anthropic" or index + 1 == len(calls):
        return read, 0
    return read, max(0, cached_prefix(calls[index + 1]) - read)


def cached_prefix(call: AgentCall) -> int:
    prefix = call.shared_prefix_tokens
    return prefix if prefix >= SMALLEST_CACHED_PREFIX else 0


def once_per_replay(recorded: str, *, replay: int) -> str:
    """Return a hash that repeats within a session as recorded, but not in another replay."""
    return f"{recorded}-{replay:02d}" if recorded else ""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
