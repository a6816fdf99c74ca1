"""Every form of pages, filled in with what no one should type: none breaks, what is refused writes
nothing and says why in words, and what was typed comes back.
"""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, Final

import pytest
from django.contrib.messages import get_messages
from django.http import QueryDict
from django.test import Client

from common.json_bodies import JsonObject
from tests.dashboard.everything import address_of, addresses, fill
from tests.dashboard.test_every_page import FORM, RAW, rows_of
from tests.factories import Account
from tests.seed import dice

HOSTILE: Final = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "a\0b",
    "\u202egnp.exe",
    "\u2067x\u2069",
    "x" * 1_000_000,
    "1_0",
    "١٢",
    "\uff11\uff10",
    "1e400",
    "1e-400",
    "NaN",
    "-Infinity",
    "9" * 400,
    "0.0000000001",
    "-1",
    "1,50",
    "9999-12-31T23:59",
    "0001-01-01T00:00",
    "2026-02-30T25:61",
    "9999-12",
    "Europe/../UTC",
    "=cmd|'/c calc'!A0",
    "a@b@c",
    "http://127.0.0.1/\r\nHost: x",
    "{}",
    "[null]",
    " \t\n",
    "",
)
# They end the session of the person who sends the forms, or lead elsewhere.
OF_LOGINS: Final = frozenset({"logout", "switch_tenant", "password", "end_sessions"})
# How many forms a run draws, and how often each is sent.
FORMS_DRAWN: Final = 30
SENT: Final = 3
# These show a new secret once, and store it.
SECRET: Final = "no-store"
# What only programmers read.
LEAK: Final = re.compile(
    r"Traceback|Decimal\(|datetime\.|<class|object at 0x|invalid literal|psycopg|DataError"
    r"|out of range for type|%\(\w+\)[sd]|\{0\}"
)
TEXTS: Final = frozenset(
    {"text", "search", "email", "number", "url", "tel", "date", "time", "datetime-local", "month"}
)


class Fields(HTMLParser):
    """The fields of a page's forms as a browser would send them, and which of them are typed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: dict[str, list[str]] = {}
        self.typed: dict[str, str] = {}
        self._select = self._text = ""
        self._is_post = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        name, value = found.get("name", ""), found.get("value", "")
        if tag == "form":
            self._is_post = found.get("method") == "post"
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in found:
            self.sent.setdefault(self._select, []).append(value)
        elif tag == "textarea":
            self._text = name
            self.sent[name], self.typed[name] = [""], ""
        elif tag == "input" and name:
            kind = found.get("type", "text")
            if kind not in {"checkbox", "radio"} or "checked" in found:
                self.sent.setdefault(name, []).append(value or "on" * (kind == "checkbox"))
            if kind in TEXTS and self._is_post:
                self.typed[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text:
            self.typed[self._text] += data
            self.sent[self._text] = [self.typed[self._text]]


@contextmanager
def read_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Collect the names of the fields that are looked for meanwhile."""
    names: set[str] = set()
    with monkeypatch.context() as patch:
        for method in ("get", "getlist", "__getitem__"):
            plain = getattr(QueryDict, method)

            def reading(query: QueryDict, name: Any, *rest: Any, _plain: Any = plain) -> object:
                if isinstance(name, str):
                    names.add(name)
                return _plain(query, name, *rest)

            patch.setattr(QueryDict, method, reading)
        yield names


def filled(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, list[str]], list[str]]:
    """A form as its page fills it in, and the names of all its fields."""
    shown = client.get(address)
    html = shown.content.decode() if shown.status_code == 200 and not shown.streaming else ""
    form = {name: [value] for name, value in FORM.items()} | Fields(html).sent
    form.pop("form_token", None)
    with read_names(monkeypatch) as names:
        # An empty field says which others are looked for; nothing is written by it.
        client.post(address, dict.fromkeys(form, "\0"))
    return form, sorted({*names, *form} - {"csrfmiddlewaretoken"})


def spoiled(
    form: dict[str, list[str]], names: list[str], values: list[str], chance: random.Random
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The form with some fields spoiled, and these."""
    chosen = chance.sample(names, min(len(names), chance.randint(1, 4)))
    bad = {name: chance.choice(values) for name in chosen}
    return form | {name: [value] for name, value in bad.items()}, bad


def faults_of(client: Client, answer: Any, bad: dict[str, str], has_written: bool) -> list[str]:
    """What is wrong with an answer to a spoiled form."""
    if answer.status_code >= 500:
        return [f"status {answer.status_code}"]
    faults = []
    messages: Any = get_messages(answer.wsgi_request)
    told = messages._queued_messages  # of this answer, not of earlier ones
    refused = [one for one in told if one.level_tag == "error"]
    is_refusal = answer.status_code != 302 or refused
    if is_refusal and has_written and SECRET not in answer.headers.get("Cache-Control", ""):
        faults.append("written")
    html = answer.content.decode() if not answer.streaming else ""
    text = html + " ".join(str(one.message) for one in refused)
    if RAW.search(html):
        faults.append("markup")
    if leak := LEAK.search(text):
        faults.append(f"leak {leak[0]}")
    if 'class="error"' in html:
        shown = Fields(html).typed
        faults += [
            f"lost {name}: {value[:30]!r} → {shown[name][:30]!r}"
            for name, value in bad.items()
            if name in shown and _as_typed(shown[name]) != _as_typed(value)
        ]
    return faults


def _as_typed(text: str) -> str:
    """What counts of what was typed: a browser sends line ends its own way, and no NUL."""
    return "".join(text.replace("\0", "").split())


def attack(
    client: Client,
    account: Account,
    address: str,
    *,
    values: list[str],
    chance: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Send a form spoiled; yield what is wrong, and with which input."""
    form, names = filled(client, address, monkeypatch)
    before = rows_of(account)
    for _ in range(SENT):
        sent, bad = spoiled(form, names, values, chance)
        answer = client.post(address, sent)
        after = rows_of(account)
        # A preview is kept while it is replayed.
        changed = [table for table in after if after[table] != before[table]]
        changed = [table for table in changed if table != "simulation"]
        if faults := faults_of(client, answer, bad, bool(changed)):
            yield [*faults, *changed], {name: value[:40] for name, value in bad.items()}
        before = after


def posts(client: Client, objects: JsonObject) -> list[tuple[str, str]]:
    """Every form's name and address."""
    return [
        (name, address)
        for name, parts in addresses()
        for address in [address_of(name, parts, objects)]
        if name not in OF_LOGINS and "POST" in client.options(address).headers.get("Allow", "")
    ]


def test_hostile_input_is_refused_in_words_and_comes_back(
    account: Account, stranger: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = fill(account, "ours", team="own", cost_usd="3")
    theirs = fill(stranger, "theirs", team="foreign", cost_usd="5")
    of_stranger = rows_of(stranger)
    owner.raise_request_exception = False
    values = [*HOSTILE, *(str(one) for one in theirs.values() if type(one) is int)]
    chance, known = dice("forms"), posts(owner, objects)
    found = [
        (name, *fault)
        for name, address in chance.sample(known, min(FORMS_DRAWN, len(known)))
        for fault in attack(
            owner, account, address, values=values, chance=chance, monkeypatch=monkeypatch
        )
    ]
    assert found == []
    assert rows_of(stranger) == of_stranger
