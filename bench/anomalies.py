"""What the anomaly detector finds, misses and cries wolf about, and how fast it is.

The real series lie beside the checkout, in `../shared/data`; what needs them is skipped without.
The same code, parameters and threshold as in the service serve every series.
"""

import csv
import gzip
import importlib.util
import json
import math
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from alerts.anomaly import THRESHOLD, new_states, observe
from bench import usual
from bench.kit.figures import Row

SHARED: Final = Path(__file__).resolve().parents[2] / "shared"
NAB: Final = SHARED / "data" / "nab"
NAB_SCORE: Final = SHARED / "tools" / "nab_score.py"
NAB_WANTED: Final = {"standard": "60", "reward_low_FP_rate": "50", "reward_low_FN_rate": "-"}
CLIENTS: Final = SHARED / "data" / "servegen" / "client_windows.csv.gz"
WINDOW_SECONDS: Final = 600
WINDOWS: Final = 14 * 144
ONE_DAY_MODELS: Final = {"mm-image", "deepseek-r1"}
DAY: Final = 144
MONDAY: Final = 1_704_067_200
FACTORS: Final = (3, 5, 10, 20)
SEEDS: Final = (21, 22)
PRICE: Final = (2_500, 10_000)  # nano-USD a token, read and written
FOUR_WEEKS_DAYS: Final = 28

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def measure(row: Row) -> None:
    """Measure every figure of the detector."""
    _measure_nab(row)
    _measure_clients(row)
    _measure_agents(row)
    usual.measure(row)
    _measure_speed(row, steps=720, step_seconds=3600)
    _measure_speed(row, steps=96, step_seconds=900)


def _measure_nab(row: Row) -> None:
    if not NAB.exists() or not NAB_SCORE.exists():
        row("NAB", "skipped: needs ../shared/data/nab", "60 / 50")
        return
    tool = _load(NAB_SCORE)
    rows: list[Any] = []
    windows_total = 0
    labels = json.loads((NAB / "labels" / "combined_windows.json").read_text())
    for path in sorted((NAB / "data").glob("*/*.csv.gz")):
        name = f"{path.parent.name}/{path.name.removesuffix('.gz')}"
        windows = [tuple(edge.split(".")[0] for edge in window) for window in labels[name]]
        times, values = _read_series(path)
        windows_total += len(windows)
        points = tool.points(times, _nab_scores(times, values), windows)
        rows += [(score, worth, None if at is None else (name, at)) for score, worth, at in points]
    rows.sort(key=lambda row: -row[0])
    for profile, weights in tool.PROFILES.items():
        ours, _ = tool.total(rows, windows_total, weights, THRESHOLD)
        best, threshold = tool.total(rows, windows_total, weights)
        figure = f"{ours:.1f}; best {best:.1f} at {threshold:.3f}"
        row(f"NAB {profile}, 28 files, threshold {THRESHOLD}", figure, NAB_WANTED[profile])


def _load(path: Path) -> Any:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _read_series(path: Path) -> tuple[list[str], Floats]:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return [row["timestamp"] for row in rows], np.array([float(row["value"]) for row in rows])


def _nab_scores(times: list[str], values: Floats) -> list[float]:
    """Score each row. Only the row that opens an anomaly counts in full: it is what alarms."""
    at = [int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in times]
    step_seconds = int(np.median(np.diff(at)))
    states = new_states(1)
    scores, was_open, was_far_off = [], False, False
    for timestamp, value in zip(at, values, strict=True):
        verdict = observe(states, at=timestamp, step_seconds=step_seconds, values=np.array([value]))
        is_open = bool(verdict.is_open[0])
        is_far_off = is_open and not verdict.is_novel[0]
        opens = (is_open and not was_open) or (is_far_off and not was_far_off)
        was_open, was_far_off = is_open, is_far_off
        score = float(verdict.score[0])
        scores.append(score if opens else min(score, THRESHOLD) / 2)
    return scores


class Clients(NamedTuple):
    """Client streams: windows by clients. A window without a row had fewer than ten requests."""

    requests: Floats
    tokens: Floats
    cost: Floats
    days: Floats


