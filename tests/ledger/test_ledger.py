"""The ledger writes down what may be on its way before it is sent, and what became of it afterwards."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.ledger import ledger as module
from airflow_provider_smtpcm.ledger import record as book
from airflow_provider_smtpcm.ledger.ledger import Known, Ledger, Reservation
from airflow_provider_smtpcm.ledger.record import MARK, ROWS, Block, Rest, Standing, State
from tests.interruptions import OURS, Moments, TimeLimit, watched, within
from tests.ledger.stores import Memory

BOTH = [Standing.ENDED, Standing.CLOSED]


def mark(row: int) -> bytes:
    """What tells a row from all others."""
    return row.to_bytes(MARK, "big")


def reserved(ledger: Ledger, *rows: int) -> Reservation:
    """A reservation, once it is written."""
    reservation = ledger.reserve([(row, mark(row)) for row in rows])
    until = time.monotonic() + 5
    while not reservation.done and time.monotonic() < until:
        ledger.check()
        time.sleep(0.001)
    assert reservation.done
    return reservation


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "_AGAIN", (0.01, 0.01))


def test_nothing_is_sent_that_cannot_be_written_down() -> None:
    """A store that stays away ends the sending; Airflow may try again."""
    store = Memory()
    ledger = Ledger(store)
    store.failures = 99
    reservation = ledger.reserve([(0, mark(0))])
    time.sleep(0.3)
    assert not reservation.done
    with pytest.raises(LedgerError, match="does not answer \\(ConnectionError: the API server is away") as caught:
        ledger.check()
    assert caught.value.retryable
    with pytest.raises(LedgerError):
        ledger.end(Standing.OPEN)


def test_a_store_that_is_away_for_a_moment_is_asked_again() -> None:
    """It may be restarted."""
    store = Memory(failures=2)
    ledger = Ledger(store)
    store.failures = 2
    reserved(ledger, 0)
    ledger.end(Standing.OPEN)


def test_what_is_left_is_known_before_the_rows_are() -> None:
    """What is settled is not sent again, and what is in doubt is counted by itself."""
    store = Memory()
    ledger = Ledger(store, window=16)
    states = [State.ACCEPTED, State.AGAIN, State.FAILED, State.REFUSED, State.PARTIAL, State.UNKNOWN]
    reserved(ledger, *range(7))  # nothing is heard of the last
    for row, state in enumerate(states):
        ledger.record(row, state)
    ledger.record(8, State.AGAIN, mark=mark(8))  # and the one before it was not begun
    ledger.end(Standing.OPEN)
    again = Ledger(store)
    assert (again.rows, again.left, len(again.doubts)) == (9, 4, 2)
    assert Ledger(Memory()).left == 0


def test_rows_that_changed_between_two_tries_are_an_error() -> None:
    """Not wrong people skipped, and others mailed twice."""
    store = Memory()
    ledger = Ledger(store, window=16)
    reserved(ledger, 0, 1)
    ledger.record(0, State.ACCEPTED)
    ledger.end(Standing.OPEN)
    again = Ledger(store)
    assert again.known(0, mark(0)) == Known(State.ACCEPTED)
    with pytest.raises(LedgerError, match="row 2 is another one") as caught:
        again.known(1, mark(7))
    assert "send_again" in str(caught.value)


def of_an_older_release() -> Memory:
    """A store that has three octets of each digest."""
    store = Memory()
    marks = b"".join(mark(row << 40)[:3] for row in range(1, 5))
    store.set(book.HEAD, {"format": 1, "generation": 0, "standing": "open", "max_tries": None})
    store.set(f"{book.HEAD}/0/0", {"states": "aotf", "marks": b64encode(marks).decode()})
    return store


def test_the_rows_of_an_older_release_are_known() -> None:
    """The package was upgraded between two tries of a task: nothing is sent twice, and the rows are what they were."""
    store = of_an_older_release()
    ledger = Ledger(store, window=16)
    marks = [mark(row << 40) for row in range(1, 6)]
    states = [known.state for row in range(4) if (known := ledger.known(row, marks[row])) is not None]
    assert states == [State.ACCEPTED, State.OPEN, State.AGAIN, State.FAILED]
    ledger.record(2, State.ACCEPTED)
    ledger.record(4, State.REFUSED, mark=marks[4])
    ledger.end(Standing.OPEN)
    assert store.get(book.HEAD)["format"] == book.FORMAT
    again = Ledger(store)
    assert [again.known(row, marks[row]) for row in (2, 4)] == [Known(State.ACCEPTED), Known(State.REFUSED)]


def test_rows_that_are_not_those_of_an_older_release_are_an_error() -> None:
    """Also one in the place of a row that failed, which is one of the others."""
    ledger = Ledger(of_an_older_release())
    assert ledger.known(3, mark(9 << 40)) == Known(State.FAILED)
    for row, other in ((0, 9), (3, 1)):
        with pytest.raises(LedgerError, match=f"row {row + 1} is another one"):
            ledger.known(row, mark(other << 40))


@pytest.mark.parametrize("value", [{"format": 99}, [], "x"])
def test_a_ledger_of_another_version_is_not_touched(value: object) -> None:
    """Who knows what it says."""
    store = Memory()
    store.set(book.HEAD, value)
    with pytest.raises(LedgerError, match="another version"):
        Ledger(store)


def test_a_damaged_ledger_is_not_guessed_at() -> None:
    """A mail too many is worse than a run too few."""
    store = Memory()
    ledger = Ledger(store)
    reserved(ledger, 0)
    ledger.end(Standing.OPEN)
    store.set(f"{book.HEAD}/0/0", {"states": "a5", "marks": ""})
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(store)


def test_after_a_crash_the_rows_in_the_window_are_in_doubt_and_no_others() -> None:
    """The process is gone between two writes: what was reserved and not recorded stays open."""
    store = Memory()
    ledger = Ledger(store, window=4)
    reserved(ledger, 0, 1)
    reserved(ledger, 2, 3)
    ledger.record(0, State.ACCEPTED)
    ledger.record(1, State.REFUSED)
    reserved(ledger, 4, 5)  # and with it what became of 0 and 1 is written
    again = Ledger(store)  # nobody ended the first
    assert [again.known(row, mark(row)) for row in range(7)] == [
        Known(State.ACCEPTED),
        Known(State.REFUSED),
        *[Known(State.OPEN)] * 4,
        None,
    ]
    assert again.rows == 6


def test_no_more_rows_are_open_than_the_window_holds() -> None:
    """A reservation waits until there is room."""
    ledger = Ledger(Memory(), window=4)
    reserved(ledger, 0, 1)
    reserved(ledger, 2, 3)
    waiting = ledger.reserve([(4, mark(4)), (5, mark(5))])
    time.sleep(0.1)
    assert not waiting.done
    ledger.record(0, State.ACCEPTED)
    ledger.record(3, State.ACCEPTED)
    ledger.end(Standing.OPEN)
    assert not waiting.done  # nobody sends them any more


def test_a_window_of_one_is_as_wide_as_the_connections() -> None:
    """Each has a mail in flight."""
    assert Ledger(Memory(), window=1, connections=4).window == 4
    assert Ledger(Memory(), window=1).window == 1


class Watched(Memory):
    """A store that remembers how many rows were in doubt at the most."""

    most_open = 0

    def set(self, key: str, value: Any) -> None:
        """As ever."""
        super().set(key, value)
        if "states" in value:
            self.most_open = max(self.most_open, Block.from_json(value).states.count(State.OPEN.encode()))


def test_a_window_that_has_shrunk_holds_also_for_rows_that_were_gathered_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are passed on bit by bit, though nothing else is on its way."""
    width = [60]
    monkeypatch.setattr(Ledger, "window", property(lambda _: width[0]))
    store = Watched()
    ledger = Ledger(store)
    reserved(ledger, 0)
    width[0] = 4
    gathered = ledger.reserve([(row, mark(row)) for row in range(1, 31)])
    ledger.record(0, State.ACCEPTED)
    for row in range(1, 31):
        until = time.monotonic() + 5
        while gathered.written < row:
            assert time.monotonic() < until
            time.sleep(0.001)
        ledger.record(row, State.ACCEPTED)
    assert gathered.done
    ledger.end(Standing.OPEN)
    assert store.most_open <= 4
    assert Ledger(store).left == 0


