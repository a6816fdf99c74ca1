"""The bar above every page while a halt stops the whole tenant."""

from collections.abc import Callable

from django.db import connection
from django.test import Client

from metering.limits.halts import halt, insert_halt, lift_halt
from metering.models import HaltKind
from tenants.roles import Role
from tests.factories import Account, make_account

PAGES = (
    "/",
    "/budgets",
    "/incidents",
    "/enforcement/requests",
    "/nothing/here",
    "/admin/",
    "/admin/metering/budget/",
    "/admin/metering/budget/add/",
)
SOME = ("/budgets", "/admin/metering/budget/add/")


def is_stopped(client: Client, path: str) -> bool:
    return 'class="banner critical stopped" role="alert"' in client.get(path).content.decode()


def test_a_halt_of_the_whole_tenant_is_above_every_page(
    account: Account, owner: Client, as_role: Callable[[Role], Client]
) -> None:
    other = make_account()
    with account.scope():
        halt(tenant=account.tenant, match={"agent": "a"}, reason="one agent", actor="tests")
    with other.scope():
        halt(tenant=other.tenant, match={}, reason="another tenant", actor="tests")
    assert not any(is_stopped(owner, path) for path in SOME)
    with account.scope():
        row = halt(
            tenant=account.tenant, match={}, reason="A <runaway> at night", actor="ops@example.com"
        )
    assert [path for path in PAGES if not is_stopped(owner, path)] == []
    page = owner.get("/budgets").content.decode()
    assert "by ops@example.com: “A &lt;runaway&gt; at night”" in page
    assert f"{row.since:%Y-%m-%dT%H:%M:%SZ}" in page
    assert f'href="/enforcement/halts#halt-{row.id}"' in page
    assert ">Lift…</a>" in page
    assert ">View halt</a>" in as_role(Role.VIEWER).get("/budgets").content.decode()
    assert not is_stopped(Client(), "/login")
    with account.scope():
        lift_halt(halt=row, actor="tests")
    assert not any(is_stopped(owner, path) for path in SOME)


def test_what_a_breaker_or_a_lockout_stops_is_there_too(account: Account, owner: Client) -> None:
    with account.scope(), connection.cursor() as cursor:
        for kind, reason in ((HaltKind.BREAKER, "too fast"), (HaltKind.LOCKOUT, "over the limit")):
            insert_halt(
                cursor,
                tenant_id=account.tenant.id,
                match={},
                reason=reason,
                kind=kind,
                actor="spendgate",
                breaker_id=1 if kind == HaltKind.BREAKER else None,
            )
    page = owner.get("/").content.decode()
    assert "by a breaker: “too fast” and 1 more halt" in page
