"""Large bodies are cut without being read, and what nests too deeply is dropped."""

import json

import pytest

from common.errors import MalformedBody, TooManyEvents
from common.json_bodies import require_utf8
from metering.usage.decoders.json_items import items_of, without_deep_parts


def test_items_come_out_as_they_were_sent() -> None:
    body = b' [{"a": "],[{\\""} , {"b": [1, {"c": 2}]}, {}] '
    expected = [b'{"a": "],[{\\""}', b'{"b": [1, {"c": 2}]}', b"{}"]
    assert [item.strip() for item in items_of(body)] == expected


def test_a_broken_item_leaves_its_neighbors_alone() -> None:
    body = b'[{"a": "],[{\\""}, {"b": NaN, "c": [,]}, {"d": 1}]'
    assert [item.strip() for item in items_of(body)] == [
        b'{"a": "],[{\\""}',
        b'{"b": NaN, "c": [,]}',
        b'{"d": 1}',
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[{}",
        b'[{"a": "}]',
        b'[{"a": NaN}, 3]',
        b'[{"a": NaN}]]',
        b'[{"a": NaN}][]',
        b'x[{"a": NaN}]',
        b'[{"a": NaN},]',
        b"]",
        b"{NaN}",
        b"[" * 3_000_000,
    ],
)
def test_what_is_no_array_of_objects_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody) as caught:
        list(items_of(body))
    assert caught.value.code == "malformed_json"


def test_more_items_than_allowed_are_refused() -> None:
    with pytest.raises(TooManyEvents):
        items_of(b"[" + b",".join([b"{}"] * 10_001) + b"]")


def test_what_is_too_deep_becomes_null() -> None:
    raw = b'{"a": [[1, [2, "]"]], [3]], "b": {"c": {"d": {"e": 1}}}, "f": "[[["}'
    shallow = {"a": [[1, None], [3]], "b": {"c": {"d": None}}, "f": "[[["}
    assert json.loads(without_deep_parts(raw, levels=3)) == shallow


@pytest.mark.parametrize("levels", [1000, 200_000])
def test_however_deep_it_nests(levels: int) -> None:
    raw = b'{"a": ' + b'{"b": [' * levels + b"]}" * levels + b', "c": 1}'
    assert json.loads(without_deep_parts(raw))["c"] == 1


def test_what_never_closes_is_left_as_it_is() -> None:
    assert without_deep_parts(b"[" * 500) == b"[" * 500


@pytest.mark.parametrize("at", [0, 5, (1 << 20) - 1, 1 << 20, (1 << 20) + 7])
def test_the_byte_that_is_no_utf8_is_named(at: int) -> None:
    body = b"x" * at + b"\xff" + b"y" * 9
    with pytest.raises(MalformedBody, match=f"byte {at} "):
        require_utf8(body)


def test_a_character_may_lie_across_two_pieces() -> None:
    require_utf8(b"x" * ((1 << 20) - 1) + "€".encode() + b"y" * (1 << 20))
    with pytest.raises(MalformedBody, match=f"byte {(1 << 20) - 1} "):
        require_utf8(b"x" * ((1 << 20) - 1) + b"\xe2\x82" + b"y")
