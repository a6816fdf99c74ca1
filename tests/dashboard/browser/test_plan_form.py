"""A plan's form in Chromium, whose preview follows what is typed."""

from playwright.sync_api import Page, expect


def test_a_plans_form_and_preview_follow_what_is_typed(owners_tab: Page) -> None:
    page = owners_tab
    page.goto("/plans/new")
    page.locator("#id_charges-0-name").fill("Requests")
    page.locator("#id_charges-0-model").select_option("per_unit")
    page.locator("#id_charges-0-unit_amount").fill("0.01")
    expect(page.locator("#examples")).to_contain_text("1,200 requests cost $12.00", timeout=60_000)
    page.get_by_role("button", name="Add charge").click()
    page.locator("#id_charges-1-model").select_option("graduated")
    expect(page.locator("#id_charges-1-tiers-0-up_to")).to_be_visible()
    # What was typed before stays.
    expect(page.locator("#id_charges-0-unit_amount")).to_have_value("0.01")
    expect(page.locator("#preview")).to_contain_text("Not ready yet")
    page.get_by_role("button", name="Remove charge 2").click()
    expect(page.locator("#id_charges-1-model")).to_have_count(0)
    page.locator("#id_name").fill("By request")
    page.get_by_role("button", name="Create plan").click()
    expect(page.locator("h1")).to_contain_text("No customer is on By request yet")
