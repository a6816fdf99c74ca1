"""The kill switch in the admin: who may stop what, and who may let it go on."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from metering.limits.halts import halt
from metering.models import Halt
from tenants.roles import Role
from tests.dashboard.test_admin import changed, errors_of
from tests.factories import Account

HALTS = "/admin/metering/halt"
MAY_LIFT = {Role.OWNER, Role.ADMIN, Role.FINANCE}
MAY_HALT = {*MAY_LIFT, Role.ENGINEER}


def halt_form(**changes: Any) -> dict[str, Any]:
    return {
        "form_token": uuid.uuid4().hex,
        "match_0": "agent",
        "match_1": "researcher",
        "reason": "It loops",
        **changes,
    }


def make_halt(account: Account) -> Halt:
    with account.scope():
        return halt(
            tenant=account.tenant, match={"agent": "researcher"}, reason="It loops", actor="tests"
        )


def in_force(account: Account) -> list[dict[str, Any]]:
    with account.scope():
        found = Halt.objects.filter(tenant=account.tenant, lifted_at=None)
        return [one.match for one in found.order_by("id")]


def test_a_person_halts_an_agent_and_reads_what_follows(account: Account, owner: Client) -> None:
    shown = owner.get(f"{HALTS}/add/").content.decode()
    assert "New calls that match are refused within a second. Calls in flight finish" in shown
    form = halt_form()
    answer = owner.post(f"{HALTS}/add/", form, follow=True)
    assert "Halted: agent researcher." in errors_of(answer)
    owner.post(f"{HALTS}/add/", form)
    assert in_force(account) == [{"agent": "researcher"}]
    assert changed(account)[-1] == (account.email, "create", "halt")


def test_a_halt_is_lifted_after_a_question_and_listed_apart(
    account: Account, owner: Client
) -> None:
    made = make_halt(account)
    page = owner.get(f"{HALTS}/{made.id}/delete/").content.decode()
    assert "let through again within a second" in page
    assert in_force(account) == [{"agent": "researcher"}]
    assert owner.post(f"{HALTS}/{made.id}/delete/", {"post": "yes"}).status_code == 302
    assert in_force(account) == []
    assert changed(account)[-1] == (account.email, "update", "halt")
    # The first page after it says that it was lifted.
    assert "It loops: lifted." in errors_of(owner.get(f"{HALTS}/"))
    assert "It loops" not in errors_of(owner.get(f"{HALTS}/"))
    assert "It loops" in errors_of(owner.get(f"{HALTS}/", {"lifted": "yes"}))
    assert owner.post(f"{HALTS}/{made.id}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("role", list(Role))
def test_more_people_may_halt_than_lift_and_nobody_changes_a_halt(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    made = make_halt(account)
    client = as_role(role)
    assert client.get(f"{HALTS}/").status_code == 200
    assert client.get(f"{HALTS}/{made.id}/change/").status_code == 200
    changes = client.post(f"{HALTS}/{made.id}/change/", halt_form(reason="other"))
    assert changes.status_code == 403
    added = client.post(f"{HALTS}/add/", halt_form(match_1="writer"))
    assert added.status_code == (302 if role in MAY_HALT else 403)
    lifted = client.post(f"{HALTS}/{made.id}/delete/", {"post": "yes"})
    assert lifted.status_code == (302 if role in MAY_LIFT else 403)
    expected = [{"agent": "researcher"}] if role not in MAY_LIFT else []
    assert in_force(account) == expected + ([{"agent": "writer"}] if role in MAY_HALT else [])


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.FINANCE])
def test_only_who_manages_stops_everything(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    everything = halt_form(match_0="", match_1="")
    client = as_role(role)
    answer = client.post(f"{HALTS}/add/", everything, follow=True)
    if role is Role.ENGINEER:
        assert "This may stop every call" in errors_of(answer)
        assert in_force(account) == []
    else:
        assert "This stops every call of the tenant" in errors_of(answer)
        assert in_force(account) == []
        client.post(f"{HALTS}/add/", {**everything, "_confirmed": "yes"})
        assert in_force(account) == [{}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": ""}, "This field is required"),
        ({"match_0": "status", "match_1": "error"}, "not known before it has run"),
        ({"match_1": ""}, "Give at least one value of agent"),
    ],
)
def test_a_wrong_form_says_what_is_wrong_and_halts_nothing(
    account: Account, owner: Client, changes: dict[str, Any], words: str
) -> None:
    assert words in errors_of(owner.post(f"{HALTS}/add/", halt_form(**changes)))
    assert in_force(account) == []


def test_another_tenants_halts_are_not_there(
    account: Account, stranger: Account, owner: Client
) -> None:
    theirs = make_halt(stranger)
    assert "It loops" not in errors_of(owner.get(f"{HALTS}/"))
    for path in ("change", "delete"):
        answer = owner.post(f"{HALTS}/{theirs.id}/{path}/", {"post": "yes"})
        assert answer.status_code in {302, 403}
    assert in_force(stranger) == [{"agent": "researcher"}]
