"""Whether loops are found in time, and honest work is left alone, on recorded sessions.

Each data set is judged three ways: with all hashes a client may send, with those of outputs alone,
and with none. Every session is judged again after each of its calls, as the service does. Reads the
data beside the checkout and says so where there is none.
"""

import csv
import gzip
import hashlib
import json
import random
import timeit
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from alerts.loops import CALLS_MAX, Call, SessionVerdict, judge
from bench.kit.figures import Row
from bench.kit.wire import JsonObject

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
LMCACHE: Final = "lmcache_agent_traces"
TAU_BENCH: Final = "tau_bench_airline/gpt-4o-airline_trials01.json.gz"
WHO_AND_WHEN: Final = "who_and_when/Algorithm-Generated.jsonl.gz"
SWE_AGENT: Final = "swe_agent_traj/trajectories.jsonl.gz"

# 3 and 15 USD per million tokens.
INPUT_NANOS: Final = 3_000
OUTPUT_NANOS: Final = 15_000
# Where only text was recorded: its tokens, and a call every few seconds.
CHARACTERS_PER_TOKEN: Final = 4
SECONDS_PER_CALL: Final = 5.0

BLANK: Final = Call(
    at=0.0,
    agent="",
    operation="llm",
    model="recorded",
    tool="",
    tool_arguments_hash=None,
    output_hash=None,
    prefix_hash=None,
    status="success",
    error_type=None,
    input_tokens=0,
    output_tokens=0,
    cache_read_tokens=0,
    cost_nanos=0,
    step=None,
)


class Session(NamedTuple):
    """A recorded session; `label` is the data set's own word for it."""

    name: str
    label: str
    calls: list[Call]


class Flag(NamedTuple):
    """The first call after which a session counts as a loop, and the verdict then."""

    session: Session
    position: int
    verdict: SessionVerdict


def _all(call: Call) -> Call:
    return call


def _outputs(call: Call) -> Call:
    return call._replace(tool_arguments_hash=None)


def _none(call: Call) -> Call:
    return call._replace(tool_arguments_hash=None, output_hash=None)


WAYS: Final[dict[str, Callable[[Call], Call]]] = {
    "all hashes": _all,
    "outputs' hashes": _outputs,
    "no hashes": _none,
}


def measure(row: Row) -> None:
    """Measure all data sets."""
    if not DATA.is_dir():
        row("Loops in recorded sessions", f"skipped: no {DATA.parent.name}/{DATA.name}", "")
        return
    for way, seen in WAYS.items():
        _measure_lmcache(row, way, seen)
        for name, sessions, wanted in (
            ("tau-bench", tau_bench(), "none"),
            ("Who&When", who_and_when(), "none for plain orchestration"),
            ("SWE-agent", swe_agent(), ""),
            ("Made-up polling and classification", made_up(), "none"),
        ):
            flags = flagged(sessions, seen)
            figure = f"{len(flags)} of {len(sessions)} flagged{_names(flags)}"
            row(f"{name}, {way}", figure, wanted)
    row("Judging a session of 200 calls", f"{_judged_ms():.2f} ms", "under 1 ms")


def _measure_lmcache(row: Row, way: str, seen: Callable[[Call], Call]) -> None:
    sessions = lmcache()
    flags = {flag.session.name: flag for flag in flagged(sessions, seen)}
    labels = Counter(flags[name].session.label for name in flags)
    total = Counter(session.label for session in sessions)
    row(f"Loops found, {way}", f"{labels['loop']} of {total['loop']}", "all")
    for session in sessions:
        if session.label == "loop" and (flag := flags.get(session.name)):
            ratio = cost_ratio(session.calls, flag.position)
            what = f"Cost when {session.name[:8]} is found, {way}"
            row(what, f"{ratio:.2f} times that at its first repeat", "2 or less")
    for label, wanted in (("normal", "none"), ("suspect", "")):
        row(
            f"Sessions labelled {label} flagged, {way}",
            f"{labels[label]} of {total[label]}",
            wanted,
        )


