"""No request is passed on before it is recorded, and the record stays true whatever happens to it."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

import pytest

from airflow_provider_smtpcm.errors import (
    ConnectionLostError,
    LedgerError,
    MailError,
    MessageError,
    OutcomeUnknownError,
    Phase,
    RefusedError,
    Reply,
)
from airflow_provider_smtpcm.ledger import record
from airflow_provider_smtpcm.ledger.journal import LedgerJournal, not_begun_delivery, pending_request
from airflow_provider_smtpcm.ledger.ledger import PriorRow, Reservation
from airflow_provider_smtpcm.ledger.merge import MergeLedger
from airflow_provider_smtpcm.ledger.record import BLOCK_ROWS, FINGERPRINT_OCTETS, HEAD, Progress, RowState, RunState
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import pending_recipients
from tests.ledger.stores import Memory
from tests.waiting import wait_until

A, B, C = "a@corp.example", "b@corp.example", "c@corp.example"
LATER, NEVER = Reply(code=451, enhanced="4.2.0", text="later"), Reply(code=550, enhanced="5.1.1", text="no")


def fingerprint(row: int) -> bytes:
    """What identifies a row."""
    return row.to_bytes(FINGERPRINT_OCTETS, "big")


def mail(*to: str) -> Mail:
    """To these."""
    return Mail(from_address="etl@corp.example", to=to or (A, B, C), message_id="<1@corp.example>")


def send_requests(number: int) -> list[SendRequest]:
    """So many."""
    return [SendRequest(index, mail()) for index in range(number)]


def became(
    outcome: Outcome,
    error: MailError | None = None,
    *,
    index: int = 0,
    accepted: tuple[str, ...] = (),
    refused: Mapping[str, Reply] | None = None,
) -> Delivery:
    """Its delivery."""
    return Delivery(index=index, message_id="", outcome=outcome, accepted=accepted, refused=refused or {}, error=error)


def passed_on(admitted: Iterator[SendRequest | float], seconds: float = 60) -> SendRequest:
    """The next one that may be sent."""
    until = time.monotonic() + seconds
    for send_request in admitted:
        if isinstance(send_request, SendRequest):
            return send_request
        assert time.monotonic() < until
        time.sleep(0.001)
    raise AssertionError("nothing more is passed on")


def known_after(send_request: SendRequest, delivery: Delivery) -> PriorRow | None:
    """What the next attempt knows after this delivery."""
    store = Memory()
    ledger = MergeLedger(store)
    journal = LedgerJournal(ledger, fingerprint)
    passed_on(journal.admit(iter((send_request,))))
    journal.on_result(delivery, pending_recipients(delivery, send_request))
    journal.close()
    ledger.end(RunState.UNFINISHED)
    return MergeLedger(store).prior(0, fingerprint(0))


class SlowOnce(Memory):
    """A store whose next write can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.reached = threading.Event(), threading.Event()
        self.go_on.set()

    def set(self, key: str, value: object, *, retention: timedelta | None = None) -> None:
        """After a while."""
        self.reached.set()
        self.go_on.wait(60)
        super().set(key, value, retention=retention)


def wait_for_head(store: Memory) -> None:
    """Wait until the ledger's thread has written the head record."""
    wait_until(lambda: HEAD in store.writes)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY_DELAYS", (0.01, 0.01))


# --- What is passed on.


def test_nothing_is_passed_on_when_it_cannot_be_written_down() -> None:
    """It says so instead of waiting."""
    store = Memory()
    journal = LedgerJournal(MergeLedger(store), fingerprint)
    store.failures = 99
    with pytest.raises(LedgerError, match="does not answer"):
        passed_on(journal.admit(iter(send_requests(3))))
    assert journal.in_doubt == {}


