"""Pages that stay open: they are told to keep themselves current, and what that costs."""

from datetime import timedelta

import time_machine
from django.test import Client
from django.utils import timezone

from tests.factories import Account, make_event, send


def test_an_open_page_is_answered_with_304_until_something_comes(
    account: Account, owner: Client
) -> None:
    send(account, [make_event()])
    owner.get("/")  # the first page sets the cookie that its forms need
    page = owner.get("/", headers={"X-Live": "1"})
    assert b"data-live-page" in page.content
    again = {"X-Live": "1", "If-None-Match": page["ETag"]}
    now = timezone.now().replace(minute=1, second=0)
    with time_machine.travel(now, tick=False):
        tag = owner.get("/", headers={"X-Live": "1"})["ETag"]
    with time_machine.travel(now + timedelta(minutes=5), tick=False):
        later = owner.get("/", headers={"X-Live": "1", "If-None-Match": tag})
    assert later.status_code == 304
    send(account, [make_event()])
    assert owner.get("/", headers=again).status_code == 200


def test_a_page_without_a_mark_does_not_ask_again(owner: Client) -> None:
    assert b"data-live-page" not in owner.get("/enforcement/halts").content


def test_the_style_guide_is_for_development(db: None, settings: object) -> None:
    assert Client().get("/styleguide").status_code == 200
    settings.HAS_STYLEGUIDE = False  # type: ignore[attr-defined]
    assert Client().get("/styleguide").status_code == 404
