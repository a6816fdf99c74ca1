"""Plans: the form by charge model, its faults, its preview, and its versions."""

import re
from datetime import timedelta

import msgspec
from django.test import Client

from billing.models import Plan, PlanVersion
from billing.plans import terms_of
from billing.terms import ChargeModel, FlatCharge, UsageCharge
from dashboard.billing.charge_form import MODEL_CHOICES, RULES
from dashboard.billing.plan_form import VersionForm
from tests.billing.scene import PER_REQUEST, make_customer, make_plan, month_start, put_on
from tests.dashboard.billing.reading import words
from tests.dashboard.test_enforcement_pages import page
from tests.dashboard.walk_tenant import CHARGES
from tests.factories import Account, make_event, send

HEAD = {
    "name": "Growth",
    "currency_code": "USD",
    "interval": "month",
    "anchor": "calendar",
    "timezone": "UTC",
    "trial_days": "0",
    "charges": "0",
}
PER_UNIT = {
    "charges-0-name": "Requests",
    "charges-0-model": "per_unit",
    "charges-0-metric": "requests",
    "charges-0-unit_amount": "0.014",
    "charges-0-per": "1",
    "charges-0-included_units": "200",
}
GRADUATED = {
    "charges-0-name": "Tokens",
    "charges-0-model": "graduated",
    "charges-0-metric": "tokens",
    "charges-0-per": "1000000",
    "charges-0-tiers-0-up_to": "1000",
    "charges-0-tiers-0-unit_amount": "2",
    "charges-0-tiers-1-unit_amount": "1",
}


def test_a_plan_is_made_of_what_its_form_says(account: Account, owner: Client) -> None:
    answer = owner.post("/plans/new", {**HEAD, **GRADUATED, "cap_amount": "500"})
    with account.scope():
        plan = Plan.objects.get(name="Growth")
        terms = terms_of(plan.versions.get())
    assert answer["Location"] == f"/plans/{plan.id}"
    charge = terms.charges[0]
    assert isinstance(charge, UsageCharge)
    assert msgspec.to_builtins(charge.tiers) == [
        {"up_to": "1000", "unit_amount": "2", "flat_amount": "0"},
        {"up_to": None, "unit_amount": "1", "flat_amount": "0"},
    ]
    assert (charge.per, str(terms.cap_amount)) == (1_000_000, "500")


def test_every_fault_stands_at_its_field(account: Account, owner: Client) -> None:
    sent = {
        **HEAD,
        "name": "",
        **GRADUATED,
        "charges": "0,3",
        "charges-0-tiers-1-up_to": "500",
        "charges-3-name": "Tokens",
        "charges-3-model": "flat",
        "charges-3-amount": "1,000",
        "minimum_amount": "9",
        "cap_amount": "5",
    }
    shown = owner.post("/plans/new", sent)
    text = shown.content.decode()
    assert "Nothing was saved." in text
    # What cannot be read is told first.
    assert "commas could mean thousands" in text
    text = owner.post("/plans/new", {**sent, "charges-3-amount": "1000"}).content.decode()
    for fault in (
        "Give the plan a name.",
        "The last tier must be open: use null.",
        "Another charge has this name",
        "Must not be less than",
    ):
        assert fault in words(text), fault
    with account.scope():
        assert not Plan.objects.exists()


def test_what_is_not_filled_in_is_called_as_the_form_does(owner: Client) -> None:
    def previewed(**fields: str) -> str:
        return words(owner.post("/plans/preview", {**HEAD, **fields}).content.decode())

    without_amount = {**PER_UNIT, "charges-0-unit_amount": ""}
    assert "Requests: Fill in “Amount”." in previewed(**without_amount)
    without_tiers = {"charges-0-name": "Tokens", "charges-0-model": "volume"}
    assert "Tokens: Fill in a tier." in previewed(**without_tiers)


