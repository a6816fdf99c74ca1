"""How PostgreSQL carries out what the busy transactions keep prepared."""

import re
from collections.abc import Sequence

import psycopg
import pytest
from django.db import connection
from psycopg.rows import TupleRow

from common.queries import fetch_rows
from tenants.pipeline import Pipeline
from tests.factories import Account, make_budget
from tests.metering.api.caller import Caller

Sent = tuple[str, Sequence[object]]


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """The statements that update rows, as they are sent."""
    sent: list[Sent] = []
    send = Pipeline.send

    def recorded(
        self: Pipeline, statement: str, parameters: Sequence[object] = ()
    ) -> psycopg.Cursor[TupleRow]:
        if "UPDATE " in statement and "FOR UPDATE" not in statement:
            sent.append((statement, parameters))
        return send(self, statement, parameters)

    monkeypatch.setattr(Pipeline, "send", recorded)
    return sent


def kept_plan(statement: str, parameters: Sequence[object]) -> str:
    """The plan for whatever parameters, made while the tables are nearly empty."""
    numbers = iter(range(1, len(parameters) + 1))
    numbered = re.sub("%s", lambda _: f"${next(numbers)}", statement)
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE kept AS {numbered}")
        marks = ", ".join(["%s"] * len(parameters))
        try:
            rows = fetch_rows(f"EXPLAIN EXECUTE kept ({marks})", parameters)
        finally:
            cursor.execute("DEALLOCATE kept; RESET plan_cache_mode")
    return "\n".join(row[0] for row in rows)


def test_rows_are_looked_up_also_by_a_plan_from_when_there_were_few(
    account: Account, updates: list[Sent]
) -> None:
    api = Caller(account.api_key)
    make_budget(account, cost_usd=100)
    limit = {"name": "calm", "per": [], "mode": "enforce", "limit": {"requests_per_minute": 100}}
    assert api.post("/v1/rate-limits", limit).status == 201
    made = api.post("/v1/reservations", {"amount_usd": "1"})
    path = f"/v1/reservations/{made.body['id']}/settle"
    assert api.post(path, {"id": "call", "cost_usd": "1"}).status == 200

    tables = {re.findall(r"UPDATE (\w+)", statement)[-1] for statement, _ in updates}
    assert tables == {"reservation", "budget_window", "rate_counter"}
    for statement, parameters in updates:
        assert "= ANY (" in kept_plan(statement, parameters), statement
