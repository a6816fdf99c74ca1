"""Reasons of decisions in the words of pages."""

import pytest

from dashboard.enforcement.reasons import sentence_of

REASON = {"budget": 1, "name": "Daily", "group": {}, "level_percent": 100, "detail": "As answered."}


def amounts(end: str, *values: object) -> dict[str, object]:
    names = ("limit", "spent", "reserved", "asked")
    return {f"{name}{end}": value for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            {"part": "cost_usd", "group": {"agent": "scout", "team": ""}}
            | amounts("_usd", "0.5", "0.497214375", "0", "12"),
            "$0.497214375 is spent of the $0.50 that the budget “Daily” allows for calls"
            " by agent “scout” without a team at its level of 100%; $0.00 reserved, and this call"
            " asks for $12.00.",
        ),
        (
            {"part": "tool_calls"} | amounts("", 2000, 1, 0, 12),
            "1 tool call is spent of the 2,000 tool calls that the budget “Daily” allows at its"
            " level of 100%; 0 tool calls reserved, and this call asks for 12 tool calls.",
        ),
        (
            {"part": "tokens"} | amounts("", 2000, 1990, 5, 12),
            "1,990 tokens are spent of the 2,000 tokens that the budget “Daily” allows at its"
            " level of 100%; 5 tokens reserved, and this call asks for 12 tokens.",
        ),
        # Of time, and where no level was passed, the answer's own sentence reads well.
        ({"part": "seconds"} | amounts("", 60, 61, 0, 0), "As answered."),
        ({}, "As answered."),
    ],
)
def test_a_reason_names_its_amounts_as_pages_do(reason: dict[str, object], words: str) -> None:
    assert sentence_of(REASON | reason) == words
