"""Loops and waste: whether a session's calls repeat without progress, and what that has cost.

Pure: calls in, verdict out; no database, no clock. `judge` is the entry;
`may_loop` tells from a few counts which sessions need no judgement.

| module | decides |
|---|---|
| `calls.py` | what a call, a piece of evidence and a verdict are |
| `news.py` | whether anything new came between two model calls |
| `outputs.py` | which outputs count as the same |
| `steps.py` | what of a model call is compared, and when two are the same |
| `rounds.py` | whether hashes prove that model calls go round in a fixed order |
| `model_calls.py` | whether model calls repeat, with or without hashes |
| `tool_calls.py` | whether tool calls repeat, and when that is polling or a batch |
| `waits.py` | when an agent waits, and when it waits in vain |
| `failures.py` | whether retries fail for the same reason |
| `chains.py` | which repeats belong together |
| `habits.py` | what is only a suspicion: one tool, no progress, growing context |
| `money.py` | what was wasted, and what an hour more would cost |
| `judgement.py` | the verdict |

Invariant: what looks alike in honest work too (one tool over a list, waiting for a job, agents that
take turns, a context that grows) is a suspicion at most. A loop is the same again, nothing changed.
"""

from alerts.loops.calls import CALLS_MAX, Call, Finding, Kind, SessionVerdict, Strength
from alerts.loops.judgement import judge, may_loop
from alerts.loops.steps import OUTPUT_TOKENS_MIN

__all__ = [
    "CALLS_MAX",
    "OUTPUT_TOKENS_MIN",
    "Call",
    "Finding",
    "Kind",
    "SessionVerdict",
    "Strength",
    "judge",
    "may_loop",
]
