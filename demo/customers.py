"""Calls of customers: ServeGen's clients over a fortnight, each model mapped to a priced one.

A systematic sample over requests in order of client and window keeps every client's share and every
window's rate to within one event.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from demo.calls import DAY_SECONDS, SPAN_DAYS, Call, Model, Speed, fold_into_span, model_outcomes
from demo.recordings import Floats, Integers, Stream, Windows, servegen_windows
from demo.sizes import fit

WINDOW_MS = 600_000

LARGE = Speed(350, 6_000, 60)
MIDDLE = Speed(220, 12_000, 110)
SMALL = Speed(120, 20_000, 180)
REASONING = Speed(500, 8_000, 45)

# The name of a model that has no price, as a company's own fine-tune is.
UNPRICED = Model("in-house", "ticket-tagger-8b-ft3", "flat", SMALL)
UNPRICED_STREAM = ("m-small", 24)


class Product(NamedTuple):
    """What a ServeGen model stands for: a team's product, its share of the sample, its models.

    `features` are pairs of feature and agent; a client has one pair and one model, by its number.
    `recorded_days` is how long the source recorded the model.
    """

    share: float
    recorded_days: int
    team: str
    features: tuple[tuple[str, str], ...]
    models: tuple[Model, ...]


PRODUCTS = {
    "m-large": Product(
        0.32,
        14,
        "assistant",
        (
            ("assistant_chat", "assistant"),
            ("contract_review", "contract-reader"),
            ("email_writer", "email-writer"),
        ),
        (
            Model("anthropic", "claude-sonnet-4-5", "anthropic", LARGE),
            Model("openai", "gpt-5", "openai", LARGE),
        ),
    ),
    "m-mid": Product(
        0.38,
        14,
        "support",
        (
            ("ticket_answers", "support-agent"),
            ("call_summary", "call-summariser"),
            ("translation", "translator"),
        ),
        (
            Model("anthropic", "claude-haiku-4-5", "anthropic", MIDDLE),
            Model("openai", "gpt-5-mini", "openai", MIDDLE),
            Model("google", "gemini-2.5-flash", "google", MIDDLE),
        ),
    ),
    "m-small": Product(
        0.20,
        14,
        "search",
        (("query_rewrite", "query-rewriter"), ("moderation", "moderator")),
        (
            Model("google", "gemini-2.5-flash-lite", "flat", SMALL),
            Model("openai", "gpt-5-nano", "openai", SMALL),
        ),
    ),
    "deepseek-r1": Product(
        0.06,
        1,
        "analysis",
        (("forecast_notes", "forecaster"), ("risk_memo", "risk-analyst")),
        (Model("deepseek", "deepseek-reasoner", "flat", REASONING),),
    ),
    "mm-image": Product(
        0.04,
        1,
        "catalogue",
        (("product_photos", "photo-describer"),),
        (Model("google", "gemini-2.5-flash", "google", MIDDLE),),
    ),
}


class Sample(NamedTuple):
    """Sampled requests: their client, their row of sizes and their time."""

    stream: Integers
    size: Integers
    time_ms: Integers


class Use(NamedTuple):
    """How one client's calls look."""

    stream: Stream
    team: str
    feature: str
    agent: str
    model: Model
    people: int


def customer_calls(*, count: int, end_ms: int, random: np.random.Generator) -> Iterator[Call]:
    """Yield `count` calls of the fortnight before the end, in order of time."""
    windows = servegen_windows()
    sample = in_time_order(
        [
            draw_requests(windows, model=model, count=share, end_ms=end_ms, random=random)
            for model, share in shares(count).items()
        ]
    )
    uses = [use_of(stream) for stream in windows.streams]
    inputs, outputs = draw_sizes(windows, rows=sample.size, random=random)
    chosen = [uses[stream] for stream in sample.stream.tolist()]
    outcomes = model_outcomes(
        speeds=[use.model.speed for use in chosen],
        input_tokens=inputs,
        output_tokens=outputs,
        people=np.array([use.people for use in chosen]),
        random=random,
    )
    reason_ratios = np.nan_to_num(windows.sizes["reason_ratio"][sample.size]).tolist()
    rows = zip(chosen, sample.time_ms.tolist(), reason_ratios, outcomes, strict=True)
    for number, (use, time_ms, reason_ratio, outcome) in enumerate(rows):
        yield Call(
            id=f"servegen-{number:06d}",
            time_ms=time_ms,
            dataset="servegen",
            team=use.team,
            customer=use.stream.customer,
            agent=use.agent,
            feature=use.feature,
            user=f"{use.stream.customer}-user-{outcome.person}",
            model=use.model,
            reasoning_tokens=int(outcome.output_tokens * reason_ratio),
            **outcome.fields(),
        )


def shares(count: int) -> dict[str, int]:
    """Return the number of calls of each model; together exactly `count`."""
    parts = {model: int(count * product.share) for model, product in PRODUCTS.items()}
    largest = max(parts, key=lambda model: parts[model])
    parts[largest] += count - sum(parts.values())
    return parts


def draw_requests(
    windows: Windows, *, model: str, count: int, end_ms: int, random: np.random.Generator
) -> Sample:
    """Sample one model's requests evenly over clients and windows, and place them in time."""
    streams = [index for index, stream in enumerate(windows.streams) if stream.model == model]
    positions = np.flatnonzero(np.isin(windows.stream, streams))
    upto = np.cumsum(windows.requests[positions])
    steps = (np.arange(count) + random.random()) / max(count, 1) * upto[-1]
    picked = positions[np.searchsorted(upto, steps, side="right")]
    inside_ms = (random.random(count) * WINDOW_MS).astype(np.int64)
    recorded_ms = windows.window[picked] * WINDOW_MS + inside_ms
    days = SPAN_DAYS - PRODUCTS[model].recorded_days
    # One recorded day is spread over the fortnight: each request keeps its hour and gets a day.
    recorded_ms += random.integers(0, days + 1, count) * DAY_SECONDS * 1000
    day_ms = DAY_SECONDS * 1000
    first_day_ms = end_ms - end_ms % day_ms - (SPAN_DAYS - 1) * day_ms
    times_ms = fold_into_span(first_day_ms + recorded_ms, end_ms=end_ms)
    return Sample(windows.stream[picked], windows.size[picked], times_ms)


def in_time_order(samples: list[Sample]) -> Sample:
    joined = Sample(*(np.concatenate(column) for column in zip(*samples, strict=True)))
    order = np.argsort(joined.time_ms, kind="stable")
    return Sample(*(column[order] for column in joined))


def draw_sizes(
    windows: Windows, *, rows: Integers, random: np.random.Generator
) -> tuple[Integers, Integers]:
    """Draw input and output tokens, independently: how they go together is not recorded."""

    def draw(kind: str) -> Integers:
        mean, median, p99 = (sizes[f"{kind}_{name}"] for name in ("mean", "p50", "p99"))
        return fit(mean=mean, median=median, p99=p99).draw(rows=rows, random=random)

    sizes: dict[str, Floats] = windows.sizes
    return draw("input"), draw("output")


def use_of(stream: Stream) -> Use:
    """Return a client's product, feature, model and number of people, by its number alone."""
    product = PRODUCTS[stream.model]
    turn = stream.client_id // 2
    feature, agent = product.features[turn % len(product.features)]
    unpriced = (stream.model, stream.client_id) == UNPRICED_STREAM
    model = UNPRICED if unpriced else product.models[turn % len(product.models)]
    return Use(stream, product.team, feature, agent, model, people=3 + turn * 5 % 11)
