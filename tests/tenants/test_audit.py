"""The audit log: who changed what, written with the change or not at all."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from common.errors import NotFound
from tenants.audit import audited_change, create_audited, delete_audited
from tenants.models import AuditEntry, Team
from tests.factories import Account


def entries(account: Account) -> list[tuple[str, str, dict[str, list[object]]]]:
    with account.scope():
        rows = AuditEntry.objects.filter(object_type="team").order_by("id")
        return [(row.actor, row.action, row.changes) for row in rows]


def make_team(account: Account) -> Team:
    with account.scope():
        return create_audited(Team(tenant=account.tenant, name="growth"), actor="ann")


def test_a_row_is_made_changed_and_removed_with_an_entry_each(account: Account) -> None:
    team = make_team(account)
    with account.scope():
        with audited_change(team, actor="ben", changes={"name": "sales"}) as change:
            assert change.concerns(["name"])
            assert not change.concerns(["tenant_id"])
        delete_audited(change.row, actor="cid")
        delete_audited(change.row, actor="cid")
        assert not Team.objects.exists()
    made, renamed, removed = entries(account)
    assert made[:2] == ("ann", "create")
    assert made[2]["name"] == [None, "growth"]
    assert renamed == ("ben", "update", {"name": ["growth", "sales"]})
    assert removed[:2] == ("cid", "delete")
    assert removed[2]["name"] == ["sales", None]


def test_what_stays_as_it_was_has_no_entry_whatever_the_action(account: Account) -> None:
    team = make_team(account)
    with account.scope():
        for action in ("update", "approve"):
            with audited_change(team, actor="ben", action=action, changes={"name": "growth"}):
                pass
    assert len(entries(account)) == 1


def test_a_change_that_fails_leaves_neither_row_nor_entry(account: Account) -> None:
    team = make_team(account)
    with (
        account.scope(),
        pytest.raises(ValueError, match="no"),
        transaction.atomic(),
        audited_change(team, actor="ben", changes={"name": "sales"}),
    ):
        raise ValueError("no")
    with account.scope():
        assert Team.objects.get().name == "growth"
    assert len(entries(account)) == 1


@pytest.mark.django_db(transaction=True)
def test_changes_of_one_row_come_one_after_the_other(account: Account) -> None:
    team = make_team(account)

    def extend(letter: str) -> None:
        try:
            with account.scope(), audited_change(team, actor=letter) as change:
                change.row.name += letter
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(extend, "abcd"))
    with account.scope():
        assert sorted(Team.objects.get().name.removeprefix("growth")) == list("abcd")
    names = [changes["name"] for _, action, changes in entries(account) if action == "update"]
    assert [before for before, _ in names[1:]] == [after for _, after in names[:-1]]


def test_a_change_of_a_row_that_is_gone_says_so(account: Account) -> None:
    team = make_team(account)
    with account.scope():
        delete_audited(team, actor="cid")
        with (
            pytest.raises(NotFound, match="No team has the id"),
            audited_change(team, actor="ben", changes={"name": "sales"}),
        ):
            pytest.fail("there is nothing to change")
