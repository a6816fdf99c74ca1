"""A form or a button that is sent twice, or in another tenant than it was shown for."""

import re
from typing import Final, NamedTuple

import pytest
from django.test import Client

from alerts.models import EntryKind, IncidentEntry
from dashboard.models import SavedView
from metering.models import Halt, LimitIncrease
from tenants.models import User
from tenants.people import add_member
from tenants.roles import Role
from tests.alerts.examples import make_incident
from tests.dashboard.test_enforcement_pages import page, raise_form, text_of
from tests.factories import Account, make_budget


def token_of(html: str, action: str = "") -> str:
    """The token of the first form, or of the one that posts there."""
    match = re.search(r'name="form_token" value="([^"]+)"', html[html.index(action) :])
    assert match is not None
    return match[1]


def test_a_limit_is_raised_once_by_two_clicks(account: Account, owner: Client) -> None:
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    form = raise_form(form_token=token_of(page(owner, path)))
    owner.post(path, form)
    again = owner.post(path, form, follow=True)
    assert "nothing was done twice" in text_of(again.content.decode())
    with account.scope():
        assert LimitIncrease.objects.count() == 1
    owner.post(path, raise_form(form_token=token_of(page(owner, path))))
    with account.scope():
        assert LimitIncrease.objects.count() == 2


def test_a_raise_ends_by_the_clock_of_the_tenant(account: Account, owner: Client) -> None:
    with account.scope():
        account.tenant.timezone = "Asia/Kathmandu"
        account.tenant.save()
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    owner.post(path, raise_form(ends_at="2026-12-20T10:00"))
    with account.scope():
        assert LimitIncrease.objects.get().ends_at.isoformat() == "2026-12-20T04:15:00+00:00"


def test_a_comment_is_written_once_by_two_clicks(account: Account, owner: Client) -> None:
    incident = make_incident(account)
    for text in ("Mine", "Mine", "Another", "Mine"):
        owner.post(f"/incidents/{incident.id}/comment", {"text": text})
    with account.scope():
        comments = IncidentEntry.objects.filter(kind=EntryKind.COMMENTED).order_by("id")
        assert list(comments.values_list("text", flat=True)) == ["Mine", "Another", "Mine"]


class Button(NamedTuple):
    """What a button posts, and the page that shows it."""

    shown_on: str
    path: str
    fields: dict[str, str]
    makes: type[Halt] | type[SavedView]


BUTTONS: Final = (
    Button(
        "/enforcement/halts/confirm?dimension=agent&value=scout",
        "/enforcement/halts/make",
        {"calls": "agent=scout", "reason": "It loops"},
        Halt,
    ),
    Button(
        "/explore",
        "/reports/views/save",
        {"name": "Mine", "query": "", "readers": "tenant"},
        SavedView,
    ),
)


@pytest.mark.parametrize("button", BUTTONS)
def test_a_button_of_another_tenant_does_nothing(
    account: Account, stranger: Account, owner: Client, button: Button
) -> None:
    """A person looks at another of their tenants in one tab, and confirms in the other tab."""
    with stranger.scope():
        user = User.objects.get(email=account.email)
        add_member(tenant=stranger.tenant, user=user, role=Role.OWNER, actor="tests")
    html = page(owner, button.shown_on)
    form = {**button.fields, "form_token": token_of(html, f'action="{button.path}"')}
    owner.post("/tenant", {"tenant": str(stranger.tenant.id)})
    answer = owner.post(button.path, form, follow=True)
    assert "shown for another tenant" in text_of(answer.content.decode())
    for tenant in (account, stranger):
        with tenant.scope():
            assert not button.makes._default_manager.exists()
    owner.post("/tenant", {"tenant": str(account.tenant.id)})
    owner.post(button.path, form)
    with account.scope():
        assert button.makes._default_manager.count() == 1
