"""The routing table: which model is good enough, and what is no table."""

import pytest
from django.core.exceptions import ValidationError

from metering.configuration.routes import (
    RouteExists,
    create_route,
    delete_route,
    update_route,
    validate_tiers,
)
from metering.limits.routes import RouteRule, RouteTable, Tier, read_routes
from metering.models import ModelRoute
from tenants.models import AuditEntry, Tenant
from tests.factories import Account

SMALL = Tier("openai", "gpt-5-nano", 3)
MIDDLE = Tier("anthropic", "claude-haiku-4-5", 7)
BEST = Tier("anthropic", "claude-sonnet-4-5", None)
TIERS = (SMALL, MIDDLE, BEST)


def route(task_type: str = "", tiers: tuple[Tier, ...] = TIERS) -> RouteRule:
    return RouteRule(1, task_type, tiers)


@pytest.mark.parametrize(
    ("complexity", "tier"),
    [
        (0, SMALL),
        (3, SMALL),
        (4, MIDDLE),
        (7, MIDDLE),
        (8, BEST),
        (10, BEST),
        (None, MIDDLE),
    ],
)
def test_a_task_gets_the_cheapest_model_that_is_good_enough(
    complexity: int | None, tier: Tier
) -> None:
    assert route().tier_for(complexity) == tier
    assert route().top == BEST


def test_a_route_of_one_model_has_only_that() -> None:
    only = route(tiers=(BEST,))
    assert (only.tier_for(0), only.tier_for(None), only.top) == (BEST, BEST, BEST)


def test_a_task_type_has_its_own_route_or_the_one_for_all_others() -> None:
    summaries, others = route("summary"), route("")
    table = RouteTable([summaries, others])
    assert table.choose("summary") is summaries
    assert table.choose("poem") is others
    assert table.choose(None) is others
    assert table.choose("") is others
    assert RouteTable([summaries]).choose("poem") is None
    assert RouteTable([summaries]).choose(None) is None
    assert (len(table), bool(RouteTable())) == (2, False)


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ((), "1 to 20 models"),
        (tuple(Tier("p", f"m{number}", None) for number in range(21)), "1 to 20 models"),
        ((SMALL, MIDDLE), "the best one takes everything"),
        ((SMALL, BEST, BEST), "twice"),
        ((Tier("p", "m", None), BEST), "Each model but the last"),
        ((Tier("p", "m", 11), BEST), "from 0 to 10"),
        ((Tier("p", "m", -1), BEST), "from 0 to 10"),
        ((MIDDLE, SMALL, BEST), "larger"),
        ((SMALL, Tier("p", "m", 3), BEST), "larger"),
    ],
)
def test_what_are_no_tiers_is_said_in_words(tiers: tuple[Tier, ...], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        validate_tiers(tiers)
    validate_tiers(TIERS)


def test_routes_are_made_changed_and_removed_with_a_new_configuration_each_time(
    account: Account,
) -> None:
    versions = []

    def version() -> int:
        return Tenant.objects.values_list("configuration_version", flat=True).get(
            id=account.tenant.id
        )

    with account.scope():
        versions.append(version())
        made = create_route(
            tenant=account.tenant, actor="tests", name="Summaries", task_type="summary", tiers=TIERS
        )
        versions.append(version())
        assert read_routes(account.tenant.id).choose("summary") == RouteRule(
            made.id, "summary", TIERS
        )
        update_route(route=made, actor="tests", changes={"task_type": "", "tiers": (BEST,)})
        versions.append(version())
        assert read_routes(account.tenant.id).choose("poem") == RouteRule(made.id, "", (BEST,))
        delete_route(route=made, actor="tests")
        versions.append(version())
        assert len(read_routes(account.tenant.id)) == 0
        audit_entries = AuditEntry.objects.filter(object_type="modelroute").order_by("id")
        assert [each.action for each in audit_entries] == ["create", "update", "delete"]
        assert audit_entries[1].changes["task_type"] == ["summary", ""]
    assert versions == sorted(set(versions))


def test_a_task_type_has_one_route(account: Account, stranger: Account) -> None:
    with account.scope():
        for task_type in ("", "summary"):
            create_route(
                tenant=account.tenant, actor="a", name="n", task_type=task_type, tiers=TIERS
            )
        with pytest.raises(RouteExists, match="'summary'"):
            create_route(
                tenant=account.tenant, actor="a", name="n", task_type="summary", tiers=TIERS
            )
        other = ModelRoute.objects.get(task_type="")
        with pytest.raises(RouteExists):
            update_route(route=other, actor="a", changes={"task_type": "summary"})
        assert set(ModelRoute.objects.values_list("task_type", flat=True)) == {"", "summary"}
    with stranger.scope():
        assert len(read_routes(stranger.tenant.id)) == 0
        create_route(tenant=stranger.tenant, actor="a", name="n", tiers=TIERS)
