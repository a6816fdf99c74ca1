"""Misspelt names: near ones are named, others are not."""

import pytest

from common.spelling import did_you_mean, nearest
from metering.pricing.model_names import nearest_model
from metering.usage.decoders.native import EVENT_FIELDS


@pytest.mark.parametrize(
    ("name", "near"),
    {
        "agnet": "agent",
        "custommer": "customer",
        "modle": "model",
        "usr": "user",
        "inputTokens": "input_tokens",
        "input-token": "input_tokens",
        "customer_id": "customer",
        "cost": "cost_usd",
        "TAGS": "tags",
        # Another word is no slip, and a guess would mislead.
        "prompt_tokens": None,
        "timestamp": None,
        "colour": None,
        "": None,
        "_": None,
        "a" * 100_000: None,
    }.items(),
    ids=lambda value: str(value)[:20],
)
def test_a_near_name_is_found_and_another_is_not(name: str, near: str | None) -> None:
    assert nearest(name, EVENT_FIELDS) == near


def test_a_known_name_wins_over_a_near_one() -> None:
    known = ("cost", "cost_usd", "costs")
    assert [nearest(name, known) for name in known] == list(known)
    assert did_you_mean("Costs", known) == " Did you mean 'costs'?"


@pytest.mark.parametrize(
    ("provider", "model", "near"),
    [
        ("anthropic", "claude-sonet-4-5", "claude-sonnet-4-5"),
        (None, "claude-sonet-4-5-20250929", "claude-sonnet-4-5"),
        ("openai", "gpt-4o-mnii", "gpt-4o-mini"),
        ("google", "gemini-2.5-flsh", "gemini-2.5-flash"),
        # A version that is not known yet is no slip.
        ("anthropic", "claude-sonnet-4-9", None),
        ("openai", "gpt-4.3", None),
        (None, "my-own-model", None),
        # Nor is a name that has a price.
        ("anthropic", "claude-sonnet-4-5", None),
    ],
)
def test_a_misspelt_model_is_known_by_its_nearest(
    provider: str | None, model: str, near: str | None
) -> None:
    assert nearest_model(provider, model) == near
