"""Forms that were sent signed out or out of date: nothing is changed, and nothing typed is lost."""

from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from alerts.errors import SecretsUnreadable
from alerts.models import Channel
from alerts.sealing import unseal as unseal_channel
from common.json_bodies import JsonObject
from common.sealing import unseal
from dashboard import kept_input
from metering.models import Budget, Halt
from tenants.models import Invitation, LoginSession, Membership, User
from tenants.people import add_member
from tenants.roles import Role
from tests.dashboard.conftest import BACKEND, make_member, sign_in
from tests.dashboard.test_admin import FormReader, budget_form, changed, errors_of
from tests.factories import Account, make_account

ADD = "/admin/metering/budget/add/"
MAKE = "/enforcement/halts/make"
HALT = {"dimension": "agent", "value": "research", "reason": "It loops <fast>"}
SIGNED_OUT = "You were signed out before this was saved: nothing was changed."
FORM = budget_form(
    (70, "none", "finance"),
    (100, "block", "team_lead, finance"),
    name="Typed “with” <care>",
    limit_cost_nanos="12,5",
)


@pytest.fixture
def browser(account: Account) -> Client:
    """A browser in which the owner has looked at a page, and whose session has ended since."""
    client = sign_in(account.email)
    assert client.get(ADD).status_code == 200
    end_sessions()
    return client


def end_sessions() -> None:
    LoginSession.objects.all().delete()


def log_in(client: Client, account: Account, answer: Any, *, follow: bool = True) -> Any:
    """Sign in where an answer led; the page after it."""
    page = client.get(answer["Location"], follow=True)
    assert SIGNED_OUT in page.content.decode()
    form = FormReader()
    form.feed(page.content.decode())
    query = {"username": account.email, "password": account.password, "next": form.fields["next"]}
    return client.post("/login", query, follow=follow)


def sent_again(page: Any) -> JsonObject:
    reader = FormReader()
    reader.feed(page.content.decode())
    return reader.fields


def test_a_form_of_the_admin_comes_back_filled_in_and_unsaved(
    account: Account, browser: Client
) -> None:
    before = changed(account)
    page = log_in(browser, account, browser.post(ADD, FORM))
    shown = errors_of(page)
    assert f"{SIGNED_OUT} Check and save again." in shown
    # With its errors, its rows of levels, and what was typed.
    assert "Write 1200.50: commas could mean thousands or decimals." in shown
    fields = sent_again(page)
    for name in ("name", "limit_cost_nanos", "match_0", "timezone", "levels-1-notify"):
        assert fields[name] == str(FORM[name]), name
    assert fields["form_token"] == FORM["form_token"]
    assert changed(account) == before
    # Once: the form is empty when it is opened again.
    assert "Typed" not in errors_of(browser.get(ADD))
    sound = {**fields, "limit_cost_nanos": "12.5"}
    assert browser.post(ADD, sound).status_code == 302
    with account.scope():
        assert Budget.objects.get().name == FORM["name"]


def test_a_sound_form_is_not_saved_by_itself(account: Account, browser: Client) -> None:
    sound = {**FORM, "limit_cost_nanos": "12.5", "_confirmed": "yes"}
    page = log_in(browser, account, browser.post(ADD, sound))
    assert 'value="12.5"' in errors_of(page)
    assert "_confirmed" not in sent_again(page)
    with account.scope():
        assert not Budget.objects.exists()


def test_what_a_button_sends_comes_back_to_be_sent_again(account: Account, browser: Client) -> None:
    page = log_in(browser, account, browser.post(MAKE, HALT))
    assert f"{SIGNED_OUT} Check and save again." in errors_of(page)
    with account.scope():
        assert not Halt.objects.exists()
    fields = sent_again(page)
    assert "It loops &lt;fast&gt;" in page.content.decode()
    assert fields["value"] == "research"
    # A button that sends nothing: back at its page, with the sentence.
    page = browser.get("/enforcement/halts")
    end_sessions()
    page = log_in(browser, account, browser.post("/enforcement/halts/1/lift", {}))
    assert SIGNED_OUT in page.content.decode()
    assert page.request["PATH_INFO"] == "/enforcement/halts"
    end_sessions()
    page = log_in(browser, account, browser.post("/tenant", {"tenant": str(account.tenant.id)}))
    assert page.status_code == 200


def test_htmx_is_sent_to_the_login_as_a_whole_page(account: Account, browser: Client) -> None:
    htmx = {"HX-Request": "true", "HX-Current-URL": "http://testserver/incidents/7?x=1"}
    answer = browser.get("/incidents/7/spenders", headers=htmx)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["HX-Redirect"] == f"/login?next={quote('/incidents/7?x=1', safe='')}"
    answer = browser.post("/incidents/7/comment", {"text": "Look here"}, headers=htmx)
    assert answer["HX-Redirect"] == f"/login?next={quote('/incidents/7/comment', safe='')}"
    browser.post("/login", {"username": account.email, "password": account.password})
    page = browser.get("/incidents/7/comment")
    assert "Look here" in page.content.decode()


def test_nobody_else_gets_it(account: Account, browser: Client) -> None:
    email = make_member(account, Role.ADMIN)
    browser.post(ADD, FORM)
    browser.force_login(User.objects.get(email=email), backend=BACKEND)
    assert "Typed" not in browser.get(ADD).content.decode()
    # Nor is anything kept of strangers, or of who has logged out.
    for stranger in (Client(), sign_in(account.email)):
        stranger.get("/")
        stranger.post("/logout")
        answer = stranger.post(ADD, FORM)
        assert answer.status_code == 302
        assert kept_input.SESSION_KEY not in stranger.session
        assert SIGNED_OUT in stranger.get("/login").content.decode()


