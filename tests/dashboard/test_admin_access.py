"""The admin as a whole: every role against every page's rights, and hostile addresses."""

from collections.abc import Callable, Iterable

from django.test import Client, RequestFactory
from django.urls import reverse

from tenants.admin_site import site
from tenants.models import ApiKey, Invitation, Membership, Team, Tenant
from tenants.roles import ROLES_THAT_GRANT, SCOPES_BY_ROLE, Role, Scope
from tests.alerts.examples import make_incident
from tests.alerts.scene import make_channel
from tests.factories import Account, make_budget

MANAGE = frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])
NOBODY: frozenset[Role] = frozenset()
# Who hands out access is fewer than who manages; all else is as the API's scopes have it.
GRANTED = {Membership, Invitation, Team, ApiKey, Tenant}


def allowed(model: type, right: str) -> frozenset[Role]:
    """The roles that have a right in the admin, for rows in general."""
    page = site._registry[model]
    roles = set()
    for role in Role:
        request = RequestFactory().get("/")
        request.role = role  # type: ignore[attr-defined]
        if getattr(page, f"has_{right}_permission")(request):
            roles.add(role)
    return frozenset(roles)


def test_the_rights_of_every_page_are_those_of_the_apis_scopes() -> None:
    assert len(site._registry) >= 15
    for model in site._registry:
        writers = ROLES_THAT_GRANT if model in GRANTED else MANAGE
        for right in ("add", "change", "delete"):
            assert allowed(model, right) in {writers, NOBODY}, (model, right)
        # What customers pay is for those who may bill them.
        readers = MANAGE if model._meta.app_label == "billing" else frozenset(Role)
        assert allowed(model, "view") == readers, model


def test_who_may_remove_a_channel_may_pause_it(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    for role in Role:
        channel, client = make_channel(account, name=role.value), as_role(role)
        paused = client.post(f"/incidents/channels/{channel.id}/pause")
        removed = client.post(f"/admin/alerts/channel/{channel.id}/delete/", {"post": "yes"})
        expected = 302 if role in MANAGE else 403
        assert (paused.status_code, removed.status_code) == (expected, expected), role


HOSTILE = (
    "name__regex=\\",
    "name__regex=(",
    "id__in=%00",
    "tenant__name__contains=a",
    "tenant__memberships__user__password__startswith=a",
    "secret_hash__startswith=a",
    "nothing=1",
    "nothing__exact__exact=1",
    "q=%00",
    "q=" + "a+" * 3000,
    "kind__exact=%00",
    "kind__exact=" + "x" * 5000,
    "channel__id__exact=abc",
    "channel__id__exact=" + "9" * 40,
    "kind__isnull=abc",
    "status=%ff",
    "p=abc",
    "p=-1",
    "p=" + "9" * 5000,
    "o=abc",
    "o=99.-99.1",
    "_to_field=tenant",
    "_popup=1",
    "all=",
    "e=1",
    "_facets=1",
    "&".join(f"a{number}=1" for number in range(1100)),
    "%00=1",
    "%5C=1",
    "pk__gt=" + "9" * 400,
)


def lists() -> Iterable[str]:
    for model in site._registry:
        yield reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def test_no_query_of_a_list_fails(account: Account, owner: Client) -> None:
    """Each query meets one of the lists."""
    make_channel(account)
    make_budget(account)
    make_incident(account)
    owner.raise_request_exception = False
    paths = list(lists())
    for index, query in enumerate(HOSTILE):
        path = paths[index % len(paths)]
        answer = owner.get(f"{path}?{query}")
        assert answer.status_code in {200, 302, 400}, (path, query[:60], answer.status_code)
    assert owner.get("/admin/alerts/channel/?name__regex=\\").status_code == 400
    assert owner.get("/admin/alerts/channel/?kind__exact=webhook").status_code == 200


ROWS = ("abc", "0", "-1", "1.5", "9" * 30, "9" * 5000, "%00", "1/2", "é")


def test_no_address_of_a_row_fails(account: Account, owner: Client) -> None:
    owner.raise_request_exception = False
    for row in ROWS:
        for path, page in (
            ("tenants/invitation", "change/"),
            ("alerts/channel", "new_secret/"),
            ("alerts/maintenancewindow", "delete/"),
            ("metering/breaker", "delete/"),
            ("tenants/invitation", "send_again/"),
        ):
            answer = owner.get(f"/admin/{path}/{row}/{page}")
            assert answer.status_code in {302, 403, 404}, (path, page, row[:9])
    form = {"form_token": "\0", "email": "x@example.com", "role": "viewer"}
    assert owner.post("/admin/tenants/invitation/add/", form).status_code == 400
