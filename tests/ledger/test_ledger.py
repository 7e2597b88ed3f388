"""The ledger records rows before they are sent, and their results afterward."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from base64 import b64encode
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.ledger import ledger as module
from airflow_provider_smtpcm.ledger import merge, record
from airflow_provider_smtpcm.ledger.ledger import PriorRow, Reservation
from airflow_provider_smtpcm.ledger.merge import MergeLedger
from airflow_provider_smtpcm.ledger.record import BLOCK_ROWS, FINGERPRINT_OCTETS, Block, Progress, RowState, RunState
from tests.interruptions import OURS, Moments, TimeLimit, watched, within
from tests.ledger.stores import Memory
from tests.waiting import wait_until

BOTH = [RunState.FAILED, RunState.SUCCEEDED]


def fingerprint(row: int) -> bytes:
    """What identifies a row."""
    return row.to_bytes(FINGERPRINT_OCTETS, "big")


def reserved(ledger: MergeLedger, *rows: int) -> Reservation:
    """A reservation, once it is written."""
    reservation = ledger.reserve([(row, fingerprint(row)) for row in rows])
    wait_until_complete(reservation, ledger)
    return reservation


def wait_until_complete(reservation: Reservation, ledger: MergeLedger) -> None:
    """Wait until its rows are written."""

    def is_complete() -> bool:
        ledger.raise_if_failed()
        return reservation.is_complete

    wait_until(is_complete)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY_DELAYS", (0.01, 0.01))


def test_nothing_is_sent_that_cannot_be_written_down() -> None:
    """A store that stays away ends the sending; Airflow may try again."""
    store = Memory()
    ledger = MergeLedger(store)
    store.failures = 99
    reservation = ledger.reserve([(0, fingerprint(0))])
    with pytest.raises(LedgerError, match="does not answer \\(ConnectionError: the API server is away") as caught:
        wait_until(ledger.raise_if_failed)
    assert not reservation.is_complete
    assert caught.value.retryable
    with pytest.raises(LedgerError):
        ledger.end(RunState.UNFINISHED)


def test_a_store_that_is_away_for_a_moment_is_asked_again() -> None:
    """It may be restarted."""
    store = Memory(failures=2)
    ledger = MergeLedger(store)
    wait_until(lambda: bool(store.writes))  # the head record, by the ledger's thread
    store.failures = 2
    reserved(ledger, 0)
    ledger.end(RunState.UNFINISHED)


def test_what_is_left_is_known_before_the_rows_are() -> None:
    """What is settled is not sent again, and what is in doubt is counted by itself."""
    store = Memory()
    ledger = MergeLedger(store, window=16)
    states = [RowState.ACCEPTED, RowState.RETRY, RowState.FAILED, RowState.REFUSED, RowState.PARTIAL, RowState.UNKNOWN]
    reserved(ledger, *range(7))  # the last one has no result
    for row, state in enumerate(states):
        ledger.record(row, state)
    ledger.record(8, RowState.RETRY, fingerprint=fingerprint(8))  # and the one before it was not started
    ledger.end(RunState.UNFINISHED)
    again = MergeLedger(store)
    assert (again.rows_seen, again.rows_pending, len(again.rows_in_doubt)) == (9, 4, 2)
    assert MergeLedger(Memory()).rows_pending == 0


def test_rows_that_changed_between_two_tries_are_an_error() -> None:
    """Otherwise some recipients would be skipped, and others mailed twice."""
    store = Memory()
    ledger = MergeLedger(store, window=16)
    reserved(ledger, 0, 1)
    ledger.record(0, RowState.ACCEPTED)
    ledger.end(RunState.UNFINISHED)
    again = MergeLedger(store)
    assert again.prior(0, fingerprint(0)) == PriorRow(RowState.ACCEPTED)
    with pytest.raises(LedgerError, match="row 2 is a different one") as caught:
        again.prior(1, fingerprint(7))
    assert "send_again" in str(caught.value)


def of_an_older_release() -> Memory:
    """A store that has three octets of each digest."""
    store = Memory()
    fingerprints = b"".join(fingerprint(row << 40)[:3] for row in range(1, 5))
    store.set(record.HEAD, {"format": 1, "generation": 0, "standing": "open", "max_tries": None})
    store.set(f"{record.HEAD}/0/0", {"states": "aotf", "marks": b64encode(fingerprints).decode()})
    return store


def test_the_rows_of_an_older_release_are_known() -> None:
    """The package was upgraded between two attempts: nothing is sent twice, and the rows are unchanged."""
    store = of_an_older_release()
    ledger = MergeLedger(store, window=16)
    fingerprints = [fingerprint(row << 40) for row in range(1, 6)]
    states = [known.state for row in range(4) if (known := ledger.prior(row, fingerprints[row])) is not None]
    assert states == [RowState.ACCEPTED, RowState.OPEN, RowState.RETRY, RowState.FAILED]
    ledger.record(2, RowState.ACCEPTED)
    ledger.record(4, RowState.REFUSED, fingerprint=fingerprints[4])
    ledger.end(RunState.UNFINISHED)
    assert store.get(record.HEAD)["format"] == record.FORMAT
    again = MergeLedger(store)
    assert [again.prior(row, fingerprints[row]) for row in (2, 4)] == [
        PriorRow(RowState.ACCEPTED),
        PriorRow(RowState.REFUSED),
    ]


def test_rows_that_are_not_those_of_an_older_release_are_an_error() -> None:
    """Also one in the place of a row that failed, which is one of the others."""
    ledger = MergeLedger(of_an_older_release())
    assert ledger.prior(3, fingerprint(9 << 40)) == PriorRow(RowState.FAILED)
    for row, other in ((0, 9), (3, 1)):
        with pytest.raises(LedgerError, match=f"row {row + 1} is a different one"):
            ledger.prior(row, fingerprint(other << 40))


@pytest.mark.parametrize("value", [{"format": 99}, [], "x"])
def test_a_ledger_of_another_version_is_not_touched(value: object) -> None:
    """Who knows what it says."""
    store = Memory()
    store.set(record.HEAD, value)
    with pytest.raises(LedgerError, match="another version"):
        MergeLedger(store)


def test_a_damaged_ledger_is_not_guessed_at() -> None:
    """A duplicate mail is worse than a failed run."""
    store = Memory()
    ledger = MergeLedger(store)
    reserved(ledger, 0)
    ledger.end(RunState.UNFINISHED)
    store.set(f"{record.HEAD}/0/0", {"states": "a5", "marks": ""})
    with pytest.raises(LedgerError, match="damaged"):
        MergeLedger(store)


def test_after_a_crash_the_rows_in_the_window_are_in_doubt_and_no_others() -> None:
    """The process is gone between two writes: what was reserved and not recorded stays open."""
    store = Memory()
    ledger = MergeLedger(store, window=4)
    reserved(ledger, 0, 1)
    reserved(ledger, 2, 3)
    ledger.record(0, RowState.ACCEPTED)
    ledger.record(1, RowState.REFUSED)
    reserved(ledger, 4, 5)  # and with it what became of 0 and 1 is written
    again = MergeLedger(store)  # the first was never ended
    assert [again.prior(row, fingerprint(row)) for row in range(7)] == [
        PriorRow(RowState.ACCEPTED),
        PriorRow(RowState.REFUSED),
        *[PriorRow(RowState.OPEN)] * 4,
        None,
    ]
    assert again.rows_seen == 6


def test_no_more_rows_are_open_than_the_window_holds() -> None:
    """A reservation waits until there is room."""
    ledger = MergeLedger(Memory(), window=4)
    reserved(ledger, 0, 1)
    reserved(ledger, 2, 3)
    waiting = ledger.reserve([(4, fingerprint(4)), (5, fingerprint(5))])
    time.sleep(0.1)
    assert not waiting.is_complete
    ledger.record(0, RowState.ACCEPTED)
    ledger.record(3, RowState.ACCEPTED)
    ledger.end(RunState.UNFINISHED)
    assert not waiting.is_complete  # they are no longer sent


def test_a_window_of_one_is_as_wide_as_the_connections() -> None:
    """Each has a mail in flight."""
    assert MergeLedger(Memory(), window=1, connections=4).window == 4
    assert MergeLedger(Memory(), window=1).window == 1


class Watched(Memory):
    """A store that records the maximum number of rows in doubt."""

    most_open = 0

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """As usual."""
        super().set(key, value, retention=retention)
        if "states" in value:
            self.most_open = max(self.most_open, Block.from_json(value).states.count(RowState.OPEN.encode()))


def test_a_window_that_has_shrunk_holds_also_for_rows_that_were_gathered_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are passed on in parts, although nothing else is in flight."""
    width = [60]
    monkeypatch.setattr(MergeLedger, "window", property(lambda _: width[0]))
    store = Watched()
    ledger = MergeLedger(store)
    reserved(ledger, 0)
    width[0] = 4
    gathered = ledger.reserve([(row, fingerprint(row)) for row in range(1, 31)])
    ledger.record(0, RowState.ACCEPTED)
    for row in range(1, 31):
        wait_until(lambda row=row: gathered.written >= row)
        ledger.record(row, RowState.ACCEPTED)
    assert gathered.is_complete
    ledger.end(RunState.UNFINISHED)
    assert store.most_open <= 4
    assert MergeLedger(store).rows_pending == 0


