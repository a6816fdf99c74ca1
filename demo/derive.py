"""Make the compact files of demo/data from the public data sets they come from.

Only needed to change what demo/data holds. `demo/data/SOURCES.md` says what every file means, where
it comes from and under which licence. The same source gives the same bytes.

    python -m demo.derive --source DIRECTORY_WITH_THE_DATA_SETS
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

DATA_FOLDER = Path(__file__).parent / "data"

WINDOW_SECONDS = 600
SIZE_COLUMNS = (
    "input_tokens_mean",
    "input_tokens_p50",
    "input_tokens_p99",
    "output_tokens_mean",
    "output_tokens_p50",
    "output_tokens_p99",
    "reason_ratio_mean",
)

# Customers get invented names: the source has numbers only, and a page of numbers is hard to read.
NAME_STARTS = (
    "alder",
    "amber",
    "birch",
    "cedar",
    "cobalt",
    "copper",
    "coral",
    "ember",
    "falcon",
    "harbour",
    "juniper",
    "lumen",
    "maple",
    "meadow",
    "quartz",
    "willow",
)
NAME_ENDS = (
    "analytics",
    "bank",
    "clinic",
    "courier",
    "foods",
    "insurance",
    "legal",
    "media",
    "retail",
    "school",
    "studio",
    "travel",
)
NAME_STRIDE = 67  # shares no factor with the number of names, so that neighbours look different

SHELL_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
TOOL_BY_SPEAKER = {"WebSurfer": "web_surfer", "ComputerTerminal": "terminal"}
PREFIX_CHARACTERS = 1500

Row = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every derived file and print its size."""
    parser = argparse.ArgumentParser(prog="python -m demo.derive", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="directory of the data sets")
    parser.add_argument("--target", type=Path, default=DATA_FOLDER)
    options = parser.parse_args(arguments)
    options.target.mkdir(parents=True, exist_ok=True)
    for name, header, rows in derived_tables(options.source):
        size_bytes = write_table(path=options.target / name, header=header, rows=rows)
        sys.stdout.write(f"{name}: {size_bytes:,} bytes\n")
    return 0


def derived_tables(
    source: Path,
) -> Iterator[tuple[str, Sequence[str], Iterable[Sequence[object]]]]:
    """Yield every derived file as (name, header, rows)."""
    windows = servegen_windows(source)
    streams = sorted({stream_of(row) for row in windows})
    yield (
        "servegen_customers.csv.gz",
        ("model", "client_id", "customer"),
        [(model, client, customer_name(index)) for index, (model, client) in enumerate(streams)],
    )
    yield (
        "servegen_windows.csv.gz",
        ("model", "client_id", "window", "requests"),
        [(*stream_of(row), window_of(row), int(row["requests_est"])) for row in windows],
    )
    yield (
        "servegen_sizes.csv.gz",
        ("model", "client_id", "first_window", *SIZE_COLUMNS),
        size_changes(windows),
    )
    yield "azure_code_hour.csv.gz", AZURE_HEADER, azure_requests(source)
    yield "agent_calls.csv.gz", AGENT_HEADER, agent_calls(source)


def servegen_windows(source: Path) -> list[Row]:
    """Return the windows of even clients whose request sizes the source knows, in a fixed order.

    A client without sizes is left out: its tokens could only be guessed.
    """
    rows = read_csv(source / "servegen" / "client_windows.csv.gz")
    kept = [row for row in rows if int(row["client_id"]) % 2 == 0 and row["input_tokens_mean"]]
    return sorted(kept, key=lambda row: (*stream_of(row), window_of(row)))


def stream_of(row: Row) -> tuple[str, int]:
    return row["model"], int(row["client_id"])


def window_of(row: Row) -> int:
    return int(row["window_start_s"]) // WINDOW_SECONDS