class Spikes(NamedTuple):
    """One spike in each client that had traffic to multiply."""

    begins: npt.NDArray[np.int64]  # -1: none
    ends: npt.NDArray[np.int64]


class Watched(NamedTuple):
    """Whether an anomaly was in force, and in which direction; steps by series.

    New patterns, of which the service makes no incident but for a tenant as a whole, are apart.
    """

    is_open: Bools
    is_above: Bools
    is_novel: Bools

    def openings(self, *, above: bool) -> int:
        return int((_begins(self.is_open) & (self.is_above == above)).sum())

    def patterns(self) -> int:
        return int(_begins(self.is_novel).sum())


def _begins(lasts: Bools) -> Bools:
    before = np.vstack([np.zeros_like(lasts[:1]), lasts[:-1]])
    begins: Bools = lasts & ~before
    return begins


def _measure_clients(row: Row) -> None:
    if not CLIENTS.exists():
        row("ServeGen clients", "skipped: needs ../shared/data/servegen", "< 1; 95%")
        return
    clients = _read_clients()
    for bucket, name in ((2, "10"), (3, "15")):
        streams = _rebucket(clients, bucket)
        _measure_clean(row, streams, bucket, f"{name}-minute windows")
    _measure_spikes(row, clients)


def _read_clients() -> Clients:
    """Read requests and token means; single calls vary, so sums of few vary more than of many."""
    records: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)
    with gzip.open(CLIENTS, "rt") as file:
        for record in csv.DictReader(file):
            records[record["model"], int(record["client_id"])].append(record)
    requests, read, written = (np.zeros((WINDOWS, len(records))) for _ in range(3))
    for column, key in enumerate(sorted(records)):
        for record in records[key]:
            window = int(record["window_start_s"]) // WINDOW_SECONDS
            count = requests[window, column] = float(record["requests_est"])
            read[window, column] = count * float(record["input_tokens_mean"] or "nan")
            written[window, column] = count * float(record["output_tokens_mean"] or "nan")
    pick = np.random.default_rng(1)
    spread = 1.2 / np.sqrt(np.maximum(requests, 1))
    read, written = (
        tokens * np.exp(spread * pick.standard_normal(tokens.shape)) for tokens in (read, written)
    )
    days = np.array([1.0 if model in ONE_DAY_MODELS else 14.0 for model, _ in sorted(records)])
    return Clients(requests, read + written, read * PRICE[0] + written * PRICE[1], days)


def _rebucket(clients: Clients, thirds: int) -> Clients:
    """Turn ten minutes into `thirds` of ten: each window spread evenly over its two halves."""
    return clients._replace(
        requests=_spread(clients.requests, thirds),
        tokens=_spread(clients.tokens, thirds),
        cost=_spread(clients.cost, thirds),
    )


def _spread(windows: Floats, halves: int) -> Floats:
    return np.asarray(
        np.repeat(windows / 2, 2, axis=0).reshape(-1, halves, windows.shape[1]).sum(1)
    )


def _watch(values: Floats, weights: Floats, *, step_seconds: int, is_ratio: bool) -> Watched:
    """Show streams to the detector, each from its first request on."""
    count = values.shape[1]
    states = new_states(count)
    is_open, is_above, is_novel = (np.zeros(values.shape, np.bool_) for _ in range(3))
    has_begun = np.logical_or.accumulate(weights > 0, axis=0)
    for step in range(len(values)):
        verdict = observe(
            states,
            at=MONDAY + step * step_seconds,
            step_seconds=step_seconds,
            values=np.where(has_begun[step], values[step], np.nan),
            weights=weights[step],
            is_ratio=is_ratio,
        )
        is_open[step], is_above[step] = verdict.is_open & ~verdict.is_novel, verdict.is_above
        is_novel[step] = verdict.is_novel
    return Watched(is_open, is_above, is_novel)


def _per_request(sums: Floats, requests: Floats) -> Floats:
    return np.divide(sums, requests, out=np.full_like(sums, np.nan), where=requests > 0)


