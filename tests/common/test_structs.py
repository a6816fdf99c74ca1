"""Answers as structs: what is sent, and what the OpenAPI document says of it."""

from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Annotated, Any

import msgspec
from django.test import Client
from msgspec import UNSET, UnsetType

from common.api.rendering import JsonRenderer
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of


class ExampleAnswer(Answer):
    """An example."""

    state: Annotated[str, one_of(["open", "closed"])]
    cost_usd: AmountUsd | None
    at: UtcTimestamp
    note: Annotated[str | UnsetType, about("Where there is one.")] = UNSET


def test_an_answer_is_sent_as_it_is_described() -> None:
    row = SimpleNamespace(state="open", at=datetime(2026, 11, 21, 12, tzinfo=UTC), secret="s")
    answer = ExampleAnswer.of(row, cost_usd=None)
    assert msgspec.json.decode(JsonRenderer().render(answer)) == {
        "state": "open",
        "cost_usd": None,
        "at": "2026-11-21T12:00:00Z",
    }
    schema: Any = msgspec.json.schema(ExampleAnswer)["$defs"]["ExampleAnswer"]
    assert schema["required"] == ["state", "cost_usd", "at"]
    assert schema["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert schema["properties"]["state"] == {"type": "string", "enum": ["open", "closed"]}


def test_every_answer_has_a_name_of_its_own(client: Client) -> None:
    assert client.get("/v1/schema").status_code == 200

    def names(kind: type[Answer]) -> list[str]:
        return [kind.__name__, *(name for each in kind.__subclasses__() for name in names(each))]

    assert [name for name, count in Counter(names(Answer)).items() if count > 1] == []
