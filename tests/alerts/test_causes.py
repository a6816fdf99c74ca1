"""One cause for what shows in many series, the most telling one, and several where there are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product

import pytest

from alerts.causes import Cause, Overlaps, find_causes
from alerts.series import TENANT, SeriesKey
from alerts.severity import Activity, Finding, is_worth_reporting, most_telling, severity_of
from metering.reporting.series import COMBINED_DIMENSIONS, Combination
from tests.factories import NANOS

AT = datetime(2026, 3, 4, 12, 15, tzinfo=UTC)


def used(usd: float, **values: str) -> Combination:
    """What one combination of values cost, at ten requests a dollar."""
    named = tuple(values.get(name, "") for name in COMBINED_DIMENSIONS)
    return Combination(named, int(usd * NANOS), int(usd * 10), 0, 0)


def causes_of(
    combinations: list[Combination],
    usual_usd: Mapping[SeriesKey, float],
    *,
    series: list[SeriesKey],
    standing: tuple[SeriesKey, ...] = (),
) -> list[Cause]:
    """The causes of cost findings about these series, given what each usually costs."""
    overlaps = Overlaps(combinations)
    keys = {TENANT} | {
        SeriesKey(name, row.values[index])
        for row, (index, name) in product(combinations, enumerate(COMBINED_DIMENSIONS))
    }
    activities = {
        key: Activity(overlaps.cost_nanos(key, TENANT), usual_usd.get(key, 0.0) * NANOS, 10, 900)
        for key in keys
    }
    findings = [finding_of(key, activities[key]) for key in series]
    return find_causes(
        findings=findings, activities=activities, overlaps=overlaps, standing=standing
    )


def finding_of(key: SeriesKey, activity: Activity, measure: str = "cost") -> Finding:
    return Finding(
        key, measure, True, 0.9, activity.cost_nanos, activity.expected_nanos, AT, activity
    )


def keys_of(causes: list[Cause]) -> list[SeriesKey]:
    return [cause.key for cause in causes]


def agent(name: str) -> SeriesKey:
    return SeriesKey("agent", name)


def test_an_agent_is_the_cause_of_what_its_team_model_and_tenant_show() -> None:
    shadows = [TENANT, SeriesKey("team", "t"), SeriesKey("model", "m"), SeriesKey("customer", "c")]
    (cause,) = causes_of(
        [
            used(20, agent="a", team="t", model="m", customer="c"),
            used(5, agent="b", team="t", model="m", customer="d"),
        ],
        {
            agent("a"): 1,
            TENANT: 6,
            SeriesKey("team", "t"): 6,
            SeriesKey("model", "m"): 6,
            SeriesKey("customer", "c"): 1,
        },
        series=[*shadows, agent("a")],
    )
    assert cause.key == agent("a")
    assert len(cause.findings) == 5


def test_agents_that_spike_for_themselves_are_causes_of_their_own() -> None:
    causes = causes_of(
        [used(20, agent=name, model="m") for name in ("a", "b", "c")],
        {agent(name): 1 for name in ("a", "b", "c")} | {TENANT: 3, SeriesKey("model", "m"): 3},
        series=[TENANT, SeriesKey("model", "m"), agent("a"), agent("b"), agent("c")],
    )
    assert keys_of(causes) == [agent("a"), agent("b"), agent("c")]
    assert sum(len(cause.findings) for cause in causes) == 5


def test_agents_are_told_from_customers_that_are_by_chance_a_little_more_unusual() -> None:
    """Two agents spike at once, for the same customers, of which one got more than its share."""
    customer = SeriesKey("customer", "globex")
    causes = causes_of(
        [
            used(1.16, agent="coder", customer="globex"),
            used(1.51, agent="coder", customer="acme"),
            used(0.44, agent="researcher", customer="globex"),
            used(0.45, agent="researcher", customer="acme"),
        ],
        {
            agent("coder"): 0.559,
            agent("researcher"): 0.193,
            customer: 0.24,
            SeriesKey("customer", "acme"): 0.52,
            TENANT: 0.76,
        },
        series=[customer, agent("researcher"), agent("coder"), TENANT],
    )

    assert keys_of(causes) == [agent("coder"), agent("researcher")]


def test_a_customer_that_keeps_all_agents_busy_is_the_cause() -> None:
    names = [f"agent-{number}" for number in range(8)]
    acme = SeriesKey("customer", "acme")
    (cause,) = causes_of(
        [used(5, agent=name, customer="acme") for name in names]
        + [used(5, agent=name, customer="others") for name in names],
        {agent(name): 5 for name in names}
        | {acme: 1, TENANT: 41, SeriesKey("customer", "others"): 40},
        series=[TENANT, acme, *(agent(name) for name in names)],
    )
    assert cause.key == acme
    assert len(cause.findings) == 10


def test_a_new_series_is_the_cause_though_nothing_can_be_unusual_of_it_yet() -> None:
    (cause,) = causes_of(
        [used(20, agent="new", team="t"), used(5, agent="old", team="t")],
        {agent("old"): 5, TENANT: 5, SeriesKey("team", "t"): 5, SeriesKey("model", ""): 5},
        series=[TENANT, SeriesKey("team", "t")],
    )
    assert cause.key == agent("new")
    assert len(cause.findings) == 2


def test_what_a_known_cause_explains_is_its_own() -> None:
    combinations = [used(20, agent="a", feature="f"), used(20, agent="b", feature="g")]
    usual = {
        agent("a"): 20.0,
        agent("b"): 1.0,
        SeriesKey("feature", "f"): 1.0,
        SeriesKey("feature", "g"): 1.0,
    }
    # The detector has got used to what agent a costs; its incident goes on.
    causes = causes_of(
        combinations,
        usual,
        series=[SeriesKey("feature", "f"), SeriesKey("feature", "g"), agent("b")],
        standing=(agent("a"),),
    )
    assert {cause.key: {finding.key for finding in cause.findings} for cause in causes} == {
        agent("a"): {SeriesKey("feature", "f")},
        agent("b"): {SeriesKey("feature", "g"), agent("b")},
    }


def test_failing_calls_belong_to_the_cause_that_makes_them() -> None:
    combinations = [used(20, agent="a", model="m"), used(1, agent="b", model="n")]
    overlaps = Overlaps(combinations)
    failing = [
        Finding(
            SeriesKey("model", name),
            "error_rate",
            True,
            0.9,
            0.5,
            0.01,
            AT,
            # A little more than expected says nothing of money.
            Activity(1.1 * NANOS, 1.0 * NANOS, requests, 900),
        )
        for name, requests in (("m", 200), ("n", 10))
    ]
    spike = finding_of(agent("a"), Activity(20.0 * NANOS, 1.0 * NANOS, 200, 900))
    causes = find_causes(
        findings=[*failing, spike],
        activities={agent("a"): spike.activity},
        overlaps=overlaps,
    )
    assert {cause.key: len(cause.findings) for cause in causes} == {
        agent("a"): 2,
        SeriesKey("model", "n"): 1,
    }


def test_the_agent_whose_calls_fail_is_the_cause_of_what_fails_in_all() -> None:
    rows = [used(5, agent=name, model="m") for name in ("a", "b", "c")]
    few, all_ = Activity(1.0, 1.0, 50, 900), Activity(3.0, 3.0, 150, 900)
    (cause,) = find_causes(
        findings=[
            Finding(TENANT, "error_rate", True, 0.9, 0.21, 0.01, AT, all_),
            Finding(SeriesKey("model", "m"), "error_rate", True, 0.9, 0.21, 0.01, AT, all_),
            Finding(agent("a"), "error_rate", True, 0.9, 0.61, 0.01, AT, few),
        ],
        activities={agent("a"): few, TENANT: all_, SeriesKey("model", "m"): all_},
        overlaps=Overlaps(rows),
    )
    assert cause.key == agent("a")
    assert len(cause.findings) == 3


def test_silence_is_one_cause_beside_others() -> None:
    idle = Activity(0.0, 0.0, 0, 900)
    stopped = [
        Finding(key, "requests", False, 0.9, 0.0, 50.0, AT, idle)
        for key in (agent("b"), SeriesKey("model", "m"))
    ]
    spike = finding_of(agent("a"), Activity(20.0 * NANOS, 1.0 * NANOS, 200, 900))
    causes = find_causes(
        findings=[*stopped, spike],
        activities={agent("a"): spike.activity},
        overlaps=Overlaps([used(20, agent="a")]),
    )
    assert [(cause.key, len(cause.findings)) for cause in causes] == [
        (agent("a"), 1),
        (agent("b"), 2),
    ]


@pytest.mark.parametrize(
    ("excess_usd", "usual_usd_per_hour", "severity"),
    [
        (2.5, 20, "critical"),
        (2.49, 1, "warning"),
        (2.5, 21, "warning"),
        (0.01, 0, "info"),
    ],
)
def test_severity_is_by_the_money_in_an_hour(
    excess_usd: float, usual_usd_per_hour: float, severity: str
) -> None:
    activity = Activity((1 + excess_usd) * NANOS, 1.0 * NANOS, 50, 900)
    result = [finding_of(agent("a"), activity)]
    assert severity_of(result, usual_usd_per_hour * NANOS) == severity


def test_what_is_small_is_not_worth_telling() -> None:
    def is_told(excess_usd: float, measure: str = "cost", usual_usd: float = 1) -> bool:
        activity = Activity((1 + excess_usd) * NANOS, 1.0 * NANOS, 50, 900)
        return is_worth_reporting(finding_of(agent("a"), activity, measure), usual_usd * NANOS)

    # Ten cents an hour, and a hundredth of what the tenant spends.
    assert not is_told(0.024)
    assert is_told(0.026)
    assert not is_told(0.026, usual_usd=11)
    free = Activity(0.0, 0.0, 40, 900)
    tokens = Finding(agent("a"), "tokens", True, 0.9, 109_999.0, 10_000.0, AT, free)
    assert not is_worth_reporting(tokens, 0)
    assert is_worth_reporting(tokens._replace(actual=110_000.0), 0)
    failing = Finding(agent("a"), "error_rate", True, 0.9, 0.75, 0.5, AT, free)
    assert is_worth_reporting(failing, 0)
    assert not is_worth_reporting(failing._replace(activity=free._replace(requests=39)), 0)
    stopped = Finding(agent("a"), "requests", False, 0.9, 0.0, 10.0, AT, free)
    assert is_worth_reporting(stopped, 0)
    assert not is_worth_reporting(stopped._replace(actual=1.0), 0)


def test_what_was_told_first_stays_what_is_told() -> None:
    activity = Activity(2e9, 1e9, 100.0, 900)
    failing = finding_of(agent("a"), activity, "error_rate")
    costly = finding_of(agent("a"), activity)
    assert most_telling([failing, costly], agent("a")) == costly
    assert most_telling([failing, costly], agent("a"), reported="error_rate") == failing
