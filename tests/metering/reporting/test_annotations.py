"""What time charts say happened, and who may read it."""

from datetime import UTC, datetime, timedelta

from django.utils import timezone

from metering.configuration.annotations import add_annotation, remove_annotation
from metering.configuration.budgets import update_budget
from metering.configuration.prices import Validity, add_tool_price
from metering.limits.halts import halt, lift_halt
from metering.models import Annotation
from metering.reporting.annotations import Kind, TimeNote, annotations
from tests.factories import NANOS, Account, make_account, make_budget

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def post(account: Account, text: str, **match: object) -> Annotation:
    with account.scope():
        return add_annotation(
            tenant=account.tenant, time=NOON, text=text, match=match, actor="tests"
        )


def notes(account: Account, teams: tuple[str, ...] | None = None, **filters: str) -> list[TimeNote]:
    with account.scope():
        return annotations(
            tenant_id=account.tenant.id,
            starts_at=NOON - timedelta(days=400),
            ends_at=timezone.now() + timedelta(days=400),
            filters={name: (value,) for name, value in filters.items()},
            teams=teams,
        )


def texts(result: list[TimeNote]) -> set[str]:
    return {note.text for note in result}


def test_a_posted_moment_shows_on_charts_of_usage_that_it_may_be_about(account: Account) -> None:
    post(account, "Deployed 4.2")
    post(account, "New prompt", team="growth")
    assert texts(notes(account)) == {"Deployed 4.2", "New prompt"}
    assert texts(notes(account, team="growth")) == {"Deployed 4.2", "New prompt"}
    assert texts(notes(account, team="research")) == {"Deployed 4.2"}
    assert texts(notes(account, agent="writer")) == {"Deployed 4.2", "New prompt"}
    assert notes(make_account()) == []


def test_what_was_removed_is_gone(account: Account) -> None:
    note = post(account, "Deployed 4.2")
    with account.scope():
        remove_annotation(annotation=note, actor="tests")
    assert notes(account) == []


def test_changes_of_prices_budgets_and_halts_show_by_themselves(account: Account) -> None:
    budget = make_budget(account, name="All", cost_usd=100)
    with account.scope():
        update_budget(budget=budget, actor="tests", changes={"limit_cost_nanos": 250 * NANOS})
        add_tool_price(
            tenant=account.tenant,
            actor="tests",
            tool="web_search",
            call_nanos=5,
            validity=Validity(NOON, NOON + timedelta(days=1), ""),
        )
        stop = halt(tenant=account.tenant, match={"agent": "writer"}, reason="loops", actor="tests")
        lift_halt(halt=stop, actor="tests")
    result = notes(account)
    assert [(note.kind, note.text) for note in result] == [
        (Kind.PRICE, "Price of tool web_search changed"),
        (Kind.PRICE, "Price of tool web_search ended"),
        (Kind.BUDGET, "Budget “All” created"),
        (Kind.BUDGET, "Budget “All” limit $100.00 → $250.00"),
        (Kind.HALT, "Halted: loops"),
        (Kind.HALT, "Halt lifted: loops"),
    ]
    assert [note.at for note in result[:2]] == [NOON, NOON + timedelta(days=1)]
    assert [note.id for note in result[2:]] == [budget.id, budget.id, stop.id, stop.id]
    assert "Halted: loops" not in texts(notes(account, agent="reader"))


def test_a_person_limited_to_a_team_reads_nothing_of_another(account: Account) -> None:
    post(account, "Deployed 4.2")
    post(account, "Ours", team="growth")
    post(account, "Theirs", team="research")
    post(account, "Both", team=["growth", "research"])
    post(account, "Someone's agent", agent="writer")
    make_budget(account, name="Everything")
    make_budget(account, name="Growth", match={"team": "growth"})
    assert texts(notes(account, teams=("growth",))) == {
        "Deployed 4.2",
        "Ours",
        "Budget “Growth” created",
    }