def test_a_fault_of_our_own_in_the_writer_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the rows would wait forever."""

    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    ledger = MergeLedger(Memory())
    monkeypatch.setattr(ledger, "_put", break_down)
    with pytest.raises(LedgerError, match="ZeroDivisionError"):
        passed_on(LedgerJournal(ledger, fingerprint).admit(iter(send_requests(3))))


def test_what_is_passed_on_is_written_down_as_open() -> None:
    """A process that is killed at any moment leaves a complete record."""
    store = Memory()
    admitted = LedgerJournal(MergeLedger(store, window=4), fingerprint).admit(iter(send_requests(10)))
    for _ in range(4):
        send_request = passed_on(admitted)
        known = MergeLedger(store.copy()).prior(send_request.index, fingerprint(send_request.index))
        assert known == PriorRow(RowState.OPEN)
    with pytest.raises(AssertionError):  # the window is full, and no result has come
        passed_on(admitted, 0.1)


@pytest.mark.parametrize("window", [1, 2, 7, None])
def test_all_are_passed_on_in_their_order_and_once(window: int | None) -> None:
    """Whatever the window."""
    ledger = MergeLedger(Memory(), window=window)
    journal = LedgerJournal(ledger, fingerprint)
    done: list[int] = []
    for send_request in journal.admit(iter(send_requests(50))):
        if isinstance(send_request, float):
            time.sleep(0.0005)
            continue
        done.append(send_request.index)
        journal.on_result(became(Outcome.ACCEPTED, index=send_request.index, accepted=(A, B, C)), ())
    assert done == list(range(50))
    ledger.end(RunState.SUCCEEDED)


def test_who_has_nothing_just_now_is_not_waited_for() -> None:
    """What was gathered before goes."""
    ledger = MergeLedger(Memory(), window=100)
    (one,) = send_requests(1)
    admitted = LedgerJournal(ledger, fingerprint).admit(itertools.chain((-math.inf, one), itertools.repeat(-math.inf)))
    assert isinstance(next(admitted), float)
    assert passed_on(admitted) is one


def test_who_waits_for_the_ledger_is_woken_by_it() -> None:
    """And until then by nothing; even if it can no longer be written."""
    store = SlowOnce()
    journal = LedgerJournal(MergeLedger(store, window=4), fingerprint)
    wait_for_head(store)
    woken = threading.Event()
    journal.set_wakeup(woken.set)
    store.go_on.clear()
    admitted = journal.admit(iter(send_requests(1)))
    assert next(admitted) == math.inf
    assert not woken.is_set()
    store.go_on.set()
    assert woken.wait(60)
    assert isinstance(next(admitted), SendRequest)
    woken.clear()
    store.failures = 99
    admitted = journal.admit(iter(send_requests(1)))
    assert next(admitted) == math.inf
    assert woken.wait(60)
    with pytest.raises(LedgerError):
        next(admitted)


def test_what_was_gathered_for_a_fast_server_is_written_down_bit_by_bit_once_it_is_slow() -> None:
    """Otherwise half of the largest window would be in doubt, with a server that accepts one mail per second."""
    store = Memory()
    ledger = MergeLedger(store, window=64)
    journal = LedgerJournal(ledger, fingerprint)
    admitted = journal.admit(iter(send_requests(100)))
    flying = [passed_on(admitted).index for _ in range(64)]
    while journal._reservation is None:  # the next ones wait for room
        next(admitted)
    ledger._window.rows = 2
    for _ in range(3):
        for index in flying:
            journal.on_result(became(Outcome.ACCEPTED, index=index, accepted=(A, B, C)), ())
        flying = [passed_on(admitted).index for _ in range(2)]
        again = MergeLedger(store.copy())
        assert [row for row in range(100) if again.prior(row, fingerprint(row)) == PriorRow(RowState.OPEN)] == flying
    assert flying == [68, 69]


def test_each_connection_has_a_mail_after_the_first_write() -> None:
    """Nothing is being sent yet that the other half of the window could wait for."""
    store = Memory()
    ledger = MergeLedger(store, connections=4)
    admitted = LedgerJournal(ledger, fingerprint).admit(iter(send_requests(9)))
    assert [passed_on(admitted).index for _ in range(4)] == [0, 1, 2, 3]
    assert store.writes == [HEAD, f"{HEAD}/0/0"]


def test_what_is_written_down_at_once_is_of_one_block() -> None:
    """Rows of two blocks would take two writes."""
    first = BLOCK_ROWS - 10
    ledger = MergeLedger(Memory(), window=64)
    requests = [SendRequest(index, mail()) for index in range(first, first + 40)]
    admitted = LedgerJournal(ledger, fingerprint).admit(iter(requests))
    reserved: list[list[int]] = []
    reserve = ledger.reserve

    def watch(rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress]) -> Reservation:
        reserved.append([index for index, _ in rows])
        return reserve(rows, progress)

    ledger.reserve = watch  # type: ignore[method-assign,assignment]
    assert [passed_on(admitted).index for _ in requests] == [request.index for request in requests]
    assert reserved[0] == list(range(first, BLOCK_ROWS))
    assert list(itertools.chain.from_iterable(reserved)) == [request.index for request in requests]


def test_rows_that_come_slowly_are_not_gathered_for_long() -> None:
    """The first of a hundred would wait for all of them."""
    come: list[SendRequest] = []

    def slowly(items: Iterable[SendRequest]) -> Iterator[SendRequest]:
        for item in items:
            time.sleep(0.06)
            come.append(item)
            yield item

    ledger = MergeLedger(Memory(), window=256)
    assert passed_on(LedgerJournal(ledger, fingerprint).admit(slowly(send_requests(100)))).index == 0
    assert len(come) < 100


# --- What is recorded.


@pytest.mark.parametrize(
    ("delivery", "known"),
    [
        (became(Outcome.ACCEPTED, accepted=(A, B, C)), PriorRow(RowState.ACCEPTED)),
        (
            became(Outcome.PARTIAL, RefusedError("", retryable=True), accepted=(A,), refused={B: LATER, C: NEVER}),
            PriorRow(RowState.RETRY, Progress((A,), {C: "550 5.1.1 no"})),
        ),
        (
            became(Outcome.PARTIAL, RefusedError(""), accepted=(A, B), refused={C: NEVER}),
            PriorRow(RowState.PARTIAL, Progress((A, B), {C: "550 5.1.1 no"})),
        ),
        (
            became(Outcome.PARTIAL, ConnectionLostError("", phase=Phase.ENVELOPE), accepted=(A,)),
            PriorRow(RowState.RETRY, Progress((A,))),
        ),
        # A file that is removed before the rest of the recipients have it: they lack the mail nevertheless.
        (became(Outcome.PARTIAL, MessageError(""), accepted=(A,)), PriorRow(RowState.RETRY, Progress((A,)))),
        (
            became(Outcome.REFUSED, RefusedError(""), refused={A: NEVER, B: NEVER, C: NEVER}),
            PriorRow(RowState.REFUSED, Progress((), dict.fromkeys((A, B, C), "550 5.1.1 no"))),
        ),
        (
            became(Outcome.REFUSED, RefusedError("", retryable=True), refused={A: LATER, B: LATER}),
            PriorRow(RowState.RETRY),
        ),
        (became(Outcome.NOT_SENT, ConnectionLostError("", phase=Phase.DATA)), PriorRow(RowState.RETRY)),
        (became(Outcome.NOT_SENT, MessageError("")), PriorRow(RowState.FAILED)),
        (became(Outcome.UNKNOWN, OutcomeUnknownError("")), PriorRow(RowState.UNKNOWN)),
        (
            became(Outcome.UNKNOWN, OutcomeUnknownError(""), accepted=(A,), refused={B: LATER, C: NEVER}),
            PriorRow(RowState.UNKNOWN, Progress((A,), {C: "550 5.1.1 no"})),
        ),
    ],
    ids=lambda value: f"{value.outcome}" if isinstance(value, Delivery) else "",
)
def test_the_next_try_knows_what_became_of_it(delivery: Delivery, known: PriorRow) -> None:
    """And of each recipient."""
    assert known_after(SendRequest(0, mail()), delivery) == known


def test_who_has_it_is_known_also_while_the_rest_is_on_its_way() -> None:
    """If the process is killed then, the next attempt, which resends what is in doubt, surely mails no one twice."""
    store = Memory()
    ledger = MergeLedger(store)
    journal = LedgerJournal(ledger, fingerprint)
    passed_on(journal.admit(iter((SendRequest(0, mail(), (B,), (A,), {C: NEVER}),))))
    known = MergeLedger(store).prior(0, fingerprint(0))
    assert known == PriorRow(RowState.OPEN, Progress((A,), {C: "550 5.1.1 no"}))
    again = pending_request(0, mail(), known)
    assert again is not None
    assert (again.recipients, again.accepted, {who: str(said) for who, said in again.refused.items()}) == (
        (B,),
        (A,),
        {C: "550 5.1.1 no"},
    )


def test_of_what_is_never_heard_of_it_stays_known_who_had_it() -> None:
    """Before it was sent to the others."""
    store = Memory()
    ledger = MergeLedger(store)
    journal = LedgerJournal(ledger, fingerprint)
    passed_on(journal.admit(iter((SendRequest(0, mail(), (B, C), (A,)),))))
    journal.abandon(0)
    journal.close()
    ledger.end(RunState.UNFINISHED)
    assert MergeLedger(store).prior(0, fingerprint(0)) == PriorRow(RowState.UNKNOWN, Progress((A,)))
    assert journal.in_doubt == {}


# --- What an earlier attempt may have delivered.


def in_doubt(store: Memory) -> MergeLedger:
    """The ledger of an attempt whose mail may have been delivered to two recipients, and was refused for one."""
    ledger = MergeLedger(store)
    ledger.record(0, RowState.UNKNOWN, Progress((), {C: "550 5.1.1 no"}), fingerprint=fingerprint(0))
    ledger.end(RunState.UNFINISHED)
    return MergeLedger(store, window=16)


@pytest.mark.parametrize("heard", [True, False])
def test_a_refusal_of_the_copy_stays_a_doubt_also_while_the_next_turn_is_on_its_way(heard: bool) -> None:
    """And after a process that was killed then; who was refused before there was a doubt is not in it."""
    store = Memory()
    ledger = in_doubt(store)
    journal = LedgerJournal(ledger, fingerprint)
    first = pending_request(0, mail(), PriorRow(RowState.UNKNOWN, Progress((), {C: "550 5.1.1 no"})))
    assert first is not None
    turns: list[SendRequest | float] = [first]
    admitted = journal.admit(turns.pop() if turns else -math.inf for _ in itertools.repeat(None))
    passed_on(admitted)
    turns.append(SendRequest(0, mail(), (B,), (), {A: NEVER, C: NEVER}))
    refused = became(Outcome.REFUSED, RefusedError("no", retryable=True), refused={A: NEVER, B: LATER, C: NEVER})
    journal.on_result(refused, (B,))
    told = journal.annotate(refused)
    assert told.outcome is Outcome.UNKNOWN
    assert f"may have been delivered to {A}, {B} by an earlier attempt" in str(told.error)
    passed_on(admitted)
    if heard:
        journal.on_result(became(Outcome.REFUSED, RefusedError("no"), refused={A: NEVER, B: NEVER, C: NEVER}), ())
    journal.close()
    ledger.end(RunState.UNFINISHED)
    known = MergeLedger(store).prior(0, fingerprint(0))
    assert known == PriorRow(RowState.UNKNOWN if heard else RowState.OPEN, Progress((), {C: "550 5.1.1 no"}))


def test_what_was_to_be_sent_in_spite_of_a_doubt_and_was_not_stays_in_doubt() -> None:
    """It was written down already."""
    store = Memory()
    ledger = in_doubt(store)
    ledger.rows_in_doubt[1] = Progress()
    journal = LedgerJournal(ledger, fingerprint)
    passed_on(journal.admit(iter(send_requests(2))))
    journal.close()
    ledger.end(RunState.UNFINISHED)
    known = MergeLedger(store).prior(1, fingerprint(1))
    assert known is not None
    assert known.state is RowState.UNKNOWN


def test_who_has_it_in_the_end_is_in_no_doubt() -> None:
    """Once every recipient has it, the mail is accepted."""
    store = Memory()
    ledger = in_doubt(store)
    journal = LedgerJournal(ledger, fingerprint)
    passed_on(journal.admit(iter((SendRequest(0, mail(), (A, B), (), {C: NEVER}),))))
    partial = became(Outcome.PARTIAL, RefusedError("no"), accepted=(A, B), refused={C: NEVER})
    journal.on_result(partial, ())
    assert journal.annotate(partial) is partial
    journal.close()
    ledger.end(RunState.UNFINISHED)
    assert MergeLedger(store).prior(0, fingerprint(0)) == PriorRow(
        RowState.PARTIAL, Progress((A, B), {C: "550 5.1.1 no"})
    )


# --- What was not passed on.


def test_what_was_written_down_and_not_passed_on_is_not_in_doubt() -> None:
    """The next attempt sends it without asking."""
    store = Memory()
    ledger = MergeLedger(store, window=8)
    journal = LedgerJournal(ledger, fingerprint)
    first = passed_on(journal.admit(iter(send_requests(8))))
    journal.close()
    ledger.end(RunState.UNFINISHED)
    again = MergeLedger(store)
    states = [known.state for row in range(8) if (known := again.prior(row, fingerprint(row))) is not None]
    assert states == [RowState.OPEN, *[RowState.RETRY] * (len(states) - 1)]
    assert len(states) > 1
    assert list(journal.in_doubt) == [first.index]


def test_what_is_being_written_down_when_the_sending_ends_is_not_in_doubt_either() -> None:
    """The write is under way, and cannot be taken back."""
    store = SlowOnce()
    ledger = MergeLedger(store, window=8)
    journal = LedgerJournal(ledger, fingerprint)
    wait_for_head(store)
    store.reached.clear()
    store.go_on.clear()
    admitted = journal.admit(itertools.chain(send_requests(4), itertools.repeat(None)))
    while not store.reached.is_set():
        assert isinstance(next(admitted), float)
        time.sleep(0.001)
    journal.close()
    store.go_on.set()
    ledger.end(RunState.UNFINISHED)
    again = MergeLedger(store)
    assert {known.state for row in range(4) if (known := again.prior(row, fingerprint(row))) is not None} == {
        RowState.RETRY
    }


def test_what_was_never_written_down_stays_as_an_earlier_try_left_it() -> None:
    """Who had it then has it still."""
    store = Memory()
    ledger = MergeLedger(store, window=1)
    journal = LedgerJournal(ledger, fingerprint)
    resumed = SendRequest(1, mail(), (B, C), (A,))
    ledger.record(1, RowState.RETRY, Progress((A,)), fingerprint=fingerprint(1))
    passed_on(journal.admit(itertools.chain((SendRequest(0, mail()), resumed), itertools.repeat(None))))
    journal.close()
    ledger.end(RunState.UNFINISHED)
    assert MergeLedger(store).prior(1, fingerprint(1)) == PriorRow(RowState.RETRY, Progress((A,)))


# --- What the next attempt does.


def test_an_address_that_was_mended_is_asked_and_not_taken_for_one_that_has_it() -> None:
    """The task was cleared, so the cause may have been fixed."""
    known = PriorRow(RowState.RETRY, Progress((A,), {C: "550 5.1.1 no"}))
    send_request = pending_request(0, mail(A, B, "new@corp.example"), known)
    assert send_request is not None
    assert (send_request.recipients, send_request.accepted, send_request.refused) == (
        (B, "new@corp.example"),
        (A,),
        {},
    )


def test_who_was_refused_for_good_is_not_asked_by_airflow_s_own_retry() -> None:
    """As long as there is another recipient."""
    known = PriorRow(RowState.RETRY, Progress((A,), {C: "550 5.1.1 no"}))
    send_request = pending_request(0, mail(), known)
    assert send_request is not None
    assert (send_request.recipients, set(send_request.refused)) == ((B,), {C})
    only = pending_request(0, mail(A, C), known)
    assert only is not None
    assert (only.recipients, only.refused) == ((C,), {})


def test_when_everybody_who_is_left_has_it_nobody_is_asked() -> None:
    """The refused address was removed from the mail: sending it to everyone again would be worse than not at all."""
    assert pending_request(0, mail(A), PriorRow(RowState.PARTIAL, Progress((A,), {C: "550 no"}))) is None


def test_who_was_refused_for_good_is_not_in_doubt_with_the_others() -> None:
    """An attempt that never starts the mail names those who may have it, and no one else."""
    known = PriorRow(RowState.OPEN, Progress((A,), {B: "550 no such mailbox"}))
    delivery = not_begun_delivery(0, mail(A, B, C), known, MessageError("The report is gone."))
    assert delivery.outcome is Outcome.UNKNOWN
    assert f"may have been delivered to {C} by" in str(delivery.error)
