"""Saved views and scheduled reports: who may what, and what is sent to whom, once."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from ipaddress import ip_network
from threading import Thread

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from alerts.channel_settings import create_channel, remove_channel
from alerts.delivery import deliver_due
from alerts.models import Channel, Delivery, DeliveryEvent
from dashboard.models import PinnedView, Readers, ReportSchedule, SavedView, SentReport
from dashboard.reports import schedules
from dashboard.tasks import remove_old_reports, send_reports
from tenants.members import change_role, change_team_members, remove_member
from tenants.models import AuditEntry, Membership, Team, User
from tenants.roles import Role
from tests.alerts.receivers import MailReceiver, WebReceiver, mail_receiver, web_receiver
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.test_overview import HOSTILE
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send

QUERY = "group_by=agent&filter[customer]=acme"


@pytest.fixture
def mail(settings: Settings) -> Iterator[MailReceiver]:
    with mail_receiver() as receiver:
        settings.MAIL_URL = receiver.url
        yield receiver


@pytest.fixture
def web(settings: Settings) -> Iterator[WebReceiver]:
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.0/8")]
    with web_receiver() as receiver:
        yield receiver


def save(client: Client, name: str = "Mine", query: str = QUERY, readers: str = "owner") -> int:
    answer = client.post("/reports/views/save", {"name": name, "query": query, "readers": readers})
    assert answer.status_code == 302
    return newest_view().id


def newest_view() -> SavedView:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('spendgate.platform', 'tests', false)")
    try:
        return SavedView.objects.select_related("tenant").latest("id")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('spendgate.platform', '', false)")


def names(client: Client) -> set[str]:
    html = client.get("/reports").content.decode()
    return {unescape(name) for name in re.findall(r'<a class="name"[^>]*title="([^"]*)"', html)}


def make_due(account: Account, at: datetime | None = None) -> None:
    with account.scope():
        ReportSchedule.objects.update(next_due_at=at or timezone.now() - timedelta(minutes=1))


def schedule(client: Client, view_id: int, **fields: str) -> int:
    given = {"cadence": "daily", "hour": "8", "channel": "", **fields}
    return client.post(f"/reports/views/{view_id}/schedule", given).status_code


def yesterday() -> str:
    return (datetime.now(UTC) - timedelta(days=1)).isoformat()


def sent(account: Account) -> list[SentReport]:
    with account.scope():
        return list(SentReport.objects.order_by("id").select_related("delivery"))


def test_a_view_is_kept_opened_renamed_and_deleted(account: Account, owner: Client) -> None:
    send(account, [make_event(agent="a", customer="acme", cost_usd="1")])
    view_id = save(owner, "Acme by agent", f"{QUERY}&page=3&nonsense=1")
    assert newest_view().query == QUERY
    html = owner.get(f"/explore?{QUERY}").content.decode()
    assert "Acme by agent" in html
    owner.post(f"/reports/views/{view_id}/rename", {"name": "Renamed", "readers": "tenant"})
    assert names(owner) == {"Renamed"}
    again = owner.post("/reports/views/save", {"name": "Renamed", "query": "", "readers": "owner"})
    assert again.status_code == 302
    assert "already" in owner.get("/reports").content.decode()
    owner.post(f"/reports/views/{view_id}/delete")
    assert names(owner) == set()
    with account.scope():
        actions = AuditEntry.objects.filter(object_type="savedview").order_by("id")
        assert list(actions.values_list("action", flat=True)) == ["create", "update", "delete"]


def test_who_sees_a_view_follows_its_readers(
    account: Account, owner: Client, stranger: Account
) -> None:
    engineer = sign_in(make_team_member(account, Role.ENGINEER, "red"))
    other = sign_in(make_team_member(account, Role.ENGINEER, "blue"))
    with account.scope():
        team = Team.objects.get(name="red")
    save(engineer, "private")
    save(engineer, "of the team", readers=f"team-{team.id}")
    save(owner, "everyone", readers="tenant")
    save(owner, "owner's own")
    assert names(engineer) == {"private", "of the team", "everyone"}
    assert names(other) == {"everyone"}
    assert names(owner) == {"of the team", "everyone", "owner's own"}
    assert names(sign_in(stranger.email)) == set()


def test_a_view_can_be_shared_only_where_one_belongs(account: Account) -> None:
    engineer = sign_in(make_team_member(account, Role.ENGINEER, "red"))
    make_team_member(account, Role.ENGINEER, "blue")
    with account.scope():
        blue = Team.objects.get(name="blue")
    for readers in ("tenant", f"team-{blue.id}", "team-0", ""):
        engineer.post("/reports/views/save", {"name": "x", "query": "", "readers": readers})
    assert names(engineer) == set()


def test_a_viewer_changes_nothing(
    account: Account, owner: Client, as_role: Callable[[Role], Client], mail: MailReceiver
) -> None:
    view_id = save(owner, readers="tenant")
    assert schedule(owner, view_id) == 302
    with account.scope():
        schedule_id = ReportSchedule.objects.get().id
    viewer = as_role(Role.VIEWER)
    for path in (
        "/reports/views/save",
        *(f"/reports/views/{view_id}/{act}" for act in ("rename", "delete", "pin", "schedule")),
        "/reports/views/unpin",
        *(f"/reports/{schedule_id}/{act}" for act in ("delete", "test")),
    ):
        given = {"name": "n", "readers": "owner", "query": "", "cadence": "daily", "hour": "1"}
        assert viewer.post(path, given).status_code == 403, path
    assert names(viewer) == {"Mine"}
    with account.scope():
        assert SavedView.objects.get().name == "Mine"
        assert ReportSchedule.objects.count() == 1
        assert PinnedView.objects.count() == 0


def test_only_its_owner_or_a_manager_changes_a_view(
    account: Account, owner: Client, as_role: Callable[[Role], Client], stranger: Account
) -> None:
    view_id = save(owner, readers="tenant")
    engineer = as_role(Role.ENGINEER)
    for act in ("rename", "delete"):
        given = {"name": "n", "readers": "owner"}
        assert engineer.post(f"/reports/views/{view_id}/{act}", given).status_code == 403
        other = sign_in(stranger.email)
        assert other.post(f"/reports/views/{view_id}/{act}", given).status_code == 404
    private = save(engineer, "private")
    assert owner.post(f"/reports/views/{private}/delete").status_code == 404
    as_role(Role.FINANCE).post(f"/reports/views/{view_id}/delete")
    assert names(owner) == set()


def test_a_pinned_view_is_where_its_person_begins(account: Account, owner: Client) -> None:
    assert owner.get("/home")["Location"] == "/"
    view_id = save(owner, readers="tenant")
    owner.post(f"/reports/views/{view_id}/pin")
    assert owner.get("/home")["Location"] == f"/explore?{QUERY}"
    engineer = sign_in(make_member(account, Role.ENGINEER))
    assert engineer.get("/home")["Location"] == "/"
    engineer.post(f"/reports/views/{view_id}/pin")
    owner.post(f"/reports/views/{view_id}/rename", {"name": "x", "readers": "owner"})
    assert engineer.get("/home")["Location"] == "/"
    owner.post("/reports/views/unpin")
    assert owner.get("/home")["Location"] == "/"


def test_a_view_shows_what_its_reader_may_see(account: Account, owner: Client) -> None:
    send(
        account,
        [make_event(team="red", agent="r", cost_usd="1"), make_event(team="blue", cost_usd="7")],
    )
    save(owner, readers="tenant", query="group_by=team")
    client = sign_in(make_team_member(account, Role.ENGINEER, "red"))
    html = client.get("/explore?group_by=team").content.decode()
    assert "Mine" in html
    assert "$7" not in html
    assert "$8" not in html


def test_a_report_is_mailed_with_its_figures_and_rows(
    account: Account, owner: Client, mail: MailReceiver
) -> None:
    send(
        account,
        [
            make_event(agent="a", customer="acme", cost_usd="3", time=yesterday()),
            make_event(agent="b", customer="acme", cost_usd="1", time=yesterday()),
            make_event(agent="a", customer="acme", cost_usd="50"),
            make_event(agent="z", customer="zeta", cost_usd="9", time=yesterday()),
        ],
    )
    assert schedule(owner, save(owner, "Acme")) == 302
    make_due(account)
    send_reports()
    assert deliver_due(seconds=2) == 1
    [received] = mail.received
    assert received.recipients == [account.email]
    assert "Acme: " in received.message["Subject"]
    text, html, attached = _parts(received.message)
    assert "a: $3.00 (75%)" in text
    assert "Total: $4.00" in text
    assert "$50" not in text + html
    assert "zeta" not in text + html + attached
    assert "/explore?" in text
    assert '"a","3","1"' in attached
    [report] = sent(account)
    assert report.delivery is not None
    assert report.delivery.event == DeliveryEvent.REPORT


def _parts(message: object) -> tuple[str, str, str]:
    parts = [
        part.get_content()
        for part in message.walk()  # type: ignore[attr-defined]
        if not part.is_multipart()
    ]
    assert len(parts) == 3
    return parts[0], parts[1], parts[2]


def test_a_period_is_reported_once_whoever_sends(
    account: Account, owner: Client, mail: MailReceiver
) -> None:
    schedule(owner, save(owner))
    make_due(account)
    now = timezone.now()

    def run() -> None:
        try:
            schedules.send_due(tenant_id=account.tenant.id, now=now)
        finally:
            connection.close()

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent(account)) == 1
    make_due(account)
    schedules.send_due(tenant_id=account.tenant.id, now=now)
    assert len(sent(account)) == 1
    with account.scope():
        assert Delivery.objects.filter(event=DeliveryEvent.REPORT).count() == 1
        assert ReportSchedule.objects.get().next_due_at > now


def test_days_are_those_of_the_tenant_s_zone(
    account: Account, owner: Client, mail: MailReceiver
) -> None:
    """Kolkata is 5:30 ahead: its November 29 begins on the 28th at 18:30 UTC."""
    with account.scope():
        account.tenant.timezone = "Asia/Kolkata"
        account.tenant.save()
    now = datetime.now(UTC)
    midnight = (now + timedelta(hours=5, minutes=30)).replace(
        hour=0, minute=0, second=0, microsecond=0
    ) - timedelta(hours=5, minutes=30)
    inside = midnight - timedelta(minutes=1)
    send(
        account,
        [
            make_event(agent="in", cost_usd="1", time=inside.isoformat()),
            make_event(
                agent="first", cost_usd="2", time=(midnight - timedelta(days=1)).isoformat()
            ),
            make_event(
                agent="early",
                cost_usd="40",
                time=(midnight - timedelta(days=1, minutes=1)).isoformat(),
            ),
            make_event(agent="late", cost_usd="80", time=midnight.isoformat()),
        ],
    )
    schedule(owner, save(owner, query="group_by=agent"))
    make_due(account)
    send_reports()
    deliver_due(seconds=2)
    text = _parts(mail.received[0].message)[0]
    assert "Total: $3.00" in text
    assert "Asia/Kolkata" in text


def test_a_report_shows_what_its_owner_may_see_when_it_is_sent(
    account: Account, owner: Client, mail: MailReceiver
) -> None:
    send(
        account,
        [
            make_event(team="red", agent="r", cost_usd="1", time=yesterday()),
            make_event(team="blue", agent="b", cost_usd="7", time=yesterday()),
        ],
    )
    email = make_team_member(account, Role.ENGINEER, "red")
    engineer = sign_in(email)
    schedule(engineer, save(engineer, query="group_by=agent"))
    make_due(account)
    send_reports()
    deliver_due(seconds=2)
    text, html, attached = _parts(mail.received[0].message)
    assert "Total: $1.00" in text
    for hidden in ("blue", "$7", "$8", '"b"'):
        assert hidden not in text + html + attached


def leave_the_team(account: Account, user: User) -> None:
    team = Team.objects.get(name="red")
    change_team_members(team=team, leads_by_user={}, actor="tests")


def leave_the_tenant(account: Account, user: User) -> None:
    membership = Membership.objects.get(tenant=account.tenant, user=user)
    remove_member(membership=membership, actor="tests", actor_role=Role.OWNER)


def lose_the_view(account: Account, user: User) -> None:
    SavedView.objects.update(readers=Readers.OWNER)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (leave_the_team, "is in no team any more"),
        (leave_the_tenant, "is not a member any more"),
        (lose_the_view, "may not open this view any more"),
    ],
)
def test_who_lost_the_right_is_sent_nothing_and_the_page_says_so(
    account: Account,
    owner: Client,
    mail: MailReceiver,
    change: Callable[[Account, User], None],
    why: str,
) -> None:
    email = make_team_member(account, Role.ENGINEER, "red")
    engineer = sign_in(email)
    schedule(engineer, save(owner, readers="tenant"))
    with account.scope():
        change(account, User.objects.get(email=email))
    make_due(account)
    send_reports()
    assert deliver_due(seconds=1) == 0
    [report] = sent(account)
    assert why in report.refusal
    assert report.delivery is None
    if change is not lose_the_view:
        assert why in owner.get("/reports").content.decode()


def test_a_lost_role_limits_what_is_sent(
    account: Account, owner: Client, mail: MailReceiver
) -> None:
    send(
        account,
        [
            make_event(team="red", cost_usd="1", time=yesterday()),
            make_event(team="blue", cost_usd="7", time=yesterday()),
        ],
    )
    email = make_team_member(account, Role.FINANCE, "red")
    finance = sign_in(email)
    schedule(finance, save(finance, query="group_by=team"))
    with account.scope():
        membership = Membership.objects.get(user__email=email)
        change_role(membership=membership, role=Role.VIEWER, actor="tests", actor_role=Role.OWNER)
    make_due(account)
    send_reports()
    deliver_due(seconds=2)
    assert "Total: $1.00" in _parts(mail.received[0].message)[0]


def webhook(account: Account, web: WebReceiver) -> Channel:
    with account.scope():
        return create_channel(
            tenant=account.tenant,
            actor="tests",
            name="hook",
            kind="webhook",
            fields={"url": web.url},
        )


def test_a_report_goes_to_a_channel_and_stops_with_it(
    account: Account, owner: Client, web: WebReceiver, as_role: Callable[[Role], Client]
) -> None:
    send(account, [make_event(agent="a", customer="acme", cost_usd="3", time=yesterday())])
    channel = webhook(account, web)
    view_id = save(owner, readers="tenant")
    assert schedule(as_role(Role.ENGINEER), view_id, channel=str(channel.id)) == 403
    assert schedule(owner, view_id, channel=str(channel.id)) == 302
    make_due(account)
    send_reports()
    assert deliver_due(seconds=2) == 1
    body = web.received[0].json
    assert body["type"] == "report"
    assert "Mine: " in body["data"]["title"]
    with account.scope():
        remove_channel(channel=channel, actor="tests")
        SentReport.objects.update(period_start=datetime(2020, 1, 1, tzinfo=UTC).date())
    make_due(account)
    send_reports()
    assert sent(account)[-1].refusal == "This channel was removed."


def test_a_test_is_sent_now_and_not_without_end(
    account: Account, owner: Client, mail: MailReceiver
) -> None:
    schedule(owner, save(owner))
    with account.scope():
        schedule_id = ReportSchedule.objects.get().id
    for _ in range(schedules.TESTS_PER_MINUTE + 1):
        owner.post(f"/reports/{schedule_id}/test")
    assert len(sent(account)) == schedules.TESTS_PER_MINUTE
    assert "At most" in owner.get("/reports").content.decode()
    make_due(account)
    send_reports()
    assert [each.is_test for each in sent(account)].count(False) == 1


@pytest.mark.parametrize("fields", [{"cadence": "hourly"}, {"hour": "24"}, {"hour": "x"}])
def test_what_no_schedule_can_be_is_refused(
    account: Account, owner: Client, mail: MailReceiver, fields: dict[str, str]
) -> None:
    schedule(owner, save(owner), **fields)
    with account.scope():
        assert ReportSchedule.objects.count() == 0


def test_without_a_mail_server_nothing_is_promised(account: Account, owner: Client) -> None:
    schedule(owner, save(owner))
    with account.scope():
        assert ReportSchedule.objects.count() == 0
    assert "no mail server" in owner.get("/reports").content.decode()


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_stay_text_in_views_and_mails(
    account: Account, owner: Client, mail: MailReceiver, value: str
) -> None:
    send(account, [make_event(agent=value, customer="acme", cost_usd="1", time=yesterday())])
    schedule(owner, save(owner, name=value[:100], query="group_by=agent"))
    html = owner.get("/reports").content.decode()
    assert "<script>alert" not in html
    assert 'onmouseover="alert' not in html
    make_due(account)
    send_reports()
    deliver_due(seconds=2)
    _, mailed, attached = _parts(mail.received[0].message)
    assert "<script>alert" not in mailed
    assert '"=HYPERLINK' not in attached


def test_what_was_sent_is_kept_as_long_as_incidents(
    account: Account, owner: Client, mail: MailReceiver, settings: Settings
) -> None:
    schedule(owner, save(owner))
    make_due(account)
    send_reports()
    remove_old_reports()
    assert len(sent(account)) == 1
    with account.scope():
        SentReport.objects.update(created_at=timezone.now() - settings.RETENTION_INCIDENTS * 2)
    remove_old_reports()
    assert sent(account) == []
