"""No tenant sees another's rows: by table in raw SQL, and by address over HTTP."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction
from django.urls import URLPattern, URLResolver, get_resolver
from psycopg import sql

from alerts.models import Delivery, DeliveryAttempt, ScanProgress, SeriesState
from common.json_bodies import JsonObject
from dashboard.models import Cadence, PinnedView, ReportSchedule, SavedView, SentReport
from metering.core.periods import EPOCH
from metering.limits.decisions import DecisionRow, insert_decisions
from metering.limits.rate_counters import lock_rate_counters
from metering.models import (
    BudgetWindow,
    Outcome,
    Reservation,
    Route,
    SourceOutcome,
    UsageSeal,
    WindowSeal,
)
from metering.rollups import roll_up
from metering.usage.partitions import make_partitions, partition_name
from metering.usage.sources import PROCESS_RECORDER, Tally, record_reports
from tenants.authentication import needed_scopes
from tenants.invitations import invite
from tenants.models import Team, TeamMember, User
from tenants.roles import ALL_SCOPES, Role, Scope
from tenants.scope import platform_scope, tenant_scope
from tests.alerts.examples import make_anomaly, make_incident
from tests.alerts.scene import make_channel
from tests.billing.everything import bill
from tests.factories import Account, make_budget, make_event, send
from tests.metering.api.caller import Answer, Caller, caller
from tests.metering.exports import chat_span, export_spans

# Tables that belong to no tenant, each with its reason.
SHARED: dict[str, str] = {
    "user_account": "a person may belong to several tenants, and signs in before one is chosen",
    "user_account_groups": "Django's own; groups are not used",
    "user_account_user_permissions": "Django's own; operators of the service",
    "auth_group": "Django's own",
    "auth_group_permissions": "Django's own",
    "auth_permission": "Django's own",
    "django_admin_log": "Django's own; what operators did",
    "django_content_type": "Django's own",
    "django_migrations": "Django's own",
    "login_session": "a person may belong to several tenants; found by an unguessable key",
    "sign_in_attempt": "passwords tried in vain, before it is known whose",
    "password_reset": "a person may belong to several tenants, and is not signed in",
    "catalogue_price": "the global price catalogue, the same for all",
}
TABLES = """
    SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relispartition
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    ORDER BY c.relname
"""
Table = tuple[str, str]
REFUSAL = DecisionRow(datetime.now(UTC), "refuse", "halted", {"team": "growth"}, [])


def tables() -> list[Table]:
    """Every table that belongs to tenants, partitions too, and the column that says to whom."""
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        names = [row[0] for row in cursor.fetchall() if row[0] not in SHARED]
    return [(name, "id" if name == "tenant" else "tenant_id") for name in names]


def run(statement: str, table: Table, *parameters: Any) -> Any:
    """The first value of a statement on a table, or how many rows it changed."""
    query = sql.SQL(statement).format(
        table=sql.Identifier(table[0]), tenant=sql.Identifier(table[1])
    )
    with connection.cursor() as cursor:
        cursor.execute(query.as_string(cursor.cursor), parameters)
        return cursor.fetchone()[0] if cursor.description else cursor.rowcount


TIERS = [
    {"provider": "anthropic", "model": "claude-haiku-4-5", "max_complexity": 5},
    {"provider": "anthropic", "model": "growth", "max_complexity": None},
]


def _ask_for_more(api: Caller) -> list[Answer]:
    """A raise that is asked for, and what would happen with another limit."""
    budget_id = api.get("/v1/budgets").body["data"][0]["id"]
    wish = {"by": {"cost_usd": "1"}, "duration_seconds": 60, "reason": "growth"}
    changes = {"budget_id": budget_id, "changes": {"limit": {"cost_usd": "7"}}}
    return [
        api.post(f"/v1/budgets/{budget_id}/raises", wish),
        api.post("/v1/simulations", changes),
    ]


def _alarm(account: Account) -> list[Answer]:
    """An incident that was told, what it was seen by, and when nothing is to be told."""
    make_channel(account, name="growth")
    incident = make_incident(account, title="growth", match={"team": "growth"})
    make_anomaly(account, incident, dimension="team", value="growth")
    now = datetime.now(UTC)
    with account.scope():
        own = {"tenant": account.tenant}
        tried = {"started_at": now, "duration_ms": 5, "is_success": False}
        DeliveryAttempt.objects.create(delivery=Delivery.objects.get(), **own, **tried)
        ScanProgress.objects.create(learned_until=now, **own)
        SeriesState.objects.create(dimension="team", value="growth", used_at=now, **own)
    api = caller(account)
    return [
        api.patch("/v1/alert-settings", {"halts_loops": True}),
        api.post("/v1/maintenance-windows", {"reason": "growth", "duration_seconds": 60}),
    ]


@pytest.fixture
def filled(account: Account) -> Account:
    """A tenant with a row in every table."""
    make_budget(account, levels=[(1, "block")], cost_usd=1)
    api = caller(account)
    # Opened by the usage below.
    breaker = {"name": "growth", "cost_usd_per_minute": "1", "limit_percent": 50}
    assert api.post("/v1/breakers", breaker).status == 201
    assert api.post("/v1/reservations", {"amount_usd": "0.01", "agent": "growth"}).status == 201
    usage = {"team": "growth", "trace": "t", "session": "s", "cost_usd": "5"}
    send(account, [make_event(id=f"event-{number}", **usage) for number in range(3)])
    # Priced by a job, once there is a price.
    send(account, [make_event(model="m")])
    # A second report of a call, and a span.
    for number in range(2):
        send(account, [make_event(id=f"report-{number}", response_id="r", agent=f"a-{number}")])
    export_spans(account, [chat_span(1)])
    answers = [
        api.post("/v1/teams", {"name": "growth"}, Idempotency_Key="one"),
        api.post("/v1/prices", {"model": "m", "rates": {"input_per_mtok_usd": "1"}}),
        api.post("/v1/prices", {"tool": "t", "call_usd": "1"}),
        api.post("/v1/outcomes", {"task": "t", "success": True}),
        api.post("/v1/unit-counts", {"name": "tickets", "day": "2026-11-21", "count": 3}),
        api.post("/v1/annotations", {"text": "Deployed"}),
        api.post(
            "/v1/corrections",
            {"id": "event-0", "source": "tests", "action": "void", "reason": "test"},
        ),
        api.post("/v1/halts", {"match": {"team": "growth"}, "reason": "test"}),
        api.post("/v1/routes", {"name": "growth", "tiers": TIERS}),
        api.post("/v1/rate-limits", {"name": "growth", "limit": {"requests_per_minute": 1}}),
        api.send("PUT", "/v1/attribute-mappings", [{"attribute": "growth", "dimension": "team"}]),
        *_ask_for_more(api),
        *_alarm(account),
    ]
    assert {answer.status // 100 for answer in answers} == {2}
    bill(account)
    record_reports(account.tenant.id, [Tally("growth", Route.NATIVE, SourceOutcome.ACCEPTED, 1)])
    PROCESS_RECORDER.flush()
    with account.scope():
        team = Team.objects.get()
        user = User.objects.get(email=account.email)
        TeamMember.objects.create(tenant=account.tenant, team=team, user=user)
        invite(
            tenant=account.tenant,
            email="growth@example.com",
            role=Role.VIEWER,
            actor="tests",
            actor_role=Role.OWNER,
        )
        with connection.cursor() as cursor:
            insert_decisions(cursor, account.tenant.id, [REFUSAL])
            lock_rate_counters(cursor, account.tenant.id, [("limit:1", "[]")])
        assert roll_up(tenant_id=account.tenant.id) > 0
        UsageSeal.objects.create(tenant=account.tenant, frozen_until=EPOCH, sealed_until=EPOCH)
        window = BudgetWindow.objects.all()[0]
        WindowSeal.objects.create(tenant=account.tenant, window_id=window.id)
        _schedule(account, user)
    return account


def _schedule(account: Account, user: User) -> None:
    """A saved view that is a person's home, and was sent."""
    own: JsonObject = {"tenant": account.tenant}
    view = SavedView.objects.create(owner=user, name="growth", **own)
    PinnedView.objects.create(user=user, view=view, **own)
    now = datetime.now(UTC)
    schedule = ReportSchedule.objects.create(
        view=view,
        owner=user,
        cadence=Cadence.DAILY,
        hour=7,
        is_limited=False,
        next_due_at=now + timedelta(days=1),
        **own,
    )
    SentReport.objects.create(schedule=schedule, period_start=now.date(), **own)


