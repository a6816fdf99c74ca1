"""The audit finds what does not add up, and says what must be."""

import pytest
from django.db import connection

from metering.audit.ledger import audit_tenant
from tests.factories import Account, make_account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import caller


@pytest.mark.parametrize(
    ("column", "drifts"),
    [
        (
            "spent_nanos",
            ["its entries: nanos is 6,000,000,000, must be 2,000,000,000 (+4,000,000,000)"],
        ),
        ("spent_tokens", ["its entries: tokens is 4,000,001,100, must be 1,100 (+4,000,000,000)"]),
        (
            "reserved_nanos",
            [
                "its open reservations, reserved: nanos is 7,000,000,000, must be 3,000,000,000"
                " (+4,000,000,000)"
            ],
        ),
        (
            "reserved_tool_calls",
            [
                "its open reservations, reserved: tool_calls is 4,000,000,000, must be 0"
                " (+4,000,000,000)"
            ],
        ),
    ],
)
def test_a_balance_that_was_changed_by_hand_is_found(
    catalogue: None, column: str, drifts: list[str]
) -> None:
    account: Account = make_account()
    budget = make_budget(account)
    send(account, [make_event(cost_usd="2")])
    api = caller(account)
    assert api.post("/v1/reservations", {"agent": "a", "amount_usd": "3"}).status == 201
    assert audit_tenant(account.tenant.id) == []
    (window,) = windows_of(account, budget)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE budget_window SET {column} = {column} + 4000000000 WHERE id = %s",
            [window.id],
        )
    shown = map(str, audit_tenant(account.tenant.id))
    balances = [drift for drift in shown if drift.startswith("window ")]
    assert balances == [f"window {window.id} against {text}" for text in drifts]