def test_rows_that_are_withdrawn_are_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are written already are told."""
    monkeypatch.setattr(Ledger, "window", 2)
    ledger = Ledger(Memory())
    gathered = ledger.reserve([(row, mark(row)) for row in range(9)])
    until = time.monotonic() + 5
    while gathered.written < 2:
        assert time.monotonic() < until
        time.sleep(0.001)
    assert ledger.withdraw(gathered) == 2
    ledger.end(Standing.OPEN)
    assert gathered.written == 2


def test_rows_that_make_no_mail_say_nothing_about_the_server() -> None:
    """A thousand of them are done at once, and the next ones are sent as slowly as before."""
    ledger = Ledger(Memory())
    for row in range(1000):
        ledger.record(row, State.FAILED, mark=mark(row))
    reserved(ledger, 1000)
    assert ledger.window == 1
    ledger.end(Standing.CLOSED)


@pytest.mark.parametrize("standing", BOTH)
def test_who_wants_all_of_it_again_gets_a_new_generation(standing: Standing) -> None:
    """After a success always; after a failure for good where it is asked for. The old rows are not looked at."""
    store = Memory()
    ledger = Ledger(store)
    reserved(ledger, 0)
    ledger.record(0, State.ACCEPTED)
    ledger.end(standing)
    again = Ledger(store, send_again=True)
    assert (again.generation, again.resumed, again.known(0, mark(9))) == (1, False, None)
    reserved(again, 0)
    again.end(Standing.OPEN)
    third = Ledger(store)
    assert (third.generation, third.resumed) == (1, True)


@pytest.mark.parametrize(("standing", "lost"), [(Standing.OPEN, {"c@corp.example": "550 no"}), (Standing.ENDED, {})])
def test_what_is_unfinished_is_resumed(standing: Standing, lost: dict[str, str]) -> None:
    """Airflow's own retry leaves alone what was refused for good; somebody who cleared the task may have mended it."""
    store = Memory()
    ledger = Ledger(store)
    reserved(ledger, 0)
    ledger.record(0, State.AGAIN, Rest(("b@corp.example",), {"c@corp.example": "550 no"}))
    ledger.record(1, State.FAILED, mark=mark(1))
    ledger.end(standing)
    again = Ledger(store)
    assert (again.generation, again.resumed) == (0, True)
    assert again.known(0, mark(0)) == Known(State.AGAIN, Rest(("b@corp.example",), lost))
    assert again.known(1, mark(1)) == Known(State.FAILED)


