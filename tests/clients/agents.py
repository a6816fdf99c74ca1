"""Agents as a customer writes them: ask, call a model with a real client, say what it used.

A program of its own, since instrumentations change the packages of their process:
`python -m tests.clients.agents` reads a `Plan` as JSON and prints what became of each call. It
imports nothing of the service.
"""
# ruff: noqa: PLC0415 - a run imports the packages of its own client alone

import asyncio
import importlib
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from common.json_bodies import JsonObject

OPENAI_MODEL: Final = "gpt-4o"
ANTHROPIC_MODEL: Final = "claude-sonnet-4-5"
PROMPT: Final = [{"role": "user", "content": "Say ok."}]


@dataclass
class Plan:
    """Where the service and the provider are, which client is used, and how often."""

    service_url: str
    api_key: str
    provider_url: str
    client: str
    agents: int = 4
    calls: int = 25
    amount_usd: str = "0.006"
    is_streamed: bool = False
    is_batched: bool = False


class Used(NamedTuple):
    """What a client learned of its call."""

    response_id: str
    usage: JsonObject


Call = Callable[[], Used]


class Client(NamedTuple):
    """A client of a provider, ready to be called by many threads."""

    provider: str
    model: str
    call: Call
    # Called at the end, so that nothing is left unsent.
    finish: Callable[[], object] = lambda: None


class Service:
    """What an agent asks of Spendgate."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def post(self, path: str, body: JsonObject) -> tuple[int, JsonObject]:
        request = urllib.request.Request(
            f"{self.plan.service_url}{path}",
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.plan.api_key}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def work(plan: Plan, client: Client, name: str, outcomes: Counter[str]) -> None:
    """One agent's calls, one after another. What is refused is not called."""
    service = Service(plan)
    model = {"provider": client.provider, "model": client.model}
    for number in range(plan.calls):
        status, held = service.post(
            "/v1/reservations",
            {**model, "team": "growth", "agent": name, "amount_usd": plan.amount_usd},
        )
        if status != 201:
            outcomes[f"reservation {status}"] += 1
            continue
        used = client.call()
        status, _ = service.post(
            f"/v1/reservations/{held['id']}/settle",
            {
                **model,
                "id": f"{name}-{number}",
                "response_id": used.response_id,
                "usage": used.usage,
            },
        )
        outcomes[f"settle {status}"] += 1


# Telemetry, set up as the packages' own documents say.


def tracer_provider(plan: Plan, *, is_global: bool = False) -> Any:
    """A provider of tracers that exports to the service."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    exporter = OTLPSpanExporter(
        endpoint=f"{plan.service_url}/v1/traces",
        headers={"Authorization": f"Bearer {plan.api_key}"},
    )
    made = TracerProvider()
    processor = BatchSpanProcessor if plan.is_batched else SimpleSpanProcessor
    made.add_span_processor(processor(exporter))
    if is_global:
        trace.set_tracer_provider(made)
    return made


def instrument(module: str, name: str, tracers: object) -> None:
    """Switch an instrumentation on, as it says."""
    getattr(importlib.import_module(module), name)().instrument(tracer_provider=tracers)


# The clients.


def openai_v2(plan: Plan) -> Client:
    """openai with OpenTelemetry's own instrumentation."""
    tracers = tracer_provider(plan)
    instrument("opentelemetry.instrumentation.openai_v2", "OpenAIInstrumentor", tracers)
    return Client("openai", OPENAI_MODEL, _chat(plan), tracers.shutdown)


def openinference_openai(plan: Plan) -> Client:
    tracers = tracer_provider(plan)
    instrument("openinference.instrumentation.openai", "OpenAIInstrumentor", tracers)
    return Client("openai", OPENAI_MODEL, _chat(plan), tracers.shutdown)


def openinference_responses(plan: Plan) -> Client:
    tracers = tracer_provider(plan)
    instrument("openinference.instrumentation.openai", "OpenAIInstrumentor", tracers)
    return Client("openai", OPENAI_MODEL, _responses(plan), tracers.shutdown)