def test_the_applications_role_is_bound_by_row_security(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper, rolbypassrls FROM pg_roles"
            " WHERE rolname IN (current_user, session_user)"
        )
        assert set(cursor.fetchall()) == {(False, False)}


def test_row_security_is_on_and_forced_on_every_table_but_the_listed(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        rows = cursor.fetchall()
    bare = {name for name, is_on, is_forced, _ in rows if not (is_on and is_forced)}
    assert bare == SHARED.keys() & {name for name, *_ in rows}
    assert bare == SHARED.keys(), "a reason for a table that does not exist"
    assert sum(1 for *_, is_partition in rows if is_partition) >= 3


def test_every_table_has_rows_to_be_hidden(filled: Account) -> None:
    """What follows proves something only of tables that hold something."""
    month = (partition_name(datetime.now(UTC).date()), "tenant_id")
    with filled.scope():
        empty = {table for table in tables() if not _count(table)}
    assert {table for table in empty if not _is_month(table)} == set()
    assert month not in empty


def _count(table: Table) -> int:
    return int(run("SELECT count(*) FROM {table}", table))


def test_without_a_tenant_there_are_no_rows(filled: Account) -> None:
    for table in tables():
        assert _count(table) == 0, table
        if _is_open(table):
            assert run("UPDATE {table} SET {tenant} = {tenant}", table) == 0, table
            assert run("DELETE FROM {table}", table) == 0, table


def _is_open(table: Table) -> bool:
    """Whether rows of the table may be changed at all: triggers guard what is append-only."""
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname LIKE"
    return not run(f"{triggers} '%%_append_only'", table)


def test_another_tenant_sees_and_touches_nothing(filled: Account, stranger: Account) -> None:
    others = "SELECT count(*) FROM {table} WHERE {tenant} <> %s"
    update = "UPDATE {table} SET {tenant} = {tenant} WHERE {tenant} = %s"
    delete = "DELETE FROM {table} WHERE {tenant} = %s"
    for table in tables():
        with stranger.scope():
            assert run(others, table, stranger.tenant.id) == 0, table
            if _is_open(table):
                assert run(update, table, filled.tenant.id) == 0, table
                assert run(delete, table, filled.tenant.id) == 0, table
    with filled.scope():
        assert all(_count(table) for table in tables() if not _is_month(table))


@pytest.mark.parametrize("is_signed_in", [False, True], ids=["nobody", "a stranger"])
def test_a_row_for_another_tenant_is_refused(
    filled: Account, stranger: Account, is_signed_in: bool
) -> None:
    """A copy of a tenant's own row, whose columns therefore fit, is offered from outside."""
    refused = set()
    for table in tables():
        with filled.scope():
            row = _some_row(table) if _count(table) else None
        if row is None:
            continue
        with (
            pytest.raises(ProgrammingError, match="row-level security"),
            stranger.scope() if is_signed_in else transaction.atomic(),
        ):
            _insert(table, row)
        refused.add(table[0])
    assert len(refused) >= 20


def _some_row(table: Table) -> str:
    return str(run("SELECT to_jsonb(t)::text FROM {table} t LIMIT 1", table))


def _insert(table: Table, row: str) -> None:
    # What the database makes of other columns is not given.
    names = run(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid ="
        " '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        table,
    )
    run(
        f"INSERT INTO {{table}} ({names}) OVERRIDING SYSTEM VALUE"
        f" SELECT {names} FROM jsonb_populate_record(NULL::{{table}}, %s::jsonb)",
        table,
        row,
    )


def _is_month(table: Table) -> bool:
    return re.fullmatch(r"usage_event_\d{4}_\d\d", table[0]) is not None


def test_a_scope_ends_with_its_transaction(filled: Account) -> None:
    with filled.scope():
        assert _count(("team", "tenant_id")) == 1
    # After a commit the setting is an empty string, which must mean nobody.
    assert _count(("team", "tenant_id")) == 0
    with pytest.raises(ZeroDivisionError), filled.scope():
        raise ZeroDivisionError
    assert _count(("team", "tenant_id")) == 0


def test_a_scope_within_another_gives_way_to_it_again(filled: Account, stranger: Account) -> None:
    with stranger.scope():
        assert _count(("team", "tenant_id")) == 0
        with tenant_scope(filled.tenant.id):
            assert _count(("team", "tenant_id")) == 1
        assert _count(("team", "tenant_id")) == 0
        with platform_scope("tests"):
            assert _count(("team", "tenant_id")) == 1
        assert _count(("team", "tenant_id")) == 0


def test_a_new_partition_is_protected_like_the_others(filled: Account, stranger: Account) -> None:
    month = date(2031, 5, 1)
    table = ("usage_event_2031_05", "tenant_id")
    with transaction.atomic():
        assert make_partitions(first=month, last=month) == [table[0]]
        assert table in tables()
        with filled.scope():
            row = json.loads(_some_row(("usage_event", "tenant_id")))
            _insert(table, json.dumps({**row, "time": "2031-05-02T00:00:00Z"}))
            assert _count(table) == 1
        with stranger.scope():
            assert _count(table) == 0
        assert _count(table) == 0
        with connection.cursor() as cursor:
            cursor.execute(TABLES)
            assert (table[0], True, True, True) in cursor.fetchall()
        transaction.set_rollback(True)


METHODS = ("GET", "POST", "PATCH", "DELETE")
OUTSIDE = {"/v1/schema", "/v1/docs"}


def addresses() -> Iterator[tuple[str, Any, set[str]]]:
    """Every address of the API with its view's class and its methods."""

    def walk(patterns: list[Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern):
                yield route, pattern.callback

    for route, callback in walk(get_resolver().url_patterns, "/"):
        if route.startswith("/v1/") and route not in OUTSIDE:
            offered = getattr(callback, "actions", None) or dir(callback.cls)
            yield route, callback.cls, {method for method in METHODS if method.lower() in offered}


OPERATIONS = [(method, route) for route, _, methods in addresses() for method in sorted(methods)]
VIEWS = {route: view for route, view, _ in addresses()}


@pytest.fixture
def objects(filled: Account) -> JsonObject:
    """The first tenant's objects, by the name that addresses give them."""
    api = caller(filled)
    return {
        "budget_id": api.get("/v1/budgets").body["data"][0]["id"],
        "team_id": api.get("/v1/teams").body["data"][0]["id"],
        "annotation_id": api.get("/v1/annotations").body["data"][0]["id"],
        "price_id": api.get("/v1/prices").body["data"][0]["id"],
        "key_id": api.get("/v1/keys").body["data"][0]["id"],
        "halt_id": api.get("/v1/halts").body["halts"][0]["id"],
        "rate_limit_id": api.get("/v1/rate-limits").body["data"][0]["id"],
        "breaker_id": api.get("/v1/breakers").body["data"][0]["id"],
        "route_id": api.get("/v1/routes").body["data"][0]["id"],
        "raise_id": api.get("/v1/raises").body["data"][0]["id"],
        "simulation_id": api.get("/v1/simulations").body["data"][0]["id"],
        "job_id": api.get("/v1/jobs").body["data"][0]["id"],
        "incident_id": api.get("/v1/incidents").body["data"][0]["id"],
        "channel_id": api.get("/v1/channels").body["data"][0]["id"],
        "delivery_id": api.get("/v1/deliveries").body["data"][0]["id"],
        "window_id": api.get("/v1/maintenance-windows").body["data"][0]["id"],
        "customer_id": api.get("/v1/customers").body["data"][0]["id"],
        "plan_id": api.get("/v1/plans").body["data"][0]["id"],
        "subscription_id": api.get("/v1/subscriptions").body["data"][0]["id"],
        "statement_id": api.get("/v1/statements").body["data"][0]["id"],
        "credit_id": api.get("/v1/credits").body["data"][0]["id"],
        "wallet_id": api.get("/v1/wallets").body["data"][0]["id"],
        "coupon_id": api.get("/v1/coupons").body["data"][0]["id"],
        "credit_note_id": api.get("/v1/credit-notes").body["data"][0]["id"],
        "reconciliation_id": api.get("/v1/reconciliations").body["data"][0]["id"],
        "reservation_id": _any_reservation(filled),
        "trace": "t",
        "session": "s",
    }


def _any_reservation(account: Account) -> object:
    with account.scope():
        return Reservation.objects.values_list("id", flat=True)[0]


def fill(route: str, objects: JsonObject) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda result: str(objects[result[1]]), route)


def test_a_stranger_gets_nothing_of_anothers(
    filled: Account, stranger: Account, objects: JsonObject
) -> None:
    api = caller(stranger)
    for method, route in OPERATIONS:
        query = f"?month={datetime.now(UTC):%Y-%m}" if route.endswith("focus.csv") else ""
        answer = api.send(method, fill(route, objects) + query, {})
        if "<" in route:
            assert (answer.status, answer.code) == (404, "not_found"), (method, route)
        text = str(answer.body)
        for theirs in (
            "growth",
            filled.tenant.name,
            "event-1",
            filled.email,
            "sg_" + prefix(filled),
        ):
            assert theirs not in text, (method, route)
        if answer.status == 200 and isinstance(answer.body, dict):
            assert _is_own(answer.body), (method, route, answer.body)


def prefix(account: Account) -> str:
    return account.api_key.split("_")[1]


def _is_own(body: JsonObject) -> bool:
    """Whether a list holds at most what every tenant has: its first key, presets, how it began,
    and what it sent just now, which names no source or is LiteLLM's.
    """
    rows = body.get("data", [])
    kinds = {row.get("object_type", row.get("name", row.get("source"))) for row in rows}
    kinds -= {"", "litellm"}
    is_empty = "total" not in body or body["total"]["requests"] == 0
    return is_empty and kinds <= {"tenant", "membership", "apikey", "First key", "Session limits"}


def test_without_a_key_there_is_no_answer(filled: Account, objects: JsonObject) -> None:
    for key in (None, "sg_wrong_wrong", filled.api_key[:-1]):
        for method, route in OPERATIONS:
            answer = Caller(key).send(method, fill(route, objects), {})
            assert (answer.status, answer.code) == (401, "unauthenticated"), (method, route)


def test_a_key_without_the_scope_is_refused(filled: Account, objects: JsonObject) -> None:
    without: dict[tuple[Scope, ...], str] = {}
    for method, route in OPERATIONS:
        needed = needed_scopes(method, VIEWS[route])
        if needed not in without:
            others = [other for other in ALL_SCOPES if other not in needed]
            body = {"name": "all but some", "scopes": others}
            without[needed] = caller(filled).post("/v1/keys", body).body["key"]
        answer = Caller(without[needed]).send(method, fill(route, objects), {})
        assert (answer.status, answer.code) == (403, "forbidden"), (method, route)
        assert " or ".join(repr(scope.value) for scope in needed) in answer.body["detail"]


def test_ids_in_bodies_find_nothing_of_anothers(filled: Account, stranger: Account) -> None:
    correction = {"id": "event-1", "source": "tests", "action": "void", "reason": "malice"}
    refused = caller(stranger).post("/v1/corrections", correction)
    assert (refused.status, refused.code) == (404, "not_found")
    event = make_event(id="event-1", team="growth")
    assert caller(stranger).post("/v1/events", event).body["accepted"] == 1
    own = {"name": "mine", "period": "month", "match": {"team": "growth"}, "limit": {"requests": 5}}
    budget = caller(stranger).post("/v1/budgets", own).body
    windows = caller(stranger).get(f"/v1/budgets/{budget['id']}/windows").body["data"]
    assert [window["spent_requests"] for window in windows] == [1]


def test_a_session_of_one_tenants_member_shows_only_that_tenant(
    filled: Account, stranger: Account, client: Any
) -> None:
    user = User.objects.get(email=stranger.email)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    session = client.session
    session["tenant_id"] = filled.tenant.id
    session.save()
    page = client.get("/")
    assert filled.tenant.name not in page.content.decode()
    answer = client.get("/v1/budgets")
    assert answer.status_code == 401, "pages sign in by session, the API by key alone"


def test_facts_of_the_same_key_exist_in_two_tenants(filled: Account, stranger: Account) -> None:
    with stranger.scope():
        Outcome.objects.create(tenant=stranger.tenant, task="t", session="", is_success=False)
        assert Outcome.objects.count() == 1
    with filled.scope():
        assert Outcome.objects.get().is_success is True