def test_results_are_written_also_where_nothing_more_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little is in doubt after a crash at the end of a batch."""
    monkeypatch.setattr(module, "_UNRECORDED_SECONDS", 0.05)
    store = Memory()
    ledger = Ledger(store)
    reserved(ledger, 0)
    ledger.record(0, State.ACCEPTED)
    time.sleep(0.3)
    assert Ledger(store).known(0, mark(0)) == Known(State.ACCEPTED)


def test_a_hundred_thousand_rows_take_few_writes_and_little_room() -> None:
    """Each row is in two writes at the most, together with its neighbours."""
    store = Memory()
    ledger = Ledger(store, window=256)
    for first in range(0, 20 * ROWS, 128):
        reserved(ledger, *range(first, first + 128))
        for row in range(first, first + 128):
            ledger.record(row, State.ACCEPTED)
    ledger.end(Standing.CLOSED)
    assert len(store.writes) < 20 * ROWS / 128 * 2.5
    assert sum(map(len, store.values.values())) < 13 * 20 * ROWS
    assert max(map(len, store.values.values())) < 65536


def test_its_thread_is_gone_with_it() -> None:
    """A worker lives on."""
    before = threading.active_count()
    ledger = Ledger(Memory())
    reserved(ledger, 0)
    assert threading.active_count() == before + 1
    ledger.end(Standing.CLOSED)
    assert threading.active_count() == before


@pytest.mark.parametrize("what", ["reserve", "record"])
def test_an_interruption_anywhere_leaves_no_thread_behind(what: str) -> None:
    """The threads share a lock, and `threading` has moments of its own between taking it and holding it safely."""

    def check(at: int | None) -> int:
        before = threading.active_count()
        ledger = Ledger(Memory(), window=4)
        if what == "record":
            reserved(ledger, 0)
        moments = Moments(at, lambda: True, places=(*OURS, threading.__file__))
        with suppress(TimeLimit), watched(moments):
            if what == "reserve":
                ledger.reserve([(0, mark(0))])
            else:
                ledger.record(0, State.ACCEPTED)
        ledger.record(1, State.FAILED, mark=mark(1))
        with within(5):
            ledger.end(Standing.OPEN)
        assert threading.active_count() == before, f"interrupted at {at}"
        return moments.passed

    for at in range(1, check(None) + 1):
        check(at)


# --- How long it is kept.


def test_a_ledger_of_which_a_part_has_expired_sends_nothing() -> None:
    """It is not known any more who has the mail."""
    store = Memory()
    ledger = Ledger(store)
    reserved(ledger, 0)
    ledger.record(0, State.AGAIN)
    ledger.end(Standing.OPEN)
    store.delete("smtpcm/0/0")
    with pytest.raises(LedgerError, match=r"A part of the ledger of this task has expired \(\[state_store\]") as caught:
        Ledger(store)
    assert not caught.value.retryable


def test_each_try_renews_all_that_the_tries_before_it_left() -> None:
    """Airflow's retention begins anew with each write; the head comes first, so that it is not the last to expire."""
    store = Memory()
    ledger = Ledger(store, window=4)
    rows = [0, ROWS, 2 * ROWS]
    reserved(ledger, *rows)
    for row in rows:
        ledger.record(row, State.AGAIN)
    ledger.end(Standing.OPEN)
    store.writes.clear()
    Ledger(store)
    assert store.writes == ["smtpcm", "smtpcm/0/0", "smtpcm/0/1", "smtpcm/0/2"]
    assert set(store.retentions.values()) == {None}


