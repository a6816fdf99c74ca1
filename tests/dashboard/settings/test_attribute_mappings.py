"""The page of attribute mappings: list, add, remove, order, who may, and whose calls lack what."""

from collections.abc import Callable

import msgspec
import pytest
from django.test import Client

from dashboard.settings.attribute_mappings import headline_of, lines_of, moved
from metering.configuration.attribute_mappings import MAPPINGS_MAX, set_attribute_mappings
from metering.intake.ingest import ingest
from metering.models import Route
from metering.usage.attribute_mappings import read_attribute_mappings
from metering.usage.decoders import native
from metering.usage.decoders.otlp.dimension_keys import AttributeMapping
from tenants.models import AuditEntry
from tenants.roles import ROLES_THAT_GRANT, Role
from tests.dashboard.conftest import sign_in
from tests.dashboard.settings.test_members import token_in
from tests.dashboard.test_enforcement_pages import HOSTILE, Handlers, page, words
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send

PATH = "/settings/attribute-mappings"
TEAM = AttributeMapping("team.id", "team")
CENTER = AttributeMapping("cost.center", "team")
CUSTOMER = AttributeMapping("app.tenant", "customer")


def store(account: Account, *mappings: AttributeMapping) -> None:
    with account.scope():
        set_attribute_mappings(tenant=account.tenant, actor="tests", mappings=mappings)


def stored(account: Account) -> list[AttributeMapping]:
    with account.scope():
        return read_attribute_mappings(account.tenant.id)


def test_attributes_are_mapped_ordered_and_removed(account: Account, owner: Client) -> None:
    assert "No attribute is mapped to a dimension" in words(owner, PATH)
    for attribute, dimension in (TEAM, CUSTOMER, CENTER):
        form = {"attribute": f" {attribute} ", "dimension": dimension}
        text = owner.post(PATH, form, follow=True).content.decode()
        assert f"“{attribute}” sets the {dimension} of spans" in text
    text = words(owner, PATH)
    assert "3 attributes name the team and customer of spans" in text
    assert text.index("team.id Team") < text.index("cost.center Team if nothing above names one")
    assert text.index("cost.center Team") < text.index("app.tenant Customer")
    for _ in range(2):
        owner.post(f"{PATH}/move", {"attribute": "cost.center", "before": "team.id"})
        assert stored(account) == [CENTER, TEAM, CUSTOMER]
    text = owner.post(f"{PATH}/remove", {"attribute": "team.id"}, follow=True).content.decode()
    assert "“team.id” is not mapped any more" in text
    assert stored(account) == [CENTER, CUSTOMER]
    again = owner.post(f"{PATH}/remove", {"attribute": "team.id"}, follow=True).content.decode()
    assert "This attribute is not mapped; reload the page." in again
    assert stored(account) == [CENTER, CUSTOMER]


def test_the_audit_log_shows_the_order_of_each_dimension(account: Account, owner: Client) -> None:
    store(account, TEAM, CENTER, CUSTOMER)
    owner.post(f"{PATH}/move", {"attribute": "cost.center", "before": "team.id"})
    text = words(owner, "/settings/audit-log")
    assert f"{account.email} changed attribute mappings last" in text
    assert "Team team.id, cost.center → cost.center, team.id" in text
    assert "Customer none → app.tenant" in text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"attribute": "team.id", "dimension": "user"}, "mapped already, to team."),
        ({"attribute": "", "dimension": "team"}, "This field is required."),
        ({"attribute": "x", "dimension": "model"}, "Select a valid choice."),
        ({"attribute": "x" * 201, "dimension": "team"}, "at most 200 characters"),
        ({"attribute": "spendgate.team", "dimension": "team"}, "always mean what they name"),
        ({"attribute": "gen_ai.prompt.0", "dimension": "team"}, "are never read"),
        ({"attribute": "a\u202eb", "dimension": "team"}, "Give visible characters"),
        ({"attribute": "a\0b", "dimension": "team"}, "Null characters are not allowed."),
    ],
)
def test_what_cannot_be_mapped_is_said_at_its_field_and_changes_nothing(
    account: Account, owner: Client, form: dict[str, str], said: str
) -> None:
    store(account, TEAM)
    answer = owner.post(PATH, form)
    assert answer.status_code == 200
    assert said in answer.content.decode()
    assert stored(account) == [TEAM]


def test_no_more_can_be_mapped_than_the_most(account: Account, owner: Client) -> None:
    most = [AttributeMapping(f"a{number}", "team") for number in range(MAPPINGS_MAX)]
    store(account, *most)
    answer = owner.post(PATH, TEAM._asdict()).content.decode()
    assert f"Give at most {MAPPINGS_MAX} mappings." in answer
    assert stored(account) == most


