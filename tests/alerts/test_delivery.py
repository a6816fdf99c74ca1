"""Deliveries: at least once, recognisable, in order, and no receiver holds up another."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_network
from itertools import accumulate
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from pytest_django import Settings

from alerts.channel_settings import remove_channel
from alerts.channels.kind import NotDelivered
from alerts.delivery import deliver_due, resend
from alerts.delivery import test_channel as send_test
from alerts.delivery.attempts import Outcome, attempt, record
from alerts.delivery.queues import DeliveryQueue, claim, queues_due
from alerts.delivery.schedule import TRIES_MAX, rest_seconds, wait_seconds
from alerts.errors import AskedTooOften, ChannelUnavailable, NotResendable
from alerts.incidents import observe
from alerts.messages import encode
from alerts.models import Channel, Delivery, DeliveryAttempt, DeliveryState, Incident, Severity
from alerts.retention import remove_old_rows
from alerts.sealing import seal
from tenants.models import AuditEntry
from tests.alerts.receivers import LOOPBACK, Answer, WebReceiver, mail_receiver, web_receiver
from tests.alerts.scene import make_channel, seen
from tests.alerts.test_channels import make_message
from tests.factories import Account, make_account


@pytest.fixture
def owner(transactional_db: None, settings: Settings) -> Account:
    settings.CHANNEL_NETWORKS = [ip_network(LOOPBACK)]
    return make_account()


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with web_receiver() as receiver:
        yield receiver


def channel_to(owner: Account, web: WebReceiver, name: str = "hook", **fields: Any) -> Channel:
    """A webhook that hears of nothing but what a test queues for it."""
    return make_channel(owner, name=name, fields={"url": web.url}, severities=[], **fields)


def make_incident(owner: Account, cause: str) -> Incident:
    """An incident of its own, of which nobody is told."""
    with owner.scope():
        return observe(tenant_id=owner.tenant.id, observation=seen(cause, severity=Severity.INFO))


def queue(
    owner: Account,
    channel: Channel | None,
    event: str = "opened",
    *,
    incident: Incident | None = None,
    **fields: Any,
) -> Delivery:
    with owner.scope():
        return Delivery.objects.create(
            tenant=owner.tenant,
            channel=channel,
            incident=incident,
            event=event,
            severity="critical",
            message=encode(make_message(event=event)),
            **fields,
        )


def change(owner: Account, **values: object) -> None:
    """What time does to waiting deliveries."""
    with owner.scope():
        Delivery.objects.filter(state=DeliveryState.WAITING).update(**values)


def make_due(owner: Account) -> None:
    change(owner, due_at=timezone.now() - timedelta(seconds=1))


def fresh(owner: Account, row: Any) -> Any:
    with owner.scope():
        row.refresh_from_db()
    return row


def ids(web: WebReceiver) -> list[str]:
    return [each.headers["webhook-id"] for each in web.received]


def test_a_receiver_that_was_down_gets_everything_once_and_in_order(
    owner: Account, web: WebReceiver
) -> None:
    channel = channel_to(owner, web)
    first, second = make_incident(owner, "a"), make_incident(owner, "b")
    deliveries = [
        queue(owner, channel, "opened", incident=first),
        queue(owner, channel, "opened", incident=second),
        queue(owner, channel, "resolved", incident=first),
    ]
    web.go_down()
    # One attempt shows that it is down; the others rest.
    assert deliver_due(seconds=1) == 1
    assert fresh(owner, channel).last_error == (
        "The receiver cannot be reached, or closed the connection without an answer."
    )
    web.come_up()
    web.answers.extend([Answer(500), Answer(500)])
    for _ in range(2):
        make_due(owner)
        assert deliver_due(seconds=1) == 1
    refused = len(web.received)
    make_due(owner)
    assert deliver_due(seconds=1) == 3
    taken = ids(web)[refused:]
    assert sorted(taken) == sorted(str(delivery.reference) for delivery in deliveries)
    assert taken.index(str(deliveries[0].reference)) < taken.index(str(deliveries[2].reference))
    with owner.scope():
        tried = DeliveryAttempt.objects.order_by("id").values_list("status", "is_success")
        assert list(tried) == [(None, False), (500, False), (500, False), *[(200, True)] * 3]
        assert set(Delivery.objects.values_list("state", flat=True)) == {DeliveryState.SENT}
    assert fresh(owner, channel).last_error == ""


def test_what_a_killed_worker_sent_is_sent_again_under_the_same_reference(
    owner: Account, web: WebReceiver
) -> None:
    delivery = queue(owner, channel_to(owner, web))
    claimed = claim(queues_due()[0])
    assert claimed is not None
    attempt(claimed.delivery)  # and the worker is gone before it records
    assert deliver_due(seconds=1) == 0
    change(owner, claimed_until=timezone.now() - timedelta(seconds=1))
    assert deliver_due(seconds=1) == 1
    assert ids(web) == [str(delivery.reference)] * 2
    assert fresh(owner, delivery).state == DeliveryState.SENT


def test_a_late_failure_changes_nothing_and_a_late_success_counts(
    owner: Account, web: WebReceiver
) -> None:
    delivery = queue(owner, channel_to(owner, web))
    slow = claim(queues_due()[0])
    change(owner, claimed_until=timezone.now() - timedelta(seconds=1))
    quick = claim(queues_due()[0])
    assert slow is not None
    assert quick is not None
    record(slow, Outcome(timezone.now(), 1, NotDelivered("too slow")))
    assert fresh(owner, delivery).claimed_until == quick.until
    outcome = attempt(slow.delivery)
    record(slow, outcome)
    record(quick, Outcome(timezone.now(), 1, NotDelivered("in vain")))
    assert fresh(owner, delivery).state == DeliveryState.SENT


def test_workers_at_once_send_everything_exactly_once(owner: Account, web: WebReceiver) -> None:
    channels = [channel_to(owner, web, name) for name in ("a", "b", "c")]
    deliveries = [queue(owner, channel) for channel in channels for _ in range(8)]

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(_run_and_close, lambda: deliver_due(seconds=20)) for _ in range(3)]
        assert sum(run.result() for run in runs) == 24
    assert sorted(ids(web)) == sorted(str(delivery.reference) for delivery in deliveries)


def test_a_message_waits_for_the_incident_s_earlier_one_until_that_is_given_up(
    owner: Account, web: WebReceiver
) -> None:
    channel, incident = channel_to(owner, web), make_incident(owner, "a")
    later = timezone.now() + timedelta(hours=1)
    opened = queue(owner, channel, "opened", incident=incident, due_at=later)
    resolved = queue(owner, channel, "resolved", incident=incident)
    assert deliver_due(seconds=1) == 0
    web.answers.append(Answer(500))
    change(owner, tries=TRIES_MAX - 1, due_at=timezone.now())
    assert deliver_due(seconds=1) == 2
    assert fresh(owner, opened).state == DeliveryState.DEAD
    assert fresh(owner, resolved).state == DeliveryState.SENT
    assert ids(web) == [str(opened.reference), str(resolved.reference)]


def test_a_receiver_that_hangs_holds_up_no_other(owner: Account, web: WebReceiver) -> None:
    let_go = threading.Event()
    with web_receiver() as slow:
        slow.on_request = let_go.wait
        queue(owner, channel_to(owner, slow, "slow"))
        queue(owner, channel_to(owner, web, "quick"))
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(_run_and_close, lambda: deliver_due(seconds=5))
            _until(lambda: len(web.received) == 1)
            # What comes up meanwhile leaves at once too.
            queue(owner, Channel(id=_id_of(owner, "quick")))
            _until(lambda: len(web.received) == 2)
            assert not run.done()
            let_go.set()
            assert run.result() == 3


def test_a_tenant_of_many_slow_receivers_holds_up_no_other(
    owner: Account, stranger: Account, web: WebReceiver
) -> None:
    let_go = threading.Event()
    with web_receiver() as slow:
        slow.on_request = let_go.wait
        for number in range(9):
            queue(owner, channel_to(owner, slow, f"slow {number}"))
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(_run_and_close, lambda: deliver_due(seconds=5))
            _until(lambda: len(slow.received) == 4)
            queue(stranger, channel_to(stranger, web))
            _until(lambda: len(web.received) == 1)
            assert len(slow.received) == 4
            let_go.set()
            assert run.result() == 10


def test_a_tenant_s_failing_receivers_leave_room_for_one_that_works(
    owner: Account, web: WebReceiver
) -> None:
    let_go = threading.Event()
    with web_receiver() as slow:
        slow.on_request = let_go.wait
        for number in range(4):
            queue(owner, channel_to(owner, slow, f"slow {number}"))
        with owner.scope():
            Channel.objects.update(failed_at=timezone.now())
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(_run_and_close, lambda: deliver_due(seconds=5))
            _until(lambda: len(slow.received) == 2)
            queue(owner, channel_to(owner, web))
            _until(lambda: len(web.received) == 1)
            assert len(slow.received) == 2
            let_go.set()
            assert run.result() == 5


def test_a_run_that_breaks_off_records_what_it_has_sent(
    owner: Account, web: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = queue(owner, channel_to(owner, web))
    queues = [queues_due()]

    def look() -> list[DeliveryQueue]:
        if queues:
            return queues.pop()
        _until(lambda: len(web.received) == 1)
        raise OperationalError  # the database is gone

    monkeypatch.setattr("alerts.delivery.runs.queues_due", look)
    monkeypatch.setattr("alerts.delivery.runs.LOOK_SECONDS", 0)
    with pytest.raises(OperationalError):
        deliver_due(seconds=5)
    assert fresh(owner, delivery).state == DeliveryState.SENT


def test_a_receiver_asks_for_patience_and_its_other_messages_wait_too(
    owner: Account, web: WebReceiver
) -> None:
    channel = channel_to(owner, web)
    deliveries = [queue(owner, channel), queue(owner, channel)]
    web.answers.append(Answer(429, {"Retry-After": "300"}))
    before = timezone.now()
    assert deliver_due(seconds=1) == 1
    for delivery in deliveries:
        wait = fresh(owner, delivery).due_at - before
        assert timedelta(seconds=300) <= wait < timedelta(seconds=310)
    assert [each.attempts for each in deliveries] == [1, 0]


def test_a_message_that_is_refused_keeps_no_other_waiting(owner: Account, web: WebReceiver) -> None:
    channel = channel_to(owner, web)
    refused, taken = queue(owner, channel), queue(owner, channel)
    web.answers.append(Answer(400))
    assert deliver_due(seconds=1) == 2
    assert fresh(owner, refused).last_error == "The receiver answered 400 Bad Request."
    assert fresh(owner, taken).state == DeliveryState.SENT


def test_channels_that_work_and_those_served_long_ago_come_first(
    owner: Account, web: WebReceiver
) -> None:
    now = timezone.now()
    served = {"failing": (None, 9), "served": (1, None), "waiting": (5, 8), "new": (None, None)}
    with owner.scope():
        for name, (delivered, failed) in served.items():
            channel = channel_to(owner, web, name)
            Channel.objects.filter(id=channel.id).update(
                delivered_at=delivered and now - timedelta(minutes=delivered),
                failed_at=failed and now - timedelta(minutes=failed),
            )
            queue(owner, channel)
        names = dict(Channel.objects.values_list("id", "name"))
    assert [names[queue.channel_id or 0] for queue in queues_due()] == [
        *("new", "waiting", "served", "failing")
    ]


def test_a_receiver_that_is_gone_pauses_its_channel(owner: Account, web: WebReceiver) -> None:
    channel = channel_to(owner, web)
    delivery, next_one = queue(owner, channel), queue(owner, channel)
    web.answers.append(Answer(410))
    assert deliver_due(seconds=1) == 1
    assert fresh(owner, channel).is_paused
    assert fresh(owner, delivery).state == DeliveryState.DEAD
    assert fresh(owner, next_one).state == DeliveryState.WAITING
    with owner.scope():
        entry = AuditEntry.objects.order_by("-id").values("actor", "changes")[0]
    assert entry == {"actor": "spendgate", "changes": {"is_paused": [False, True]}}
    with owner.scope(), pytest.raises(ChannelUnavailable, match="resume it first"):
        resend(delivery=delivery, actor="tests")


def test_what_is_held_does_not_leave(owner: Account, web: WebReceiver) -> None:
    queue(owner, channel_to(owner, web), held_by="quiet hours")
    assert deliver_due(seconds=1) == 0
    assert web.received == []


def test_a_dead_delivery_is_sent_again_as_it_was(owner: Account, web: WebReceiver) -> None:
    delivery = queue(owner, channel_to(owner, web))
    with owner.scope(), pytest.raises(NotResendable):
        resend(delivery=delivery, actor="tests")
    web.answers.append(Answer(500))
    change(owner, tries=TRIES_MAX - 1, attempts=TRIES_MAX - 1)
    deliver_due(seconds=1)
    assert fresh(owner, delivery).state == DeliveryState.DEAD
    with owner.scope():
        resend(delivery=delivery, actor="tests")
    deliver_due(seconds=1)
    assert fresh(owner, delivery).state == DeliveryState.SENT
    assert (delivery.attempts, delivery.tries) == (TRIES_MAX + 1, 1)
    assert ids(web) == [str(delivery.reference)] * 2
    assert web.received[0].body == web.received[1].body


def test_a_test_message_goes_the_way_of_every_other(owner: Account, web: WebReceiver) -> None:
    channel = channel_to(owner, web)
    with owner.scope():
        delivery = send_test(channel=channel, actor="ada@example.com")
    assert deliver_due(seconds=1) == 1
    (received,) = web.received
    assert received.headers["webhook-id"] == str(delivery.reference)
    assert received.json["type"] == "test"
    assert received.json["data"]["cause"] == f"spendgate-test-{channel.id}"
    assert "ada@example.com asked for this message." in received.json["data"]["summary"]


def test_tests_are_bounded_by_channel_and_in_all(
    owner: Account, web: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.delivery.requests.TENANT_TESTS_PER_MINUTE", 6)
    first, second = channel_to(owner, web), channel_to(owner, web, name="second")
    for channel in (first,) * 5 + (second,):
        with owner.scope():
            send_test(channel=channel, actor="tests")
    for channel in (first, second):
        with owner.scope(), pytest.raises(AskedTooOften):
            send_test(channel=channel, actor="tests")
    with owner.scope():
        assert Delivery.objects.count() == 6
        Delivery.objects.update(created_at=timezone.now() - timedelta(minutes=1))
        send_test(channel=first, actor="tests")


def test_what_was_sent_just_now_is_not_sent_again(owner: Account, web: WebReceiver) -> None:
    delivery = queue(owner, channel_to(owner, web))
    assert deliver_due(seconds=1) == 1
    with owner.scope(), pytest.raises(NotResendable, match="less than a minute ago"):
        resend(delivery=delivery, actor="tests")
    assert fresh(owner, delivery).state == DeliveryState.SENT
    with owner.scope():
        Delivery.objects.update(sent_at=timezone.now() - timedelta(minutes=1))
        resend(delivery=delivery, actor="tests")
    assert fresh(owner, delivery).state == DeliveryState.WAITING


def test_people_get_mail_through_the_operator_s_server(owner: Account, settings: Settings) -> None:
    delivery = queue(owner, None, recipients=["lead@x.example"])
    assert deliver_due(seconds=1) == 1
    assert fresh(owner, delivery).last_error == (
        "This service has no mail server: its operator sets MAIL_URL."
    )
    make_due(owner)
    with mail_receiver() as mail:
        settings.MAIL_URL = mail.url
        assert deliver_due(seconds=1) == 1
        assert mail.received[0].recipients == ["lead@x.example"]


def test_what_the_operator_no_longer_allows_is_not_connected_to(
    owner: Account, web: WebReceiver, settings: Settings
) -> None:
    delivery = queue(owner, channel_to(owner, web))
    settings.CHANNEL_NETWORKS = []
    assert deliver_due(seconds=1) == 1
    assert web.received == []
    assert fresh(owner, delivery).last_error == (
        "Without encryption only addresses in networks that the operator of this service allows"
        " can be reached: use an encrypted address."
    )


def test_a_replaced_secret_key_fails_with_a_sentence(owner: Account, web: WebReceiver) -> None:
    channel = channel_to(owner, web)
    delivery = queue(owner, channel)
    with owner.scope():
        Channel.objects.filter(id=channel.id).update(secrets=b"x" + seal({})[1:])
    assert deliver_due(seconds=1) == 1
    assert "SECRET_KEY was replaced: enter them again" in fresh(owner, delivery).last_error


def test_waits_double_up_to_a_quarter_of_an_hour_and_end_after_three_days() -> None:
    waits = [wait_seconds(tries, chance=0.5) or 0.0 for tries in range(1, TRIES_MAX)]
    assert waits[:9] == [5, 10, 20, 40, 80, 160, 320, 640, 900]
    hours = [total / 3600 for total in accumulate(waits)]
    assert waits[101] == 900
    assert 23 < hours[101] < 25
    assert waits[102] == 3600
    assert 71 < hours[-1] < 73
    assert wait_seconds(TRIES_MAX, chance=0.5) is None
    assert (wait_seconds(2, chance=0), wait_seconds(2, chance=0.25)) == (8, 9)
    assert wait_seconds(1, chance=0, asked_seconds=300) == 300
    assert (rest_seconds(5), rest_seconds(900), rest_seconds(5, asked_seconds=90)) == (5, 60, 90)


def test_old_deliveries_are_forgotten_and_what_waits_is_not(
    owner: Account, web: WebReceiver
) -> None:
    channel = channel_to(owner, web)
    old = timezone.now() - timedelta(days=401)
    for state in DeliveryState.values:
        queue(owner, channel, state=state, created_at=old, due_at=old + timedelta(days=99))
    young = queue(owner, channel, state=DeliveryState.SENT)
    removed = channel_to(owner, web, "removed")
    with owner.scope():
        remove_channel(channel=removed, actor="tests")
    # As one who had not seen yet that the channel is gone.
    queue(owner, removed, created_at=old)
    assert remove_old_rows(seconds=10) == 4
    with owner.scope():
        kept = Delivery.objects.order_by("id").values_list("state", flat=True)
        assert list(kept) == [DeliveryState.WAITING, DeliveryState.SENT]
    assert fresh(owner, young).state == DeliveryState.SENT


def _run_and_close(work: Callable[[], int]) -> int:
    try:
        return work()
    finally:
        connection.close()


def _id_of(owner: Account, name: str) -> int:
    with owner.scope():
        return Channel.objects.get(name=name).id


def _until(is_true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if is_true():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come true in five seconds")
