"""A plan's form in Chromium, whose preview follows what is typed."""

from django.test import Client
from playwright.sync_api import Browser, expect
from pytest_django.live_server_helper import LiveServer

from tests.dashboard.conftest import needs_chromium
from tests.factories import Account

pytestmark = needs_chromium


def test_a_plans_form_and_preview_follow_what_is_typed(
    browser: Browser, live_server: LiveServer, account: Account, owner: Client
) -> None:
    context = browser.new_context(base_url=live_server.url)
    context.add_cookies(
        [{"name": "sessionid", "value": owner.cookies["sessionid"].value, "url": live_server.url}]
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda each: problems.append(each.text) if each.type == "error" else None)
    page.goto("/plans/new")
    page.locator("#id_charges-0-name").fill("Requests")
    page.locator("#id_charges-0-model").select_option("per_unit")
    page.locator("#id_charges-0-unit_amount").fill("0.01")
    expect(page.locator("#examples")).to_contain_text("1,200 requests cost $12.00", timeout=15_000)
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
    assert problems == []
    context.close()
