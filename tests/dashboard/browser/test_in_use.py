"""Pages in a real browser: they draw, fold, answer to the keyboard, and break no policy."""

from datetime import UTC, datetime

import pytest
from django.test import Client
from playwright.sync_api import Browser, Page, ViewportSize, expect
from pytest_django.live_server_helper import LiveServer

from alerts.incidents import observe
from dashboard import counted_later
from metering.models import Budget, Halt, Route, SourceOutcome
from metering.usage.sources import Tally, record_reports
from tests.alerts.scene import seen
from tests.dashboard.browser.conftest import enter
from tests.dashboard.walk import Scheme, overflow, settle, watch
from tests.factories import Account, make_budget, make_event, send
from tests.metering.api.caller import caller
from tests.metering.reservations.test_reservations import ask, expire

PHONE = ViewportSize(width=390, height=844)
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture
def busy(account: Account) -> Account:
    """A tenant with usage, some of it named to do harm, and a budget that is nearly full."""
    make_budget(account, name="Everything", cost_usd=20, levels=[(70, "none"), (100, "block")])
    send(
        account,
        [
            make_event(agent="researcher", team="growth", cost_usd="12"),
            make_event(agent="writer", team="growth", cost_usd="3"),
            make_event(agent=HOSTILE, team="x" * 200, cost_usd="1"),
        ],
    )
    return account


def test_a_person_signs_in_by_the_form(tab: Page, account: Account) -> None:
    tab.goto("/")
    tab.get_by_label("Email address").fill(account.email)
    tab.get_by_label("Password").fill(account.password)
    tab.keyboard.press("Enter")
    expect(tab).to_have_url("/")
    expect(tab.get_by_role("navigation", name="Main")).to_be_visible()


def test_the_overview_draws_filters_and_tells_the_numbers(owners_tab: Page, busy: Account) -> None:
    page = owners_tab
    page.goto("/?group_by=agent")
    settle(page)
    assert page.locator(".chart .bars path").count() == 21
    legend = page.locator("#spend-chart-legend > span").all_text_contents()
    assert legend[0] == "researcher"
    assert HOSTILE[:20] in "".join(legend)
    page.get_by_text("View as table").first.click()
    expect(page.locator(".numbers-of tbody tr").first).to_contain_text("so far")
    page.get_by_role("link", name="researcher", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("$12.00 spent")
    assert "filter[agent]=researcher" in page.url
    settle(page)
    page.get_by_label("Remove agent researcher").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("$16.00 spent")
    assert page.title().startswith("$16.00 spent")


def test_days_are_chosen_and_a_bar_leads_to_its_value(owners_tab: Page, busy: Account) -> None:
    page = owners_tab
    page.goto("/?group_by=agent&filter[team]=growth")
    page.get_by_text("Custom", exact=True).click()
    today = datetime.now(UTC).date().isoformat()
    page.get_by_label("From", exact=True).fill(today)
    page.get_by_label("To (inclusive)").fill(today)
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("heading", name="Spend by hour")).to_be_visible()
    assert f"from={today}&to={today}&group_by=agent" in page.url
    assert "growth" in page.url
    settle(page)
    bars = page.locator(".chart .bars path").evaluate_all(
        "paths => paths.map(path => path.getBBox()).map(box => box.height)"
    )
    tallest = page.locator(".chart .bars path").nth(bars.index(max(bars)))
    box = tallest.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_label("Remove agent researcher")).to_be_visible()


def test_the_legend_shows_each_series_as_it_is_drawn(owners_tab: Page, busy: Account) -> None:
    with busy.scope():
        budget = Budget.objects.get(tenant=busy.tenant)
    page = owners_tab
    page.goto(f"/budgets/{budget.id}")
    settle(page)
    ring = page.locator("#burn-legend > span", has_text="Level reached").locator(".swatch")
    expect(ring).to_have_class("swatch ring")
    expect(ring).to_have_css("border-radius", "50%")
    assert ring.evaluate(
        "one => getComputedStyle(one).color !== getComputedStyle(document.body).backgroundColor"
    )


def test_a_change_of_the_theme_draws_the_chart_anew(owners_tab: Page, busy: Account) -> None:
    page = owners_tab
    page.emulate_media(color_scheme="dark")
    page.goto("/")
    settle(page)
    page.emulate_media(color_scheme="light")
    settle(page)


