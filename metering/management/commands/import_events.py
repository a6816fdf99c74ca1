"""`manage.py import_events FILE --tenant NAME`: the same events as over HTTP, from a file."""

import csv
import gzip
import itertools
import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import Progress

from common.json_bodies import JsonObject
from metering.intake.ingest import ingest
from metering.management.arguments import find_tenant
from metering.models import Route
from metering.usage.decoders import native

CHUNK_EVENTS = 2_000
ERRORS_SHOWN = 20
WHOLE_NUMBERS = frozenset(
    name
    for name in native.EventBody.__struct_fields__
    if name.endswith(("_tokens", "_ms")) or name in {"step", "complexity", "web_searches"}
)
OBJECTS = frozenset({"usage", "tags"})


class Command(BaseCommand):
    """Take events in from NDJSON or CSV. Safe to start again: what is stored is counted as a
    duplicate.
    """

    help = "Import usage events from NDJSON (.ndjson, .jsonl) or CSV, gzipped or not."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--tenant", required=True, metavar="NAME")
        parser.add_argument("--quiet", action="store_true", help="No progress bar.")

    def handle(
        self, *args: object, file: Path, tenant: str, quiet: bool, **options: object
    ) -> None:
        path = file
        tenant_id = find_tenant(tenant).id
        counts = {"accepted": 0, "duplicates": 0, "rejected": 0, "unpriced": 0}
        shown = 0
        bar = Progress(console=Console(stderr=True), transient=True, disable=quiet)
        with _opened(path) as (raw, lines), bar:
            task = bar.add_task(f"Importing {path.name}", total=path.stat().st_size)
            is_csv = ".csv" in path.suffixes
            events = _csv_events(lines) if is_csv else filter(None, map(bytes.strip, lines))
            for chunk in _chunks(events):
                first = sum(counts[name] for name in ("accepted", "duplicates", "rejected"))
                items = native.decode_ndjson(b"\n".join(chunk))
                answer = ingest(items, tenant_id=tenant_id, route=Route.FILE).answer()
                for name in counts:
                    counts[name] += getattr(answer, name)
                for error in answer.errors[: ERRORS_SHOWN - shown]:
                    shown += 1
                    self.stderr.write(
                        f"event {first + error.index + 1:,}: {error.code}: {error.detail}"
                    )
                bar.update(task, completed=raw.tell())
        self.stdout.write(
            f"{counts['accepted']:,} accepted, {counts['duplicates']:,} duplicates,"
            f" {counts['rejected']:,} rejected, {counts['unpriced']:,} without a price."
        )
        if counts["rejected"]:
            raise CommandError(f"{counts['rejected']:,} events were rejected.", returncode=1)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Iterable[bytes]]]:
    """Open a file; yield it, which tells how far reading has got, and its lines."""
    if not path.is_file():
        raise CommandError(f"There is no file {str(path)!r}.")
    with path.open("rb") as raw:
        if path.suffix != ".gz":
            yield raw, raw
            return
        with gzip.open(raw) as lines:
            yield raw, lines


def _chunks(events: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(itertools.islice(events, CHUNK_EVENTS)):
        yield chunk


def _csv_events(lines: Iterable[bytes]) -> Iterator[bytes]:
    """One event a row; the header names the fields of the contract, `tags.<name>` a single tag."""
    texts = (line.decode("utf-8" if number else "utf-8-sig") for number, line in enumerate(lines))
    for row in csv.DictReader(texts):
        yield msgspec.json.encode(_event_of(row))


def _event_of(row: dict[str | Any, str | Any]) -> JsonObject:
    event: JsonObject = {}
    for name, value in row.items():
        if name is None:
            event["more cells than the header"] = value
        elif value in ("", None):
            continue
        elif name.startswith("tags."):
            event.setdefault("tags", {})[name.removeprefix("tags.")] = value
        else:
            event[name] = _value_of(name, value)
    return event


def _value_of(name: str, text: str) -> object:
    """A cell's value; one that is no number or JSON stays text, and the contract says what is
    wrong.
    """
    try:
        if name in WHOLE_NUMBERS:
            return int(text) if text.isascii() and text.isdecimal() else text
        if name in OBJECTS:
            return json.loads(text)
    except ValueError:
        return text
    return text