@pytest.mark.parametrize(
    ("rate", "write_seconds", "rows"),
    [
        (20.0, 0.01, 247),  # a slow server: a write for nearly every window
        (5000.0, 0.01, 198),
        (5000.0, 0.04, 128),  # a slow store
        (20_000.0, 0.04, 248),  # one that is waited for in any case: as few writes as there can be
    ],
)
def test_a_reservation_leaves_what_is_sent_while_it_is_written(rate: float, write_seconds: float, rows: int) -> None:
    """And two mails for each connection; never more than half of the window, where that helps."""
    ledger = MergeLedger(Memory(), window=256, connections=4)
    ledger._window.rate, ledger._write_seconds = rate, write_seconds
    assert ledger._next_batch_rows() == rows
    ledger.end(RunState.UNFINISHED)


def test_rows_that_are_withdrawn_are_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns the number of those already written."""
    monkeypatch.setattr(MergeLedger, "window", 2)
    ledger = MergeLedger(Memory())
    gathered = ledger.reserve([(row, fingerprint(row)) for row in range(9)])
    wait_until(lambda: gathered.written >= 2)
    assert ledger.withdraw(gathered) == 2
    ledger.end(RunState.UNFINISHED)
    assert gathered.written == 2


def test_rows_that_make_no_mail_say_nothing_about_the_server() -> None:
    """A thousand of them are done at once, and the next ones are sent as slowly as before."""
    ledger = MergeLedger(Memory())
    for row in range(1000):
        ledger.record(row, RowState.FAILED, fingerprint=fingerprint(row))
    reserved(ledger, 1000)
    assert ledger.window == 1
    ledger.end(RunState.SUCCEEDED)


@pytest.mark.parametrize("standing", BOTH)
def test_who_wants_all_of_it_again_gets_a_new_generation(standing: RunState) -> None:
    """After a success always; after a failure for good where it is asked for. The old rows are not looked at."""
    store = Memory()
    ledger = MergeLedger(store)
    reserved(ledger, 0)
    ledger.record(0, RowState.ACCEPTED)
    ledger.end(standing)
    again = MergeLedger(store, send_again=True)
    assert (again.generation, again.is_resumed, again.prior(0, fingerprint(9))) == (1, False, None)
    reserved(again, 0)
    again.end(RunState.UNFINISHED)
    third = MergeLedger(store)
    assert (third.generation, third.is_resumed) == (1, True)


@pytest.mark.parametrize(
    ("standing", "rejected"), [(RunState.UNFINISHED, {"c@corp.example": "550 no"}), (RunState.FAILED, {})]
)
def test_what_is_unfinished_is_resumed(standing: RunState, rejected: dict[str, str]) -> None:
    """Airflow's own retry skips permanent refusals; the person who cleared the task may have fixed the cause."""
    store = Memory()
    ledger = MergeLedger(store)
    reserved(ledger, 0)
    ledger.record(0, RowState.RETRY, Progress(("b@corp.example",), {"c@corp.example": "550 no"}))
    ledger.record(1, RowState.FAILED, fingerprint=fingerprint(1))
    ledger.end(standing)
    again = MergeLedger(store)
    assert (again.generation, again.is_resumed) == (0, True)
    assert again.prior(0, fingerprint(0)) == PriorRow(RowState.RETRY, Progress(("b@corp.example",), rejected))
    assert again.prior(1, fingerprint(1)) == PriorRow(RowState.FAILED)