def test_buttons_add_and_remove_charges_and_save_nothing(account: Account, owner: Client) -> None:
    added = owner.post("/plans/new", {**HEAD, **PER_UNIT, "act": "add"}).content.decode()
    assert 'name="charges" value="0,1"' in added
    assert 'value="0.014"' in added
    assert "Nothing was saved" not in added
    gone = owner.post("/plans/new", {**HEAD, **PER_UNIT, "act": "remove-0"}).content.decode()
    assert 'name="charges" value=""' in gone
    with account.scope():
        assert not Plan.objects.exists()


def test_a_charge_has_the_fields_and_the_rule_of_its_model(owner: Client) -> None:
    for model, _ in MODEL_CHOICES:
        text = owner.post(
            "/plans/new", {**HEAD, **PER_UNIT, "charges-0-model": model, "act": "fields"}
        ).content.decode()
        assert words(RULES[model])[:60] in words(text), model
        assert ("charges-0-package_size" in text) is (model == "package"), model
        assert ("charges-0-tiers-0-up_to" in text) is (model in {"graduated", "volume"}), model
        assert ("charges-0-markups-0-model" in text) is (model == "cost_plus"), model
    assert set(RULES) == {"flat", *(model.value for model in ChargeModel)}


def test_the_preview_rates_an_example_and_last_month(account: Account, owner: Client) -> None:
    customer = make_customer(account)
    put_on(account, customer, make_plan(account, PER_REQUEST, name="Old"), month_start(1))
    at = month_start(0) - timedelta(days=1)
    send(account, [make_event(time=at.isoformat(), customer="acme") for _ in range(300)])
    text = owner.post("/plans/preview", {**HEAD, **PER_UNIT, "whose": "all"}).content.decode()
    # 200 are included, of the example as of the 300 that were used.
    assert "1,400 requests cost $16.80" in words(text)
    assert "This plan would have billed $1.40" in words(text)
    assert re.findall(r'<data value="([\d.]+)"', text)[-2:] == ["1.40", "300.00"]
    broken = owner.post("/plans/preview", {**HEAD, "charges-0-model": "per_unit"}).content.decode()
    assert "Not ready yet" in broken


def test_a_new_version_begins_with_the_last(account: Account, owner: Client) -> None:
    plan = make_plan(account, *CHARGES, name="All", bounds={"minimum_amount": "10"})
    with account.scope():
        terms = terms_of(plan.versions.get())
        form = VersionForm(None, plan, terms, month_start(0))
    # What the form shows, sent back, says the same.
    sent = {"charges": form.order, "starts_at": "2026-12-01T00:00", "minimum_amount": "10"}
    for charge in form.charges:
        sent |= {
            f"{charge.prefix}-{name}": str(charge[name].value() or "") for name in charge.fields
        }
    answer = owner.post(f"/plans/{plan.id}/versions/new", sent)
    assert answer.status_code == 302, words(answer.content.decode())
    with account.scope():
        version = PlanVersion.objects.get(plan=plan, number=2)
        assert terms_of(version) == terms
    assert "Version 2" in words(page(owner, f"/plans/{plan.id}"))
    early = {**sent, "starts_at": "2026-11-01T00:00"}
    refused = owner.post(f"/plans/{plan.id}/versions/new", early).content.decode()
    assert "a new one must begin later" in refused


def test_a_flat_fee_in_advance_is_the_first_choice(account: Account, owner: Client) -> None:
    sent = {**HEAD, "charges-0-name": "Fee", "charges-0-model": "flat", "charges-0-amount": "9"}
    owner.post("/plans/new", sent)
    with account.scope():
        (charge,) = terms_of(PlanVersion.objects.get()).charges
    assert isinstance(charge, FlatCharge)
    assert charge.when == "advance"


def test_plans_of_another_tenant_are_not_found(
    account: Account, stranger: Account, owner: Client
) -> None:
    plan = make_plan(stranger, PER_REQUEST)
    for path in ("", "/versions/new"):
        assert owner.get(f"/plans/{plan.id}{path}").status_code == 404
    assert "No plans yet" in words(page(owner, "/plans"))
