"""Traces that come in pieces: what is kept of them, for how long, and what a span changes."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from metering.intake import open_traces
from metering.jobs import retention
from metering.models import TraceSpan, UsageEvent
from tests.factories import Account, make_budget, windows_of
from tests.metering.exports import chat_span, export_spans

pytestmark = pytest.mark.django_db(transaction=True)


def events(account: Account) -> list[UsageEvent]:
    with account.scope():
        return list(UsageEvent.objects.filter(tenant=account.tenant).order_by("time"))


@pytest.mark.parametrize("is_parent_first", [True, False])
def test_what_a_parent_knows_reaches_its_child_whichever_comes_first(
    account: Account, is_parent_first: bool
) -> None:
    budget = make_budget(account, per=["agent"])
    parent = chat_span(1, kind="agent", agent="researcher", session="s-1")
    child = chat_span(2, parent=1)
    for span in [parent, child] if is_parent_first else [child, parent]:
        assert export_spans(account, [span])["rejected"] == 0
    (event,) = events(account)
    assert (event.agent, event.session) == ("researcher", "s-1")
    spent = {window.group_key: window.spent_tokens for window in windows_of(account, budget)}
    assert spent.pop('["researcher"]') == 1_100
    assert set(spent.values()) <= {0}


def test_a_wrapper_that_comes_after_its_call_adds_nothing(account: Account) -> None:
    budget = make_budget(account)
    export_spans(account, [chat_span(2, parent=1)])
    export_spans(account, [chat_span(1, response_id=None)])
    (event,) = events(account)
    assert event.span == "0000000000000002"
    (window,) = windows_of(account, budget)
    assert (window.spent_requests, window.spent_tokens) == (1, 1_100)


def test_a_call_that_turns_out_to_be_a_wrapper_is_withdrawn(account: Account) -> None:
    budget = make_budget(account)
    export_spans(account, [chat_span(1, response_id=None, tokens=(2_000, 200))])
    assert len(events(account)) == 1
    parts = [chat_span(number, parent=1, response_id=f"r-{number}") for number in (2, 3)]
    export_spans(account, parts[:1])
    export_spans(account, parts[1:])
    # The first span has added up what the two below it used.
    assert [event.span for event in events(account)] == ["0000000000000002", "0000000000000003"]
    (window,) = windows_of(account, budget)
    assert (window.spent_requests, window.spent_tokens) == (2, 2_200)


def test_a_call_without_usage_has_no_price_until_somebody_tells_it(account: Account) -> None:
    budget = make_budget(account)
    export_spans(account, [chat_span(1, tokens=None)])
    (event,) = events(account)
    assert (event.cost_nanos, event.completeness, event.cost_source) == (None, 3, 4)
    export_spans(account, [chat_span(7, trace="b" * 32)])
    (event,) = events(account)
    assert (event.input_tokens, event.completeness, event.cost_source) == (1_000, 1, 1)
    (window,) = windows_of(account, budget)
    assert (window.spent_requests, window.spent_nanos) == (1, event.cost_nanos)


def test_spans_are_kept_for_an_hour_after_the_last_of_their_trace(account: Account) -> None:
    export_spans(account, [chat_span(1), chat_span(2, trace="b" * 32, response_id="r-2")])
    old = timezone.now() - timedelta(hours=2)
    with account.scope():
        TraceSpan.objects.filter(tenant=account.tenant).update(received_at=old)
    export_spans(account, [chat_span(3, trace="b" * 32, kind="agent")])
    assert retention.remove_old_spans(seconds=10) == 1
    with account.scope():
        left = TraceSpan.objects.filter(tenant=account.tenant).values_list("span", flat=True)
        assert sorted(left) == ["0000000000000002", "0000000000000003"]


def test_a_tenant_keeps_so_many_spans_at_most(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_traces, "TENANT_SPANS_MAX", 2)
    spans = [chat_span(number, response_id=f"r-{number}") for number in range(1, 6)]
    export_spans(account, spans)
    assert retention.remove_old_spans(seconds=10) == 3


def test_a_trace_beyond_its_bound_is_still_counted(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_traces, "TRACE_SPANS_MAX", 2)
    for number in range(1, 6):
        export_spans(account, [chat_span(number, response_id=f"r-{number}")])
        export_spans(account, [chat_span(number, response_id=f"r-{number}")])
    assert len(events(account)) == 5
    with account.scope():
        assert TraceSpan.objects.filter(tenant=account.tenant).count() == 2


def test_another_tenants_spans_are_never_joined(account: Account, stranger: Account) -> None:
    export_spans(account, [chat_span(1, kind="agent", agent="secret")])
    export_spans(stranger, [chat_span(2, parent=1)])
    (event,) = events(stranger)
    assert event.agent == ""


def test_an_export_that_is_sent_again_writes_nothing(account: Account) -> None:
    spans: list[Any] = [chat_span(1, kind="agent", agent="a"), chat_span(2, parent=1)]
    export_spans(account, spans)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("SELECT max(xmin::text::bigint) FROM usage_event")
        before = cursor.fetchone()
    export_spans(account, spans)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("SELECT max(xmin::text::bigint) FROM usage_event")
        assert cursor.fetchone() == before


def test_a_call_over_two_traces_stays_one_when_their_roots_come(account: Account) -> None:
    spans = [
        (chat_span(2, trace="b" * 32, parent=9), "sdk"),
        (chat_span(1, parent=8, response_id=None, seconds=2), "framework"),
        (chat_span(8, kind="agent", agent="bob"), "framework"),
        (chat_span(9, trace="b" * 32, kind="agent"), "sdk"),
    ]
    for span, scope in spans:
        export_spans(account, [span], scope=scope)
        assert len(events(account)) <= 1
    (event,) = events(account)
    assert (event.agent, event.response_id) == ("bob", "r-1")


def test_a_span_that_is_sent_again_with_less_takes_nothing_back(account: Account) -> None:
    export_spans(account, [chat_span(1)])
    export_spans(account, [chat_span(1, tokens=(1, 1), seconds=3)])
    (event,) = events(account)
    assert (event.input_tokens, event.output_tokens) == (1_000, 100)


def test_a_name_that_cannot_be_stored_loses_no_call_below_it(account: Account) -> None:
    export_spans(account, [chat_span(1, kind="agent", agent="x\x00y"), chat_span(2, parent=1)])
    (event,) = events(account)
    assert event.agent == ""
