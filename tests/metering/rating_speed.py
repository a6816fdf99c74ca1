"""How long normalising and rating take: `python -m tests.metering.rating_speed`."""

import os
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

# Prices are models, which can be imported only once Django is set up.
from metering.usage.shapes import Tokens, normalise_usage
from tests.metering.pricing.test_book import NOON, book
from tests.metering.usage.test_shapes import RECORDED

RUNS = 20_000


def microseconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        started = perf_counter()
        for _ in range(RUNS // 5):
            call()
        best = min(best, perf_counter() - started)
    return best / (RUNS // 5) * 1e6


def main() -> None:
    lines = []
    seen = set()
    for call in RECORDED:
        shape = (call["host"], frozenset(call["usage"]))
        if shape not in seen:
            seen.add(shape)
            usage = call["usage"]
            taken = microseconds(partial(normalise_usage, usage, provider=None))
            lines.append((taken, f"normalise {call['host']} {len(usage)} keys"))
    for tokens, what in (
        (Tokens(1000, 100), "plain"),
        (Tokens(1000, 100, 500, 100, 50, 40), "cached and reasoned"),
        (Tokens(1000, 100, 500, input_audio_tokens=20), "heard"),
        (Tokens(1000, 100, extra={"input_image_tokens": 500}), "seen"),
    ):
        for provider, model in (("openai", "gpt-4o"), ("google", "gemini-2.5-pro")):
            call_once = partial(
                book().rate,
                provider=provider,
                model=model,
                at=NOON,
                tokens=tokens,
                service_tier=None,
                tool=None,
                operation="llm",
            )
            lines.append((microseconds(call_once), f"rate {provider} {model} {what}"))
    for taken, what in sorted(lines, key=lambda line: line[1]):
        sys.stdout.write(f"{taken:8.2f} µs  {what}\n")


if __name__ == "__main__":
    main()
