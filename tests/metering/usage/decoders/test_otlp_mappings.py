"""Attributes that a tenant maps to dimensions, in spans, around them and in their process."""

import math

import pytest

from common.errors import EventRejected
from metering.usage.decoders.otlp import read_export
from metering.usage.decoders.otlp.dimension_keys import MAPPABLE, AttributeMapping, DimensionKeys
from metering.usage.decoders.otlp.protobuf import read_protobuf
from tests.metering.usage.decoders.spans import AGENT, CHAT, TOOL, Attributes, Export

KEYS = DimensionKeys(
    [
        AttributeMapping("team.id", "team"),
        AttributeMapping("app.user", "user"),
        AttributeMapping("cost.center", "team"),
    ]
)


def team_of(span: Attributes, **resource: object) -> str | None:
    made = Export("test", **resource)
    made.add(CHAT | span)
    return made.event(keys=KEYS).team


@pytest.mark.parametrize("dimension", MAPPABLE)
def test_an_attribute_of_a_span_or_of_its_process_is_mapped_to_any_dimension(
    dimension: str,
) -> None:
    keys = DimensionKeys([AttributeMapping("acme.label", dimension)])
    for made, attributes in (
        (Export(), {"acme.label": "x"}),
        (Export(acme__label="x"), {}),
    ):
        made.add(CHAT | attributes)
        assert getattr(made.event(keys=keys), dimension) == "x"
        assert getattr(made.event(), dimension) is None


@pytest.mark.parametrize(
    ("span", "resource", "team"),
    [
        # The order of the mappings decides, not that of the attributes.
        ({"cost.center": "b", "team.id": "a"}, {}, "a"),
        ({}, {"cost__center": "b", "team__id": "a"}, "a"),
        # The service's own name is above a mapping, a dialect's below.
        ({"team.id": "a", "spendgate.team": "own"}, {}, "own"),
        ({"team.id": "a", "baggage.spendgate.team": "own"}, {}, "own"),
        ({"team.id": "a", "metadata.team": "usual"}, {}, "a"),
        ({"cost.center": "b", "langfuse.trace.metadata.team_id": "usual"}, {}, "b"),
        ({}, {"team__id": "a", "spendgate__team": "own"}, "own"),
        # What is nearest to the call is above all of that.
        ({"team.id": "span"}, {"team__id": "process"}, "span"),
        ({"cost.center": "span"}, {"spendgate__team": "process"}, "span"),
        ({"metadata.team": "span"}, {"spendgate__team": "process"}, "span"),
        # In a process the dialects' names mean nothing.
        ({}, {"metadata__team": "usual"}, None),
    ],
)
def test_the_nearest_counts_and_within_it_the_own_the_mapped_and_the_usual(
    span: Attributes, resource: dict[str, object], team: str | None
) -> None:
    assert team_of(span, **resource) == team


def test_a_mapped_attribute_is_above_a_usual_one_of_its_dimension() -> None:
    made = Export()
    made.add(CHAT | {"user.id": "usual", "app.user": "mapped"})
    assert made.event(keys=KEYS).user == "mapped"
    assert made.event().user == "usual"


@pytest.mark.parametrize(
    ("value", "team"),
    [
        (4711, "4711"),
        (-1, "-1"),
        ("  two   words ", "two words"),
        ("zero\u200bwidth", "zerowidth"),
        ("x" * 300, "x" * 200),
        ("=1+1", "=1+1"),
        ("<script>", "<script>"),
        # Unusable: the next mapping says.
        (True, "next"),
        (4.5, "next"),
        (math.nan, "next"),
        ("", "next"),
        (" \u200b ", "next"),
        (["a", "b"], "next"),
        ({"a": "b"}, "next"),
        (None, "next"),
    ],
)
def test_values_are_those_of_any_dimension_and_an_unusable_one_is_passed_over(
    value: object, team: str
) -> None:
    assert team_of({"team.id": value, "cost.center": "next"}) == team
    assert team_of({}, team__id=value, cost__center="next") == team


def test_an_unusable_value_leaves_the_usual_attributes_their_say() -> None:
    assert team_of({"team.id": False, "metadata.team": "usual"}) == "usual"


def test_a_pair_of_openinferences_metadata_can_be_mapped() -> None:
    keys = DimensionKeys([AttributeMapping("metadata.squad", "team")])
    made = Export()
    made.add(CHAT | {"metadata": '{"squad": "growth", "plan": "pro"}'})
    assert made.event(keys=keys).team == "growth"


def test_a_tag_that_is_mapped_stays_a_tag() -> None:
    keys = DimensionKeys([AttributeMapping("traceloop.association.properties.plan", "feature")])
    made = Export()
    made.add(CHAT | {"traceloop.association.properties.plan": "pro"})
    event = made.event(keys=keys)
    assert (event.feature, event.tags) == ("pro", {"plan": "pro"})


def test_a_span_around_calls_that_is_of_no_other_interest_names_their_team() -> None:
    made = Export()
    request = made.add({"http.route": "/ask", "team.id": "growth"})
    agent = made.add(AGENT, parent=request)
    made.add(CHAT, parent=agent)
    made.add(TOOL | {"cost.center": "4711"}, parent=agent)
    chat, tool = made.events(keys=KEYS)
    assert (chat.team, tool.team) == ("growth", "4711")
    assert [event.team for event in made.events()] == [None, None]
    export = read_export(
        read_protobuf(made.protobuf(), KEYS.mapped), trusts_given_costs=False, keys=KEYS
    )
    assert export.passed_over == []


def test_a_mapped_value_that_cannot_be_stored_loses_its_call_alone_or_nothing() -> None:
    made = Export(team__id="a\x00b")
    made.add(CHAT)
    made.add(CHAT | {"gen_ai.response.id": "msg_02", "team.id": "a\x00b"})
    event, rejected = made.decoded(keys=KEYS)
    assert isinstance(rejected, EventRejected)
    assert not isinstance(event, EventRejected)
    assert (rejected.code, event.response_id, event.team) == ("invalid_value", "msg_01", None)