def test_it_comes_back_in_the_tenant_that_it_was_for(account: Account) -> None:
    other = make_account()
    with other.scope():
        user = User.objects.get(email=account.email)
        add_member(tenant=other.tenant, user=user, role=Role.OWNER, actor="tests")
    client = sign_in(account.email)
    client.post("/tenant", {"tenant": other.tenant.id})
    opened = sent_again(client.get(ADD))
    end_sessions()
    answer = client.post(ADD, {**FORM, "form_token": opened["form_token"]})
    log_in(client, account, answer, follow=False)
    assert client.get(ADD)["Location"] == ADD
    assert "Typed" in errors_of(client.get(ADD))
    assert client.session["tenant_id"] == other.tenant.id
    # A form of the other tenant, sent after a switch in another tab, is not saved in this one.
    client.post("/tenant", {"tenant": account.tenant.id})
    sound = {**FORM, "limit_cost_nanos": "12.5", "form_token": opened["form_token"]}
    page_text = errors_of(client.post(ADD, sound))
    assert f"You are in “{account.tenant.name}” now" in page_text or "another tenant" in page_text
    assert "Typed" in page_text
    with account.scope():
        assert not Budget.objects.exists()
    # Nor is it shown to who was removed from that tenant.
    client.post("/tenant", {"tenant": other.tenant.id})
    client.get(ADD)
    end_sessions()
    answer = client.post(ADD, FORM)
    with other.scope():
        Membership.objects.filter(user__email=account.email, tenant=other.tenant).delete()
    page_text = log_in(client, account, answer).content.decode()
    assert "You no longer belong to the tenant that it was for" in page_text
    assert "Typed" not in page_text


def test_secrets_and_passwords_are_not_kept(account: Account, browser: Client) -> None:
    path = "/admin/alerts/channel/add/?kind=slack"
    form = {"form_token": "", "name": "Ops", "config_url": "https://hooks.slack.com/services/T/B/x"}
    answer = browser.post(path, form)
    assert "hooks.slack.com" not in str(browser.session[kept_input.SESSION_KEY])
    page = errors_of(log_in(browser, account, answer))
    assert 'value="Ops"' in page
    assert "hooks.slack.com" not in page
    assert "Passwords and secrets are not kept" in page
    with account.scope():
        assert not Channel.objects.exists()
    end_sessions()
    answer = browser.post("/password", {"old_password": "hunter2", "new_password1": "hunter3"})
    assert "hunter" not in log_in(browser, account, answer).content.decode()


def test_it_is_bounded_in_size_number_and_time(
    account: Account, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {**HALT, "reason": "x" * 200_001}
    browser.post(MAKE, large)
    assert kept_input.SESSION_KEY not in browser.session
    for number in range(5):
        browser.post(f"{MAKE}?tab={number}", HALT)
    kept = browser.session[kept_input.SESSION_KEY]
    assert list(kept) == [f"{MAKE}?tab={number}" for number in (2, 3, 4)]
    browser.post("/login", {"username": account.email, "password": account.password})
    monkeypatch.setattr(kept_input, "KEPT_SECONDS", -1)
    assert b"It loops" not in browser.get(f"{MAKE}?tab=4", follow=True).content


def test_a_form_from_before_signing_in_anew_comes_back(account: Account) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        User.objects.get(email=account.email),
        backend=BACKEND,
    )
    client.get(ADD)
    stale = {**FORM, "csrfmiddlewaretoken": "a" * 64}
    answer = client.post(ADD, stale)
    assert answer.status_code == 403
    assert b"nothing was changed. Your input was kept" in answer.content
    assert f'href="{ADD}"' in answer.content.decode()
    page = errors_of(client.get(ADD))
    assert "This form was out of date: nothing was changed. Check and save again." in page
    assert "Typed “with” &lt;care&gt;" in page
    # What another site sends is not shown as this person's input.
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post(ADD, stale, headers=headers)
        assert (answer.status_code, b"is kept" in answer.content) == (403, False)
        assert "Typed" not in client.get(ADD).content.decode()


def test_a_form_of_the_settings_comes_back_filled_in_and_unsaved(
    account: Account, browser: Client
) -> None:
    form = {"email": "jun@example.com", "role": "finance", "form_token": "1.abc"}
    page = errors_of(log_in(browser, account, browser.post("/settings/members", form)))
    assert f"{SIGNED_OUT} Check and save again." in page
    assert 'value="jun@example.com"' in page
    with account.scope():
        assert not Invitation.objects.exists()
    end_sessions()
    path = "/incidents/channels/new?kind=slack"
    form = {"name": "Ops", "config_url": "https://hooks.slack.com/services/T/B/zq7"}
    answer = browser.post(path, form)
    kept = browser.session[kept_input.SESSION_KEY][path].encode()
    assert "zq7" not in str(unseal(kept, purpose=kept_input.PURPOSE))
    page = errors_of(log_in(browser, account, answer))
    assert 'value="Ops"' in page
    assert "zq7" not in page


def test_what_was_typed_is_sealed_for_its_own_purpose(account: Account, browser: Client) -> None:
    browser.post(MAKE, HALT)
    sealed = browser.session[kept_input.SESSION_KEY][MAKE].encode()
    with pytest.raises(SecretsUnreadable):
        unseal_channel(sealed)