def _measure_clean(row: Row, clients: Clients, bucket: int, name: str) -> None:
    requests = clients.requests
    measures = {
        "requests": (requests, False),
        "tokens": (clients.tokens, False),
        "cost": (clients.cost, False),
        "cost per request": (_per_request(clients.cost, requests), True),
    }
    exposure = clients.days.sum() / FOUR_WEEKS_DAYS
    for measure_name, (values, is_ratio) in measures.items():
        watched = _watch(values, requests, step_seconds=bucket * 300, is_ratio=is_ratio)
        above, below = watched.openings(above=True), watched.openings(above=False)
        figure = (
            f"{above / exposure:.2f} ({above} in all; {below / exposure:.2f} drops,"
            f" {watched.patterns() / exposure:.2f} new patterns)"
        )
        row(f"False alarms, client and 4 weeks: {measure_name}, {name}", figure, "< 1")


def _measure_spikes(row: Row, clients: Clients) -> None:
    tally: dict[str, list[bool]] = defaultdict(list)
    for seed in SEEDS:
        for factor in FACTORS:
            spikes = _spikes(clients.requests, seed * 100 + factor)
            during = _during(spikes, clients.requests)
            requests = np.where(during, clients.requests * factor, clients.requests)
            watched = _watch(requests, requests, step_seconds=WINDOW_SECONDS, is_ratio=False)
            for client, is_found in _found(watched, spikes, above=True):
                tops = _tops_all(clients.requests[:, client], requests[:, client], spikes, client)
                tally[f"Traffic x {factor}, all"].append(is_found)
                if tops:
                    tally[f"Traffic x {factor}, above the client's own week"].append(is_found)
        _spike_ratios(clients, seed, tally)
    for name, outcomes in tally.items():
        figure = f"{100 * sum(outcomes) / len(outcomes):.0f}% of {len(outcomes)}"
        wanted = "-" if " all" in name or "x 3" in name else "95%"
        row(f"{name}: found within two 10-minute windows", figure, wanted)


def _spike_ratios(clients: Clients, seed: int, tally: dict[str, list[bool]]) -> None:
    """Try a model ten times dearer, and cache reads that collapse while requests go on."""
    requests = clients.requests
    # Of some windows no tokens are known, so nothing of what they cost.
    spikes = _spikes(np.where(np.isfinite(clients.cost), requests, 0), seed)
    during = _during(spikes, requests)
    dear = _per_request(clients.cost, requests) * np.where(during, 10, 1)
    pick = np.random.default_rng(seed)
    usual = pick.uniform(0.6, 0.8, requests.shape[1])
    share = usual + pick.standard_normal(requests.shape) * 0.3 / np.sqrt(np.maximum(requests, 10))
    share = np.where(during, 0.01, np.clip(share, 0, 1))
    watched = _watch(dear, requests, step_seconds=WINDOW_SECONDS, is_ratio=True)
    clean = _per_request(clients.cost, requests)
    for client, is_found in _found(watched, spikes, above=True):
        tally["Ten times dearer model, all"].append(is_found)
        if _tops_all(clean[:, client], dear[:, client], spikes, client):
            tally["Ten times dearer model, above the client's own week"].append(is_found)
    watched = _watch(share, requests, step_seconds=WINDOW_SECONDS, is_ratio=True)
    tally["Cache lost"] += [is_found for _, is_found in _found(watched, spikes, above=False)]