@pytest.mark.parametrize(
    ("before", "now", "is_cleared"), [(1, 1, False), (1, 2, True), (2, 1, True), (None, 1, False), (1, None, False)]
)
@pytest.mark.parametrize("send_again", [False, True])
def test_an_attempt_that_did_not_end_is_resumed_unless_the_task_was_cleared(
    before: int | None, now: int | None, is_cleared: bool, send_again: bool
) -> None:
    """Only a `max_tries` that is known to have changed says so; it falls if the DAG has fewer retries now."""
    store = Memory()
    ledger = MergeLedger(store, max_tries=before)
    reserved(ledger, 0)
    ledger.record(0, RowState.REFUSED, Progress((), {"c@corp.example": "550 no"}))
    ledger.end(RunState.UNFINISHED)
    again = MergeLedger(store, max_tries=now, send_again=send_again)
    assert (again.generation, again.is_resumed) == ((1, False) if is_cleared and send_again else (0, True))
    if again.is_resumed:
        prior = again.prior(0, fingerprint(0))
        assert prior is not None
        assert prior.state is (RowState.FAILED if is_cleared else RowState.REFUSED)
    again.end(RunState.UNFINISHED)
    third = MergeLedger(store, max_tries=now, send_again=send_again)  # killed, and retried by Airflow
    assert (third.generation, third.is_resumed) == (again.generation, True)


