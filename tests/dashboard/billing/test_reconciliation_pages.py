"""Reconciliation on a page: bills are uploaded, compared and explained."""

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from alerts.models import IncidentKind
from billing.models import ProviderBillLine, Reconciliation, ReconciliationSettings
from billing.reconciliation.runs import start_reconciliation
from billing.tasks_reconciliation import reconcile
from common.api.parsing import BODY_BYTES_MAX
from config.edge import body_bytes_max
from dashboard.billing.reconciliation import KINDS, line_of
from tenants.roles import Role
from tests.alerts.examples import make_incident
from tests.billing.bills import focus_bill, import_for, openai_bucket, openai_page
from tests.dashboard.billing.reading import words
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import page
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send

DAY = datetime.now(UTC).date() - timedelta(days=1)
PATH = "/customers/reconciliation"


def upload(client: Client, name: str, body: bytes, **fields: str) -> str:
    file = SimpleUploadedFile(name, body)
    answer = client.post(f"{PATH}/bills/new", {"bill": file, **fields}, follow=True)
    return words(answer.content.decode())


def run(account: Account, *, first: date = DAY, kinds: tuple[str, ...] = tuple(KINDS)) -> int:
    with account.scope():
        begun = start_reconciliation(
            tenant=account.tenant, actor="tests", first_day=first, last_day=DAY, kinds=kinds
        )
    while reconcile():
        pass
    return begun.id


def bill_of(usd: str) -> bytes:
    return openai_page(openai_bucket(DAY, [("gpt-4o, input", usd)]))


def test_a_bill_is_uploaded_in_each_format(account: Account, owner: Client) -> None:
    assert "Nothing was compared yet" in words(page(owner, PATH))
    assert 'enctype="multipart/form-data"' in page(owner, f"{PATH}/bills/new")
    told = upload(owner, "costs.json", bill_of("12.5"))
    assert "The bill has 1 line of 1 day, 1 of them new or changed." in told
    marked = b"\xef\xbb\xbf" + bill_of("12.5")
    assert "all known already" in upload(owner, "costs.json", marked)
    told = upload(owner, "focus.csv", focus_bill({"ServiceCategory": "Storage"}, {}), account="eu")
    assert "1 line is no AI usage." in told
    with account.scope():
        amounts = ProviderBillLine.objects.order_by("id").values_list("account", "amount_nanos")
        assert list(amounts) == [("", 12_500_000_000), ("eu", 100_000_000)]


def test_a_faulty_bill_is_refused_with_its_lines(account: Account, owner: Client) -> None:
    told = upload(owner, "focus.csv", focus_bill({"BilledCost": "much"}, {"BilledCost": "more"}))
    assert re.search(r"/lines/2/BilledCost: .*/lines/3/BilledCost: ", told)
    assert "This is no cost report of OpenAI or Anthropic" in upload(owner, "costs.json", b"{")
    told = upload(owner, "large.csv", b"x" * (BODY_BYTES_MAX + 1))
    assert "A bill has at most 10 MiB" in told
    with account.scope():
        assert not ProviderBillLine.objects.exists()


def test_files_may_be_larger_than_forms() -> None:
    assert body_bytes_max(None, f"{PATH}/bills/new") > BODY_BYTES_MAX
    assert body_bytes_max(None, "/customers/new") == 1 << 20
    assert body_bytes_max(None, "/v1/provider-bills") == BODY_BYTES_MAX


