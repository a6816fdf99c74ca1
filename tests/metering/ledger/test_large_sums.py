"""Sums beyond 64 bits read right wherever a tenant's money is shown."""

import csv
import io
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest
from django.core.management import call_command
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from alerts import tasks as alert_tasks
from metering.models import Crossing
from metering.rollups.sums import WHOLE_MAX, _Coded, _Groups
from tests.dashboard.conftest import sign_in
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Caller
from tests.metering.rollups.test_batches import roll_everything_up

EVENT_USD = 10_000_000
EVENTS = 1_800
TOTAL_USD = EVENT_USD * EVENTS
TOKENS = 10**12


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([0, 1, 2**31, 2**32, 2**62, WHOLE_MAX - 1, WHOLE_MAX]),
        ),
        min_size=1,
    )
)
def test_groups_add_up_exactly_around_the_largest_number_of_64_bits(
    rows: list[tuple[int, int]],
) -> None:
    groups, numbers = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    expected = [
        sum(number for group, number in rows if group == wanted)
        for wanted in sorted({group for group, _ in rows})
    ]
    assert _Groups([_Coded(groups, [0, 1, 2])]).sum_of(numbers) == expected


@pytest.fixture
def spender(account: Account) -> Account:
    """A tenant that reported 18 billion dollars: once rolled up in one body, once waiting in two.

    The events come in the past hour, so they are in every period under way but the shortest.
    """
    make_budget(account, cost_usd=900_000_000, period="lifetime", levels=[(100, "lockout")])
    make_budget(account, cost_usd=1, period="day", is_rolling=True)
    make_budget(account, cost_usd=1, period="day", has_rollover=True)
    made = Caller(account.api_key).post(
        "/v1/breakers",
        {"name": "fast", "per": [], "mode": "warn", "cost_usd_per_minute": "1000000000"},
    )
    assert made.status == 201, made.body
    numbers = count()
    now = datetime.now(UTC) - timedelta(seconds=30)

    def body(size: int) -> list[dict[str, object]]:
        return [
            make_event(
                id=f"large-{next(numbers)}",
                time=now.isoformat(),
                cost_usd=str(EVENT_USD),
                input_tokens=TOKENS,
                output_tokens=0,
                customer="acme",
                session="s",
                trace="t",
            )
            for _ in range(size)
        ]

    assert send(account, body(EVENTS))["accepted"] == EVENTS
    roll_everything_up(account)
    for _ in range(2):
        assert send(account, body(EVENTS // 2))["accepted"] == EVENTS // 2
    return account


@pytest.mark.django_db(transaction=True)
def test_eighteen_billion_dollars_read_right_everywhere(spender: Account, client: Client) -> None:
    caller = Caller(spender.api_key)
    wanted = str(2 * TOTAL_USD)
    for is_rolled_up in (False, True):
        if is_rolled_up:
            assert roll_everything_up(spender) == 2
        for question in (
            {},
            {"group_by": "customer"},
            {"interval": "none", "group_by": "customer"},
            {"interval": "15min", "group_by": "customer"},
            {"interval": "month", "filter[customer]": "acme"},
        ):
            usage = caller.get("/v1/usage", **question)
            assert usage.body["total"]["cost_usd"] == wanted, usage.body
            assert usage.body["total"]["input_tokens"] == 2 * EVENTS * TOKENS
            assert sum(int(row["cost_usd"]) for row in usage.body["data"]) == int(wanted)
    events = caller.get("/v1/events", limit=1).body["data"]
    assert events[0]["cost_usd"] == str(EVENT_USD)
    late = make_budget(spender, cost_usd=900_000_000, period="month")
    for budget in caller.get("/v1/budgets").body["data"]:
        windows = caller.get(f"/v1/budgets/{budget['id']}/windows").body["data"]
        assert sum(int(window["spent_usd"]) for window in windows) == int(wanted)
    assert windows_of(spender, late)[0].spent_nanos == 2 * TOTAL_USD * NANOS
    balances = caller.get("/v1/balances", customer="acme").body["budgets"]
    assert {balance["spent_usd"] for balance in balances} == {wanted}
    sessions = caller.get("/v1/sessions/s")
    assert sessions.status == 200, sessions.body
    assert caller.get("/v1/traces/t").status == 200
    month = f"{datetime.now(UTC):%Y-%m}"
    export = client.get(f"/v1/export/focus.csv?month={month}", headers=spender.headers)
    rows = csv.DictReader(io.StringIO(export.getvalue().decode()))
    assert sum(int(row["BilledCost"]) for row in rows) == int(wanted)
    refused = caller.post("/v1/reservations", {"amount_usd": "1", "customer": "acme"})
    assert refused.status in {402, 423}
    with spender.scope():
        assert set(Crossing.objects.values_list("spent_nanos", flat=True)) & {
            TOTAL_USD * NANOS,
            2 * TOTAL_USD * NANOS,
        }
    for task in (alert_tasks.notify, alert_tasks.scan_anomalies, alert_tasks.check_rules):
        task.run()
    browser = sign_in(spender.email)
    for page in ("/", "/budgets", "/incidents"):
        assert browser.get(page).status_code == 200
    call_command("audit_ledger", verbosity=0)