def test_a_try_that_takes_long_renews_what_it_wrote_in_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge at a mail a minute may take longer than the retention."""
    store = Memory()
    ledger = Ledger(store, window=4)
    reserved(ledger, 0)
    store.writes.clear()
    monkeypatch.setattr(module, "_RENEWED_AFTER", 0)
    reserved(ledger, ROWS)
    ledger.end(Standing.OPEN)
    assert {"smtpcm", "smtpcm/0/0", "smtpcm/0/1"} <= set(store.writes)


def test_a_task_that_is_done_keeps_no_rows_and_its_result_for_a_day() -> None:
    """The head says for as long as Airflow keeps it that nothing is to be sent."""
    store = Memory()
    ledger = Ledger(store, window=4, max_tries=1)
    reserved(ledger, 0, ROWS)
    ledger.record(0, State.PARTIAL, Rest(("a@corp.example",), {"b@corp.example": "550 no"}))
    ledger.record(ROWS, State.ACCEPTED)
    ledger.close({"accepted": ["a@corp.example"]}, {"accepted": []})
    assert sorted(store.values) == ["smtpcm", "smtpcm/0/result"]
    assert "@" not in store.values["smtpcm"]
    assert store.retentions["smtpcm/0/result"] == module.RESULT_KEPT
    assert store.retentions["smtpcm"] is None


@pytest.mark.parametrize("expired", [False, True])
def test_a_try_after_one_that_was_done_and_not_heard_of_has_its_result(expired: bool) -> None:
    """It changes nothing, so that a further one has it too; `max_tries` is raised when somebody clears the task."""
    store = Memory()
    Ledger(store, max_tries=1).close({"accepted": ["a@corp.example"]}, {"accepted": []})
    if expired:
        store.delete("smtpcm/0/result")
    for _ in range(2):
        assert Ledger(store, max_tries=1).done == {"accepted": [] if expired else ["a@corp.example"]}
    cleared = Ledger(store, max_tries=2)
    assert (cleared.done, cleared.generation) == (None, 1)


def test_rows_that_are_sent_again_on_purpose_leave_nothing_of_the_time_before() -> None:
    """Their addresses serve nobody."""
    store = Memory()
    ledger = Ledger(store, window=4)
    reserved(ledger, 0, ROWS)
    ledger.record(0, State.REFUSED, Rest((), {"b@corp.example": "550 no"}))
    ledger.record(ROWS, State.REFUSED)
    ledger.end(Standing.ENDED)
    Ledger(store, send_again=True)
    assert list(store.values) == ["smtpcm"]


def test_a_task_that_was_cleared_has_a_generation_of_its_own_although_its_ledger_is_gone() -> None:
    """A server would drop what bears an old Message-ID."""
    assert Ledger(Memory(), cleared=2).generation == 2
    store = Memory()
    Ledger(store)
    assert Ledger(store, cleared=2).generation == 0
