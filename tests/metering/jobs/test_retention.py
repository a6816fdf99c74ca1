"""Two years pass: what is too old goes, and every balance stays provable."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from dateutil.relativedelta import relativedelta
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from common.json_bodies import JsonObject
from common.money import usd_from_nanos
from metering import rollups
from metering.audit.ledger import audit_tenant, count_seals
from metering.budgets.rules import LevelRule
from metering.calls import seals
from metering.calls.seals import first_kept, freeze, read_sealed, seal_entries, seal_events
from metering.core.match import group_key
from metering.core.periods import EPOCH
from metering.intake.corrections import correct_event
from metering.intake.rerate import UsageSealed, rerate
from metering.jobs import retention
from metering.jobs.tasks import (
    age_rolling_windows,
    expire_reservations,
    make_partitions,
    price_unpriced,
    remove_old_rows,
)
from metering.limits.halts import halt
from metering.limits.limit_increases import (
    Added,
    IncreaseAsk,
    approve_increase,
    ask_for_increase,
    refuse_increase,
)
from metering.models import (
    Budget,
    BudgetWindow,
    Crossing,
    EventKey,
    Halt,
    LedgerEntry,
    LimitIncrease,
    Simulation,
    UsageEvent,
    UsageHistogram,
    UsageRollup,
    UsageSeal,
    WindowSeal,
)
from metering.reporting import InvalidQuestion, UsageQuestion, require_sums
from metering.simulation import Proposal, ProposedBudget
from metering.simulation.preview import preview
from metering.usage.partitions import MONTHS_AHEAD, drop_sealed_partitions, partition_name
from tenants.models import User
from tests.dashboard.conftest import BACKEND
from tests.factories import NANOS, Account, make_account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Answer, caller
from tests.metering.intake.test_rerate import set_price

pytestmark = pytest.mark.django_db(transaction=True)

FIRST_MONTH = datetime(2027, 1, 1, tzinfo=UTC)
# 13 months are kept whole, and a month goes a month after it could.
FULL_AFTER_MONTHS = 17
MONTHS = 24
EVENTS_A_MONTH = 10
# Of the first month, 15 months later.
SEALED_UNTIL = datetime(2027, 3, 1, tzinfo=UTC)
SIZES = (
    "usage_event",
    "event_key",
    "ingest_batch",
    "ledger_entry",
    "reservation",
    "budget_window",
    "window_seal",
    "decision",
    "usage_combination",
)


def use_database_time(at: datetime | None) -> None:
    """Let rows whose time the database gives have this one, in a year that only the test has."""
    default = "now()" if at is None else f"'{at.isoformat()}'"
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE ledger_entry ALTER created_at SET DEFAULT {default}")


def sealing() -> None:
    retention.seal_old_usage(seconds=120)


class Year:
    """Months of small usage of tenants, with what the service does meanwhile."""

    def __init__(self, *accounts: Account) -> None:
        self.accounts = accounts
        self.month = 0

    @property
    def begin(self) -> datetime:
        return FIRST_MONTH + relativedelta(months=self.month)

    def live(self) -> None:
        """Use a month, and let its end be worked on."""
        for day in (3, 17):
            at = self.begin + timedelta(days=day, hours=5)
            with time_machine.travel(at, tick=False):
                use_database_time(at)
                make_partitions()
                for account in self.accounts:
                    self._use(account, at)
                self._work()
        self.month += 1

    def _use(self, account: Account, at: datetime) -> None:
        events = [
            make_event(
                time=(at - timedelta(minutes=number)).isoformat(),
                cost_usd="2",
                agent=f"agent-{number % 2}",
                session=f"session-{at:%Y-%m-%d}",
            )
            for number in range(4)
        ]
        assert send(account, events)["accepted"] == 4
        api = caller(account)
        agent = {"agent": "agent-0", "session": f"session-{at:%Y-%m-%d}"}
        held = api.post("/v1/reservations", {"amount_usd": "3", **agent})
        assert held.status == 201, held.body
        settled = api.post(f"/v1/reservations/{held.body['id']}/settle", {"cost_usd": "2.5"})
        assert settled.status == 200, settled.body
        # This one is left to expire.
        assert api.post("/v1/reservations", {"amount_usd": "1", **agent}).status == 201
        with account.scope(), connection.cursor() as cursor:
            # Before the batches are of a time that the database does not believe in.
            assert rollups.roll_up(tenant_id=account.tenant.id) > 0
            cursor.execute(
                "UPDATE ingest_batch SET received_at = %s, sessions_checked_at = %s"
                " WHERE sessions_checked_at IS NULL",
                [at, at],
            )
            cursor.execute("UPDATE reservation SET expires_at = now() WHERE state = 1")

    def _work(self) -> None:
        with time_machine.travel(datetime.now(UTC) + timedelta(days=1), tick=False):
            expire_reservations()
            age_rolling_windows()
            remove_old_rows()
            sealing()


def make_budgets(account: Account) -> dict[str, Budget]:
    fields: dict[str, JsonObject] = {
        "month": {"per": ["agent"]},
        "hour": {"period": "hour", "per": ["agent"]},
        "rollover": {"has_rollover": True, "rollover_max_percent": 50},
        "rolling": {"is_rolling": True, "per": ["agent"]},
        "lifetime": {"period": "lifetime"},
        "session": {"period": "lifetime", "per": ["session"]},
        "request": {"period": "lifetime", "per": ["request"], "cost_usd": 2},
    }
    shadow = {"mode": "shadow", "cost_usd": 1_000}
    return {
        name: make_budget(account, name=name, **{**shadow, **given})
        for name, given in fields.items()
    }


@pytest.fixture
def year(catalogue: None) -> Iterator[Year]:
    """A tenant with a budget of each kind, and another one, from the first month on."""
    with time_machine.travel(FIRST_MONTH, tick=False):
        make_partitions()
        accounts = make_account(), make_account()
        for account in accounts:
            make_budgets(account)
    yield Year(*accounts)
    use_database_time(None)
    make_partitions()  # those of the present were dropped


def sizes(account: Account) -> dict[str, int]:
    with account.scope(), connection.cursor() as cursor:
        counts = {}
        for table in SIZES:
            cursor.execute(f"SELECT count(*) FROM {table}")
            counts[table] = cursor.fetchone()[0]
        cursor.execute("SELECT count(*) FROM usage_rollup WHERE dimension_set < 20")
        counts["quarters"] = cursor.fetchone()[0]
        return counts


def drifts(account: Account, at: datetime) -> list[str]:
    with time_machine.travel(at, tick=False):
        return [str(drift) for drift in audit_tenant(account.tenant.id)]


def run(account: Account, statement: str, *parameters: Any) -> None:
    """Change rows by hand, whatever protects them."""
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_entry DISABLE TRIGGER USER")
        cursor.execute(statement, parameters)
        count = cursor.rowcount
        cursor.execute("ALTER TABLE ledger_entry ENABLE TRIGGER USER")
    assert count > 0, statement


def seal_of(account: Account, budget_name: str) -> WindowSeal:
    """The seal of the oldest window of a budget."""
    with account.scope():
        windows = BudgetWindow.objects.filter(budget_id=Budget.objects.get(name=budget_name).id)
        ids = list(windows.order_by("starts_at", "id").values_list("id", flat=True))
        return WindowSeal.objects.filter(window_id__in=ids).order_by("window_id")[0]


def test_two_years_stay_the_size_of_one_and_every_balance_is_proved(year: Year) -> None:
    account, other = year.accounts
    seen = []
    for _ in range(MONTHS):
        year.live()
        seen.append(sizes(account))
        assert drifts(account, year.begin) == []
    assert seen[-1] == seen[FULL_AFTER_MONTHS]
    assert seen[-1]["usage_event"] == 14 * EVENTS_A_MONTH
    assert drifts(other, year.begin) == []
    assert sizes(other) == seen[-1]
    newest = partition_name((year.begin + relativedelta(months=MONTHS_AHEAD - 1)).date())
    assert len([name for name in partitions() if name <= newest]) == 14 + MONTHS_AHEAD
    # Two months of a lifetime's events are all that is not in its seal.
    seal = seal_of(account, "lifetime")
    assert seal.event_requests == (MONTHS - 14) * EVENTS_A_MONTH
    assert seal.entry_count > 0


def partitions() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'usage_event'::regclass ORDER BY c.relname"
        )
        return [row[0] for row in cursor.fetchall()]


@pytest.fixture
def sealed(year: Year) -> Year:
    """A year of which the first month was used and is sealed, and the last one was used as well."""
    year.live()
    year.month = 15
    year.live()
    for account in year.accounts:
        assert drifts(account, year.begin) == []
    return year


CHANGED_BY_HAND = {
    "an entry that remains": "UPDATE ledger_entry SET cost_nanos = cost_nanos + 1 WHERE id ="
    " (SELECT max(id) FROM ledger_entry)",
    "an entry taken away": "DELETE FROM ledger_entry WHERE id = (SELECT max(id) FROM ledger_entry)",
    "the seal of entries": "UPDATE window_seal SET entry_tokens = entry_tokens - 1",
    "the seal of events": "UPDATE window_seal SET event_nanos = event_nanos + 1"
    " WHERE event_nanos > 0",
    "a seal taken away": "DELETE FROM window_seal",
    "a balance and the seal of its entries": "WITH changed AS (UPDATE window_seal SET entry_nanos ="
    " entry_nanos + 1 WHERE event_nanos > 0 RETURNING window_id) UPDATE budget_window SET"
    " spent_nanos = spent_nanos + 1 WHERE id IN (SELECT window_id FROM changed)",
    "a combination of what remains": "UPDATE usage_combination SET calls = calls + 1",
    "an event that remains": "UPDATE usage_event SET cost_nanos = cost_nanos + 1",
    "how far it is sealed": "UPDATE usage_seal SET"
    " sealed_until = sealed_until + interval '14 months'",
    "a sealed sum of a day": "UPDATE usage_rollup SET cost_nanos = cost_nanos + 1"
    " WHERE dimension_set = 24 AND starts_at < '2027-02-01'",
    "a sealed sum of a day, taken away": "DELETE FROM usage_rollup WHERE dimension_set = 41"
    " AND starts_at < '2027-02-01'",
    "a sealed histogram": "UPDATE usage_histogram SET count = count + 1"
    " WHERE dimension_set = 24 AND starts_at < '2027-02-01'",
}


@pytest.mark.parametrize("statement", CHANGED_BY_HAND.values(), ids=CHANGED_BY_HAND)
def test_a_row_changed_by_hand_is_found_sealed_or_not(sealed: Year, statement: str) -> None:
    account, other = sealed.accounts
    run(account, statement)
    assert drifts(account, sealed.begin)
    assert drifts(other, sealed.begin) == []


def test_the_audit_says_what_is_sealed(sealed: Year) -> None:
    account, _ = sealed.accounts
    count = count_seals(account.tenant.id)
    assert count.windows >= 3
    with time_machine.travel(sealed.begin, tick=False):
        call_command("audit_ledger", tenant=account.tenant.name, stdout=(out := StringIO()))
    assert out.getvalue().splitlines()[0] == (
        f"{account.tenant.name}: usage before 2027-03-01 UTC is sealed; {count.windows:,} windows"
        f" have seals, in place of {count.entries:,} entries."
    )


def test_entries_are_removed_by_retention_alone_and_changed_by_nobody(sealed: Year) -> None:
    account, _ = sealed.accounts
    for statement in ("DELETE FROM ledger_entry", "DELETE FROM audit_entry"):
        with pytest.raises(DatabaseError, match="never changed or removed"):
            _execute(account, statement)
    for statement in (
        "SET LOCAL spendgate.retention = 'on'; UPDATE ledger_entry SET tokens = 0",
        "SET LOCAL spendgate.retention = 'on'; UPDATE audit_entry SET actor = ''",
    ):
        with pytest.raises(DatabaseError, match="never changed or removed"):
            _execute(account, statement)


def _execute(account: Account, statement: str) -> None:
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_what_is_sealed_is_never_rated_again(sealed: Year) -> None:
    account, _ = sealed.accounts
    with pytest.raises(UsageSealed, match="Usage before 2027-03-01 UTC is sealed"):
        rerate(tenant_id=account.tenant.id, from_=FIRST_MONTH, to=sealed.begin)
    kept = rerate(tenant_id=account.tenant.id, from_=SEALED_UNTIL, to=sealed.begin)
    assert kept.examined == 0  # all costs are given


def test_frozen_events_are_not_priced_before_they_go(account: Account) -> None:
    budget = make_budget(account, period="lifetime")
    send(account, [make_event(model="in-house")])
    with account.scope():
        rollups.roll_up(tenant_id=account.tenant.id)
        EventKey.objects.all().delete()
        until = datetime.now(UTC) + timedelta(minutes=1)
        assert freeze(tenant_id=account.tenant.id, until=until) == 1
    set_price(account, "in-house")
    price_unpriced()
    assert windows_of(account, budget)[0].spent_nanos == 0
    with account.scope():
        assert UsageEvent.objects.get().cost_nanos is None


def test_a_late_correction_is_refused(sealed: Year) -> None:
    account, _ = sealed.accounts
    with time_machine.travel(sealed.begin, tick=False):
        answer = caller(account).post(
            "/v1/corrections",
            {"id": "event-1", "source": "tests", "action": "void", "reason": "too late"},
        )
    assert (answer.status, answer.code) == (404, "not_found")
    assert "Older ones can no longer be corrected." in answer.body["detail"]


def test_a_budget_made_later_counts_from_where_usage_is_sealed(sealed: Year) -> None:
    account, _ = sealed.accounts
    with time_machine.travel(sealed.begin, tick=False):
        budget = make_budget(account, name="late", period="lifetime", mode="shadow")
    assert budget.counts_from == SEALED_UNTIL
    (window,) = windows_of(account, budget)
    assert window.spent_requests == EVENTS_A_MONTH
    assert drifts(account, sealed.begin) == []


def test_a_lifetime_goes_on_from_its_seal(sealed: Year) -> None:
    account, _ = sealed.accounts
    with account.scope():
        budget = Budget.objects.get(name="lifetime")
    (window,) = windows_of(account, budget)
    assert window.spent_requests == 2 * EVENTS_A_MONTH
    assert seal_of(account, "lifetime").event_requests == EVENTS_A_MONTH


def test_a_session_that_goes_on_after_a_year_begins_anew(sealed: Year) -> None:
    account, _ = sealed.accounts
    session = f"session-{FIRST_MONTH + timedelta(days=3):%Y-%m-%d}"
    with time_machine.travel(sealed.begin, tick=False):
        send(account, [make_event(session=session, cost_usd="1", time=...)])
    with account.scope():
        budget = Budget.objects.get(name="session")
        (window,) = BudgetWindow.objects.filter(budget_id=budget.id, group_key__contains=session)
    assert window.spent_nanos == NANOS
    assert drifts(account, sealed.begin) == []


def test_usage_that_is_gone_is_refused_and_not_told_as_zero(sealed: Year) -> None:
    account, _ = sealed.accounts
    january = {"from": "2027-01-01T00:00:00Z", "to": "2027-02-01T00:00:00Z"}
    with time_machine.travel(sealed.begin, tick=False):
        api = caller(account)
        days = api.get("/v1/usage", group_by="agent", **january)
        month = api.get("/v1/usage", interval="month", **january)
        refused = [
            api.get("/v1/usage", interval="hour", **january),
            api.get("/v1/usage", timezone="Europe/Berlin", **january),
            api.get("/v1/usage", group_by="session", **january),
            api.get("/v1/usage", **{**january, "from": "2027-01-01T01:00:00Z"}),
            api.get("/v1/usage", **{**january, "from": "2023-01-01T00:00:00Z"}),
            api.get("/v1/events", **january),
            api.get("/v1/export/focus.csv", month="2027-01"),
        ]
        kept = api.get("/v1/usage", interval="hour", **{"from": "2028-04-01T00:00:00Z"})
    assert days.body["total"]["requests"] == EVENTS_A_MONTH
    assert month.body["total"]["requests"] == EVENTS_A_MONTH
    assert [(answer.status, answer.code) for answer in refused] == [(400, "no_longer_kept")] * len(
        refused
    )
    assert (kept.status, kept.body["total"]["requests"]) == (200, EVENTS_A_MONTH)


def simulated(account: Account, at: datetime, **members: object) -> Answer:
    with time_machine.travel(at, tick=False):
        return caller(account).post("/v1/simulations", members)


MONTHLY: JsonObject = {
    "name": "Proposed",
    "period": "month",
    "limit": {"cost_usd": "1"},
    "levels": [{"percent": 100, "action": "block"}],
}


def test_a_replay_of_calls_that_are_gone_is_refused(sealed: Year) -> None:
    account, _ = sealed.accounts
    to = "2028-02-02T00:00:00Z"
    breaker = {"name": "fast", "cost_usd_per_minute": "2"}
    year_to_date = {**MONTHLY, "period": "year"}
    refused = [
        simulated(account, sealed.begin, budget=MONTHLY, to=to, **{"from": "2027-02-28T23:59:59Z"}),
        simulated(
            account, sealed.begin, breaker=breaker, to=to, **{"from": "2027-03-01T00:00:00Z"}
        ),
        # The year began before.
        simulated(
            account, sealed.begin, budget=year_to_date, to=to, **{"from": "2027-06-01T00:00:00Z"}
        ),
    ]
    assert [(answer.status, answer.code) for answer in refused] == [(400, "no_longer_kept")] * 3
    assert "Calls before 2027-03-01 UTC are no longer kept" in refused[0].body["detail"]
    with account.scope():
        assert Simulation.objects.count() == 0
    with (
        time_machine.travel(sealed.begin, tick=False),
        pytest.raises(CommandError, match="Calls before 2027-03-01 UTC are no longer kept"),
    ):
        call_command(
            "simulate_budget",
            *("--tenant", account.tenant.name, "--to", "2027-12-01", "--from", "2027-02-01"),
            *("--budget-id", str(_budget(account, "month").id)),
        )


def _budget(account: Account, name: str) -> Budget:
    with account.scope():
        return Budget.objects.get(name=name)


def test_a_replay_of_a_lifetime_begins_with_its_sealed_sum(sealed: Year) -> None:
    account, _ = sealed.accounts
    budget = _budget(account, "lifetime")
    (window,) = windows_of(account, budget)
    limit = {"cost_usd": usd_from_nanos(window.spent_nanos)}
    period = {"from": "2028-04-20T00:00:00Z", "to": "2028-05-01T00:00:00Z"}
    with time_machine.travel(sealed.begin, tick=False):
        send(account, [make_event(time="2028-04-21T00:00:00Z", cost_usd="1")])
        proposed = {"limit": limit, "levels": MONTHLY["levels"]}
        changed = simulated(account, sealed.begin, budget_id=budget.id, changes=proposed, **period)
        anew = simulated(
            account,
            sealed.begin,
            budget={**MONTHLY, **proposed, "period": "lifetime"},
            **period,
        )
    assert changed.body["result"]["refused"]["calls"] == 1
    assert anew.body["result"]["refused"]["calls"] == 0
    assert any("no longer kept" in assumption for assumption in anew.body["result"]["assumptions"])


def test_a_page_of_a_lifetime_knows_its_sealed_sum(sealed: Year) -> None:
    account, _ = sealed.accounts
    budget = _budget(account, "lifetime")
    (window,) = windows_of(account, budget)
    with time_machine.travel(sealed.begin, tick=False), account.scope():
        present = ProposedBudget.stored(budget)
        levels = [LevelRule(100, "block", ())]
        changes = {"limit_cost_nanos": window.spent_nanos, "mode": "enforce"}
        proposal = Proposal(budget=present.changed(changes, levels), present=present)
        result = preview(tenant_id=account.tenant.id, proposal=proposal, now=sealed.begin)
    assert [full.spent for full in result.newly_full] == [window.spent_nanos]


def kill_after(account: Account, step: Callable[[], int]) -> None:
    """A step whose process is killed before it commits."""
    with account.scope():
        step()
        raise KeyboardInterrupt


def test_a_page_says_when_it_shows_a_time_whose_calls_are_gone(sealed: Year) -> None:
    account, _ = sealed.accounts
    client = Client()
    with time_machine.travel(sealed.begin, tick=False):
        client.force_login(User.objects.get(email=account.email), backend=BACKEND)
        old = client.get("/", {"from": "2027-01-01", "to": "2027-03-31"}).content.decode()
        kept = client.get("/", {"from": "2027-03-02", "to": "2027-03-31"}).content.decode()
    sentence = "Calls before Mar 1, 2027 UTC are no longer kept"
    assert sentence in old
    assert sentence not in kept


def test_a_run_killed_anywhere_leaves_no_drift_and_the_next_one_goes_on(
    year: Year, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, _ = year.accounts
    month = partition_name(FIRST_MONTH.date())
    year.live()
    at = year.begin + relativedelta(months=15)
    monkeypatch.setattr(seals, "EVENTS_A_CHUNK", 3)
    monkeypatch.setattr(seals, "ENTRIES_A_CHUNK", 5)
    positions: dict[int, int] = {}
    with time_machine.travel(at, tick=False):
        age_rolling_windows()
        remove_old_rows()
        until = first_kept(at)
        steps: dict[str, Callable[[], int]] = {
            "freeze": lambda: freeze(tenant_id=account.tenant.id, until=until) - 1,
            "events": lambda: seal_events(tenant_id=account.tenant.id),
            "entries": lambda: seal_entries(tenant_id=account.tenant.id, positions=positions),
        }
        chunks = dict.fromkeys(steps, 0)
        for name, step in steps.items():
            is_more = True
            while is_more:
                with pytest.raises(KeyboardInterrupt):
                    kill_after(account, step)
                with account.scope():
                    is_more = bool(step())
                chunks[name] += 1
                assert [str(drift) for drift in audit_tenant(account.tenant.id)] == []
        assert chunks == {"freeze": 1, "events": 4, "entries": chunks["entries"]}
        assert chunks["entries"] > 4
        # The other tenant's events are not sealed.
        assert month not in drop_sealed_partitions(before=until)
        monkeypatch.undo()
        sealing()
        for each in year.accounts:
            assert [str(drift) for drift in audit_tenant(each.tenant.id)] == []
            with each.scope():
                assert UsageEvent.objects.count() == 0
    assert month not in partitions()


@pytest.mark.parametrize("unfinished", ["rolled up", "keys", "rolling"])
def test_usage_is_not_frozen_while_something_may_still_change_it(
    account: Account, unfinished: str
) -> None:
    make_budget(account, is_rolling=True, period="day")
    send(account, [make_event()])
    with account.scope():
        if unfinished != "rolled up":
            rollups.roll_up(tenant_id=account.tenant.id)
        if unfinished != "keys":
            EventKey.objects.all().delete()
        if unfinished != "rolling":
            BudgetWindow.objects.update(counted_from=datetime.now(UTC) + timedelta(days=1))
        until = datetime.now(UTC) + timedelta(minutes=1)
        assert freeze(tenant_id=account.tenant.id, until=until) == 0
        assert read_sealed(account.tenant.id).frozen_until == EPOCH
        run(account, "DELETE FROM ledger_entry")
        run(account, "DELETE FROM budget_window")
        run(account, "DELETE FROM usage_event")
        for table in ("usage_rollup", "usage_histogram", "usage_combination"):
            connection.cursor().execute(f"DELETE FROM {table}")


def test_a_rolling_window_keeps_the_entries_that_it_has_yet_to_let_go(account: Account) -> None:
    budget = make_budget(account, is_rolling=True, period="day")
    event = make_event(cost_usd="2")
    send(account, [event])
    run(account, "UPDATE ledger_entry SET created_at = created_at - interval '2 years'")
    correct_event(
        tenant_id=account.tenant.id,
        source="tests",
        sent_id=event["id"],
        replacement=None,
        reason="never ran",
        actor="tests",
    )
    now = datetime.now(UTC)
    with account.scope():
        UsageSeal.objects.create(tenant=account.tenant, frozen_until=now, sealed_until=now)
        assert seal_entries(tenant_id=account.tenant.id, positions={}) == 1
        assert LedgerEntry.objects.count() == 2
    with time_machine.travel(now + timedelta(days=2), tick=False):
        age_rolling_windows()
    assert windows_of(account, budget)[0].spent_nanos == 0
    run(account, "DELETE FROM usage_seal")


def test_keys_are_found_by_their_age_and_go_in_chunks(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event() for _ in range(5)])
    monkeypatch.setattr(retention, "ROWS_A_CHUNK", 2)
    at = datetime.now(UTC) + timedelta(days=37)
    with time_machine.travel(at, tick=False), CaptureQueriesContext(connection) as queries:
        remove_old_rows()
    deletes = [query["sql"] for query in queries if "DELETE FROM event_key" in query["sql"]]
    assert len(deletes) == 4  # 2, 2, 1, none
    with account.scope(), connection.cursor() as cursor:
        assert EventKey.objects.count() == 0
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {deletes[0]}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "event_key_by_age" in plan
    assert "Tid Scan on event_key" in plan


def test_a_lockout_that_a_person_lifted_and_the_newest_halt_stay(account: Account) -> None:
    budget = make_budget(account, period="lifetime", cost_usd=1, levels=[(100, "lockout")])
    send(account, [make_event(cost_usd="2")])
    old = datetime.now(UTC) - settings.RETENTION_INCIDENTS - timedelta(days=1)
    with account.scope():
        halts = [
            halt(tenant=account.tenant, match={"agent": agent}, reason="test", actor="tests")
            for agent in ("a", "b")
        ]
        (lockout,) = Halt.objects.filter(kind="lockout")
        assert lockout.window_id == windows_of(account, budget)[0].id
        Halt.objects.update(since=old, lifted_at=old, lifted_by="ada@example.com")
    remove_old_rows()
    with account.scope():
        kept = set(Halt.objects.values_list("id", flat=True))
    assert kept == {lockout.id, halts[1].id}


def test_increases_go_once_no_window_is_left_that_they_explain(account: Account) -> None:
    long_ago = datetime.now(UTC) - settings.RETENTION_INCIDENTS - timedelta(days=40)
    kinds: dict[str, JsonObject] = {
        "month": {},
        "lifetime": {"period": "lifetime"},
        "rolling": {"period": "day", "is_rolling": True},
    }
    with time_machine.travel(long_ago, tick=False):
        make_partitions()
        budgets = {
            name: make_budget(account, name=name, per=["agent"], cost_usd=1, **fields)
            for name, fields in kinds.items()
        }
        send(account, [make_event(time=..., agent="a", cost_usd="2")])
        of_a = group_key(["a"])
        asks = {
            "approved": ("lifetime", of_a),
            "approved for all": ("lifetime", ""),
            "approved for another": ("lifetime", group_key(["b"])),
            "approved in a month": ("month", of_a),
            "approved of a day": ("rolling", of_a),
            "asked": ("lifetime", of_a),
            "refused": ("lifetime", of_a),
        }
        for reason, (name, key) in asks.items():
            ask = IncreaseAsk(
                Added(cost_nanos=NANOS), reason, datetime.now(UTC) + timedelta(hours=1), key
            )
            with account.scope():
                asked = ask_for_increase(budget=budgets[name], actor="tests", ask=ask)
                if reason.startswith("approved"):
                    approve_increase(limit_increase=asked, actor="tests")
                elif reason == "refused":
                    refuse_increase(limit_increase=asked, actor="tests")
    age_rolling_windows()
    remove_old_rows()
    assert _reasons(account) == set(asks) - {"asked", "refused"}  # none is judged
    with account.scope():
        LimitIncrease.objects.update(judged_at=datetime.now(UTC))
    remove_old_rows()
    assert _reasons(account) == {"approved", "approved for all", "approved in a month"}
    before = long_ago - timedelta(days=60)
    with account.scope():
        in_month = LimitIncrease.objects.filter(reason="approved in a month")
        in_month.update(starts_at=before, ends_at=before + timedelta(hours=1))
    remove_old_rows()
    assert _reasons(account) == {"approved", "approved for all"}


def _reasons(account: Account) -> set[str]:
    with account.scope():
        return set(LimitIncrease.objects.values_list("reason", flat=True))


def test_crossings_that_nobody_took_stay(account: Account) -> None:
    make_budget(account, levels=[(1, "none"), (2, "none")])
    send(account, [make_event(cost_usd="2")])
    old = datetime.now(UTC) - settings.RETENTION_INCIDENTS - timedelta(days=1)
    with account.scope():
        Crossing.objects.update(crossed_at=old)
        Crossing.objects.filter(percent=1).update(claimed_at=old)
    remove_old_rows()
    with account.scope():
        assert [crossing.percent for crossing in Crossing.objects.all()] == [2]


def test_sums_of_days_go_with_history(sealed: Year) -> None:
    account, _ = sealed.accounts
    at = FIRST_MONTH + settings.RETENTION_HISTORY + timedelta(days=40)
    with time_machine.travel(at, tick=False):
        sealing()
        with account.scope():
            for model in (UsageRollup, UsageHistogram):
                first = model.objects.order_by("starts_at")[0]
                assert first.starts_at.year == 2028
            with pytest.raises(InvalidQuestion, match="is no longer kept"):
                require_sums(
                    UsageQuestion(
                        tenant_id=account.tenant.id,
                        starts_at=FIRST_MONTH,
                        ends_at=FIRST_MONTH + timedelta(days=1),
                    )
                )
