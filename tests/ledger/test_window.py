"""The window is a quarter of a second of sending, however the replies are spread. The clock stops in between."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.ledger import merge as module
from airflow_provider_smtpcm.ledger.journal import LedgerJournal
from airflow_provider_smtpcm.ledger.merge import LARGEST_WINDOW, MergeLedger, Window
from airflow_provider_smtpcm.ledger.record import FINGERPRINT_OCTETS, Block, RowState, RunState
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome
from airflow_provider_smtpcm.smtp.queue import SendRequest
from tests.ledger.stores import Memory


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the window measures by."""
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    return clock


class Sending:
    """A window over a server that answers on all its connections at the same time, one after the other.

    Args:
        window: from its beginning.
        clock: goes on meanwhile.
        connections: as many mails are in flight.
        answers_after: seconds that each mail takes.
        writes_in: seconds for which nothing is in flight while further rows are written down.
    """

    def __init__(
        self, window: Window, clock: Clock, *, connections: int, answers_after: float, writes_in: float = 0.0
    ) -> None:
        self.window, self.answers_after = window, answers_after
        self._clock, self._connections, self._writes_in = clock, connections, writes_in
        self.open = 0

    def sent(self, mails: int) -> list[int]:
        """How many rows were open at each time that rows were written down, until so many mails were answered."""
        were_open = []
        for _ in range(0, mails, self._connections):
            if not self.open:
                self._clock.now += self._writes_in
            if (room := self.window.rows - self.open) > 0:
                self.window.on_rows_opened(room)
                self.open += room
            were_open.append(self.open)
            self._clock.now += self.answers_after
            for _ in range(min(self._connections, self.open)):
                self._clock.now += 0.000_001
                self.window.on_row_closed()
                self.open -= 1
                self.window.measure()
        return were_open


@pytest.mark.parametrize("connections", [1, 4, 300])
def test_before_the_first_answer_as_many_rows_are_open_as_mails_can_be_in_flight(
    connections: int, clock: Clock
) -> None:
    """Nothing is known of the server."""
    window = Window(None, connections)
    window.on_rows_opened(connections)
    clock.now += 60
    window.measure()
    assert window.rows == connections


@pytest.mark.parametrize(
    ("connections", "answers_after"), [(4, 0.2), (1, 0.2), (2, 0.05), (8, 0.1), (4, 3.0), (1, 120.0), (16, 0.25)]
)
def test_a_server_that_answers_in_bursts_has_a_quarter_of_a_second_of_rows_open(
    connections: int, answers_after: float, clock: Clock
) -> None:
    """Four replies within four microseconds, every 200 milliseconds, are 20 per second, not a million."""
    were_open = Sending(Window(None, connections), clock, connections=connections, answers_after=answers_after).sent(
        500
    )
    assert max(were_open) <= max(connections, 0.25 * connections / answers_after)


@pytest.mark.parametrize("writes_in", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("connections", [1, 4])
def test_a_fast_server_has_the_largest_window_at_once_also_where_the_store_is_slow(
    connections: int, writes_in: float, clock: Clock
) -> None:
    """What the store takes is no time of sending: with a small window it would only be written the more often."""
    sending = Sending(
        Window(None, connections), clock, connections=connections, answers_after=0.0005, writes_in=writes_in
    )
    assert max(sending.sent(8 * connections)) == LARGEST_WINDOW
    assert min(sending.sent(4000)) > LARGEST_WINDOW - 2 * connections


def test_a_window_of_a_fixed_size_knows_the_rate_too(clock: Clock) -> None:
    """By which the ledger decides when to write."""
    window = Window(16, 4)
    Sending(window, clock, connections=4, answers_after=0.02).sent(2000)
    assert window.rows == 16
    assert 180 < window.rate <= 200


def test_a_rate_limit_is_part_of_the_measure(clock: Clock) -> None:
    """What is written down waits for its turn, and is in doubt as long."""
    sending = Sending(Window(None, 4), clock, connections=1, answers_after=0.1)  # 600 a minute, over four connections
    assert max(sending.sent(100)) == 4


def test_a_pause_of_whoever_gives_the_rows_is_no_pause_of_the_server(clock: Clock) -> None:
    """Nothing is open meanwhile."""
    sending = Sending(Window(None, 4), clock, connections=4, answers_after=0.005)
    sending.sent(1000)
    before = sending.window.rows
    while sending.open:
        sending.window.on_row_closed()
        sending.open -= 1
    clock.now += 600
    sending.window.measure()
    assert sending.window.rows >= before


def test_nothing_is_added_for_a_server_that_has_become_slow_until_few_are_open(clock: Clock) -> None:
    """What was written down when it was fast stays; two seconds later nothing goes in that does not belong there."""
    sending = Sending(Window(None, 4), clock, connections=4, answers_after=0.001)
    sending.sent(2000)
    assert sending.window.rows == LARGEST_WINDOW
    sending.answers_after = 0.2
    sending.sent(40)
    were_open = sending.sent(600)
    drained = next(at for at, rows in enumerate(were_open) if rows <= 8)
    assert were_open[: drained + 1] == list(range(were_open[0], were_open[drained] - 1, -4))
    assert max(were_open[drained:]) <= 8
    assert max(were_open[-50:]) <= 5


def test_a_server_that_was_silent_for_long_and_is_fast_again_has_a_large_window_soon(clock: Clock) -> None:
    """A restart is not held against it for as long again."""
    sending = Sending(Window(None, 4), clock, connections=4, answers_after=0.001)
    sending.sent(2000)
    clock.now += 60
    sending.sent(2000)
    assert sending.window.rows == LARGEST_WINDOW


def open_in(store: Memory) -> int:
    """How many rows would be in doubt if the process were gone now."""
    blocks = [store.get(key) for key in store.values if key != "smtpcm"]
    return sum(Block.from_json(block).states.count(RowState.OPEN.encode()) for block in blocks)


def test_few_rows_are_open_in_the_store_while_a_slow_server_answers_in_bursts(clock: Clock) -> None:
    """As a merge sends them: killing it leaves few in doubt."""
    store, mail = Memory(), Mail(from_address="etl@corp.example", to="a@corp.example")
    ledger = MergeLedger(store, connections=4)
    journal = LedgerJournal(ledger, lambda index: index.to_bytes(FINGERPRINT_OCTETS, "big"))
    admitted = journal.admit(iter([SendRequest(index, mail) for index in range(80)]))
    most = answered = 0
    while in_flight := list(itertools.islice(until_the_ledger_waits(admitted, ledger), 4)):
        most = max(most, open_in(store))
        clock.now += 0.2
        for send_request in in_flight:
            accepted = Delivery(index=send_request.index, message_id="", outcome=Outcome.ACCEPTED)
            journal.on_result(accepted, ())
        answered += len(in_flight)
    ledger.end(RunState.SUCCEEDED)
    assert answered == 80
    assert most <= 5


def until_the_ledger_waits(admitted: Iterator[SendRequest | float], ledger: MergeLedger) -> Iterator[SendRequest]:
    """What may be sent, until what is left waits for an answer."""
    for send_request in admitted:
        if isinstance(send_request, SendRequest):
            yield send_request
            continue
        with ledger._changed:
            if ledger._open and ledger._reservation is not None and not ledger._is_due():
                return
        time.sleep(0.001)