def test_a_form_sent_twice_maps_once(account: Account, owner: Client) -> None:
    form = {**TEAM._asdict(), "form_token": token_in(page(owner, PATH))}
    owner.post(PATH, form)
    again = owner.post(PATH, form, follow=True)
    assert "nothing was done twice" in again.content.decode()
    assert stored(account) == [TEAM]


def test_a_button_of_another_tenant_changes_neither(
    account: Account, stranger: Account, owner: Client
) -> None:
    store(account, TEAM)
    store(stranger, TEAM)
    answer = owner.post(
        f"{PATH}/remove",
        {"attribute": "team.id", "form_token": f"{stranger.tenant.id}.x"},
        follow=True,
    )
    assert "shown for another tenant" in answer.content.decode()
    assert stored(account) == stored(stranger) == [TEAM]
    owner.post(f"{PATH}/remove", {"attribute": "team.id"})
    assert (stored(account), stored(stranger)) == ([], [TEAM])


@pytest.mark.parametrize("role", list(Role))
def test_everyone_reads_and_owners_and_admins_change(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    store(account, TEAM, CENTER)
    client = as_role(role)
    html = page(client, PATH)
    assert "cost.center" in html
    may = role in ROLES_THAT_GRANT
    shows = ["Map an attribute" in html, "Move up" in html, "Remove mapping" in html]
    assert shows == [may, may, may]
    assert ("Owners and admins of" in html) is not may
    with account.scope():
        before = AuditEntry.objects.count()
    for path, form in (
        (PATH, CUSTOMER._asdict()),
        (f"{PATH}/move", {"attribute": "cost.center", "before": "team.id"}),
        (f"{PATH}/remove", {"attribute": "team.id"}),
    ):
        assert client.post(path, form).status_code == (302 if may else 403), path
    if not may:
        assert stored(account) == [TEAM, CENTER]
        with account.scope():
            assert AuditEntry.objects.count() == before
    else:
        assert stored(account) == [CENTER, CUSTOMER]


def test_it_says_what_calls_from_traces_lack(account: Account, owner: Client) -> None:
    path = f"{PATH}/attribution"
    send(account, [make_event(team="x")])
    assert "No calls from OpenTelemetry in this period" in words(owner, path)
    spans = [
        make_event(source="otlp:app", agent=None, user="u"),
        make_event(source="otlp:app", team="a", agent="b"),
    ]
    items = native.decode_json(msgspec.json.encode(spans))
    ingest(items, tenant_id=account.tenant.id, route=Route.OTLP)
    text = words(owner, path)
    assert "Of 2 calls from OpenTelemetry, 50% have no team, 50% have no agent" in text
    assert text.count("otlp:app") == 1
    assert f'hx-get="{path}"' in page(owner, PATH)
    member = sign_in(make_team_member(account, Role.VIEWER, "a"))
    assert member.get(path).status_code == 403
    assert f'hx-get="{path}"' not in page(member, PATH)


def test_hostile_attributes_stay_text(account: Account, owner: Client) -> None:
    names = [value for value in HOSTILE if value.isprintable() and value == value.strip()]
    assert len(names) > 3
    store(account, *(AttributeMapping(name[:200], "team") for name in [*names, "=1+1"]))
    for path in (PATH, "/settings/audit-log"):
        html = page(owner, path)
        parser = Handlers()
        parser.feed(html)
        assert parser.found == [], path
        assert "<script>alert" not in html
        assert "49{" not in html


def test_a_move_puts_one_right_before_another_and_no_further() -> None:
    mappings = [TEAM, CUSTOMER, CENTER]
    assert moved(mappings, "cost.center", "team.id") == [CENTER, TEAM, CUSTOMER]
    assert moved(mappings, "team.id", "cost.center") == mappings
    assert moved(mappings, "team.id", "team.id") == mappings
    assert moved(mappings, "gone", "team.id") == mappings
    assert moved(mappings, "team.id", "gone") == mappings


def test_headlines_say_what_is_named() -> None:
    user = AttributeMapping("u", "user")
    for mappings, said in (
        ([TEAM], "1 attribute names the team of spans"),
        ([TEAM, CENTER], "2 attributes name the team of spans"),
        ([user, TEAM, CUSTOMER], "3 attributes name the team, customer and user of spans"),
    ):
        assert headline_of(lines_of(mappings)) == said
