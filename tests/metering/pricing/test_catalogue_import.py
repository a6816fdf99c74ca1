import json
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from common.json_bodies import JsonObject
from metering.configuration.prices import Validity, add_price
from metering.models import CataloguePrice, TenantPrice, ToolPrice
from metering.models.prices import price_row, tenant_price_id, tool_price_id
from metering.pricing.book import Rating, load_price_book
from metering.pricing.catalogue_import import import_catalogue
from metering.pricing.supplement import supplemented_rows
from metering.usage.shapes import Tokens
from tenants.models import Tenant
from tests.factories import Account

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
GPT_4O = {"input_tokens": 1_000_000_000, "output_tokens": 2_000_000_000}


def rates() -> JsonObject:
    return {key: {"nanos": str(nanos), "per": 1_000_000} for key, nanos in GPT_4O.items()}


def rate(account: Account, model: str, **given: Any) -> Rating:
    with account.scope():
        book = load_price_book(account.tenant.id)
    arguments = {"tool": None, "operation": "llm", "service_tier": None, **given}
    return book.rate(provider="openai", model=model, at=NOON, tokens=Tokens(1000, 100), **arguments)


def version_of(account: Account) -> int:
    with account.scope():
        return Tenant.objects.get(id=account.tenant.id).configuration_version


def test_a_second_import_changes_nothing(account: Account) -> None:
    before = version_of(account)
    done = import_catalogue()
    rows = supplemented_rows()
    assert (done.prices, done.added, done.superseded) == (len(rows), 0, 0)
    assert done.models == len({(row.provider, row.model) for row in rows})
    assert CataloguePrice.objects.count() == done.prices
    assert version_of(account) == before


def test_a_price_that_changed_is_superseded_and_can_still_be_named(account: Account) -> None:
    current = CataloguePrice.objects.filter(superseded_at=None)
    price = current.get(provider="openai", model="gpt-4o", ordinal=0)
    # As if an older catalogue had held another price, and a model that is gone.
    stale = dict(price.rates, input_tokens={"nanos": "9000000000", "per": 1_000_000})
    current.filter(id=price.id).update(rates=stale)
    gone = CataloguePrice.objects.create(
        provider="openai", model="gone", ordinal=0, rates=rates(), catalogue_version="0"
    )
    assert rate(account, "gpt-4o").cost_nanos == 1000 * 9000 + 100 * 10_000
    before = version_of(account)

    done = import_catalogue()

    assert (done.added, done.superseded) == (1, 2)
    assert version_of(account) > before
    price.refresh_from_db()
    gone.refresh_from_db()
    assert price.superseded_at is not None
    assert gone.superseded_at is not None
    assert price.rates == stale
    again = rate(account, "gpt-4o")
    assert again.cost_nanos == 1000 * 2500 + 100 * 10_000
    assert again.price_id == current.get(provider="openai", model="gpt-4o", ordinal=0).price_id
    assert again.price_id != price.price_id


def test_the_command_says_what_it_did(account: Account) -> None:
    sentence, as_json = StringIO(), StringIO()
    call_command("import_prices", stdout=sentence)
    call_command("import_prices", "--json", stdout=as_json)
    assert sentence.getvalue().strip().endswith("nothing had changed.")
    assert json.loads(as_json.getvalue())["added"] == 0


def test_a_book_holds_the_tenants_own_prices_and_no_one_elses(
    account: Account, stranger: Account
) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    with account.scope():
        price = TenantPrice.objects.create(
            tenant=account.tenant, model="gpt-4o", effective_from=since, rates=rates()
        )
        tool = ToolPrice.objects.create(
            tenant=account.tenant, tool="search", effective_from=since, call_nanos=5
        )
    assert rate(account, "gpt-4o") == Rating(1_200_000, tenant_price_id(price.id), "override")
    assert rate(account, "", tool="search", operation="tool") == Rating(
        5, tool_price_id(tool.id), "override"
    )
    assert rate(stranger, "gpt-4o").source == "catalogue"
    assert rate(stranger, "", tool="search", operation="tool") == Rating(0, None, "catalogue")


def test_a_price_id_leads_to_its_row(account: Account) -> None:
    assert price_row(7) == (CataloguePrice, 7)
    for row_id in (1, 2, 3, 10**9):
        assert price_row(tenant_price_id(row_id)) == (TenantPrice, row_id)
        assert price_row(tool_price_id(row_id)) == (ToolPrice, row_id)


def test_rates_that_cannot_be_used_are_not_stored(account: Account) -> None:
    with account.scope():
        with pytest.raises(ValidationError):
            add_price(
                tenant=account.tenant,
                actor="tests",
                model="x",
                rates={"x": 1},
                validity=Validity(NOON),
            )
        assert not TenantPrice.objects.exists()


def test_a_price_ends_after_it_starts(account: Account) -> None:
    price = TenantPrice(
        tenant=account.tenant, model="x", effective_from=NOON, effective_to=NOON, rates=rates()
    )
    with pytest.raises(ValidationError, match="later than the start"):
        price.full_clean(exclude=["tenant"])
