"""The model that the soak compares the service with: it must find what it is there to find."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.kit.wire import Answer, AnswerReader, Broken
from bench.soak.books import Books, BudgetRow, EventRow, ReservationRow, Rows, WindowRow
from bench.soak.caps import Caps
from bench.soak.judge import Judge
from bench.soak.model import Balance, Booking, book
from bench.soak.overseer import HaltSpan
from bench.soak.parts import Parts
from bench.soak.proof import Proof, grants_while_halted
from bench.soak.records import Ask, Event, Fate, Frame, Grant, Hold, Memory, read_frames
from bench.soak.watch import Snapshot, Window, overspent, wrong_holds
from bench.soak.world import EPOCH, NOTHING, ROUGH, TIDY, Amounts, Budget, Limit, WindowKey

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def make_budget(**fields: Any) -> Budget:
    budget = Budget(TIDY, "all", "lifetime", Limit(nanos=100), per=("agent",), id=1)
    return replace(budget, **fields)


def make_booking(agent: str = "a", nanos: int = 10, **fields: Any) -> Booking:
    booking = Booking({"agent": agent}, NOON, Amounts(nanos, 1, 1, 0), {}, 0)
    return booking._replace(**fields)


def balances_of(budget: Budget, *bookings: Booking) -> dict[WindowKey, Balance]:
    balances: dict[WindowKey, Balance] = {}
    # A frame at a time, as the proof does.
    for booking in bookings:
        book(
            balances,
            budget,
            [booking],
            counts_from=EPOCH,
            counted_from=lambda group: NOON - 60 * MINUTE,
        )
    return balances


# Periods.


@pytest.mark.parametrize(
    ("fields", "at", "starts_at"),
    [
        ({"period": "lifetime"}, NOON, EPOCH),
        ({"period": "hour"}, NOON + 59 * MINUTE, NOON),
        ({"period": "hour", "anchor": NOON + 5 * MINUTE}, NOON, NOON - 55 * MINUTE),
        ({"period": "hour", "anchor": NOON + 5 * MINUTE}, NOON + 5 * MINUTE, NOON + 5 * MINUTE),
        ({"period": "hour", "timezone": "Asia/Kathmandu"}, NOON, NOON - 45 * MINUTE),
        ({"period": "day", "timezone": "Asia/Kathmandu"}, NOON, NOON - timedelta(hours=17.75)),
        ({"period": "month"}, NOON, datetime(2026, 11, 1, tzinfo=UTC)),
        ({"period": "hour", "is_rolling": True}, NOON, EPOCH),
    ],
)
def test_a_period_begins_where_the_contract_says(
    fields: dict[str, object], at: datetime, starts_at: datetime
) -> None:
    assert make_budget(**fields).starts_at(at) == starts_at


# Balances.


def test_events_count_by_their_own_group() -> None:
    result = balances_of(make_budget(), make_booking("a"), make_booking("a"), make_booking("b"))

    assert result == {
        WindowKey(("a",), EPOCH): Balance(Amounts(20, 2, 2, 0)),
        WindowKey(("b",), EPOCH): Balance(Amounts(10, 1, 1, 0)),
    }


def test_a_settled_event_counts_in_the_window_that_was_held() -> None:
    key = WindowKey(("held",), EPOCH)

    result = balances_of(make_budget(), make_booking("a", held={1: key}, overrun_nanos=4))

    assert result == {key: Balance(Amounts(10, 1, 1, 0), 4, 4)}


def test_a_settled_event_is_all_overrun_where_nothing_was_held() -> None:
    elsewhere = {2: WindowKey((), EPOCH)}

    result = balances_of(
        make_budget(), make_booking(held=elsewhere, overrun_nanos=4, unheld_overrun_nanos=10)
    )

    assert result == {WindowKey(("a",), EPOCH): Balance(Amounts(10, 1, 1, 0), 10)}


def test_an_event_that_does_not_match_counts_nowhere() -> None:
    budget = make_budget(match={"agent": None})

    assert balances_of(budget, make_booking("a")) == {}
    assert balances_of(budget, make_booking("")) == {
        WindowKey(("",), EPOCH): Balance(Amounts(10, 1, 1, 0))
    }


def test_what_is_older_than_a_rolling_hour_has_left() -> None:
    budget = make_budget(is_rolling=True, period="hour")
    old = make_booking(at=NOON - 61 * MINUTE)

    assert balances_of(budget, old, make_booking()) == {
        WindowKey(("a",), EPOCH): Balance(Amounts(10, 1, 1, 0))
    }


# Between two looks.


def make_snapshot(at: float, *windows: tuple[int, Window], unreserved: int = 0) -> Snapshot:
    held = {id_: window.reserved for id_, window in windows if window.reserved != NOTHING}
    return Snapshot(at, at + 0.1, dict(windows), held, {7: unreserved})


def make_window(spent: int, reserved: int = 0, overrun: int = 0) -> Window:
    return Window(1, Amounts(spent), Amounts(reserved), overrun, 0)


def make_caps(*limits: int) -> Caps:
    caps = Caps()
    for second, limit in enumerate(limits):
        caps.may_become(1, Limit(nanos=limit), float(second))
    return caps


def found_between(before: Snapshot, after: Snapshot, caps: Caps) -> Iterator[str]:
    return overspent(before, after, budgets={1: make_budget()}, caps=caps)


def test_a_window_may_grow_up_to_its_limit() -> None:
    before, after = make_snapshot(1), make_snapshot(2, (7, make_window(60, 40)))

    assert not list(found_between(before, after, make_caps(100)))


def test_a_window_beyond_its_limit_is_found() -> None:
    before, after = make_snapshot(1), make_snapshot(2, (7, make_window(60, 41)))

    assert list(found_between(before, after, make_caps(100))) == [
        "'all', window 7: nanos went from 0 to 101, 100 at most"
    ]


def test_overrun_and_usage_without_a_reservation_excuse_exactly_themselves() -> None:
    before = make_snapshot(1)
    excused = make_snapshot(2, (7, make_window(109, overrun=4)), unreserved=5)
    beyond = make_snapshot(2, (7, make_window(110, overrun=4)), unreserved=5)

    assert not list(found_between(before, excused, make_caps(100)))
    assert len(list(found_between(before, beyond, make_caps(100)))) == 1


def test_a_window_that_was_beyond_a_lowered_limit_must_not_grow() -> None:
    caps = make_caps(100, 50)
    caps.became(1, 1.5)
    before = make_snapshot(2, (7, make_window(80)))

    assert not list(found_between(before, make_snapshot(3, (7, make_window(79, 1))), caps))
    assert len(list(found_between(before, make_snapshot(3, (7, make_window(79, 2))), caps))) == 1


def test_while_a_change_is_on_its_way_either_limit_may_be_in_force() -> None:
    caps = make_caps(100, 50)
    after = make_snapshot(2, (7, make_window(100)))

    assert not list(found_between(make_snapshot(1), after, caps))


def test_a_raise_counts_until_its_end() -> None:
    caps = make_caps(100)
    caps.may_rise(1, 30, since=1.0, until=2.0)

    assert caps.largest(1, 0, since=1.5, until=1.6) == 130
    assert caps.largest(1, 0, since=20.0, until=21.0) == 100


def test_a_window_that_holds_more_than_its_reservations_is_found() -> None:
    snapshot = make_snapshot(1, (7, make_window(0, 5)))._replace(held={7: Amounts(4)})

    assert list(wrong_holds(make_snapshot(1, (7, make_window(0, 5))))) == []
    assert list(wrong_holds(snapshot)) == [
        "window 7 holds (5, 0, 0, 0), its reservations (4, 0, 0, 0)"
    ]


# At the end.

EVENT = Event("e-1", NOON, 60, (1, 0), None, False, {}, {"agent": "a"})
ROW = ReservationRow("r-1", 2, NOON, Amounts(50, 5, 1, 0), (7,), 11, 60, 1, False)


def make_hold(*settles: tuple[Event, Fate]) -> Hold:
    return Hold(
        key="k",
        tenant=TIDY,
        ask=Ask({}, {"agent": "a"}, ROW.amounts, None, 0, 0),
        asked_at=NOON,
        answered_at=NOON,
        id="r-1",
        late=False,
        settles=list(settles),
    )


def make_books() -> Books:
    key = WindowKey(("a",), EPOCH)
    return Books(
        windows={7: WindowRow(1, 1, key, None, EVENT.amounts, NOTHING, 10)},
        budgets={1: BudgetRow(1, EPOCH)},
        reservations=Counter(settled=1),
        events=1,
    )


STORED = EventRow(11, NOON, EVENT.amounts, "r-1", ("", "", "a"))
ROWS = Rows({"r-1": ROW}, {"e-1": STORED})
EXPIRED = ROW._replace(state=4, event_id=None, cost_nanos=None)


def make_unsettled_books() -> Books:
    books = make_books()
    books.events, books.reservations = 0, Counter(expired=1)
    books.windows[7] = books.windows[7]._replace(spent=NOTHING, overrun_nanos=0)
    return books


def found_in(books: Books, hold: Hold | None = None, rows: Rows = ROWS) -> dict[str, int]:
    proof = Proof(books=books, budgets={1: make_budget()}, voided=())
    proof.add(Frame([make_hold((EVENT, Fate.DONE)) if hold is None else hold], [], []), rows)
    return dict(proof.close().counts)


def test_books_that_agree_with_the_clients_prove_it() -> None:
    assert found_in(make_books()) == {}


def test_an_acknowledged_settle_that_is_gone_is_found() -> None:
    gone = Rows({"r-1": EXPIRED}, {})

    assert found_in(make_unsettled_books(), rows=gone) == {"acknowledged events that are gone": 1}


def test_an_event_of_another_agent_is_found() -> None:
    rows = Rows({"r-1": ROW}, {"e-1": STORED._replace(named=("", "", "b"))})

    assert found_in(make_books(), rows=rows) == {"events stored otherwise": 1}


def test_an_event_stored_twice_or_sent_by_nobody_is_found() -> None:
    books = make_books()
    books.events, books.repeated = 2, 1

    assert found_in(books) == {"events that no client sent": 1, "events stored twice": 1}


def test_a_settle_booked_twice_is_found() -> None:
    books = make_books()
    books.windows[7] = books.windows[7]._replace(spent=EVENT.amounts.plus(EVENT.amounts))

    assert found_in(books) == {"windows that drift": 1}


def test_a_finished_reservation_that_still_holds_is_found() -> None:
    books = make_books()
    books.windows[7] = books.windows[7]._replace(reserved=Amounts(1))

    assert found_in(books) == {"windows that hold something": 1}


def test_overrun_that_was_not_recorded_is_found() -> None:
    books = make_books()
    books.windows[7] = books.windows[7]._replace(overrun_nanos=0)

    assert found_in(books) == {"windows of another overrun": 1}


def test_a_reservation_that_nobody_asked_for_is_found() -> None:
    books = make_books()
    books.reservations["expired"] += 1

    assert found_in(books) == {"reservations that no client requested": 1}


def test_a_settle_of_unknown_outcome_may_or_may_not_be_booked() -> None:
    hold = make_hold((EVENT, Fate.UNKNOWN))

    assert found_in(make_books(), hold) == {}
    assert found_in(make_unsettled_books(), hold, Rows({"r-1": EXPIRED}, {})) == {}


def test_a_refused_settle_that_is_booked_is_found() -> None:
    other = EVENT._replace(sent_id="e-2")
    rows = Rows(ROWS.reservations, {**ROWS.events, "e-2": STORED._replace(id=12)})
    hold = make_hold((EVENT, Fate.DONE), (other, Fate.REFUSED))

    assert "refused events that are stored" in found_in(make_books(), hold, rows)


def test_a_release_of_what_has_expired_is_no_release() -> None:
    memory, hold, answer = Memory(), make_hold(), Answer(200, b'{"status":"expired"}')
    hold.expires_at = NOON

    Judge(TIDY, memory).check_release(hold, answer)
    assert (hold.released, memory.wrong.total()) == (None, 0)

    hold.expires_at = datetime.now(UTC) + timedelta(hours=1)
    Judge(TIDY, memory).check_release(hold, answer)
    assert memory.wrong.total() == 1


# What clients remember.


def test_what_can_still_change_stays_in_memory_until_it_cannot(tmp_path: Path) -> None:
    live, done = make_hold(), make_hold((EVENT, Fate.DONE))
    memory = Memory(holds=[live, done], events=[(TIDY, EVENT, Fate.DONE)])

    memory.write(tmp_path / "client", live=[live])
    assert (memory.holds, memory.events) == ([live], [])
    live.released = Fate.DONE
    memory.write(tmp_path / "client", live=())

    frames = list(read_frames(tmp_path))
    assert [frame.holds for frame in frames] == [[done], [live]]
    assert [len(frame.events) for frame in frames] == [1, 0]
    assert memory.holds == []


def test_a_later_part_may_not_change_what_an_earlier_one_booked(tmp_path: Path) -> None:
    first = Parts(tmp_path / "parts.json", seed=7)
    first.close({"tidy-1": "2 events", "other": "1 event"})
    second = Parts(tmp_path / "parts.json", seed=8)

    assert (second.seed, second.number) == (7, 2)
    assert second.changed({"tidy-1": "2 events", "tidy-2": "5 events"}) == []
    assert second.changed({"tidy-1": "3 events"}) == ["tidy-1"]


def test_what_is_given_while_halted_is_found() -> None:
    halts = [HaltSpan("a", 10.0, 20.0)]
    given = [Grant("a", 10.5, 10.6), Grant("a", 11.5, 11.6), Grant("a", 19.5, 20.5)]

    assert list(grants_while_halted([*given, Grant("b", 12.0, 12.1)], halts)) == [given[1]]


def test_tenants_differ_in_what_excuses_them() -> None:
    window = Window(1, Amounts(0, 200), NOTHING, 0, 0)
    caps = Caps()
    caps.may_become(1, Limit(nanos=100, tokens=100), 0.0)
    result = {
        tenant: len(
            list(
                overspent(
                    make_snapshot(1),
                    make_snapshot(2, (7, window)),
                    budgets={1: make_budget(tenant=tenant)},
                    caps=caps,
                )
            )
        )
        for tenant in (TIDY, ROUGH)
    }

    assert result == {TIDY: 1, ROUGH: 0}


# On the wire.


def test_an_answer_is_put_together_from_its_pieces() -> None:
    reader = AnswerReader()

    assert reader.feed(b"HTTP/1.1 201 Created\r\nContent-") is None
    assert reader.feed(b"Length: 4\r\n\r\nab") is None
    assert reader.feed(b"cd") == Answer(201, b"abcd")
    assert reader.feed(b"HTTP/1.1 204 No Content\r\n\r\n") == Answer(204, b"")


def test_a_connection_that_ends_early_is_broken() -> None:
    with pytest.raises(Broken):
        AnswerReader().feed(b"")