def customer_name(index: int) -> str:
    total = len(NAME_STARTS) * len(NAME_ENDS)
    if index >= total:
        raise ValueError(f"There are names for {total} customers only.")
    start, end = divmod(index * NAME_STRIDE % total, len(NAME_ENDS))
    return f"{NAME_STARTS[start]}-{NAME_ENDS[end]}"


def size_changes(windows: Iterable[Row]) -> Iterator[Sequence[object]]:
    """Yield a row for each window from which a client's request sizes differ from those before."""
    last: tuple[object, ...] = ()
    for row in windows:
        current = (*stream_of(row), *(row[column] for column in SIZE_COLUMNS))
        if current != last:
            yield (*stream_of(row), window_of(row), *(row[column] for column in SIZE_COLUMNS))
        last = current


AZURE_HEADER = ("offset_ms", "input_tokens", "output_tokens")


def azure_requests(source: Path) -> Iterator[Sequence[object]]:
    """Yield the recorded hour, each request with its distance from the first."""
    rows = read_csv(source / "azure_llm_2023" / "AzureLLMInferenceTrace_code.csv.gz")
    # The trace's times have seven digits after the point; Python reads six.
    times = [datetime.fromisoformat(f"{row['TIMESTAMP'][:26]}+00:00") for row in rows]
    for row, time in zip(rows, times, strict=True):
        offset_ms = round((time - times[0]).total_seconds() * 1000)
        yield offset_ms, int(row["ContextTokens"]), int(row["GeneratedTokens"])


AGENT_HEADER = (
    "program",
    "session",
    "label",
    "offset_ms",
    "input_tokens",
    "shared_prefix_tokens",
    "output_tokens",
    "output_hash",
    "prefix_hash",
    "tool",
    "tool_arguments_hash",
)


def agent_calls(source: Path) -> Iterator[Sequence[object]]:
    """Yield every recorded call of every agent session, with what its text says about tools."""
    folder = source / "lmcache_agent_traces"
    labels = {row["session_id"]: row["rule_label"] for row in read_csv(folder / "sessions.csv")}
    texts = texts_by_session(folder / "raw_calls.jsonl.gz")
    started_us: dict[str, int] = {}
    for row in read_csv(folder / "agent_calls.csv"):
        session = row["session_id"]
        started_us.setdefault(session, int(row["timestamp_us"]))
        text = texts[session][int(row["call_index"])]
        tool, arguments = tool_call(text["output"])
        has_input = bool(text["input"])
        yield (
            row["agent"],
            session,
            labels[session],
            (int(row["timestamp_us"]) - started_us[session]) // 1000,
            row["input_tokens_o200k"] if has_input else "",
            row["shared_prefix_tokens_with_previous_call"] if has_input else "",
            row["output_tokens_o200k"],
            row["output_sha1_10"],
            short_hash(text["input"][:PREFIX_CHARACTERS]) if has_input else "",
            tool,
            short_hash(arguments) if tool else "",
        )


def texts_by_session(path: Path) -> dict[str, list[dict[str, Any]]]:
    texts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            call = json.loads(line)
            texts[call["session_id"]].append(call)
    for calls in texts.values():
        calls.sort(key=lambda call: call["timestamp"])
    return texts


def tool_call(output: str) -> tuple[str, str]:
    """Return the tool that an answer asks for and its arguments; two empty strings if none.

    One program answers with a shell block to run, the other with JSON that names the next speaker.
    """
    block = SHELL_BLOCK.search(output)
    if block:
        return "shell", block[1]
    try:
        plan = json.loads(output)
        tool = TOOL_BY_SPEAKER[plan["next_speaker"]["answer"]]
        return tool, plan["instruction_or_question"]["answer"]
    except (ValueError, KeyError, TypeError):
        return "", ""


def short_hash(text: str) -> str:
    # Ten hexadecimal digits as the source has them; it tells texts apart and protects nothing.
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:10]


def read_csv(path: Path) -> list[Row]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_table(*, path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write a gzipped CSV and return its size. Without a time stamp: equal data is equal bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    packed = gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    return len(packed)


if __name__ == "__main__":
    sys.exit(main())
