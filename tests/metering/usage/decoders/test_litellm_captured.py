"""Callbacks that LiteLLM itself sent: each tells what its provider's server counted.

What was captured lies beside the repository; where it does not, these tests are skipped.
"""

import gzip
import json
from pathlib import Path

import pytest

from common.json_bodies import JsonObject
from metering.usage.decoders.litellm import decode_litellm
from metering.usage.decoders.native import EventBody
from metering.usage.shapes import Tokens, normalise_usage

CAPTURED = Path(__file__).parents[4].parent / "shared" / "data" / "emitters" / "captured"

needs_captured = pytest.mark.skipif(
    not CAPTURED.exists(), reason="What LiteLLM itself sent is not beside the repository."
)

FIELDS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cr": "cache_read_tokens",
    "cw": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
    "web": "web_searches",
}
# How many callbacks name an answer, and how many more the request alone.
RUNS = {"litellm/ll-gen": (10, 6), "litellm/llp4": (7, 1)}


def events(run: str) -> list[EventBody]:
    (path,) = (CAPTURED / run).glob("*.litellm.json*")
    body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    result = decode_litellm(body, trusts_given_costs=False)
    assert all(isinstance(item, EventBody) for item in result)
    return [item for item in result if isinstance(item, EventBody)]


def served(run: str) -> list[JsonObject]:
    meta = json.loads((CAPTURED / run / "meta.json").read_text())
    return list(meta["truth"])


def tokens(event: EventBody) -> Tokens:
    if event.usage is not None:
        return normalise_usage(event.usage, provider=event.provider)
    return Tokens(event.input_tokens or 0, event.output_tokens or 0)


@needs_captured
@pytest.mark.parametrize("run", RUNS)
def test_each_callback_tells_what_the_provider_counted(run: str) -> None:
    calls = served(run)
    by_response = {call["id"]: call for call in calls if call["id"]}
    by_request = {call["request_id"]: call for call in calls if call["request_id"]}
    named = requested = 0
    for event in events(run):
        if event.is_usage_missing or event.status != "success":
            continue
        call = by_response.get(event.response_id)
        if call is not None:
            named += 1
        else:
            call = by_request.get(event.request_id)
            requested += call is not None
        if call is not None:
            told = {key: getattr(tokens(event), field) for key, field in FIELDS.items()}
            assert told == {key: call.get(key, 0) for key in FIELDS}
            assert event.request_id in (None, call["request_id"])
    assert (named, requested) == RUNS[run]


@needs_captured
def test_the_stream_whose_usage_nobody_asked_for_lacks_it() -> None:
    missing = [event for event in events("litellm/ll-gen") if event.is_usage_missing]
    assert [event.response_id for event in missing] == ["chatcmpl-CIUBKYMLJqwjgzNrzX48Fad86b057"]


@needs_captured
def test_the_proxys_callers_are_known_by_their_headers() -> None:
    result = [event for event in events("litellm/llp4") if event.session == "hdr-sess"]
    assert {event.agent for event in result} == {"hdr-agent"}
    assert {event.trace for event in result} == {None}
    assert {event.user for event in events("litellm/llp4")} == {None, "u-md"}
    assert result[0].team == "sl-team"
    assert result[0].tags == {"environment": "prod"}
