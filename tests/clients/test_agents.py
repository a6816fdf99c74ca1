"""Real clients and instrumentations over HTTP: a budget that blocks is never passed, and holds
exactly what the provider charged, though no span names the team that it is for.

Clients whose packages are large are skipped where these are not installed.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Final

import pytest
from django.db import connection

from metering.audit.ledger import audit_tenant
from metering.models import Budget, UsageEvent
from tests.clients.agents import Plan
from tests.clients.replay import Provider, replaying
from tests.clients.service import serving
from tests.factories import Account, make_budget, windows_of

LIMIT_NANOS: Final = 100_000_000
# What a client needs that is not among the packages for development, and its modules.
LARGE: Final = {
    "langchain-openai": {
        "langchain-openai": "langchain_openai",
        "openinference-instrumentation-langchain": "openinference.instrumentation.langchain",
    },
    "langchain-anthropic": {
        "langchain-anthropic": "langchain_anthropic",
        "openinference-instrumentation-langchain": "openinference.instrumentation.langchain",
    },
    "litellm": {"litellm": "litellm"},
}


def need(client: str) -> None:
    """Skip where a client is not installed."""
    missing = [name for name, module in LARGE.get(client, {}).items() if not find_spec(module)]
    if missing:
        pytest.skip(f"To run this, install {' and '.join(missing)} in .venv.")


def run_agents(plan: Plan) -> dict[str, int]:
    """Run the agents in a process of their own; answers how often each thing happened."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.clients.agents", json.dumps(asdict(plan))],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "OTEL_SDK_DISABLED": "false"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


@contextmanager
def watched(account: Account, budget: Budget) -> Iterator[list[tuple[int, int]]]:
    """What was spent and reserved of a budget, looked at all the time."""
    seen: list[tuple[int, int]] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.02):
            for window in windows_of(account, budget):
                seen.append((window.spent_nanos, window.reserved_nanos))
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with replaying() as made:
        yield made


def plan_of(account: Account, provider: Provider, url: str, **fields: Any) -> Plan:
    return Plan(service_url=url, api_key=account.api_key, provider_url=provider.url, **fields)


@pytest.mark.parametrize(
    ("client", "is_streamed", "is_batched"),
    [
        ("openai-v2", False, False),
        ("openai-v2", True, False),
        ("openai-v2", False, True),
        ("openinference-openai", False, False),
        ("openinference-responses", True, False),
        ("anthropic", True, False),
        ("openinference-anthropic", False, False),
        ("pydantic-ai-openai", False, False),
        ("pydantic-ai-anthropic", False, False),
        ("langchain-openai", False, False),
        ("langchain-anthropic", False, False),
        ("litellm", False, False),
    ],
    ids=lambda value: {True: "yes", False: "no"}.get(value, value),
)
def test_a_budget_on_a_team_that_no_span_names_is_never_passed(
    account: Account, provider: Provider, client: str, is_streamed: bool, is_batched: bool
) -> None:
    need(client)
    team = make_budget(
        account, cost_usd=None, limit_cost_nanos=LIMIT_NANOS, match={"team": "growth"}
    )
    everything = make_budget(account, cost_usd=1000)
    each_agent = make_budget(account, cost_usd=1000, per=["agent"])
    with serving() as url, watched(account, team) as seen:
        plan = plan_of(
            account, provider, url, client=client, is_streamed=is_streamed, is_batched=is_batched
        )
        outcomes = run_agents(plan)
    allowed = len(provider.charges)
    assert outcomes == {"settle 200": allowed, "reservation 402": 100 - allowed}
    # 16 holds of 0.006 USD fit at once, and the 0.0043 that a call costs at most 23 times.
    assert 16 <= allowed < 25
    assert max(spent for spent, _ in seen) <= LIMIT_NANOS
    assert max(spent + reserved for spent, reserved in seen) <= LIMIT_NANOS
    assert provider.cost_nanos <= LIMIT_NANOS
    for budget in (team, everything, each_agent):
        windows = windows_of(account, budget)
        assert sum(window.spent_nanos for window in windows) == provider.cost_nanos
        assert sum(window.spent_requests for window in windows) == allowed
        assert {window.reserved_nanos for window in windows} == {0}
        assert {window.overrun_nanos for window in windows} == {0}
    assert_stored_as_charged(account, provider)
    assert audit_tenant(account.tenant.id) == []


def assert_stored_as_charged(account: Account, provider: Provider) -> None:
    with account.scope():
        events = UsageEvent.objects.filter(tenant=account.tenant, is_void=False)
        stored = {
            (each.response_id, each.input_tokens, each.output_tokens, each.cost_nanos)
            for each in events
        }
        assert len(events) == len(provider.charges)
        assert {each.team for each in events} == {"growth"}
        # Agents do not say how long a call took: each was told by the instrumentation, too.
        assert all(each.latency_ms is not None for each in events)
    assert stored == {
        (each.response_id, each.input_tokens, each.output_tokens, each.cost_nanos)
        for each in provider.charges
    }