def test_results_are_written_also_where_nothing_more_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little is in doubt after a crash at the end of a batch."""
    monkeypatch.setattr(merge, "_RECORD_WITHIN", 0.05)
    store = Memory()
    ledger = MergeLedger(store)
    reserved(ledger, 0)
    ledger.record(0, RowState.ACCEPTED)
    wait_until(lambda: MergeLedger(store.copy()).prior(0, fingerprint(0)) == PriorRow(RowState.ACCEPTED))


def test_a_hundred_thousand_rows_take_few_writes_and_little_room() -> None:
    """Each row is in two writes at the most, together with its neighbors."""
    store = Memory()
    ledger = MergeLedger(store, window=256)
    for first in range(0, 20 * BLOCK_ROWS, 128):
        reserved(ledger, *range(first, first + 128))
        for row in range(first, first + 128):
            ledger.record(row, RowState.ACCEPTED)
    ledger.end(RunState.SUCCEEDED)
    assert len(store.writes) < 20 * BLOCK_ROWS / 128 * 2.5
    assert sum(map(len, store.values.values())) < 13 * 20 * BLOCK_ROWS
    assert max(map(len, store.values.values())) < 65536


class OnDisk(Memory):
    """A store whose values take none of this process's memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Write a file."""
        assert retention is None
        (self._folder / key.replace("/", "-")).write_text(json.dumps(value))

    def get(self, key: str) -> Any:
        """Read the file."""
        file = self._folder / key.replace("/", "-")
        return json.loads(file.read_text()) if file.exists() else None


def test_its_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """What is written is forgotten, but for the latest rows."""
    ledger = MergeLedger(OnDisk(tmp_path), window=256)

    def send(first: int, last: int) -> int:
        for start in range(first, last, 128):
            reserved(ledger, *range(start, start + 128))
            for row in range(start, start + 128):
                ledger.record(row, RowState.ACCEPTED)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = send(0, 20 * BLOCK_ROWS)
        assert send(20 * BLOCK_ROWS, 80 * BLOCK_ROWS) - few < 60 * BLOCK_ROWS
    finally:
        tracemalloc.stop()
        ledger.end(RunState.UNFINISHED)
    assert MergeLedger(OnDisk(tmp_path)).rows_seen == 80 * BLOCK_ROWS


