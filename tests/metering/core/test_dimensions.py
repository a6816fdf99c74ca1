"""Values of dimensions: what looks alike is the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.values import normal_value
from metering.core.dimensions import normal_match

ZOE = "Zo\u00eb"


@pytest.mark.parametrize(
    "value",
    [
        "Zoe\u0308",
        f" {ZOE}",
        f"{ZOE} ",
        f"{ZOE}\n",
        f"\t{ZOE}\r\n",
        f"{ZOE}\u00a0",
        f"\u3000{ZOE}\u2003",
        "Zo\u200b\u00eb",
        "Zoe\u200d\u0308",
        "\ufeffZo\u00eb",
        "Z\u00ado\u00eb",
        f"\u202e{ZOE}\u202c",
        f"{ZOE}\u2066\u2069",
        f"{ZOE}\ufe0f",
        f"{ZOE}\U000e0101",
        f"{ZOE}\U000e0041\U000e007f",
        "Z\u034fo\u00eb\u2063",
        f"{ZOE}\u3164\u115f\u2800",
        f"{ZOE}\x07\x1b\x7f\x9f",
    ],
    ids=ascii,
)
def test_an_invisible_difference_is_none(value: str) -> None:
    assert normal_value(value) == ZOE


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("Research  agents", "Research agents"),
        ("a\u00a0\nb", "a b"),
        ("ACME", "ACME"),
        ("\uff21\uff22", "\uff21\uff22"),
        ("\u200b", ""),
        (" \t\n", ""),
        ("", ""),
        # Joiners go out of words and pictures as well: a limit cannot be escaped by one.
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\U0001f4bb"),
    ],
    ids=ascii,
)
def test_what_can_be_seen_stays(value: str, normal: str) -> None:
    assert normal_value(value) == normal


@given(st.text(max_size=20), st.text("\u200b\u200d\u2060\ufeff\u00ad\u202e\ufe0f\x00", max_size=5))
def test_normal_values_are_stable_and_blind_to_what_is_not_seen(text: str, unseen: str) -> None:
    normal = normal_value(text)
    assert normal_value(normal) == normal
    assert unicodedata.is_normalized("NFC", normal)
    assert normal == normal.strip()
    assert normal_value(unseen.join(["", *text, ""])) == normal


def test_a_match_has_normal_values_and_names_each_once() -> None:
    match = {"team": f"{ZOE} ", "agent": ["a\u200b", "a", None], "status": 5}
    assert normal_match(match) == {"team": ZOE, "agent": ["a", None], "status": 5}
