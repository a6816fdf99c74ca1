"""What those who run the service look at: alive, ready, and numbers, all without a key."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from config import health
from config.celery import application as celery
from tests.factories import Account, make_event
from tests.metering.api.caller import caller

pytestmark = pytest.mark.django_db


def get(path: str) -> tuple[int, Any]:
    response = Client(raise_request_exception=False).get(path)
    return response.status_code, json.loads(response.content)


def broken(*arguments: object, **named: object) -> None:
    raise OperationalError("connection refused to db.internal password=hunter2")


def test_the_process_says_it_is_up_without_looking_at_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("config.health.connection.cursor", broken)
    assert get("/healthz") == (200, {"status": "ok"})


def test_the_service_is_ready_when_all_it_needs_is_there() -> None:
    status, body = get("/readyz")
    assert (status, body["status"]) == (200, "ready")
    assert body["checks"] == {"database": "ok", "migrations": "ok", "broker": "ok"}


def test_a_database_that_is_away_makes_it_not_ready_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("config.health.connection.cursor", broken)
    status, body = get("/readyz")
    assert status == 503
    assert body["checks"]["database"] == "cannot be reached"
    assert "hunter2" not in str(body)


def test_a_migration_that_is_missing_makes_it_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health._Migrations, "are_applied", False)
    monkeypatch.setattr("config.health.MigrationExecutor.migration_plan", lambda *_: ["one", "two"])
    status, body = get("/readyz")
    assert status == 503
    assert body["checks"]["migrations"] == "2 not applied; run 'manage.py migrate'"


def test_a_broker_that_is_away_makes_it_not_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = {"data_folder_out": str(tmp_path / "missing")}
    monkeypatch.setitem(celery.conf, "broker_transport_options", options)
    status, body = get("/readyz")
    assert (status, body["checks"]["broker"]) == (503, "its folder cannot be written to")
    monkeypatch.setitem(celery.conf, "broker_transport_options", {})
    monkeypatch.setattr(celery, "connection_for_write", unreachable)
    assert get("/readyz")[1]["checks"]["broker"] == "cannot be reached"


def unreachable(**options: object) -> None:
    raise ConnectionRefusedError("redis://:hunter2@broker")


def scrape() -> dict[tuple[str, tuple[str, ...]], float]:
    response = Client().get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def test_metrics_count_answers_events_and_what_waits(account: Account) -> None:
    before = scrape()
    api = caller(account)
    api.post("/v1/events", [make_event(id="same"), make_event(id="same", model="other"), {"id": 1}])
    api.get("/v1/budgets/12345")
    api.get("/v1/made/up/by/a/client")
    after = scrape()

    def rise(name: str, *labels: str) -> float:
        key = (name, tuple(sorted(labels)))
        return after.get(key, 0) - before.get(key, 0)

    assert rise("spendgate_events_total", "native", "accepted") == 1
    assert rise("spendgate_events_total", "native", "rejected") == 2
    assert rise("spendgate_requests_total", "POST", "/v1/events", "200") == 1
    route = "/v1/budgets/<int:budget_id>"
    assert rise("spendgate_requests_total", "GET", route, "404") == 1
    assert rise("spendgate_requests_total", "GET", "unmatched", "404") == 1
    assert rise("spendgate_waiting_rows", "batches") == 1
    assert 0 < after["spendgate_waiting_seconds", ("batches",)] < 60
    assert after["spendgate_database_up", ()] == 1
    assert after["spendgate_process_resident_bytes", ()] > 10_000_000
    names = " ".join(name for name, _ in after)
    assert account.tenant.name not in names


def test_metrics_answer_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.metrics.platform_scope", broken)
    result = scrape()
    assert result["spendgate_database_up", ()] == 0
    assert ("spendgate_waiting_rows", ("batches",)) not in result


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_is_only_read(path: str) -> None:
    assert Client().post(path).status_code == 405


def test_a_process_that_is_just_starting_does_not_stop_the_scrape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "counter_1.db").touch()
    assert Client().get("/metrics").status_code == 200
