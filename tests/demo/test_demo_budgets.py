"""The demo's limits make its overview look alive on any day."""

from datetime import UTC, datetime

import pytest

from common.json_bodies import JsonObject
from demo.calls import Call, Model, epoch_ms
from demo.configuration import budgets, limit_usd
from demo.customers import LARGE
from demo.events import demo_calls
from demo.spend import cost_nanos, spend_by

END = datetime(2026, 11, 21, 13, tzinfo=UTC)


def call(**changes: object) -> Call:
    fields: JsonObject = {
        "id": "1",
        "time_ms": epoch_ms(END),
        "dataset": "test",
        "team": "t",
        "agent": "a",
        "feature": "f",
        "user": "u",
        "latency_ms": 1,
    }
    return Call(**{**fields, **changes})


def test_a_call_costs_what_the_price_library_says() -> None:
    model = Model("anthropic", "claude-sonnet-4-5", "anthropic", LARGE)
    spent = call(
        model=model,
        input_tokens=10_000,
        cache_read_tokens=4_000,
        cache_write_tokens=1_000,
        output_tokens=500,
    )
    # 5,000 x 3 + 4,000 x 0.30 + 1,000 x 3.75 + 500 x 15 dollars a million tokens
    assert cost_nanos(spent) == 27_450_000


def test_tools_cost_their_price_and_unpriced_models_nothing() -> None:
    assert cost_nanos(call(tool="web_surfer")) == 4_000_000
    assert cost_nanos(call(tool="shell")) == 0
    unpriced = Model("in-house", "ticket-tagger-8b-ft3", "flat", LARGE)
    assert cost_nanos(call(model=unpriced, input_tokens=5, output_tokens=5)) == 0


@pytest.mark.parametrize(
    ("spent_nanos", "used_percent", "limit"),
    [
        (78_000_000_000, 78, "100"),
        (12_345_000_000, 90, "14"),
        (12_345_000_000, 106, "11"),
        (1_230_000_000, 95, "1.3"),
        (0, 78, "0.10"),
    ],
)
def test_a_limit_has_two_figures_and_keeps_its_side_of_full(
    spent_nanos: int, used_percent: int, limit: str
) -> None:
    assert limit_usd(spent_nanos, used_percent=used_percent) == limit


def test_one_customer_is_over_and_the_tenant_is_near_its_limit() -> None:
    calls = list(demo_calls(count=20_000, seed=1, end=END))
    made = {
        budget["name"]: float(budget["limit"].get("cost_usd", 0))
        for budget in budgets(calls, end=END)
    }
    month = [item for item in calls if item.time_ms >= epoch_ms(END.replace(day=1, hour=0))]
    customers = spend_by(month, lambda item: item.customer or "").items()
    over = [name for name, nanos in customers if nanos / 1e9 > made["Customers, monthly"]]
    assert 1 <= len(over) <= 2
    total = sum(spend_by(month, lambda item: "all").values()) / 1e9
    assert 0.70 < total / made["All spend, monthly"] < 0.80


def test_a_month_that_has_just_begun_does_not_make_its_budgets_tiny() -> None:
    end = END.replace(month=12, day=1, hour=0)
    calls = list(demo_calls(count=20_000, seed=1, end=end))
    made = {budget["name"]: budget["limit"] for budget in budgets(calls, end=end)}
    fortnight = sum(spend_by(calls, lambda item: "all").values()) / 1e9
    assert float(made["All spend, monthly"]["cost_usd"]) > fortnight / 4


def test_levels_rise_and_modes_are_of_every_kind() -> None:
    calls = list(demo_calls(count=5_000, seed=1, end=END))
    made = budgets(calls, end=END)
    assert {budget["mode"] for budget in made} == {"enforce", "warn", "shadow"}
    for budget in made:
        percents = [level["percent"] for level in budget["levels"]]
        assert percents == sorted(set(percents))