def test_what_differs_is_listed_by_day_and_model(account: Account, owner: Client) -> None:
    at = datetime.combine(DAY, datetime.min.time(), UTC) + timedelta(hours=3)
    send(
        account, [make_event(time=at.isoformat(), provider="openai", model="gpt-4o", cost_usd="10")]
    )
    import_for(account, bill_of("12.5"))
    run_id = run(account)
    text = page(owner, PATH)
    assert "Providers' bills differ from what usage makes them" in words(text)
    drifts = text[text.index("drifts-title") :]
    assert re.findall(r'<data value="([^"]*)"', drifts)[:3] == ["10", "12.5", "2.5"]
    assert "gpt-4o" in words(drifts)
    assert "Stripe is not connected" in words(page(owner, f"{PATH}?kind=stripe"))
    assert "0 of 0 differ nothing to compare" in words(text)
    # Of the run that an incident names.
    incident = make_incident(
        account,
        kind=IncidentKind.RECONCILIATION,
        cause="reconciliation:providers",
        match={},
        facts={"reconciliation_id": run_id, "compared": "providers"},
    )
    told = page(owner, f"/incidents/{incident.id}")
    assert f"{PATH}?run={run_id}&amp;kind=providers" in told
    assert owner.get(f"{PATH}?run={run_id + 1}").status_code == 404
    answer = owner.get(f"{PATH}/{run_id}.csv")
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert [(row["day"], row["model"], row["difference"]) for row in rows] == [
        (DAY.isoformat(), "gpt-4o", "2.5")
    ]


def test_a_newer_run_that_is_not_over_hides_nothing(account: Account) -> None:
    import_for(account, bill_of("12.5"))
    done = run(account, kinds=("providers",))
    with account.scope():
        start_reconciliation(
            tenant=account.tenant, actor="tests", first_day=DAY, last_day=DAY, kinds=("providers",)
        )
        line = line_of("providers", list(Reconciliation.objects.order_by("-id")))
    assert line.run is not None
    assert (line.run.id, line.state) == (done, "differs")


def test_days_are_compared_by_a_button(account: Account, owner: Client) -> None:
    owner.post(f"{PATH}/compare", {"days": "latest"})
    first = DAY.replace(day=1)
    owner.post(f"{PATH}/compare", {"days": f"{first:%Y-%m}"})
    with account.scope():
        latest, month = Reconciliation.objects.order_by("id")
    assert (latest.first_day, latest.last_day) == (DAY - timedelta(days=30), DAY)
    assert latest.kinds == list(KINDS)
    assert month.first_day == first
    assert month.last_day >= DAY
    assert "A comparison is running." in words(page(owner, PATH))


def test_the_threshold_is_changed(account: Account, owner: Client) -> None:
    path = f"{PATH}/threshold"
    assert 'value="1"' in page(owner, path)
    owner.post(path, {"threshold_percent": "2.5", "threshold_nanos": "20", "is_daily": "on"})
    with account.scope():
        stored = ReconciliationSettings.objects.get()
    assert (str(stored.threshold_percent), stored.threshold_nanos, stored.is_daily) == (
        "2.50",
        20 * 10**9,
        True,
    )
    wrong = {"threshold_percent": "2.555", "threshold_nanos": "20"}
    assert "2 decimal places" in words(owner.post(path, wrong).content.decode())
    assert "an incident opens above 2.5% and $20" in words(page(owner, PATH))


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.VIEWER])
def test_who_may_not_bill_looks_and_changes_nothing(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    client = as_role(role)
    assert "Compare now" not in page(client, PATH)
    assert client.post(f"{PATH}/compare").status_code == 403
    assert client.get(f"{PATH}/bills/new").status_code == 403
    assert client.get(f"{PATH}/threshold").status_code == 403
    with account.scope():
        assert not Reconciliation.objects.exists()


def test_no_one_else_sees_it(account: Account, stranger: Account) -> None:
    import_for(account, bill_of("12.5"))
    run_id = run(account)
    client = sign_in(make_team_member(account, Role.ENGINEER, "own"))
    assert client.get(PATH).status_code == 403
    assert client.get(f"{PATH}/{run_id}.csv").status_code == 403
    other = sign_in(stranger.email)
    assert other.get(f"{PATH}?run={run_id}").status_code == 404
    assert other.get(f"{PATH}/{run_id}.csv").status_code == 404
    assert "Nothing was compared yet" in words(page(other, PATH))
