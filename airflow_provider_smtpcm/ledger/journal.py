"""Nothing is sent that the ledger does not know as about to be sent; it hears what became of it. Knows no server."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError, RefusedError, Reply
from airflow_provider_smtpcm.ledger.ledger import NOTHING, RESULT, Known, Ledger, Reservation
from airflow_provider_smtpcm.ledger.record import EVERYBODY, MARK, Rest, State
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome, SendRequest
from airflow_provider_smtpcm.smtp.outgoing import not_prepared
from airflow_provider_smtpcm.smtp.remedies import some_of

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail


# So many seconds the first one waits for others to be written down with it: rows may come slowly.
_GATHERING = 0.05


class LedgerJournal:
    """A gate between those who make mails and those who send them; see `smtp.batch.Journal`.

    Args:
        ledger: open.
        mark: tells a row, by its index, from all others.
    """

    def __init__(self, ledger: Ledger, mark: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._mark = mark
        self._gathered: list[SendRequest] = []
        self._reserved: tuple[Reservation, deque[SendRequest]] | None = None
        self._open: deque[SendRequest] = deque()
        #: The errands that were passed on, and of which nothing was heard.
        self.in_doubt: dict[int, SendRequest] = {}
        # Who may have it by an earlier try, of errands that were sent although that is so.
        self._doubted: dict[int, tuple[str, ...]] = {}

    def admit(self, errands: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
        """Pass errands on once they are written down.

        A number stands for nothing before that moment (`time.monotonic`), unless a delivery comes or `wake` is called.
        The next ones are gathered and written down while those before them are sent.

        Raises:
            LedgerError: they cannot be written.
        """
        exhausted = False
        gathering_since = 0.0
        while True:
            self._ledger.check()
            until = math.inf
            idle = exhausted or len(self._gathered) >= self._ledger.at_once
            if self._gathered and time.monotonic() - gathering_since > _GATHERING:
                idle = True
            if not idle:
                item = next(errands, None)
                exhausted, idle = item is None, not isinstance(item, SendRequest)
                if isinstance(item, float):
                    until = item
                elif item is not None:
                    gathering_since = gathering_since if self._gathered else time.monotonic()
                    self._gathered.append(item)
            self._reserve(idle=idle)
            if self._open:
                errand = self._open.popleft()
                self.in_doubt[errand.index] = errand
                yield errand
            elif exhausted and not self._gathered and self._reserved is None:
                return
            elif idle:
                yield until

    def wakes(self, wake: Callable[[], None]) -> None:
        """What to call, from the ledger's thread, when there may be errands to pass on again."""
        self._ledger.on_write = wake

    def _reserve(self, *, idle: bool) -> None:
        if self._reserved is not None:
            reservation, waiting = self._reserved
            self._pass_on(waiting, len(waiting) - len(reservation.rows) + reservation.written)
            if not waiting:
                self._reserved = None
        if self._reserved is None and self._gathered and idle:
            if self._ledger.doubts:
                self._remember_doubts()
            rows = [(errand.index, self._mark(errand.index)) for errand in self._gathered]
            rests = {errand.index: rest for errand in self._gathered if (rest := self._rest_of(errand))}
            self._reserved = self._ledger.reserve(rows, rests), deque(self._gathered)
            self._gathered = []

    def _pass_on(self, waiting: deque[SendRequest], count: int) -> None:
        for _ in range(count):
            self._open.append(waiting.popleft())

    def on_result(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """Write down what became of an errand, and who of its recipients may be asked again."""
        asked = _asked(self.in_doubt[delivery.index])
        doubted = set(self._in_doubt_after(delivery))
        # A refusal does not take back what an earlier try may have delivered.
        lost = {
            address: str(reply)
            for address, reply in delivery.refused.items()
            if not reply.transient and address not in doubted
        }
        never_asked = bool(delivery.never_asked(asked))
        state = State.UNKNOWN if doubted else _state(delivery, left, never_asked=never_asked)
        self._ledger.record(
            delivery.index, state, EVERYBODY if state is State.ACCEPTED else Rest(delivery.accepted, lost)
        )
        del self.in_doubt[delivery.index]  # last, so that an interruption finds it in doubt rather than not begun

    def never_heard(self, index: int) -> None:
        """What became of this one nobody will say any more."""
        self._ledger.record(index, State.UNKNOWN, self._rest_of(self.in_doubt.pop(index)))

    def annotate(self, delivery: Delivery) -> Delivery:
        """As it is with what an earlier try may have delivered."""
        return doubtful(delivery, self._in_doubt_after(delivery))

    def _remember_doubts(self) -> None:
        for errand in self._gathered:
            known = self._ledger.doubts.get(errand.index)
            if known is not None and errand.index not in self._doubted:
                self._doubted[errand.index] = _who_may_have(errand.mail, known)

    def _in_doubt_after(self, delivery: Delivery) -> tuple[str, ...]:
        doubted = self._doubted.get(delivery.index)
        if not doubted:
            return ()
        accepted = set(delivery.accepted)
        return tuple(address for address in doubted if address not in accepted)

    def _rest_of(self, errand: SendRequest) -> Rest:
        doubted = set(self._doubted.get(errand.index, ()))
        refused = errand.refused.items()
        return Rest(errand.accepted, {address: str(reply) for address, reply in refused if address not in doubted})

    def close(self) -> None:
        """Nothing more is sent: what was written down and not passed on is not on its way."""
        if self._reserved is not None:
            reservation, waiting = self._reserved
            self._pass_on(waiting, len(waiting) - len(reservation.rows) + self._ledger.withdraw(reservation))
        self._reserved = None
        for errand in self._open:
            state = State.UNKNOWN if self._doubted.get(errand.index) else State.AGAIN
            self._ledger.record(errand.index, state, self._rest_of(errand))
        self._open.clear()


def _state(delivery: Delivery, left: tuple[str, ...], *, never_asked: bool) -> State:
    outcome = str(delivery.outcome)
    if outcome in ("accepted", "unknown"):
        return State.ACCEPTED if outcome == "accepted" else State.UNKNOWN
    if left or (outcome == "partial" and never_asked):
        return State.AGAIN
    if outcome in ("partial", "refused"):
        return State.PARTIAL if outcome == "partial" else State.REFUSED
    return State.FAILED if isinstance(delivery.error, MessageError) else State.AGAIN


def _asked(errand: SendRequest) -> tuple[str, ...]:
    return errand.recipients or tuple(address.address for address in errand.mail.recipients)


def errand_of(index: int, mail: Mail, known: Known) -> SendRequest | None:
    """The mail for those who lack it; None: nobody does.

    Args:
        index: its place.
        mail: as it is now: somebody may have mended an address.
        known: who has it.
    """
    if not known.rest:
        return SendRequest(index, mail)
    has, lost = set(known.rest.accepted), known.rest.lost
    lacking = [address.address for address in mail.recipients if address.address not in has]
    recipients = [address for address in lacking if address not in lost]
    if not lacking:
        return None
    if not recipients:
        return SendRequest(index, mail, tuple(lacking), known.rest.accepted)
    refused = {address: parsed(lost[address]) for address in lacking if address in lost}
    return SendRequest(index, mail, tuple(recipients), known.rest.accepted, refused)


def as_before(index: int, mail: Mail, known: Known, error: MailError) -> Delivery:
    """What became of a mail that this try did not begin with: who has it, or may have it, by the tries before.

    Args:
        index: its place.
        mail: as it is now.
        known: what the tries before left of it.
        error: why it was not begun.
    """
    delivery = not_prepared(errand_of(index, mail, known) or SendRequest(index, mail), mail, error)
    if not known.in_doubt:
        return delivery
    return doubtful(delivery, _who_may_have(mail, known.rest))


def _who_may_have(mail: Mail, rest: Rest) -> tuple[str, ...]:
    """The recipients of a mail in doubt of whom it is not known that they have it, or were refused for good."""
    known = {*rest.accepted, *rest.lost}
    return tuple(address.address for address in mail.recipients if address.address not in known)


def doubtful(delivery: Delivery, doubted: Sequence[str]) -> Delivery:
    """The delivery of a mail that an earlier try may have delivered, whatever this one came to.

    Args:
        delivery: what this try came to.
        doubted: who may have it by an earlier one, and was not accepted by this one.
    """
    if not doubted or delivery.error is None:
        return delivery
    return replace(
        delivery,
        outcome=Outcome.UNKNOWN,
        error=doubt(f"{delivery.message_id} may have been delivered to {some_of(doubted)}", delivery.error),
    )


def doubt(what: str, error: MailError) -> OutcomeUnknownError:
    """That an earlier try may have delivered it stays true, whatever kept this one from doing so.

    Args:
        what: may have been delivered, and to whom.
        error: with what this try ended.
    """
    return OutcomeUnknownError(
        f"{what} by an earlier try, of which no answer is known. This try: {error.message}",
        remedy="Look for it in the server's log or message tracking before you send it yourself. "
        f"{error.remedy}".strip(),
        phase=error.phase,
        reply=error.reply,
        retryable=error.retryable,
    )


def parsed(said: str) -> Reply:
    """A reply as it was written down."""
    return Reply(code=int(said[:3]), text=said[4:])


# folded: The ledger of a task that sends one mail: what became of it before, and who lacks it. Knows no server.

# The one mail of a task is the same whatever its text: a date in it changes with every try.
_THE_ONE = bytes(MARK)


class PastDelivery:
    """What earlier tries left of the mail.

    Args:
        ledger: of the task; None: nobody wrote it down.
    """

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._known: Known | None = None if ledger is None else ledger.known(0, _THE_ONE)
        #: What is asked before the mail is sent, and told afterwards.
        self.journal = None if ledger is None else LedgerJournal(ledger, lambda _: _THE_ONE)

    def accepted(self) -> Delivery | None:
        """The delivery, if everybody has the mail; to know that, it need not be made again, which may be dear."""
        if self._ledger is None or self._known is None or self._known.state is not State.ACCEPTED:
            return None
        kept = self._ledger.kept(RESULT)
        return Delivery.from_dict(kept) if kept is not None and kept["outcome"] == Outcome.ACCEPTED else None

    def settled(self, mail: Mail, *, retry_unknown: bool) -> Delivery | None:
        """The delivery, if nothing is left to be done.

        Args:
            mail: as it would be sent.
            retry_unknown: whether what may have been delivered is sent again.
        """
        if self._ledger is None or self._known is None:
            return None
        state, rest = self._known.state, self._known.rest
        if state in (State.ACCEPTED, State.PARTIAL):
            return self._kept(mail, Outcome.ACCEPTED if state is State.ACCEPTED else Outcome.PARTIAL)
        if state in (State.OPEN, State.UNKNOWN) and not retry_unknown:
            self._ledger.record(0, State.UNKNOWN, rest)
            return Delivery(
                message_id=mail.message_id or "",
                outcome=Outcome.UNKNOWN,
                error=OutcomeUnknownError(
                    "The mail was about to be sent, or on its way, when an earlier try ended without knowing what "
                    "became of it. It is not sent again, since it may have been delivered.",
                    remedy="Look for it in the server's log; then mark the task as done, or clear it with "
                    "on_clear='send_again'.",
                ),
            )
        if self.errand(mail) is None:
            self._ledger.record(0, State.ACCEPTED)
            return self._kept(mail, Outcome.ACCEPTED)
        return None

    def errand(self, mail: Mail) -> SendRequest | None:
        """The mail for those who lack it; None: nobody does."""
        if self._ledger is None or self._known is None:
            return SendRequest(0, mail)
        return errand_of(0, mail, self._known)

    def as_before(self, mail: Mail, error: MailError) -> Delivery:
        """What became of it, where this try did not begin with it."""
        return as_before(0, mail, self._known or NOTHING, error)

    def with_doubt(self, error: MailError) -> MailError:
        """Why no mail was sent; that an earlier try may have delivered it is not forgotten for that."""
        if self._known is None or not self._known.in_doubt:
            return error
        return doubt("The mail may have been delivered", error)

    def _kept(self, mail: Mail, outcome: Outcome) -> Delivery:
        """What `keep` has stored, or, where the try ended just before, what the rows say."""
        assert self._ledger is not None
        assert self._known is not None
        kept = self._ledger.kept(RESULT)
        if kept is not None and kept["outcome"] == outcome:
            return Delivery.from_dict(kept)
        rest = self._known.rest if outcome is Outcome.PARTIAL else EVERYBODY
        return Delivery(
            message_id=mail.message_id or "",
            outcome=outcome,
            accepted=rest.accepted or tuple(address.address for address in mail.recipients),
            refused={address: parsed(said) for address, said in rest.lost.items()},
            error=RefusedError(f"An earlier try was refused for {', '.join(rest.lost)}.") if rest.lost else None,
        )

    def close(self) -> None:
        """Nothing more is sent."""
        if self.journal is not None:
            self.journal.close()

    def keep(self, delivery: Delivery) -> None:
        """Keep what became of it, for the result of a try that finds it done."""
        if self._ledger is not None and delivery.accepted:
            self._ledger.keep(delivery.to_dict())
