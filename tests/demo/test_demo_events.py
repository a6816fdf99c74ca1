"""The demo's events are real traffic in shape, well-formed, and the same every time."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from common.json_bodies import JsonObject
from demo.agents import PROGRAMS
from demo.customers import PRODUCTS
from demo.events import demo_events, end_of_load
from demo.recordings import DATA_FOLDER, agent_sessions, servegen_windows
from demo.sizes import fit

END = datetime(2026, 11, 21, 13, tzinfo=UTC)
COUNT = 40_000

FIELDS = frozenset(
    (
        *("id", "source", "time", "operation", "status", "error_type", "tags"),
        *("team", "customer", "agent", "user", "feature", "session", "task", "trace", "model"),
        *("provider", "usage", "input_tokens", "output_tokens", "reasoning_tokens"),
        *("span", "parent_span", "step", "tool", "tool_arguments_hash"),
        *("output_hash", "prefix_hash", "latency_ms", "time_to_first_token_ms"),
    )
)
DIMENSIONS = ("team", "customer", "agent", "user", "feature", "session", "task", "trace", "model")

Event = JsonObject


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(demo_events(count=COUNT, seed=1, end=END))


def of_dataset(events: list[Event], dataset: str) -> list[Event]:
    return [event for event in events if event["tags"]["dataset"] == dataset]


def test_the_same_numbers_give_the_same_events() -> None:
    first, second = (list(demo_events(count=3_000, seed=7, end=END)) for _ in range(2))
    other = list(demo_events(count=3_000, seed=8, end=END))
    assert first == second
    assert first != other


@pytest.mark.parametrize("count", [1, 17, 1_000, 12_345])
def test_there_are_exactly_as_many_events_as_asked_for(count: int) -> None:
    assert len(list(demo_events(count=count, seed=1, end=END))) == count


def test_ids_are_unique_and_times_rise_over_the_fortnight_before_the_end(
    events: list[Event],
) -> None:
    assert len({event["id"] for event in events}) == COUNT
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert END - timedelta(days=14) <= times[0] < END - timedelta(days=13, hours=23)
    assert END - timedelta(minutes=10) < times[-1] < END


@pytest.mark.parametrize("hours", range(0, 24 * 7, 5))
def test_no_end_brings_an_event_outside_the_fortnight(hours: int) -> None:
    end = END + timedelta(hours=hours)
    times = [
        datetime.fromisoformat(event["time"])
        for event in demo_events(count=2_000, seed=hours, end=end)
    ]
    assert end - timedelta(days=14) <= min(times)
    assert max(times) < end


def test_fields_are_those_of_the_ingest_contract(events: list[Event]) -> None:
    for event in events:
        assert event.keys() <= FIELDS
        assert all(1 <= len(event[name]) <= 200 for name in DIMENSIONS if name in event)
        assert event["status"] in {"success", "error", "cancelled"}
        assert ("error_type" in event) == (event["status"] == "error")
        assert ("tool" in event) == (event.get("operation") == "tool")
        assert sum(name in event for name in ("usage", "output_tokens", "tool")) == 1
        assert event["latency_ms"] >= event.get("time_to_first_token_ms", 0) >= 0


def test_every_count_of_tokens_is_a_whole_number_that_is_not_negative(events: list[Event]) -> None:
    for event in events:
        flat = [event[name] for name in event if name.endswith("_tokens")]
        sent = [*flat, *(value for value in counts(event.get("usage", {})))]
        assert all(type(value) is int and value >= 0 for value in sent)
        assert event.get("reasoning_tokens", 0) <= event.get("output_tokens", 0)


def counts(usage: Event) -> list[object]:
    """Every number of a usage object, nested ones too."""
    result: list[object] = []
    for value in usage.values():
        result += counts(value) if isinstance(value, dict) else [value]
    return result


def test_usage_comes_in_providers_shapes_and_as_flat_fields(events: list[Event]) -> None:
    shapes = Counter(min(event["usage"]) for event in events if "usage" in event)
    assert shapes.keys() == {
        "cache_creation_input_tokens",
        "completion_tokens",
        "candidatesTokenCount",
    }
    assert sum("output_tokens" in event for event in events) > 1_000


def test_a_few_events_have_a_model_that_nobody_prices(events: list[Event]) -> None:
    unpriced = [event for event in events if event.get("provider") == "in-house"]
    assert 0 < len(unpriced) < COUNT / 100


@pytest.mark.parametrize("model", PRODUCTS)
def test_every_customer_keeps_its_share(model: str, events: list[Event]) -> None:
    windows = servegen_windows()
    requests: Counter[str] = Counter()
    for stream, count in zip(windows.stream.tolist(), windows.requests.tolist(), strict=True):
        if windows.streams[stream].model == model:
            requests[windows.streams[stream].customer] += count
    sampled = Counter(
        event["customer"]
        for event in of_dataset(events, "servegen")
        if event["customer"] in requests
    )
    total, drawn = sum(requests.values()), sum(sampled.values())
    for customer, count in requests.items():
        assert abs(sampled[customer] - drawn * count / total) < 1


def test_traffic_over_the_fortnight_keeps_its_windows(events: list[Event]) -> None:
    windows = servegen_windows()
    model = "m-large"
    streams = [index for index, stream in enumerate(windows.streams) if stream.model == model]
    chosen = np.isin(windows.stream, streams)
    days = np.bincount(windows.window[chosen] // 144, weights=windows.requests[chosen])
    names = {windows.streams[index].customer for index in streams}
    midnight = END.replace(hour=0)
    sampled = np.zeros(14)
    for event in of_dataset(events, "servegen"):
        if event["customer"] in names:
            day = (datetime.fromisoformat(event["time"]) - midnight) // timedelta(days=1)
            sampled[(day - 1) % 14 if day else 13] += 1
    full_days = slice(0, 13)  # the last day of the recording is split by the end
    shares = days[full_days] / days[full_days].sum()
    assert sampled[full_days] / sampled[full_days].sum() == pytest.approx(shares, abs=0.01)


def test_sizes_have_the_recorded_mean_median_and_99th_percentile() -> None:
    recorded = {"mean": 1013.0, "median": 579.0, "p99": 12954.0}
    curve = fit(**{name: np.array([value]) for name, value in recorded.items()})
    drawn = curve.draw(rows=np.zeros(200_000, dtype=np.int64), random=np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(1013, rel=0.02)
    assert np.median(drawn) == pytest.approx(579, rel=0.02)
    assert np.percentile(drawn, 99) == pytest.approx(12954, rel=0.05)


def test_a_size_of_which_only_the_mean_is_known_is_the_mean() -> None:
    unknown = np.array([np.nan])
    curve = fit(mean=np.array([1577.7]), median=unknown, p99=unknown)
    drawn = curve.draw(rows=np.zeros(1_000, dtype=np.int64), random=np.random.default_rng(1))
    assert set(drawn.tolist()) == {1577, 1578}


def test_the_recorded_runaway_loops_show_as_repeated_outputs(events: list[Event]) -> None:
    outputs = Counter(
        (event["session"], event["output_hash"]) for event in events if "output_hash" in event
    )
    recorded = {
        f"{session.session[:8]}-00" for session in agent_sessions() if session.label == "loop"
    }
    assert {session for (session, _), count in outputs.items() if count >= 5} == recorded
    assert len(recorded) == 4


def test_steps_of_a_session_form_one_tree_in_order(events: list[Event]) -> None:
    steps = [event for event in events if event.get("session") == "07c6a78a-00"]
    spans = [event["span"] for event in steps]
    assert [event["step"] for event in steps] == list(range(1, len(steps) + 1))
    assert "parent_span" not in steps[0]
    assert all(event["parent_span"] in spans[:index] for index, event in enumerate(steps) if index)
    assert len({event["trace"] for event in steps}) == 1
    assert sum(event["usage"]["cache_read_input_tokens"] > 0 for event in steps[2::2]) > 20


def test_a_session_that_ends_is_handed_to_another_agent_once(events: list[Event]) -> None:
    agents = {
        (event["trace"], event["span"]): event["agent"] for event in events if "span" in event
    }
    handed = Counter(
        event["session"]
        for event in events
        if "model" in event
        and "parent_span" in event
        and agents[event["trace"], event["parent_span"]] != event["agent"]
    )
    tagged = {event["session"] for event in events if "handoff" in event["tags"]}
    assert handed
    assert handed == dict.fromkeys(tagged, 1)
    loops = {session.session[:8] for session in agent_sessions() if session.label == "loop"}
    assert not {session[:8] for session in handed} & loops


def test_a_call_without_recorded_input_is_sent_without_an_input_count(
    events: list[Event],
) -> None:
    partial = [
        event for event in events if "output_tokens" in event and "input_tokens" not in event
    ]
    assert partial
    assert {event["agent"] for event in partial} <= set(PROGRAMS["magagent"].agents)


def test_research_is_done_for_customers_of_the_other_products() -> None:
    known = {stream.customer for stream in servegen_windows().streams}
    assert {name for program in PROGRAMS.values() for name in program.customers} <= known


def test_every_stream_is_a_customer_of_its_own_name() -> None:
    streams = servegen_windows().streams
    assert len({stream.customer for stream in streams}) == len(streams) == 185


def test_an_event_tells_the_end_of_the_load_it_belongs_to() -> None:
    event = next(demo_events(count=10, seed=3, end=END))
    assert event["source"] == "app-gateway"
    assert event["id"].startswith("3-10-20261121T1300Z-")
    assert end_of_load(event, count=10, seed=3) == END
    assert end_of_load(event, count=11, seed=3) is None
    assert end_of_load(event | {"source": "research-svc"}, count=10, seed=3) is None
    assert end_of_load(event | {"id": "agent-1"}, count=10, seed=3) is None


def test_the_data_stays_small_and_every_file_has_its_source_named() -> None:
    files = [path for path in DATA_FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_200_000
    sources = (DATA_FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    assert all(path.name in sources for path in files if path.name != "SOURCES.md")