@pytest.mark.parametrize("expired", [False, True])
def test_a_row_that_is_tried_again_much_later_leaves_its_neighbours_as_they_are(expired: bool) -> None:
    """Its block is no longer cached; one that is missing from the store too is not replaced by an empty one."""
    store = Memory()
    ledger = MergeLedger(store, window=4)
    reserved(ledger, 0, 1)
    ledger.record(0, RowState.RETRY)
    ledger.record(1, RowState.REFUSED)
    for block in range(1, 20):
        reserved(ledger, block * BLOCK_ROWS)
        ledger.record(block * BLOCK_ROWS, RowState.ACCEPTED)
    if expired:
        store.delete("smtpcm/0/0")
        with pytest.raises(LedgerError, match="has expired"):
            reserved(ledger, 0)
        return
    reserved(ledger, 0)
    ledger.record(0, RowState.ACCEPTED)
    ledger.end(RunState.UNFINISHED)
    again = MergeLedger(store)
    assert [again.prior(row, fingerprint(row)) for row in (0, 1, 19 * BLOCK_ROWS)] == [
        PriorRow(RowState.ACCEPTED),
        PriorRow(RowState.REFUSED),
        PriorRow(RowState.ACCEPTED),
    ]


def test_its_thread_is_gone_with_it() -> None:
    """A worker lives on."""
    before = threading.active_count()
    ledger = MergeLedger(Memory())
    reserved(ledger, 0)
    assert threading.active_count() == before + 1
    ledger.end(RunState.SUCCEEDED)
    assert threading.active_count() == before


@pytest.mark.parametrize("what", ["reserve", "record"])
def test_an_interruption_anywhere_leaves_no_thread_behind(what: str) -> None:
    """The threads share a lock, and `threading` has moments of its own between taking it and holding it safely."""

    def raise_if_failed(at: int | None) -> int:
        before = threading.active_count()
        ledger = MergeLedger(Memory(), window=4)
        if what == "record":
            reserved(ledger, 0)
        moments = Moments(at, lambda: True, places=(*OURS, threading.__file__))
        with suppress(TimeLimit), watched(moments):
            if what == "reserve":
                ledger.reserve([(0, fingerprint(0))])
            else:
                ledger.record(0, RowState.ACCEPTED)
        ledger.record(1, RowState.FAILED, fingerprint=fingerprint(1))
        with within(5):
            ledger.end(RunState.UNFINISHED)
        assert threading.active_count() == before, f"interrupted at {at}"
        return moments.passed

    for at in range(1, raise_if_failed(None) + 1):
        raise_if_failed(at)


# --- How long it is kept.


def test_a_ledger_of_which_a_part_has_expired_sends_nothing() -> None:
    """It is no longer known who has the mail."""
    store = Memory()
    ledger = MergeLedger(store)
    reserved(ledger, 0)
    ledger.record(0, RowState.RETRY)
    ledger.end(RunState.UNFINISHED)
    store.delete("smtpcm/0/0")
    with pytest.raises(LedgerError, match=r"Part of the ledger of this task has expired \(\[state_store\]") as caught:
        MergeLedger(store)
    assert not caught.value.retryable


def test_each_try_renews_all_that_the_tries_before_it_left() -> None:
    """Airflow's retention begins again with each write; the head comes first, so that it is not the last to expire."""
    store = Memory()
    ledger = MergeLedger(store, window=4)
    rows = [0, BLOCK_ROWS, 2 * BLOCK_ROWS]
    reserved(ledger, *rows)
    for row in rows:
        ledger.record(row, RowState.RETRY)
    ledger.end(RunState.UNFINISHED)
    store.writes.clear()
    MergeLedger(store).end(RunState.UNFINISHED)
    assert store.writes == ["smtpcm", "smtpcm/0/0", "smtpcm/0/1", "smtpcm/0/2", "smtpcm"]
    assert set(store.retentions.values()) == {None}


class Gated(Memory):
    """A store that blocks writes until it is released."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__()
        self.values = dict(values)
        self.opened = threading.Event()

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Once it is open."""
        assert self.opened.wait(60)
        super().set(key, value, retention=retention)


