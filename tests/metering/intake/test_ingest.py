"""Taking usage in: once, priced, in every balance, whatever else happens."""

import select
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec
import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from metering.calls import storage
from metering.calls.answers import IngestAnswer
from metering.calls.prepared_event import PreparedEvent
from metering.calls.retries import with_retries
from metering.core.committer import Committer
from metering.intake import ingest
from metering.intake.ingest import commit_jobs, prepare_job
from metering.models import EventKey, LedgerEntry, Route, UsageEvent
from metering.usage.decoders import native
from tests.factories import Account, make_account, make_budget, make_event, send, windows_of

pytestmark = pytest.mark.django_db(transaction=True)


def stored(account: Account) -> list[UsageEvent]:
    with account.scope():
        return list(UsageEvent.objects.filter(tenant=account.tenant).order_by("id"))


def test_an_event_is_stored_priced_and_in_its_budget(account: Account) -> None:
    budget = make_budget(account)
    answer = send(account, [make_event(input_tokens=1_000_000, output_tokens=100_000)])
    assert answer == {
        "accepted": 1,
        "merged": 0,
        "duplicates": 0,
        "rejected": 0,
        "unpriced": 0,
        "errors": [],
    }
    (event,) = stored(account)
    # claude-sonnet-4-5 above 200,000 input tokens: 6 and 22.5 USD a million.
    assert event.cost_nanos == 6_000_000_000 + 2_250_000_000
    (window,) = windows_of(account, budget)
    assert (window.spent_nanos, window.spent_tokens) == (event.cost_nanos, 1_100_000)
    assert (window.spent_requests, window.spent_tool_calls) == (1, 0)


def test_the_same_event_again_is_a_duplicate_and_moves_nothing(account: Account) -> None:
    budget = make_budget(account)
    event = make_event()
    send(account, [event])
    before = windows_of(account, budget)[0].spent_nanos
    # The order of fields is not content.
    again = send(account, [dict(reversed(event.items())), event])
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, 2, 0)
    assert windows_of(account, budget)[0].spent_nanos == before
    assert len(stored(account)) == 1


def test_keys_are_looked_up_once_a_tenant_reports_a_call_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make_budget(account)
    looked_up = []

    def claim_keys(*arguments: Any) -> list[PreparedEvent]:
        looked_up.append(arguments)
        return claim(*arguments)

    claim = storage._claim_keys
    monkeypatch.setattr(storage, "_claim_keys", claim_keys)
    ingest._RETOLD.forget_all()
    first, second, third = (make_event(cost_usd="1", response_id=f"r{name}") for name in "abc")
    send(account, [first])
    assert looked_up == []
    # One is known by its id; of the next two, the second reports the same response.
    assert send(account, [second, first])["duplicates"] == 1
    assert send(account, [third, {**third, "id": "other"}])["accepted"] == 1
    assert len(looked_up) == 2
    monkeypatch.setattr(ingest, "RETELLING_SECONDS", 0.0)
    assert send(account, [make_event(cost_usd="1")])["accepted"] == 1
    assert len(looked_up) == 2
    assert windows_of(account, budget)[0].spent_nanos == 4_000_000_000


def test_the_same_id_with_other_content_is_a_conflict(account: Account) -> None:
    event = make_event()
    other = event | {"output_tokens": 101}
    answer = send(account, [event, other])
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert answer["errors"][0]["code"] == "id_conflict"
    assert send(account, [other])["errors"][0]["code"] == "id_conflict"
    assert [each.output_tokens for each in stored(account)] == [100]


def test_the_same_id_from_another_source_is_another_event(account: Account) -> None:
    event = make_event()
    assert send(account, [event, event | {"source": "elsewhere"}])["accepted"] == 2


def test_a_provider_response_reported_two_ways_counts_once(account: Account) -> None:
    budget = make_budget(account)
    first = make_event(response_id="msg_1")
    second = make_event(response_id="msg_1", source="gateway", provider="Anthropic")
    answer = send(account, [first, second])
    assert (answer["accepted"], answer["duplicates"]) == (1, 1)
    # In a later batch as well, and its own id is then known too.
    third = make_event(response_id="msg_1", source="otlp")
    assert send(account, [third])["duplicates"] == 1
    assert send(account, [third])["duplicates"] == 1
    assert windows_of(account, budget)[0].spent_requests == 1
    with account.scope():
        keys = set(
            EventKey.objects.filter(tenant=account.tenant).values_list("event_id", flat=True)
        )
    assert keys == {stored(account)[0].id}


def test_a_conflicting_event_does_not_claim_its_response(account: Account) -> None:
    event = make_event()
    send(account, [event])
    assert send(account, [event | {"response_id": "msg_2"}])["rejected"] == 1
    assert send(account, [make_event(response_id="msg_2")])["accepted"] == 1


def test_one_bad_event_loses_no_good_one(account: Account) -> None:
    answer = send(
        account,
        [
            make_event(),
            make_event(team=""),
            make_event(usage={"foo": 1}, input_tokens=..., output_tokens=...),
            make_event(time="9999-12-31T23:59:59Z"),
            make_event(tags={"a\tb\\": "c\nd"}),
            make_event(id=5),
        ],
    )
    assert (answer["accepted"], answer["rejected"]) == (2, 4)
    assert [error["index"] for error in answer["errors"]] == [1, 2, 3, 5]
    codes = [error["code"] for error in answer["errors"]]
    assert codes == ["invalid_value", "unknown_usage", "time_out_of_range", "invalid_value"]
    assert stored(account)[1].tags == {"a\tb\\": "c\nd"}