def _spikes(requests: Floats, seed: int) -> Spikes:
    """Place a spike of one to six hours after the first two days, where there is traffic.

    A client counts when it had half a day of windows with traffic before: of the others nothing is
    known that a spike could differ from.
    """
    pick = np.random.default_rng(seed)
    begins = np.full(requests.shape[1], -1)
    ends = begins.copy()
    is_busy = requests > 0
    for client in range(requests.shape[1]):
        busy = is_busy[:, client]
        places = busy[:-1] & busy[1:] & (np.cumsum(busy)[:-1] >= DAY // 2)
        places[: 2 * DAY] = places[-36:] = False
        if places.any():
            begins[client] = pick.choice(np.flatnonzero(places))
            ends[client] = begins[client] + pick.integers(6, 37)
    return Spikes(begins, ends)


def _during(spikes: Spikes, requests: Floats) -> Bools:
    windows = np.arange(len(requests))[:, None]
    return np.asarray((windows >= spikes.begins) & (windows < spikes.ends))


def _found(watched: Watched, spikes: Spikes, *, above: bool) -> Iterator[tuple[int, bool]]:
    """Yield each spiked client, and whether an anomaly was in force in the first two windows."""
    matches = watched.is_open & (watched.is_above == above)
    for client in np.flatnonzero(spikes.begins >= 0):
        begins = spikes.begins[client]
        yield int(client), bool(matches[begins : begins + 2, client].any())


def _tops_all(clean: Floats, spiked: Floats, spikes: Spikes, client: int) -> bool:
    """Whether a spike is half again above all that the client itself did in the week before."""
    begins = spikes.begins[client]
    own = np.nanmax(clean[max(0, begins - 7 * DAY) : begins], initial=0)
    return bool(np.nanmax(spiked[begins : begins + 2]) > 1.5 * own)


def _measure_agents(row: Row) -> None:
    """Make up agents that do the same each day and week: three weeks, by quarters of an hour."""
    quarter, days, count = 900, 21, 40
    steps = np.arange(days * 96)
    hours = steps * quarter / 3600
    for swing in (3, 10):
        pick = np.random.default_rng(swing)
        begins_day = pick.uniform(0, 24, count)
        waves = 0.5 + 0.5 * np.cos((hours[:, None] - begins_day) / 24 * 2 * np.pi)
        rate = 2_000 * np.exp(np.log(swing) * (waves - 1))
        rate *= np.where(hours // 24 % 7 >= 5, 0.3, 1.0)[:, None]
        rate *= np.exp(0.2 * pick.standard_normal(rate.shape))
        clean = pick.poisson(rate).astype(np.float64)
        watched = _watch(clean, clean, step_seconds=quarter, is_ratio=False)
        false = watched.openings(above=True) / (count * days / FOUR_WEEKS_DAYS)
        shares = {
            factor: _found_in_agents(rate, clean, factor, pick, quarter) for factor in (3, 5, 10)
        }
        figure = ", ".join(f"x {factor}: {share:.0%}" for factor, share in shares.items())
        row(
            f"Made-up agents, nights at 1/{swing}, weekends at 0.3: found in the first quarter",
            f"{figure}; {false:.2f} false alarms",
            "x 5: 95%; < 1",
        )


def _found_in_agents(
    rate: Floats, clean: Floats, factor: int, pick: np.random.Generator, quarter: int
) -> float:
    """Return the share of spikes of one to six hours that are found within a quarter of an hour."""
    steps, count = rate.shape
    begins = pick.integers(9 * 96, steps - 30, count)
    during = _during(Spikes(begins, begins + pick.integers(4, 25, count)), rate)
    values = np.where(during, pick.poisson(rate * factor), clean)
    watched = _watch(values, values, step_seconds=quarter, is_ratio=False)
    return float((watched.is_open & watched.is_above)[begins, np.arange(count)].mean())


def _measure_speed(row: Row, *, steps: int, step_seconds: int, count: int = 10_000) -> None:
    pick = np.random.default_rng(1)
    weights = pick.poisson(50, (8, count)).astype(np.float64)
    values = weights * pick.lognormal(15, 0.3, (8, count))
    states = new_states(count)
    tracemalloc.start()
    peaks, begun = [], time.process_time()
    for step in range(steps):
        observe(
            states,
            at=MONDAY + step * step_seconds,
            step_seconds=step_seconds,
            values=values[step % 8],
            weights=weights[step % 8],
        )
        if step in (steps // 10, steps - 1):
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
    seconds = time.process_time() - begun
    tracemalloc.stop()
    kept = states.nbytes / 2**20
    figure = (
        f"{seconds:.1f} s CPU; {kept:.0f} MiB kept, peak {peaks[0]:.1f} then {peaks[-1]:.1f} MiB"
    )
    hours = math.ceil(steps * step_seconds / 3600)
    row(f"{count:,} series, {hours} hours in {steps} steps", figure, "60 s, flat")