def test_rows_do_not_wait_until_all_is_renewed() -> None:
    """A task of a million rows would renew for ten seconds before sending; meanwhile it continues to prepare."""
    store = Memory()
    ledger = MergeLedger(store, window=4)
    reserved(ledger, 0, BLOCK_ROWS, 2 * BLOCK_ROWS)
    for row in (0, BLOCK_ROWS, 2 * BLOCK_ROWS):
        ledger.record(row, RowState.RETRY)
    ledger.end(RunState.UNFINISHED)
    gated = Gated(store.values)
    again = MergeLedger(gated, window=4)  # does not wait for the store
    reservation = again.reserve([(2 * BLOCK_ROWS, fingerprint(2 * BLOCK_ROWS))])
    gated.opened.set()
    wait_until_complete(reservation, again)
    again.end(RunState.UNFINISHED)
    assert gated.writes[:2] == ["smtpcm", "smtpcm/0/2"]
    assert {"smtpcm/0/0", "smtpcm/0/1"} <= set(gated.writes)


def test_a_try_that_takes_long_renews_what_it_wrote_in_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge at a mail a minute may take longer than the retention."""
    store = Memory()
    ledger = MergeLedger(store, window=4)
    reserved(ledger, 0)
    store.writes.clear()
    monkeypatch.setattr(merge, "_RENEWAL_INTERVAL", 0)
    reserved(ledger, BLOCK_ROWS)
    ledger.end(RunState.UNFINISHED)
    assert {"smtpcm", "smtpcm/0/0", "smtpcm/0/1"} <= set(store.writes)


def test_a_task_that_is_done_keeps_no_rows_and_its_result_for_a_day() -> None:
    """The head says for as long as Airflow keeps it that nothing is to be sent."""
    store = Memory()
    ledger = MergeLedger(store, window=4, max_tries=1)
    reserved(ledger, 0, BLOCK_ROWS)
    ledger.record(0, RowState.PARTIAL, Progress(("a@corp.example",), {"b@corp.example": "550 no"}))
    ledger.record(BLOCK_ROWS, RowState.ACCEPTED)
    ledger.complete({"accepted": ["a@corp.example"]}, {"accepted": []})
    assert sorted(store.values) == ["smtpcm", "smtpcm/0/result"]
    assert "@" not in store.values["smtpcm"]
    assert store.retentions["smtpcm/0/result"] == module.RESULT_RETENTION
    assert store.retentions["smtpcm"] is None


@pytest.mark.parametrize("expired", [False, True])
def test_a_try_after_one_that_was_done_and_not_heard_of_has_its_result(expired: bool) -> None:
    """It changes nothing, so a further attempt has it too; `max_tries` is increased when the task is cleared."""
    store = Memory()
    MergeLedger(store, max_tries=1).complete({"accepted": ["a@corp.example"]}, {"accepted": []})
    if expired:
        store.delete("smtpcm/0/result")
    for _ in range(2):
        assert MergeLedger(store, max_tries=1).finished_result == {"accepted": [] if expired else ["a@corp.example"]}
    times_cleared = MergeLedger(store, max_tries=2)
    assert (times_cleared.finished_result, times_cleared.generation) == (None, 1)


def test_rows_that_are_sent_again_on_purpose_leave_nothing_of_the_time_before() -> None:
    """Their addresses are no longer needed."""
    store = Memory()
    ledger = MergeLedger(store, window=4)
    reserved(ledger, 0, BLOCK_ROWS)
    ledger.record(0, RowState.REFUSED, Progress((), {"b@corp.example": "550 no"}))
    ledger.record(BLOCK_ROWS, RowState.REFUSED)
    ledger.end(RunState.FAILED)
    MergeLedger(store, send_again=True).end(RunState.UNFINISHED)
    assert list(store.values) == ["smtpcm"]


def test_a_task_that_was_cleared_has_a_generation_of_its_own_although_its_ledger_is_gone() -> None:
    """A server would drop mail with an old Message-ID."""
    assert MergeLedger(Memory(), times_cleared=2).generation == 2
    store = Memory()
    MergeLedger(store).end(RunState.UNFINISHED)
    assert MergeLedger(store, times_cleared=2).generation == 0