def flagged(sessions: Iterable[Session], seen: Callable[[Call], Call]) -> list[Flag]:
    """Return the sessions that count as loops after one of their calls, as far as that call."""
    flags = []
    for session in sessions:
        calls = [seen(call) for call in session.calls]
        for number in range(1, len(calls) + 1):
            verdict = judge(calls[:number])
            if verdict and verdict.is_loop:
                flags.append(Flag(session, number - 1, verdict))
                break
    return flags


def cost_ratio(calls: Sequence[Call], position: int) -> float:
    """Return the cost of a session at a call, over its cost at the first repeated output."""
    known: set[str | None] = set()
    first = 0
    for number, call in enumerate(calls):
        if call.output_hash in known:
            first = number
            break
        known.add(call.output_hash)
    return _cost(calls[: position + 1]) / _cost(calls[: first + 1])


def _cost(calls: Iterable[Call]) -> int:
    return sum(call.cost_nanos for call in calls)


def _names(flags: Sequence[Flag]) -> str:
    names = [
        f"{flag.session.name} at call {flag.position + 1}: {flag.verdict.findings[0].kind}"
        for flag in flags
    ]
    return f" ({', '.join(names)})" if names else ""


def _judged_ms() -> float:
    """Time the longest recorded session, repeated to as many calls as are judged; best of many."""
    longest = max(lmcache(), key=lambda session: len(session.calls)).calls
    calls = [
        longest[number % len(longest)]._replace(at=float(number)) for number in range(CALLS_MAX)
    ]
    return min(timeit.repeat(lambda: judge(calls), number=1, repeat=50)) * 1_000


def lmcache() -> list[Session]:
    """Model calls with their true tokens, times and hashes of outputs."""
    folder = DATA / LMCACHE
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for line in _csv(folder / "agent_calls.csv"):
        tokens_in, tokens_out = int(line["input_tokens_o200k"]), int(line["output_tokens_o200k"])
        call = _model_call(
            number=int(line["call_index"]),
            agent=line["agent"],
            output=line["output_sha1_10"],
            tokens=(tokens_in, tokens_out),
        )
        cached = int(line["shared_prefix_tokens_with_previous_call"])
        at = int(line["timestamp_us"]) / 1_000_000
        calls[line["session_id"]].append(call._replace(at=at, cache_read_tokens=cached))
    labels = {line["session_id"]: line["rule_label"] for line in _csv(folder / "sessions.csv")}
    return [Session(name, labels[name], own) for name, own in calls.items()]


def tau_bench() -> list[Session]:
    """Read conversations: what the model says or asks of a tool, and what the tool answers."""
    runs = json.loads(gzip.decompress((DATA / TAU_BENCH).read_bytes()))
    return [
        Session(f"{run['task_id']}/{run['trial']}", "normal", list(_conversation(run["traj"])))
        for run in runs
    ]


def _conversation(messages: Sequence[JsonObject]) -> Iterator[Call]:
    context = 0
    asked: dict[str, str] = {}
    for number, message in enumerate(messages):
        text = message.get("content") or ""
        if message["role"] == "tool":
            yield _tool_call(number, "airline", asked, text)
        elif message["role"] == "assistant":
            if message.get("tool_calls"):
                asked = message["tool_calls"][0]["function"]
                text = asked["name"] + asked["arguments"]
            yield _model_call(number, "airline", _hash(text), (context, _tokens(text)))
        context += _tokens(text)


def who_and_when() -> list[Session]:
    """Read agents that take turns: each message a model call over all that was said before."""
    return [
        Session(str(number), "failed", list(_turns(run["history"])))
        for number, run in enumerate(_json_lines(WHO_AND_WHEN))
    ]