def _openai(plan: Plan) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{plan.provider_url}/v1", api_key="none", max_retries=0)


def _chat(plan: Plan) -> Call:
    chat = _openai(plan).chat.completions

    def call() -> Used:
        answer = chat.create(model=OPENAI_MODEL, messages=PROMPT)
        return Used(answer.id, answer.usage.model_dump())

    def call_streamed() -> Used:
        options = {"include_usage": True}
        stream = chat.create(
            model=OPENAI_MODEL, messages=PROMPT, stream=True, stream_options=options
        )
        chunks = list(stream)
        return Used(chunks[-1].id, chunks[-1].usage.model_dump())

    return call_streamed if plan.is_streamed else call


def _responses(plan: Plan) -> Call:
    responses = _openai(plan).responses

    def call() -> Used:
        answer = responses.create(model=OPENAI_MODEL, input="Say ok.")
        return Used(answer.id, answer.usage.model_dump())

    def call_streamed() -> Used:
        events = list(responses.create(model=OPENAI_MODEL, input="Say ok.", stream=True))
        answer = events[-1].response
        return Used(answer.id, answer.usage.model_dump())

    return call_streamed if plan.is_streamed else call


def anthropic(plan: Plan) -> Client:
    """anthropic reports by itself as soon as there is a provider of tracers."""
    tracers = tracer_provider(plan, is_global=True)
    return Client("anthropic", ANTHROPIC_MODEL, _messages(plan), tracers.shutdown)


def openinference_anthropic(plan: Plan) -> Client:
    """Two instrumentations that tell of the same calls: OpenInference's and anthropic's own."""
    tracers = tracer_provider(plan, is_global=True)
    instrument("openinference.instrumentation.anthropic", "AnthropicInstrumentor", tracers)
    return Client("anthropic", ANTHROPIC_MODEL, _messages(plan), tracers.shutdown)


def _messages(plan: Plan) -> Call:
    from anthropic import Anthropic

    messages = Anthropic(base_url=plan.provider_url, api_key="none", max_retries=0).messages
    asked: JsonObject = {"model": ANTHROPIC_MODEL, "max_tokens": 1024, "messages": PROMPT}

    def call() -> Used:
        answer = messages.create(**asked)
        return Used(answer.id, answer.usage.model_dump(mode="json"))

    def call_streamed() -> Used:
        with messages.stream(**asked) as stream:
            answer = stream.get_final_message()
        return Used(answer.id, answer.usage.model_dump(mode="json"))

    return call_streamed if plan.is_streamed else call


def pydantic_ai_openai(plan: Plan) -> Client:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(openai_client=_async_openai(plan))
    model = OpenAIChatModel(OPENAI_MODEL, provider=provider)
    return _pydantic_ai(plan, "openai", OPENAI_MODEL, model)


def pydantic_ai_anthropic(plan: Plan) -> Client:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=plan.provider_url, api_key="none", max_retries=0)
    model = AnthropicModel(ANTHROPIC_MODEL, provider=AnthropicProvider(anthropic_client=client))
    return _pydantic_ai(plan, "anthropic", ANTHROPIC_MODEL, model)


def _async_openai(plan: Plan) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=f"{plan.provider_url}/v1", api_key="none", max_retries=0)


def _pydantic_ai(plan: Plan, provider: str, name: str, model: Any) -> Client:
    from pydantic_ai import Agent

    tracers = tracer_provider(plan, is_global=True)
    Agent.instrument_all()
    agent = Agent(model, name="writer")
    loop = _Loop()

    def call() -> Used:
        result = loop.run(agent.run("Say ok."))
        (answer,) = [
            new_message for new_message in result.new_messages() if new_message.kind == "response"
        ]
        usage = {
            "input_tokens": answer.usage.input_tokens,
            "output_tokens": answer.usage.output_tokens,
        }
        if provider == "openai":
            usage = {
                "prompt_tokens": answer.usage.input_tokens,
                "completion_tokens": answer.usage.output_tokens,
            }
        return Used(answer.provider_response_id, usage)

    def finish() -> None:
        loop.stop()
        tracers.shutdown()

    return Client(provider, name, call, finish)


