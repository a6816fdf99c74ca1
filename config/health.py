"""`/healthz`, `/readyz` and `/metrics`: for those who run the service, without a key."""

import os
from collections.abc import Callable
from typing import Final

import structlog
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from kombu.exceptions import OperationalError as BrokerUnreachable

from config.celery import application as celery
from config.metrics import exposition

log = structlog.get_logger(__name__)

BROKER_TIMEOUT_SECONDS: Final = 2
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer that the process is up, whatever else is: a restart does not repair a database."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer whether the service can work: 200, or 503 with what is missing."""
    checks = {name: _outcome(name, check) for name, check in CHECKS.items()}
    is_ready = set(checks.values()) == {"ok"}
    return JsonResponse(
        {"status": "ready" if is_ready else "not ready", "checks": checks},
        status=200 if is_ready else 503,
    )


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus."""
    return HttpResponse(exposition(), content_type=METRICS_TYPE)


class NotReady(Exception):
    """Something the service needs is missing; the sentence names no secret."""


def _outcome(name: str, check: Callable[[], None]) -> str:
    try:
        check()
    except NotReady as error:
        return str(error)
    except Exception:
        log.exception("readiness check failed", check=name)
        return "failed; see the log"
    return "ok"


def _check_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        raise NotReady("cannot be reached") from error


def _check_migrations() -> None:
    if _Migrations.are_applied:
        return
    try:
        count = count_pending_migrations()
    except DatabaseError as error:
        raise NotReady("unknown while the database cannot be reached") from error
    if count:
        raise NotReady(f"{count} not applied; run 'manage.py migrate'")
    _Migrations.are_applied = True


def count_pending_migrations() -> int:
    """Return the number of migrations that this database lacks."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


class _Migrations:
    """Once applied they stay so for the life of a process, whose code knows no later ones."""

    are_applied = False


def _check_broker() -> None:
    folder = celery.conf.broker_transport_options.get("data_folder_out")
    if folder is not None:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise NotReady("its folder cannot be written to")
        return
    try:
        with celery.connection_for_write(connect_timeout=BROKER_TIMEOUT_SECONDS) as broker:
            broker.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT_SECONDS)
    except (BrokerUnreachable, OSError) as error:
        raise NotReady("cannot be reached") from error


CHECKS: Final[dict[str, Callable[[], None]]] = {
    "database": _check_database,
    "migrations": _check_migrations,
    "broker": _check_broker,
}
