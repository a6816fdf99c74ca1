"""Samples of what was not taken show a shape, and nothing that anybody wrote."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from metering.usage.decoders.samples import SAMPLE_BYTES_MAX, redacted_sample


def sample(value: object) -> object:
    return json.loads(redacted_sample(value))


def test_keys_and_numbers_stay_and_words_become_their_length() -> None:
    assert sample(
        {"prompt_tokens": 12, "ratio": 0.5, "stream": True, "x": None, "text": "secret"}
    ) == {
        "prompt_tokens": 12,
        "ratio": 0.5,
        "stream": True,
        "x": None,
        "text": "str[6]",
    }


def test_names_of_models_and_operations_stay() -> None:
    given = {
        "model": "gpt-5-nano",
        "gen_ai.operation.name": "chat",
        "scope": "openinference.instrumentation.openai",
        "span_name": "chat gpt-5-nano",
    }
    assert sample(given) == given


def test_what_is_no_name_is_redacted_under_a_names_key_as_well() -> None:
    assert sample({"model": "mail to ann@example.com", "status": "a b c d e f"}) == {
        "model": "str[23]",
        "status": "str[11]",
    }


def test_a_key_that_is_data_is_redacted() -> None:
    assert sample({"ann@example.com": 1, "two words": 2}) == {"key[15]": 1, "key[9]": 2}


def test_bytes_are_read_as_json_where_they_are() -> None:
    assert sample(b'{"a": ["b", 1]}') == {"a": ["str[1]", 1]}
    assert sample(b"\xff{") == "bytes[2]"
    assert sample({"a": b"12345", "n": math.nan, "big": 10**30}) == {
        "a": "bytes[5]",
        "n": "number",
        "big": "number",
    }


def test_it_is_bounded_in_depth_and_size() -> None:
    deep: object = "x"
    for _ in range(500):
        deep = {"inner": [deep]}
    assert len(redacted_sample(deep)) < 200
    wide = {f"key_{number}_{'x' * 60}": {"a": [1] * 1000} for number in range(5000)}
    assert len(redacted_sample(wide).encode()) <= SAMPLE_BYTES_MAX
    assert len(redacted_sample([["x" * 100] * 1000] * 1000).encode()) <= SAMPLE_BYTES_MAX


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_value_has_a_sample(value: object) -> None:
    assert len(redacted_sample(value).encode()) <= SAMPLE_BYTES_MAX