@pytest.mark.parametrize(
    "text",
    [
        "tab\there",
        "back\\slash",
        "line\nfeed",
        "\\N",
        "'quote\"",
        "\u202e",
        "💸",
        "\x01\x7f",
        "{}",
        "null",
        "a,b",
        "\n\\.\n",
        "\r\n",
    ],
)
def test_strings_are_stored_as_they_came(account: Account, text: str) -> None:
    assert send(account, [make_event(error_type=text, tags={text: text})])["accepted"] == 1
    (event,) = stored(account)
    assert (event.error_type, event.tags) == (text, {text: text})


def test_a_model_without_a_price_is_stored_and_said_to_be_unpriced(account: Account) -> None:
    budget = make_budget(account)
    answer = send(account, [make_event(model="nobody-prices-this")])
    assert (answer["accepted"], answer["unpriced"]) == (1, 1)
    assert stored(account)[0].cost_nanos is None
    assert windows_of(account, budget)[0].spent_tokens == 1_100


def test_a_given_cost_wins_and_is_rounded_half_up(account: Account) -> None:
    send(account, [make_event(cost_usd="0.0000000015"), make_event(cost_usd=0.1)])
    assert [event.cost_nanos for event in stored(account)] == [2, 100_000_000]


def test_an_event_in_the_past_counts_in_the_window_of_its_time(account: Account) -> None:
    budget = make_budget(account, period="hour")
    earlier = datetime.now(UTC) - timedelta(hours=3)
    send(account, [make_event(time=earlier.isoformat()), make_event()])
    # Before the budget's first window nothing is counted: the budget did not exist then.
    assert [window.spent_requests for window in windows_of(account, budget)] == [1]


def test_callers_of_one_process_are_combined_and_each_gets_its_own_answer(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    other = make_account()
    committer = Committer(commit_jobs, name="test")
    answers: dict[int, IngestAnswer] = {}

    def call(number: int) -> None:
        tenant = (account if number % 3 else other).tenant
        events = [make_event(id=f"{number}-{index}", agent=f"a{index}") for index in range(20)]
        events.append(make_event(id="shared", agent="shared", time=...))
        items = [msgspec.convert(event, native.EventBody) for event in events]
        job = prepare_job(items, tenant_id=tenant.id, route=Route.NATIVE)
        committer.submit(job)
        answers[number] = job.answer()
        connection.close()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    committer.stop()
    shared = [answer.accepted - 20 for answer in answers.values()]
    assert sorted(shared) == [0] * 22 + [1] * 2
    assert sum(window.spent_requests for window in windows_of(account, budget)) == 16 * 20 + 1


def test_entries_are_never_changed(account: Account) -> None:
    make_budget(account)
    send(account, [make_event()])
    with account.scope(), pytest.raises(Exception, match="never changed or removed"):
        LedgerEntry.objects.filter(tenant=account.tenant).update(cost_nanos=0)
    with account.scope(), pytest.raises(Exception, match="never changed or removed"):
        LedgerEntry.objects.filter(tenant=account.tenant).delete()


def test_a_connection_that_ran_out_of_time_in_a_transaction_is_made_anew(account: Account) -> None:
    """PostgreSQL ends it where it was paused itself; psycopg has a class of its own for that."""
    attempts = []

    def commit() -> None:
        attempts.append(connection.connection)
        with transaction.atomic(), connection.cursor() as cursor:
            if len(attempts) == 1:
                cursor.execute("SET idle_in_transaction_session_timeout = '20ms'")
                # PostgreSQL hangs up, which makes the socket readable.
                assert select.select([connection.connection], [], [], 30)[0]
            cursor.execute("SELECT 1")

    with_retries(account.tenant.id, commit)
    assert len(attempts) == 2


def lose_connection() -> NoReturn:
    """What Django raises where the server has gone."""
    raise OperationalError from psycopg.OperationalError("server closed the connection")


def test_a_connection_that_breaks_after_a_conflict_is_made_anew_twice_at_most(
    account: Account,
) -> None:
    failures: list[Callable[[], None]] = [conflict, lose_connection, conflict, lose_connection]

    def commit() -> None:
        if failures:
            failures.pop(0)()

    with_retries(account.tenant.id, commit)
    assert failures == []
    failures += [lose_connection] * 4
    with pytest.raises(OperationalError):
        with_retries(account.tenant.id, commit)
    assert len(failures) == 1


def conflict() -> NoReturn:
    raise OperationalError from psycopg.errors.DeadlockDetected()


def test_a_database_that_cannot_be_reached_is_not_asked_again(account: Account) -> None:
    attempts: list[int] = []

    def commit() -> None:
        attempts.append(1)
        raise OperationalError from psycopg.errors.ConnectionTimeout()

    with pytest.raises(OperationalError):
        with_retries(account.tenant.id, commit)
    assert len(attempts) == 1