def test_a_phone_shows_everything_within_its_width(owners_tab: Page, busy: Account) -> None:
    page = owners_tab
    page.set_viewport_size(PHONE)
    page.goto("/")
    settle(page)
    assert overflow(page) == 0
    menu = page.get_by_role("button", name="Menu")
    expect(page.get_by_role("link", name="Budgets", exact=True)).to_be_hidden()
    menu.click()
    expect(menu).to_have_attribute("aria-expanded", "true")
    page.get_by_role("link", name="Budgets", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("run out")
    for path in ("/budgets", "/settings/prices", "/?group_by=team", "/password"):
        page.goto(path)
        assert overflow(page) == 0, path


def test_an_agent_is_halted_from_the_overview_and_let_go_on(
    owners_tab: Page, busy: Account
) -> None:
    page = owners_tab
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    page.goto("/?group_by=agent")
    page.get_by_label("Actions: <img").click()
    page.get_by_role("link", name="Halt agent…").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        f"Halt calls by agent “{HOSTILE[:30]}"
    )
    expect(page.get_by_label("Reason")).to_be_focused()
    assert overflow(page) == 0
    page.keyboard.type("It loops")
    page.get_by_role("button", name="Halt these calls").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("1 halt is in force")
    assert page.url.endswith("/enforcement/halts")
    lift = page.get_by_role("button", name="Lift the halt of calls by agent")
    lift.click()
    question = page.get_by_role("dialog", name="Lift this halt?")
    expect(question).to_contain_text("are allowed again within a second")
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(lift).to_be_focused()
    assert overflow(page) == 0
    lift.click()
    page.get_by_role("button", name="Lift halt").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is halted")
    for name in ("Increase requests", "Decisions", "Estimates"):
        page.get_by_role("navigation", name="Section").get_by_role("link", name=name).click()
        expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
        assert overflow(page) == 0, name
    with busy.scope():
        (halt,) = Halt.objects.all()
        assert (halt.match, halt.lifted_by) == ({"agent": HOSTILE}, busy.email)


def test_an_incident_is_found_on_the_chart_and_handled_without_a_reload(
    owners_tab: Page, busy: Account
) -> None:
    match = {"agent": HOSTILE}
    with busy.scope():
        made = observe(tenant_id=busy.tenant.id, observation=seen(title=HOSTILE, match=match))
    page = owners_tab
    page.set_viewport_size(PHONE)
    page.goto("/")
    settle(page)
    page.locator(".chart .annotation").filter(has_text="▲").locator("rect").click()
    page.wait_for_url(f"**/incidents/{made.id}")
    settle(page)
    expect(page.get_by_role("region", name="Top spenders")).to_contain_text("$1.00")
    page.evaluate("document.querySelector('.chart svg').dataset.drawnOnce = 'yes'")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("Everyone can see that you are looking into it.")).to_be_visible()
    page.get_by_label("Add a comment").fill(HOSTILE)
    page.get_by_role("button", name="Comment").dblclick()
    expect(page.get_by_text("Your comment was added to the timeline.")).to_be_visible()
    expect(page.locator(".timeline p").filter(has_text=HOSTILE)).to_have_count(1)
    assert page.evaluate("document.querySelector('.chart svg').dataset.drawnOnce") == "yes"
    assert overflow(page) == 0
    page.goto("/incidents")
    assert overflow(page) == 0
    page.get_by_label("Actions: <img").click()
    page.get_by_role("button", name="Snooze, 1 hour").click()
    expect(page.get_by_role("heading", name="Snoozed")).to_be_visible()
    with busy.scope():
        made.refresh_from_db()
        assert made.snoozed_until is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sources_and_unknown_outcomes_fit_a_phone(
    owners_tab: Page, busy: Account, scheme: Scheme
) -> None:
    fields = {"code": "unknown_usage", "detail": HOSTILE, "sample": "x" * 2000}
    tally = Tally("s" * 200, Route.OTLP, SourceOutcome.REJECTED, 1, **fields)
    record_reports(busy.tenant.id, [tally])
    expire(busy, ask(caller(busy), "1", agent=HOSTILE, model="m" * 200))
    page = owners_tab
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    page.goto("/settings/sources")
    page.get_by_text("Latest sample, redacted").click()
    expect(page.locator("details pre.code").first).to_be_visible()
    assert overflow(page) == 0
    page.goto("/enforcement/unknown")
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "1 call may have run, for which $1.00 was held"
    )
    assert overflow(page) == 0
    assert page.title().startswith("1 call may have run")


