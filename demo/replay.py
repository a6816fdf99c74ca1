"""Load the demo into a running service over HTTP, as a client would.

    python -m demo.replay --url http://127.0.0.1:8000 --api-key KEY [--events 150000] [--seed N]

Run again with the same numbers, everything is a duplicate: the load finds in the service where the
earlier one ended in time and sends the same events.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from demo.billing import bill
from demo.calls import Call
from demo.client import Answer, Client, JsonObject, LoadFailed
from demo.configuration import configure, items
from demo.events import demo_calls, end_of_load, event_of, load_name

EVENTS = 150_000
SEED = 1
BATCH = 1_000
CONNECTIONS = 3
OLDEST_END = timedelta(days=14)  # an older load would pass the age at which events are refused
ERRORS_KEPT = 5


@dataclass
class Summary:
    """What became of a load. `rejected` should be 0; `remarks` are sentences for people."""

    end: datetime
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    unpriced: int = 0
    duration_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def processed(self) -> int:
        return self.accepted + self.duplicates + self.rejected

    def add(self, body: JsonObject) -> None:
        """Count the answer to one batch."""
        for name in ("accepted", "duplicates", "rejected", "unpriced"):
            setattr(self, name, getattr(self, name) + int(body.get(name, 0)))
        for error in body.get("errors", [])[: ERRORS_KEPT - len(self.errors)]:
            self.errors.append(f"{error.get('id')}: {error.get('code')}, {error.get('detail')}")

    def sentence(self) -> str:
        rate = self.processed / max(self.duration_seconds, 0.001)
        return (
            f"{self.accepted:,} events accepted, {self.duplicates:,} duplicates, "
            f"{self.rejected:,} rejected, {self.unpriced:,} without a price; "
            f"{self.duration_seconds:.1f} s, {rate:,.0f} events/s."
        )


def load(
    url: str,
    api_key: str,
    *,
    count: int = EVENTS,
    seed: int = SEED,
    end: datetime | None = None,
    progress: Callable[[int], None] = lambda processed: None,
) -> Summary:
    """Make the demo's configuration and send its events. Raises LoadFailed with a sentence.

    Without an end, that of an earlier load found in the service is taken, else the last whole hour.
    `progress` is called with the number of events dealt with, from one thread at a time.
    """
    started = time.monotonic()
    with closing(Client(url=url, api_key=api_key)) as client:
        last_hour = now().replace(minute=0, second=0, microsecond=0)
        chosen_end = end or earlier_end(client, count=count, seed=seed) or last_hour
        calls = list(demo_calls(count=count, seed=seed, end=chosen_end))
        summary = Summary(end=chosen_end)
        summary.remarks = configure(client, calls=calls, seed=seed, end=chosen_end)
    name = load_name(count=count, seed=seed, end=chosen_end)
    send_all(
        lambda stopping: Client(url=url, api_key=api_key, stopping=stopping),
        batches(calls, load=name),
        summary=summary,
        progress=progress,
    )
    with closing(Client(url=url, api_key=api_key)) as client:
        name = f"{seed}-{chosen_end:%Y%m%dT%H%M}"
        summary.remarks += bill(client, calls=calls, end=chosen_end, load=name)
    summary.duration_seconds = time.monotonic() - started
    return summary


def now() -> datetime:
    return datetime.now(UTC)


def earlier_end(client: Client, *, count: int, seed: int) -> datetime | None:
    """Return the end of an earlier load of the same events, read from the newest events stored."""
    for event in items(client.get("/v1/events?limit=100")):
        end = end_of_load(event, count=count, seed=seed)
        if end and end > now() - OLDEST_END:
            return end
    return None


def batches(calls: Sequence[Call], *, load: str) -> Iterator[list[JsonObject]]:
    """Yield the events in order of time, a batch at a time."""
    events = (event_of(call, load=load) for call in calls)
    while batch := list(islice(events, BATCH)):
        yield batch


def send_all(
    client_of: Callable[[threading.Event], Client],
    batches: Iterator[list[JsonObject]],
    *,
    summary: Summary,
    progress: Callable[[int], None],
) -> None:
    """Send batches over a few connections; the first failure stops all and is raised.

    A batch whose answer was lost is sent again, and its events come back as duplicates, so every
    event is counted once, as accepted or as a duplicate.
    """
    taking, counting, stopping = threading.Lock(), threading.Lock(), threading.Event()

    def take() -> list[JsonObject]:
        with taking:
            return [] if stopping.is_set() else next(batches, [])

    def send_some() -> None:
        with closing(client_of(stopping)) as client:
            while batch := take():
                counts = counts_of(client.post("/v1/events", batch))
                with counting:
                    summary.add(counts)
                    progress(summary.processed)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        try:
            for sender in as_completed([threads.submit(send_some) for _ in range(CONNECTIONS)]):
                sender.result()
        finally:
            stopping.set()


def counts_of(answer: Answer) -> JsonObject:
    """Return the counts of a batch; one that was rejected as a whole says so with a 422."""
    if isinstance(answer.body, dict) and "accepted" in answer.body:
        return answer.body
    if answer.status in {401, 403}:
        raise LoadFailed(f"The service refused the API key ({answer.status}): {answer.detail}")
    raise LoadFailed(f"The service refused the events ({answer.status}): {answer.detail}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Load as the options say; 0 when every event is in the service."""
    options = parsed(arguments)
    console = Console(stderr=True, quiet=options.quiet)
    try:
        summary = load_with_bar(options, console)
    except LoadFailed as error:
        sys.stderr.write(f"The demo could not be loaded. {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("The load was stopped; run it again to continue.\n")
        return 130
    for remark in [*summary.remarks, *summary.errors]:
        sys.stderr.write(f"{remark}\n")
    console.print(summary.sentence(), highlight=False)
    if summary.rejected:
        sys.stderr.write(f"The service rejected {summary.rejected:,} of the demo's events.\n")
        return 1
    return 0


def load_with_bar(options: argparse.Namespace, console: Console) -> Summary:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress("Loading the demo", *columns, console=console) as bar:
        task = bar.add_task("load", total=options.events)
        return load(
            options.url,
            options.api_key,
            count=options.events,
            seed=options.seed,
            progress=lambda processed: bar.update(task, completed=processed),
        )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.replay", description="Load the demo into a running service."
    )
    parser.add_argument("--url", required=True, help="for example http://127.0.0.1:8000")
    parser.add_argument(
        "--api-key", required=True, help="with the scopes ingest, read, manage, billing"
    )
    parser.add_argument("--events", type=positive, default=EVENTS)
    parser.add_argument("--seed", type=positive, default=SEED)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
