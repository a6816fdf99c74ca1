"""Test data, made by the same functions as real data, so that it is reachable data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from common.json_bodies import JsonObject
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import create_budget
from metering.intake.ingest import ingest
from metering.jobs.tasks import run_jobs
from metering.models import Budget, BudgetWindow, Route
from metering.usage.decoders import native
from tenants.models import Tenant
from tenants.people import NewTenant, create_tenant
from tenants.scope import tenant_scope

NANOS = 1_000_000_000
_numbers = count(1)


@dataclass
class Account:
    """A tenant with the key that its clients use."""

    tenant: Tenant
    api_key: str
    email: str
    password: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    @contextmanager
    def scope(self) -> Iterator[None]:
        with tenant_scope(self.tenant.id):
            yield


def make_account(name: str | None = None) -> Account:
    number = next(_numbers)
    new: NewTenant = create_tenant(
        name=name or f"tenant-{number}", owner_email=f"owner-{number}@example.com", actor="tests"
    )
    assert new.password is not None
    return Account(new.tenant, new.api_key, new.email, new.password)


def make_event(**fields: object) -> JsonObject:
    """A usage event of 1,000 input and 100 output tokens, unless told otherwise."""
    event: JsonObject = {
        "id": f"event-{next(_numbers)}",
        "source": "tests",
        # Not before now: the budgets' periods may have begun this second.
        "time": datetime.now(UTC).isoformat(),
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "input_tokens": 1000,
        "output_tokens": 100,
        **fields,
    }
    return {name: value for name, value in event.items() if value is not ...}


def send(account: Account, events: Sequence[JsonObject]) -> JsonObject:
    """Take events in as the service does, without HTTP; answers what the client would read."""
    items = native.decode_json(msgspec.json.encode(list(events)))
    job = ingest(items, tenant_id=account.tenant.id, route=Route.NATIVE)
    answer: JsonObject = msgspec.to_builtins(job.answer())
    return answer


def make_budget(
    account: Account,
    *,
    levels: Sequence[tuple[int, str]] = ((100, "block"),),
    cost_usd: int | None = 100,
    **fields: Any,
) -> Budget:
    """A budget of 100 USD a month for everything, unless told otherwise."""
    fields = {"name": f"budget-{next(_numbers)}", "period": "month", **fields}
    if cost_usd is not None:
        fields["limit_cost_nanos"] = cost_usd * NANOS
    with account.scope():
        return create_budget(
            tenant=account.tenant,
            actor="tests",
            levels=[LevelRule(percent, action, ()) for percent, action in levels],
            **fields,
        )


def windows_of(account: Account, budget: Budget) -> list[BudgetWindow]:
    """The windows of a budget's present revision, oldest first."""
    with account.scope():
        revision = Budget.objects.get(tenant=account.tenant, id=budget.id).revision
        return list(
            BudgetWindow.objects.filter(
                tenant=account.tenant, budget_id=budget.id, revision=revision
            ).order_by("starts_at", "id")
        )


def finish_jobs() -> None:
    """What workers do, until no job is left."""
    while run_jobs():
        pass