def test_times_are_the_viewers(owners_tab: Page, account: Account) -> None:
    send(account, [make_event(model="unheard-of", provider="nobody")])
    page = owners_tab
    page.goto("/settings/prices")
    shown = page.locator("time[data-shown]").first
    assert "Asia/Tokyo" in str(shown.get_attribute("title"))


def test_the_keyboard_reaches_the_content_and_sees_where_it_is(
    owners_tab: Page, busy: Account
) -> None:
    page = owners_tab
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_budget_is_made_in_the_admin_with_a_level_added(
    owners_tab: Page, account: Account
) -> None:
    page = owners_tab
    page.goto("/admin/metering/budget/add/")
    page.locator("[name=name]").fill("From the form")
    page.locator("[name=limit_cost_nanos]").fill("25")
    page.locator("[name=match_0]").select_option("team")
    page.locator("[name=match_1]").fill("growth")
    page.get_by_text("Add another").click()
    page.locator("[name=levels-3-percent]").fill("80")
    page.locator("[name=levels-3-notify]").fill("finance")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/admin/metering/budget/")
    with account.scope():
        budget = Budget.objects.get(tenant=account.tenant)
        levels = [(level.percent, level.notify) for level in budget.levels.all()]
    assert (budget.name, budget.match, levels) == (
        "From the form",
        {"team": "growth"},
        # A new budget blocks at its limit, unless the form says otherwise.
        [(80, ["finance"]), (100, [])],
    )


def test_a_page_that_is_swapped_200_times_keeps_no_charts_of_before(
    owners_tab: Page, busy: Account
) -> None:
    page = owners_tab
    page.goto("/")
    # A handle to an element, as wait_for_selector returns it, would keep the element alive.
    drawn = page.locator("#spend-chart[data-ready]")
    devtools = page.context.new_cdp_session(page)

    def kept() -> dict[str, int]:
        drawn.wait_for()
        devtools.send("HeapProfiler.collectGarbage")
        counters = devtools.send("Memory.getDOMCounters")
        return {"nodes": counters["nodes"], "listeners": counters["jsEventListeners"]}

    def swap(times: int) -> None:
        for _ in range(times):
            page.evaluate(
                "new Promise((end) => { document.addEventListener('htmx:afterSettle', () => end(),"
                " { once: true }); document.querySelector('.seg a').click(); })"
            )
            drawn.wait_for()

    swap(10)
    before = kept()
    swap(200)
    after = kept()
    assert after["nodes"] < before["nodes"] * 1.5
    assert after["listeners"] < before["listeners"] * 1.5


def test_an_open_page_shows_what_arrives_and_keeps_what_was_typed(
    owners_tab: Page, busy: Account
) -> None:
    page = owners_tab
    page.goto("/")
    expect(page.locator(".tile.hero .value")).to_have_text("$16.00")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Name", exact=True).fill("half typed")
    send(busy, [make_event(agent="writer", team="growth", cost_usd="4")])
    expect(page.locator(".tile.hero .value")).to_have_text("$20.00", timeout=60_000)
    expect(page.get_by_label("Name", exact=True)).to_have_value("half typed")


def test_a_finding_that_came_later_stays_while_the_page_is_open(
    browser: Browser,
    live_server: LiveServer,
    account: Account,
    owner: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counted_later, "READ_AT_ONCE_MAX", 0)
    send(account, [make_event(session="run", cost_usd="5")])
    # A clock that was set stays in its window.
    with browser.new_context(base_url=live_server.url) as window:
        page = window.new_page()
        enter(page, owner, live_server.url)
        complaints = watch(page, live_server.url)
        page.clock.install()
        page.goto("/sessions")
        told = "The costliest session, run, cost $5.00"
        expect(page.get_by_role("heading", level=1)).to_contain_text(told)
        for _ in range(2):  # the second answer comes after the first was shown
            send(account, [make_event(cost_usd="1")])
            with page.expect_response(lambda sent: "x-live" in sent.request.headers) as answer:
                page.clock.fast_forward(5_000)
            assert answer.value.status == 200
        assert page.get_by_role("heading", level=1).inner_text().startswith(told)
        assert complaints == []
