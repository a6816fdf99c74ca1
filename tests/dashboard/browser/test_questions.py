"""The questions of docs/questions.md are answered by the clicks that it names."""

import re
from pathlib import Path
from typing import Final, NamedTuple

from django.test import Client
from playwright.sync_api import Locator, Page, expect

from tests.dashboard.walk_tenant import furnish
from tests.factories import Account

QUESTIONS: Final = Path(__file__).parents[3] / "docs" / "questions.md"
CLICKS_MAX: Final = 3
# What a link in italics is.
FIRST: Final = {
    "session": "#sessions th a.name",
    "budget": "main th a.name",
    "failed calls": "#totals a.link",
}


class Question(NamedTuple):
    """A row of the table."""

    words: str
    clicks: list[str]
    answer: str


def questions() -> list[Question]:
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split(" | ")]
        for line in QUESTIONS.read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| reader")
    ]
    return [
        Question(words, re.findall(r"[`*][^`*]+[`*]", clicks), answer.strip("`"))
        for _, words, clicks, answer in rows
    ]


def link(page: Page, click: str) -> Locator:
    words = click[1:-1]
    if click[0] == "*":
        return page.locator(FIRST[words]).first
    return page.get_by_role("link", name=re.compile(rf"^{re.escape(words)}\b")).first


def expect_answer(page: Page, words: str) -> None:
    """The page has a part of this name, with a figure or a row in it."""
    name = re.compile(rf"^{re.escape(words)}")
    tile = page.locator(".tile").filter(has=page.get_by_text(name))
    column = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name=name))
    answer = page.get_by_role("region", name=name).or_(tile).or_(column).first
    expect(answer).to_be_visible()
    expect(answer.locator(":is(data, tbody tr, svg, .chart, input):visible").first).to_be_visible()


def test_each_question_is_answered_in_three_clicks(
    owners_tab: Page, account: Account, owner: Client
) -> None:
    furnish(account, owner)
    page = owners_tab
    asked = questions()
    assert len(asked) == 10
    for each in asked:
        assert len(each.clicks) <= CLICKS_MAX, each
        page.goto("/")
        for click in each.clicks:
            before = page.url
            link(page, click).click()
            expect(page).not_to_have_url(before)
        try:
            expect_answer(page, each.answer)
        except AssertionError as error:
            error.add_note(each.words)
            raise
