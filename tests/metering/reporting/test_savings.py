"""Savings, waste and what another model would cost: against the same usage rated call by call."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metering.pricing.book import load_price_book
from metering.reporting import InvalidQuestion, UsageQuestion, bounded
from metering.reporting import what_if as what_if_module
from metering.reporting.savings import Finding, Kind, Savings, savings
from metering.reporting.what_if import WhatIf, what_if
from metering.usage.shapes import Tokens
from tests.factories import Account, make_account, make_event, send
from tests.metering.reporting.test_usage import snapshot
from tests.metering.rollups.test_batches import roll_everything_up

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
DEAR = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
NEXT = {"provider": "anthropic", "model": "claude-haiku-4-5"}
CHEAPEST = {"provider": "anthropic", "model": "claude-3-haiku-20240307"}
CHEAP = {"provider": "openai", "model": "gpt-5-nano"}


def question(account: Account, **changes: object) -> UsageQuestion:
    fields: dict[str, Any] = {
        "starts_at": NOON - timedelta(hours=12),
        "ends_at": NOON + timedelta(hours=12),
        "interval": "none",
        **changes,
    }
    return UsageQuestion(tenant_id=account.tenant.id, **fields)


def read(account: Account, **fields: object) -> Savings:
    with snapshot(account):
        return savings(question(account, **fields))


def of_kind(result: Savings, kind: Kind) -> list[Finding]:
    return [finding for finding in result.findings if finding.kind is kind]


def call(**fields: object) -> dict[str, Any]:
    return make_event(time=NOON.isoformat(), **fields)


def cost(account: Account, model: dict[str, str], **tokens: Any) -> int:
    with account.scope():
        price = load_price_book(account.tenant.id).price_at(**model, at=NOON)
    assert price is not None
    return price.cost_nanos(Tokens(**tokens))


def test_cached_input_saved_what_it_would_have_cost_in_full(account: Account) -> None:
    tokens = {"input_tokens": 10_000, "cache_read_tokens": 8_000, "output_tokens": 10}
    send(account, [call(**DEAR, **tokens) for _ in range(3)])
    saved = 3 * (
        cost(account, DEAR, input_tokens=10_000, output_tokens=10) - cost(account, DEAR, **tokens)
    )
    assert saved > 0
    for _ in range(2):  # from events, then from roll-ups
        assert of_kind(read(account), Kind.CACHING) == [
            Finding(Kind.CACHING, saved, 3, {"model": DEAR["model"]})
        ]
        roll_everything_up(account)
    assert of_kind(read(account, filters={"team": ("growth",)}), Kind.CACHING) == []
    assert read(make_account()) == Savings([], ())


def test_the_next_cheaper_model_in_use_is_named_with_what_it_would_save(account: Account) -> None:
    tokens = {"input_tokens": 100_000, "cache_read_tokens": 1_000, "output_tokens": 5_000}
    send(account, [call(**DEAR, **tokens)])
    for model in (NEXT, CHEAPEST, CHEAP):  # cheaper still, and of another provider
        send(account, [call(**model, input_tokens=10, output_tokens=1)])
    (result,) = of_kind(read(account), Kind.CHEAPER_MODEL)
    assert result == Finding(
        Kind.CHEAPER_MODEL,
        cost(account, DEAR, **tokens) - cost(account, NEXT, **tokens),
        1,
        {"model": DEAR["model"]},
        NEXT["model"],
    )
    with snapshot(account):
        asked = question(account, filters={"model": (DEAR["model"],)})
        rated = what_if(asked, **NEXT)
    assert rated.saved_nanos == result.nanos


def test_reported_savings_and_failures_are_added_up_by_what_made_them(account: Account) -> None:
    send(
        account,
        [
            call(**DEAR, cost_usd="1", saved_usd="2.5"),
            call(**DEAR, cost_usd="1", saved_usd="0.5"),
            call(**DEAR, cost_usd="0.25", status="error"),
            call(
                operation="tool",
                tool="search",
                model=...,
                provider=...,
                input_tokens=...,
                output_tokens=...,
                cost_usd="0.125",
                status="error",
            ),
        ],
    )
    result = read(account)
    assert of_kind(result, Kind.REPORTED) == [
        Finding(Kind.REPORTED, 3_000_000_000, 2, {"model": DEAR["model"]})
    ]
    assert of_kind(result, Kind.FAILED) == [
        Finding(Kind.FAILED, 250_000_000, 1, {"model": DEAR["model"], "status": "error"}),
        Finding(Kind.FAILED, 125_000_000, 1, {"tool": "search", "status": "error"}),
    ]
    assert (result.saved_nanos, result.wasted_nanos) == (3_000_000_000, 375_000_000)
    assert [finding.nanos for finding in result.findings] == sorted(
        (finding.nanos for finding in result.findings), reverse=True
    )


def test_only_what_was_done_again_in_a_session_is_repeated(account: Account) -> None:
    tool = {"operation": "tool", "tool": "search", "agent": "a", "cost_usd": "1"}
    plain = dict.fromkeys(("model", "provider", "input_tokens", "output_tokens"), ...)
    same = {**tool, **plain, "tool_arguments_hash": "h", "session": "s"}
    send(
        account,
        [
            *(call(**same) for _ in range(3)),
            call(**same | {"session": "t"}),
            call(**same | {"tool_arguments_hash": "i"}),
            call(**same | {"status": "error"}),
            *(call(**DEAR, agent="b", session="s", output_hash="o", cost_usd="2") for _ in "ab"),
        ],
    )
    assert of_kind(read(account), Kind.REPEATED) == [
        Finding(Kind.REPEATED, 2_000_000_000, 2, {"agent": "a", "tool": "search"}),
        Finding(Kind.REPEATED, 2_000_000_000, 1, {"agent": "b", "model": DEAR["model"]}),
    ]


def test_too_much_to_read_leaves_out_what_needs_every_call(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [call(**DEAR), call(**DEAR)])
    monkeypatch.setattr(bounded, "EVENTS_MAX", 1)
    assert read(account).left_out == (Kind.REPEATED,)
    monkeypatch.setattr(what_if_module, "CALLS_MAX", 1)
    with snapshot(account), pytest.raises(InvalidQuestion) as refused:
        what_if(question(account), **CHEAP)
    assert refused.value.code == "too_much_to_read"


def test_another_model_is_rated_call_by_call(account: Account) -> None:
    # Half a nano-dollar each: rounded by itself, not in a sum.
    calls = [{"input_tokens": 1_001, "output_tokens": 7}, {"input_tokens": 3, "output_tokens": 0}]
    send(account, [call(**DEAR, **tokens) for tokens in calls])
    send(
        account,
        [
            call(
                operation="tool",
                tool="t",
                cost_usd="1",
                model=...,
                provider=...,
                input_tokens=...,
                output_tokens=...,
            )
        ],
    )
    with snapshot(account):
        result = what_if(question(account), **CHEAP)
    assert result == WhatIf(
        2,
        sum(cost(account, DEAR, **tokens) for tokens in calls),
        sum(cost(account, CHEAP, **tokens) for tokens in calls),
    )
    with snapshot(account):
        assert what_if(question(account, filters={"team": ("x",)}), **CHEAP) == WhatIf(0, 0, 0)


def test_without_a_price_nothing_is_guessed(account: Account) -> None:
    with snapshot(account), pytest.raises(InvalidQuestion) as refused:
        what_if(question(account), provider=None, model="nobody-knows")
    assert refused.value.code == "no_price"