def _turns(messages: Sequence[JsonObject]) -> Iterator[Call]:
    context = 0
    for number, message in enumerate(messages):
        text = message["content"].strip()
        yield _model_call(number, message["name"], _hash(text), (context, _tokens(text)))
        context += _tokens(text)


def swe_agent() -> list[Session]:
    """Read steps of a coding agent: what the model asks of its shell, and what that answers."""
    return [
        Session(str(number), run["exit_status"] or "", list(_steps(run["trajectory"])))
        for number, run in enumerate(_json_lines(SWE_AGENT))
    ]


def _steps(steps: Sequence[JsonObject]) -> Iterator[Call]:
    context = 0
    for number, step in enumerate(steps):
        said = step["thought"] + step["action"]
        yield _model_call(2 * number, "coder", _hash(said), (context, _tokens(said)))
        asked = {"name": "shell", "arguments": step["action"].strip()}
        yield _tool_call(2 * number + 1, "coder", asked, step["observation"])
        context += _tokens(said) + _tokens(step["observation"])


def made_up(*, seeds: int = 5, calls_each: int = CALLS_MAX) -> list[Session]:
    """Make up honest work that repeats itself: waiting for jobs, one question of many items."""
    sessions = []
    for seed in range(seeds):
        pick = random.Random(seed)
        sessions += [
            Session(f"polls {pause} s apart/{seed}", "normal", _polls(pick, pause))
            for pause in (2, 30, 300)
        ]
        for labels in (["positive", "negative"], ["a", "b", "c", "d", "e"]):
            for spread, tokens in ((0, 1), (0, 8), (0.05, 3), (0.05, 30), (0.5, 30)):
                name = f"{len(labels)} labels of {tokens} tokens/{seed}"
                calls = _classified(pick, labels, tokens, spread)[:calls_each]
                sessions.append(Session(name, "normal", calls))
    return sessions


def _polls(pick: random.Random, pause: int) -> list[Call]:
    """Work, then asking for a job: waiting while it is pending, at any pace while it runs."""
    calls, at = [], 0.0
    for number in range(10):
        call = _model_call(number, "worker", f"o{number}", (2_000 + 450 * number, 60 + 31 * number))
        calls.append(call._replace(at=at))
        at += SECONDS_PER_CALL
    for number in range(pick.randint(20, 35)):
        result = "pending" if pause >= 30 else f"{number} of 40"
        call = _tool_call(10 + number, "worker", {"name": "job", "arguments": "17"}, result)
        calls.append(call._replace(at=at))
        at += pause
    return calls


def _classified(
    pick: random.Random, labels: Sequence[str], tokens: int, spread: float
) -> list[Call]:
    """Return calls of one prompt over many items, whose sizes differ by `spread`."""
    size = 1_000
    return [
        _model_call(
            number,
            "classifier",
            pick.choice(labels),
            (round(size * (1 + spread * pick.uniform(-1, 1))), tokens),
        )
        for number in range(CALLS_MAX)
    ]


def _model_call(number: int, agent: str, output: str, tokens: tuple[int, int]) -> Call:
    tokens_in, tokens_out = tokens
    return BLANK._replace(
        at=number * SECONDS_PER_CALL,
        step=number,
        agent=agent,
        output_hash=output,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost_nanos=tokens_in * INPUT_NANOS + tokens_out * OUTPUT_NANOS,
    )


def _tool_call(number: int, agent: str, asked: dict[str, str], result: str) -> Call:
    has_failed = result.startswith("Error")
    return BLANK._replace(
        at=number * SECONDS_PER_CALL,
        step=number,
        agent=agent,
        operation="tool",
        model="",
        tool=asked["name"],
        tool_arguments_hash=_hash(asked["arguments"]),
        output_hash=_hash(result),
        status="error" if has_failed else "success",
        error_type="refused" if has_failed else None,
    )


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _json_lines(path: str) -> list[JsonObject]:
    with gzip.open(DATA / path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
