"""Numbers out of forms: one way to write them, and a hint for every other."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django import forms
from django.contrib.admin import ModelAdmin
from django.core.exceptions import ValidationError
from django.test import RequestFactory, override_settings

from alerts.admin.channels import form_of
from alerts.channels import KINDS
from metering.fields.forms import count_field
from metering.models import Budget
from tenants.admin_site import site
from tenants.number_fields import AmountField, UsdField, WholeNumberField
from tenants.roles import Role
from tests.dashboard.test_admin import budget_form, changed, errors_of
from tests.factories import NANOS, Account

COMMA_HINT = "Write 1200.50: commas could mean thousands or decimals."
POINT_HINT = "Write 1200.50: digits alone, with a point before decimals."


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("50", 50 * NANOS),
        (" 1200.50 ", 1_200_500_000_000),
        ("$0.125", 125_000_000),
        ("0.000000001", 1),
        ("0", 0),
        ("1000000000", 10**9 * NANOS),
        ("", None),
    ],
)
def test_an_amount_is_digits_with_a_point(text: str, nanos: int | None) -> None:
    assert UsdField(required=False).clean(text) == nanos


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("50,00", COMMA_HINT),
        ("1,000", COMMA_HINT),
        ("$1,000.00", COMMA_HINT),
        ("1.200,50", COMMA_HINT),
        (",5", COMMA_HINT),
        ("1.200.000", POINT_HINT),
        ("1 200", POINT_HINT),
        ("1\u202f200", POINT_HINT),
        ("1'200", POINT_HINT),
        ("1_200", POINT_HINT),
        ("1e9", POINT_HINT),
        ("\uff15\uff10", POINT_HINT),
        ("\u0665\u0660", POINT_HINT),
        ("50\uff0e5", POINT_HINT),
        ("$", POINT_HINT),
        ("50$", POINT_HINT),
        ("\u20ac50", POINT_HINT),
        (".5", POINT_HINT),
        ("5.", POINT_HINT),
        ("+5", POINT_HINT),
        ("NaN", POINT_HINT),
        ("Infinity", POINT_HINT),
        ("0x10", POINT_HINT),
        ("9" * 500, POINT_HINT),
        ("-5", "Write an amount that is not below 0."),
        ("\u22125", "Write an amount that is not below 0."),
        # Below a nano-dollar: it would be stored as nothing, which refuses everything.
        ("0.0000000001", "Write at most 9 decimals."),
        ("1000000000.000000001", "Write an amount of at most 1000000000."),
    ],
)
def test_any_other_amount_is_refused_with_the_way_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(ValidationError, match=hint.replace(".", r"\.")):
        UsdField().clean(text)


@pytest.mark.parametrize(
    "text",
    ["10,000", "10.000", "10.0", "1 000", "1_000", "1e3", "\uff15", "\u0665", "5,", "+5", "0x10"],
)
def test_a_count_is_digits_alone(text: str) -> None:
    field = count_field("Requests", required=False)
    assert (field.clean(" 10000 "), field.clean("")) == (10_000, None)
    with pytest.raises(ValidationError, match="digits alone, such as 10000"):
        field.clean(text)
    for beyond in ("-5", "0", str(2**53 + 1), "9" * 5000):
        with pytest.raises(ValidationError):
            field.clean(beyond)


def every_form() -> Iterator[tuple[str, type[forms.BaseForm]]]:
    """The forms of all pages of the admin, as an owner gets them."""
    request: Any = RequestFactory().get("/")
    request.role = Role.OWNER
    for model, page in site._registry.items():
        assert isinstance(page, ModelAdmin)
        yield model.__name__, page.form
        for inline in page.inlines:
            yield model.__name__, inline.form
    for kind in KINDS:
        yield f"channel {kind}", form_of(kind)


def test_every_number_of_every_form_is_read_that_way() -> None:
    numbers = {
        (name, field): type(form_field)
        for name, form in every_form()
        for field, form_field in form.base_fields.items()  # type: ignore[attr-defined]
        if isinstance(form_field, forms.IntegerField | forms.DecimalField | AmountField)
    }
    strict = (AmountField, WholeNumberField)
    assert len(numbers) > 30
    assert [name for name, kind in numbers.items() if not issubclass(kind, strict)] == []


@override_settings(USE_I18N=True, USE_THOUSAND_SEPARATOR=True, LANGUAGE_CODE="de")
def test_a_number_is_shown_as_it_is_read_whatever_the_language() -> None:
    class Form(forms.Form):
        cost = UsdField()
        count = count_field("Requests")

    shown = Form(initial={"cost": 1_234_500_000_000, "count": 10_000})
    assert 'value="1234.5"' in str(shown["cost"])
    assert 'value="10000"' in str(shown["count"])
    with pytest.raises(ValidationError):
        AmountField().clean("1.234,50")
    assert AmountField().clean("1234.50") == Decimal("1234.50")


@pytest.mark.django_db
def test_a_budget_with_a_comma_is_not_made_and_stays_as_typed(account: Account, owner: Any) -> None:
    before = changed(account)
    answer = owner.post(
        "/admin/metering/budget/add/",
        budget_form(limit_cost_nanos="50,00", limit_requests="10,000"),
    )
    page = errors_of(answer)
    assert COMMA_HINT in page
    assert "digits alone, such as 10000" in page
    assert 'value="50,00"' in page
    assert 'value="10,000"' in page
    assert changed(account) == before
    with account.scope():
        assert not Budget.objects.exists()
