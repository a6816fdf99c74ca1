"""The same call told by two spans counts once; two calls that look alike count twice."""

from tests.metering.usage.decoders.spans import CHAT, TOOL, Export, chat, export, without_id


class TestTheSameCallTwice:
    def test_in_two_traces_with_one_response_id(self) -> None:
        made = Export()
        made.add(CHAT | {"traceloop.association.properties.customer": "acme"})
        made.add(
            CHAT | {"gen_ai.usage.cache_read.input_tokens": 8845, "gen_ai.usage.raw": "{}"},
            trace="ab" * 16,
        )
        event = made.event()
        # The span that tells more is the event, completed by what only the other says.
        assert (event.trace, event.cache_read_tokens, event.customer) == ("ab" * 16, 8845, "acme")

    def test_named_for_two_providers(self) -> None:
        event = export(CHAT | {"gen_ai.provider.name": "azure.ai.openai"}, CHAT).event()
        assert event.provider == "azure"

    def test_ids_of_two_providers_may_be_alike(self) -> None:
        other = chat(1, 2) | {"gen_ai.provider.name": "openai", "gen_ai.response.id": "msg_01"}
        assert len(export(CHAT, other).events()) == 2

    def test_as_a_wrapper_without_a_response_id(self) -> None:
        made = Export()
        outer = made.add(without_id() | {"gen_ai.request.model": "claude-sonnet-4-5"})
        middle = made.add({"openinference.span.kind": "CHAIN"}, parent=outer)
        made.add(CHAT, parent=middle)
        assert made.event().span == "0000000000000003"

    def test_as_a_wrapper_that_alone_names_the_response(self) -> None:
        made = Export()
        outer = made.add(CHAT)
        made.add(without_id(), parent=outer)
        event = made.event()
        assert (event.span, event.response_id) == ("0000000000000002", CHAT["gen_ai.response.id"])

    def test_when_neither_names_the_response(self) -> None:
        made = Export()
        outer = made.add(without_id())
        made.add(without_id(), parent=outer)
        assert made.event().span == "0000000000000002"

    def test_when_the_wrapper_leaves_the_cache_out(self) -> None:
        made = Export()
        outer = made.add(chat(4, 193))
        made.add(CHAT | {"gen_ai.usage.cache_read.input_tokens": 8851}, parent=outer)
        assert made.event().input_tokens == 8855

    def test_when_the_wrapper_names_no_tokens(self) -> None:
        made = Export()
        outer = made.add({"openinference.span.kind": "LLM", "llm.model_name": "claude-sonnet-4-5"})
        made.add(CHAT, parent=outer)
        assert made.event().span == "0000000000000002"

    def test_when_only_the_wrapper_names_tokens(self) -> None:
        made = Export()
        outer = made.add(CHAT)
        made.add({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, parent=outer)
        assert made.event().span == "0000000000000001"

    def test_when_a_span_adds_up_the_calls_below_it(self) -> None:
        made = Export()
        outer = made.add(chat(30, 12))
        made.add(chat(10, 5), parent=outer)
        made.add(chat(20, 7), parent=outer)
        assert [event.input_tokens for event in made.events()] == [10, 20]

    def test_when_the_sum_bears_the_last_response_id(self) -> None:
        made = Export()
        outer = made.add(chat(999, 12) | {"gen_ai.response.id": "msg_02"})
        made.add(chat(10, 5) | {"gen_ai.response.id": "msg_01"}, parent=outer)
        made.add(chat(20, 7) | {"gen_ai.response.id": "msg_02"}, parent=outer)
        assert [event.input_tokens for event in made.events()] == [10, 20]

    def test_when_one_export_holds_a_span_twice(self) -> None:
        made = Export()
        made.add(without_id())
        made.scope.spans.append(made.span(1))
        assert len(made.events()) == 1


class TestTwoCallsThatLookAlike:
    def test_side_by_side_without_response_ids(self) -> None:
        assert len(export(without_id(), without_id()).events()) == 2

    def test_of_two_models(self) -> None:
        made = Export()
        outer = made.add({**chat(10, 5), "gen_ai.response.model": "a", "gen_ai.request.model": "a"})
        made.add(
            {**chat(10, 5), "gen_ai.response.model": "b", "gen_ai.request.model": "b"}, parent=outer
        )
        assert len(made.events()) == 2

    def test_below_a_tool_that_the_first_called(self) -> None:
        made = Export()
        outer = made.add(chat(10, 5))
        tool = made.add(TOOL, parent=outer)
        made.add(chat(10, 5), parent=tool)
        events = made.events()
        assert sorted(event.operation or "" for event in events) == ["llm", "llm", "tool"]

    def test_with_other_counts_one_inside_the_other(self) -> None:
        made = Export()
        outer = made.add(chat(10, 5))
        made.add(chat(11, 5), parent=outer)
        assert len(made.events()) == 2

    def test_with_no_tokens_at_all(self) -> None:
        made = Export()
        outer = made.add(chat(0, 0))
        made.add(chat(0, 0), parent=outer)
        assert len(made.events()) == 2