class _Loop:
    """One event loop for all threads, as asynchronous clients want it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def langchain_openai(plan: Plan) -> Client:
    chat = importlib.import_module("langchain_openai").ChatOpenAI(
        model=OPENAI_MODEL, base_url=f"{plan.provider_url}/v1", api_key="none", max_retries=0
    )
    return _langchain(plan, "openai", OPENAI_MODEL, chat, "token_usage")


def langchain_anthropic(plan: Plan) -> Client:
    """LangChain over anthropic: its instrumentation, and anthropic's own in another trace."""
    chat = importlib.import_module("langchain_anthropic").ChatAnthropic(
        model=ANTHROPIC_MODEL, base_url=plan.provider_url, api_key="none", max_retries=0
    )
    return _langchain(plan, "anthropic", ANTHROPIC_MODEL, chat, "usage")


def _langchain(plan: Plan, provider: str, model: str, chat: Any, usage: str) -> Client:
    tracers = tracer_provider(plan, is_global=True)
    instrument("openinference.instrumentation.langchain", "LangChainInstrumentor", tracers)

    def call() -> Used:
        metadata = chat.invoke("Say ok.").response_metadata
        return Used(metadata["id"], metadata[usage])

    return Client(provider, model, call, tracers.shutdown)


def litellm(plan: Plan) -> Client:
    """LiteLLM's SDK with its generic callback, which it sends in batches."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet
    os.environ["GENERIC_LOGGER_ENDPOINT"] = f"{plan.service_url}/v1/integrations/litellm"
    os.environ["GENERIC_LOGGER_HEADERS"] = f"Authorization=Bearer {plan.api_key}"
    module: Any = importlib.import_module("litellm")
    loggers: Any = importlib.import_module("litellm.integrations.generic_api.generic_api_callback")
    loop = _Loop()

    async def make_logger() -> object:
        return loggers.GenericAPILogger()

    # By its name alone, 1.110.2 does not find it.
    logger = loop.run(make_logger())
    module.callbacks = [logger]

    def call() -> Used:
        answer = loop.run(
            module.acompletion(
                model=f"openai/{OPENAI_MODEL}",
                messages=PROMPT,
                api_base=f"{plan.provider_url}/v1",
                api_key="none",
                num_retries=0,
            )
        )
        return Used(answer.id, answer.usage.model_dump())

    async def flush() -> None:
        await asyncio.sleep(1)  # its worker puts the last calls into the batch
        await logger.flush_queue()

    def finish() -> None:
        loop.run(flush())
        loop.stop()

    return Client("openai", OPENAI_MODEL, call, finish)


CLIENTS: Final[dict[str, Callable[[Plan], Client]]] = {
    "openai-v2": openai_v2,
    "openinference-openai": openinference_openai,
    "openinference-responses": openinference_responses,
    "anthropic": anthropic,
    "openinference-anthropic": openinference_anthropic,
    "pydantic-ai-openai": pydantic_ai_openai,
    "pydantic-ai-anthropic": pydantic_ai_anthropic,
    "langchain-openai": langchain_openai,
    "langchain-anthropic": langchain_anthropic,
    "litellm": litellm,
}


def run(plan: Plan) -> Counter[str]:
    """All agents at once."""
    client = CLIENTS[plan.client](plan)
    outcomes: Counter[str] = Counter()
    failures: list[str] = []

    def agent(name: str) -> None:
        try:
            work(plan, client, name, outcomes)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=agent, args=(f"agent-{n}",)) for n in range(plan.agents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.finish()
    outcomes.update(f"failed: {failure}" for failure in failures)
    return outcomes


def main(arguments: Sequence[str]) -> None:
    plan = Plan(**json.loads(arguments[0]))
    sys.stdout.write(json.dumps(run(plan)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
