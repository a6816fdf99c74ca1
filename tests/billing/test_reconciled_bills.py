"""Providers' bills against usage: zero where they agree, and exactly what differs."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest

from billing.provider_bills.focus import read_focus
from billing.provider_bills.lines import seller_of
from billing.reconciliation.bills import compare_day, next_billed_day
from billing.reconciliation.results import Difference, KindResult
from common.csv_files import csv_lines
from metering.reporting.focus import focus_rows
from metering.rollups import roll_up
from tenants.scope import tenant_scope
from tests.billing.bills import anthropic_bucket, anthropic_page, import_for, openai_page
from tests.billing.bills import openai_bucket as openai_day
from tests.factories import Account, make_event, send

# Late enough for events to be taken, and over.
DAY = datetime.now(UTC).date() - timedelta(days=2)


def at(day: date, hour: int = 12) -> str:
    return datetime.combine(day, time(hour), UTC).isoformat()


def use(account: Account, model: object = "claude-sonnet-4-5", **fields: object) -> None:
    send(account, [make_event(model=model, **{"time": at(DAY), **fields})])


def compared(account: Account, day: date = DAY) -> tuple[KindResult, list[Difference]]:
    result = KindResult()
    with tenant_scope(account.tenant.id, is_snapshot=True):
        return result, list(compare_day(account.tenant.id, day, result))


def figures(result: list[Difference]) -> list[tuple[str, str, Decimal]]:
    return [(each.provider, each.model or each.line_item, each.difference) for each in result]


@pytest.fixture
def used(account: Account) -> Account:
    """Usage of 1.05 cents of Sonnet (twice 0.0045 and 0.0015), 0.15 of Haiku, and GPT-4o's.

    Spelled differently than bills do, a part of it rolled up.
    """
    use(account, input_tokens=1000, output_tokens=100)
    use(account, "claude-sonnet-4-5-20250929", input_tokens=1000, output_tokens=100)
    with account.scope():
        roll_up(tenant_id=account.tenant.id)
    use(
        account,
        "anthropic/claude-sonnet-4-5",
        provider="litellm",
        output_tokens=0,
        input_tokens=500,
    )
    use(account, "claude-haiku-4-5", input_tokens=1000, output_tokens=100)
    use(account, "gpt-4o-2024-08-06", provider="openai", input_tokens=1000, output_tokens=100)
    # Of other days, and of a provider that sent no bill.
    use(account, time=at(DAY - timedelta(days=1), 23))
    use(account, "mistral-large-latest", provider="mistral")
    return account


BILL = [("claude-sonnet-4-5-20250929", "1.05"), ("claude-haiku-4-5-20251001", "0.15")]


def test_a_bill_that_equals_the_usage_differs_by_nothing(used: Account) -> None:
    import_for(used, anthropic_page(anthropic_bucket(DAY, BILL)))
    import_for(
        used,
        openai_page(
            openai_day(
                DAY,
                [("gpt-4o-2024-08-06, input", "0.0025"), ("gpt-4o-2024-08-06, output", "0.001")],
            )
        ),
    )
    result, drifts = compared(used)
    assert drifts == []
    assert (result.compared, result.drifts) == (3, 0)
    assert result.sums["USD"].absolute == Decimal(0)
    assert result.sums["USD"].found == Decimal("0.0155")
    assert result.providers.keys() == {"anthropic", "openai"}


def test_one_cent_more_on_one_day_and_model_is_exactly_that(used: Account) -> None:
    import_for(used, anthropic_page(anthropic_bucket(DAY, [*BILL, ("claude-haiku-4-5", "1")])))
    result, drifts = compared(used)
    assert figures(drifts) == [("anthropic", "claude-haiku-4-5", Decimal("0.01"))]
    assert (drifts[0].expected, drifts[0].found) == (Decimal("0.0015"), Decimal("0.0115"))
    assert result.sums["USD"].absolute == Decimal("0.01")


def test_too_much_here_does_not_make_up_for_too_little_there(used: Account) -> None:
    moved = [("claude-sonnet-4-5", "0.05"), ("claude-haiku-4-5", "1.15")]
    import_for(used, anthropic_page(anthropic_bucket(DAY, moved)))
    result, drifts = compared(used)
    cent = Decimal("0.01")
    assert figures(drifts) == [
        ("anthropic", "claude-haiku-4-5", cent),
        ("anthropic", "claude-sonnet-4-5", -cent),
    ]
    assert result.sums["USD"].found == result.sums["USD"].expected
    assert result.sums["USD"].absolute == 2 * cent


def test_what_only_one_of_them_has_is_named(used: Account) -> None:
    """A tool of ours and an item of theirs are the same by name."""
    use(used, ..., provider="anthropic", tool="web_search", operation="tool", cost_usd="0.01")
    bill = [("claude-sonnet-4-5", "1.05"), ("claude-opus-4-1", "3"), (None, "1")]
    import_for(used, anthropic_page(anthropic_bucket(DAY, bill)))
    _, result = compared(used)
    assert [(each.model, each.difference, each.note) for each in result] == [
        ("claude-haiku-4-5", Decimal("-0.0015"), "The bill has nothing of it."),
        ("claude-opus-4-1", Decimal("0.03"), "No usage of it was reported."),
    ]


def test_a_bill_without_models_is_compared_as_a_whole(used: Account) -> None:
    import_for(used, openai_page(openai_day(DAY, [(None, "0.0035")])))
    assert compared(used)[1] == []
    import_for(used, openai_page(openai_day(DAY, [(None, "0.003500001")])))
    (difference,) = compared(used)[1]
    assert difference.difference == Decimal("0.000000001")
    assert difference.note == "The bill names no models."


def test_our_own_focus_export_read_as_a_bill_differs_by_nothing(used: Account) -> None:
    begin = datetime.combine(DAY, time(), UTC)
    rows = focus_rows(
        tenant_id=used.tenant.id,
        tenant_name="t",
        starts_at=begin,
        ends_at=begin + timedelta(days=1),
    )
    import_for(used, read_focus("".join(csv_lines(rows)).encode()))
    result, drifts = compared(used)
    assert drifts == []
    assert result.compared >= 4


def test_unpriced_calls_are_named(used: Account) -> None:
    use(used, "claude-unheard-of-9", provider="anthropic")
    import_for(used, anthropic_page(anthropic_bucket(DAY, [*BILL, ("claude-unheard-of-9", "7")])))
    (difference,) = compared(used)[1]
    assert (difference.model, difference.note) == (
        "claude-unheard-of-9",
        "1 calls have no price yet.",
    )


def test_days_without_a_bill_are_passed_over(used: Account) -> None:
    import_for(used, anthropic_page(anthropic_bucket(DAY, BILL)))
    with used.scope():
        week = DAY - timedelta(days=7)
        assert next_billed_day(used.tenant.id, after=week, last=DAY) == DAY
        assert next_billed_day(used.tenant.id, after=DAY, last=DAY + timedelta(days=9)) is None


def test_a_reseller_bills_for_itself_and_a_gateway_for_the_maker() -> None:
    assert seller_of("azure", "gpt-4o") == "azure"
    assert seller_of("litellm", "anthropic/claude-sonnet-4-5") == "anthropic"
    assert seller_of("", "gpt-4o") == "openai"
    assert seller_of("in-house", "llama-9") == "in-house"
