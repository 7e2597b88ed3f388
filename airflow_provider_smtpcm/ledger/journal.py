"""The journal of a batch, kept in a ledger: no mail is sent before it is written there as about to be sent.

Also what an attempt makes of the deliveries of earlier ones: which recipients are still pending, and which may have the
mail although no answer came.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError, RefusedError, Reply
from airflow_provider_smtpcm.ledger.ledger import UNSEEN, Ledger, PriorRow, Reservation
from airflow_provider_smtpcm.ledger.record import FINGERPRINT_OCTETS, NO_PROGRESS, Progress, RowState
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.remedies import format_addresses

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail

# Seconds for which the first request of a reservation waits for others: rows may come slowly.
_GATHERING = 0.05


class LedgerJournal:
    """Writes requests to a ledger before they are sent, and their results afterwards; see `smtp.retry.Journal`.

    Args:
        ledger: open.
        fingerprint: returns the fingerprint of a row by its index.
    """

    def __init__(self, ledger: Ledger, fingerprint: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._fingerprint = fingerprint
        self._gathered: list[SendRequest] = []
        self._reserved: tuple[Reservation, deque[SendRequest]] | None = None
        # Written down, and not passed on yet.
        self._open: deque[SendRequest] = deque()
        #: The requests that were passed on and have no result yet, by their index.
        self.in_doubt: dict[int, SendRequest] = {}
        # The recipients who may have the mail by an earlier attempt, of requests that are sent nevertheless.
        self._may_have: dict[int, tuple[str, ...]] = {}

    def admit(self, requests: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
        """Pass requests on once they are written down.

        The next ones are gathered and written down while those before them are sent.

        Args:
            requests: a number means that there is none before that moment (`time.monotonic`), unless a result arrives.

        Yields:
            Requests, and numbers with the same meaning.

        Raises:
            LedgerError: they cannot be written.
        """
        is_exhausted = False
        gathering_since = 0.0
        while True:
            self._ledger.check()
            next_at = math.inf
            is_idle = is_exhausted or len(self._gathered) >= self._ledger.batch_rows
            if self._gathered and time.monotonic() - gathering_since > _GATHERING:
                is_idle = True
            if not is_idle:
                item = next(requests, None)
                is_exhausted, is_idle = item is None, not isinstance(item, SendRequest)
                if isinstance(item, float):
                    next_at = item
                elif item is not None:
                    gathering_since = gathering_since if self._gathered else time.monotonic()
                    self._gathered.append(item)
            self._reserve(is_idle=is_idle)
            if self._open:
                request = self._open.popleft()
                self.in_doubt[request.index] = request
                yield request
            elif is_exhausted and not self._gathered and self._reserved is None:
                return
            elif is_idle:
                yield next_at

    def set_wakeup(self, wake: Callable[[], None]) -> None:
        """Set what to call, from the ledger's thread, when there may be requests to pass on again."""
        self._ledger.on_write = wake

    def _reserve(self, *, is_idle: bool) -> None:
        if self._reserved is not None:
            reservation, waiting = self._reserved
            self._pass_on(waiting, len(waiting) - len(reservation.rows) + reservation.written)
            if not waiting:
                self._reserved = None
        if self._reserved is None and self._gathered and is_idle:
            if self._ledger.rows_in_doubt:
                self._note_rows_in_doubt()
            rows = [(request.index, self._fingerprint(request.index)) for request in self._gathered]
            progress = {request.index: known for request in self._gathered if (known := self._progress_of(request))}
            self._reserved = self._ledger.reserve(rows, progress), deque(self._gathered)
            self._gathered = []

    def _pass_on(self, waiting: deque[SendRequest], count: int) -> None:
        for _ in range(count):
            self._open.append(waiting.popleft())

    def on_result(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """Record the result of a request.

        Args:
            delivery: the result.
            left: the recipients whom another transaction may reach.
        """
        asked = _recipients_of(self.in_doubt[delivery.index])
        in_doubt = set(self._still_in_doubt(delivery))
        # A refusal does not disprove that an earlier attempt delivered the mail.
        rejected = {
            address: str(reply)
            for address, reply in delivery.refused.items()
            if not reply.transient and address not in in_doubt
        }
        state = RowState.UNKNOWN if in_doubt else _row_state(delivery, asked, left)
        self._ledger.record(
            delivery.index,
            state,
            NO_PROGRESS if state is RowState.ACCEPTED else Progress(delivery.accepted, rejected),
        )
        del self.in_doubt[delivery.index]  # last, so that an interruption finds it in doubt rather than not begun

    def abandon(self, index: int) -> None:
        """Record that a request which was passed on will have no result."""
        self._ledger.record(index, RowState.UNKNOWN, self._progress_of(self.in_doubt.pop(index)))

    def annotate(self, delivery: Delivery) -> Delivery:
        """Return the delivery adjusted for earlier attempts."""
        return downgraded(delivery, self._still_in_doubt(delivery))

    def _note_rows_in_doubt(self) -> None:
        for request in self._gathered:
            progress = self._ledger.rows_in_doubt.get(request.index)
            if progress is not None and request.index not in self._may_have:
                self._may_have[request.index] = _pending(request.mail, progress)

    def _still_in_doubt(self, delivery: Delivery) -> tuple[str, ...]:
        may_have = self._may_have.get(delivery.index)
        if not may_have:
            return ()
        accepted = set(delivery.accepted)
        return tuple(address for address in may_have if address not in accepted)

    def _progress_of(self, request: SendRequest) -> Progress:
        may_have = set(self._may_have.get(request.index, ()))
        refused = request.refused.items()
        return Progress(
            request.accepted, {address: str(reply) for address, reply in refused if address not in may_have}
        )

    def close(self) -> None:
        """Record that nothing more is sent: requests that were written down but not passed on are not in doubt."""
        if self._reserved is not None:
            reservation, waiting = self._reserved
            self._pass_on(waiting, len(waiting) - len(reservation.rows) + self._ledger.withdraw(reservation))
        self._reserved = None
        for request in self._open:
            state = RowState.UNKNOWN if self._may_have.get(request.index) else RowState.AGAIN
            self._ledger.record(request.index, state, self._progress_of(request))
        self._open.clear()


def _row_state(delivery: Delivery, asked: Sequence[str], left: tuple[str, ...]) -> RowState:
    outcome = delivery.outcome
    if outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN):
        return RowState.ACCEPTED if outcome == Outcome.ACCEPTED else RowState.UNKNOWN
    if left or (outcome == Outcome.PARTIAL and delivery.never_asked(asked)):
        return RowState.AGAIN
    if outcome in (Outcome.PARTIAL, Outcome.REFUSED):
        return RowState.PARTIAL if outcome == Outcome.PARTIAL else RowState.REFUSED
    return RowState.FAILED if isinstance(delivery.error, MessageError) else RowState.AGAIN


def _recipients_of(request: SendRequest) -> tuple[str, ...]:
    return request.recipients or tuple(address.address for address in request.mail.recipients)


class PriorDelivery:
    """What earlier attempts of a task that sends one mail left of it.

    Args:
        ledger: of the task; None: this Airflow stores none.
    """

    # The mail of the task is the same mail whatever its text: a date in the text changes with every attempt.
    _FINGERPRINT = bytes(FINGERPRINT_OCTETS)

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._row: PriorRow | None = None if ledger is None else ledger.prior(0, self._FINGERPRINT)
        #: The journal for sending the mail.
        self.journal = None if ledger is None else LedgerJournal(ledger, lambda _: self._FINGERPRINT)

    def accepted(self) -> Delivery | None:
        """Return the delivery, if every recipient has the mail; this does not need the mail, which may be costly."""
        if self._ledger is None or self._row is None or self._row.state is not RowState.ACCEPTED:
            return None
        stored = self._ledger.stored_result()
        return Delivery.from_dict(stored) if stored is not None and stored["outcome"] == Outcome.ACCEPTED else None

    def settled(self, mail: Mail, *, retry_unknown: bool) -> Delivery | None:
        """Return the delivery, if this attempt has nothing to send.

        Args:
            mail: as it would be sent.
            retry_unknown: whether a mail that may have been delivered is sent again.
        """
        if self._ledger is None or self._row is None:
            return None
        state, progress = self._row.state, self._row.progress
        if state in (RowState.ACCEPTED, RowState.PARTIAL):
            return self._stored_delivery(mail, Outcome.ACCEPTED if state is RowState.ACCEPTED else Outcome.PARTIAL)
        if self._row.is_in_doubt and not retry_unknown:
            self._ledger.record(0, RowState.UNKNOWN, progress)
            return Delivery(
                message_id=mail.message_id or "",
                outcome=Outcome.UNKNOWN,
                error=OutcomeUnknownError(
                    "The mail was about to be sent, or in flight, when an earlier attempt ended without knowing what "
                    "became of it. It is not sent again, since it may have been delivered.",
                    remedy="Look for it in the server's log; then mark the task as done, or clear it with "
                    "on_clear='send_again'.",
                ),
            )
        if self.pending_request(mail) is None:
            self._ledger.record(0, RowState.ACCEPTED)
            return self._stored_delivery(mail, Outcome.ACCEPTED)
        return None

    def pending_request(self, mail: Mail) -> SendRequest | None:
        """Return the request for the pending recipients; None: there are none."""
        return pending_request(0, mail, self._row or UNSEEN)

    def unchanged(self, mail: Mail, error: MailError) -> Delivery:
        """Return the delivery of a mail that this attempt did not begin to send; arguments as `unchanged_delivery`."""
        return unchanged_delivery(0, mail, self._row or UNSEEN, error)

    def annotate_error(self, error: MailError) -> MailError:
        """Return the error of this attempt, with the fact that an earlier one may have delivered the mail."""
        if self._row is None or not self._row.is_in_doubt:
            return error
        return in_doubt_error("The mail may have been delivered", error)

    def store(self, delivery: Delivery) -> None:
        """Store the delivery, for the result of a later attempt that finds the mail delivered."""
        if self._ledger is not None and delivery.accepted:
            self._ledger.store_result(delivery.to_dict())

    def close(self) -> None:
        """Record that nothing more is sent."""
        if self.journal is not None:
            self.journal.close()

    def _stored_delivery(self, mail: Mail, outcome: Outcome) -> Delivery:
        """Return what `store` has stored, or what the row says, if the attempt ended just before it was stored."""
        assert self._ledger is not None
        assert self._row is not None
        stored = self._ledger.stored_result()
        if stored is not None and stored["outcome"] == outcome:
            return Delivery.from_dict(stored)
        progress = self._row.progress if outcome is Outcome.PARTIAL else NO_PROGRESS
        rejected = progress.rejected
        return Delivery(
            message_id=mail.message_id or "",
            outcome=outcome,
            accepted=progress.accepted or tuple(address.address for address in mail.recipients),
            refused={address: _parse_reply(text) for address, text in rejected.items()},
            error=RefusedError(f"An earlier attempt was refused for {', '.join(rejected)}.") if rejected else None,
        )


def pending_request(index: int, mail: Mail, row: PriorRow) -> SendRequest | None:
    """Return the request for the recipients who lack a mail; None: all have it.

    Args:
        index: the row's index.
        mail: as it is now; an address may have been fixed since the earlier attempt.
        row: what the earlier attempts left.
    """
    if not row.progress:
        return SendRequest(index, mail)
    accepted, rejected = set(row.progress.accepted), row.progress.rejected
    lacking = [address.address for address in mail.recipients if address.address not in accepted]
    pending = [address for address in lacking if address not in rejected]
    if not lacking:
        return None
    if not pending:
        return SendRequest(index, mail, tuple(lacking), row.progress.accepted)
    refused = {address: _parse_reply(rejected[address]) for address in lacking if address in rejected}
    return SendRequest(index, mail, tuple(pending), row.progress.accepted, refused)


def unchanged_delivery(index: int, mail: Mail, row: PriorRow, error: MailError) -> Delivery:
    """Return the delivery of a mail that this attempt did not begin to send.

    Args:
        index: the row's index.
        mail: as it is now.
        row: what the earlier attempts left.
        error: why it was not begun.
    """
    delivery = (pending_request(index, mail, row) or SendRequest(index, mail)).not_sent(error)
    return downgraded(delivery, _pending(mail, row.progress)) if row.is_in_doubt else delivery


def _pending(mail: Mail, progress: Progress) -> tuple[str, ...]:
    known = {*progress.accepted, *progress.rejected}
    return tuple(address.address for address in mail.recipients if address.address not in known)


def downgraded(delivery: Delivery, in_doubt: Sequence[str]) -> Delivery:
    """Downgrade a delivery to `unknown` if an earlier attempt may have delivered the mail.

    Args:
        delivery: the result of this attempt.
        in_doubt: the recipients who may have it by an earlier attempt, and were not accepted in this one.
    """
    if not in_doubt or delivery.error is None:
        return delivery
    return replace(
        delivery,
        outcome=Outcome.UNKNOWN,
        error=in_doubt_error(
            f"{delivery.message_id} may have been delivered to {format_addresses(in_doubt)}", delivery.error
        ),
    )


def in_doubt_error(what: str, error: MailError) -> OutcomeUnknownError:
    """Return the error of an attempt that could not settle what an earlier one left in doubt.

    Args:
        what: a clause that says what may have been delivered, and to which recipients.
        error: the error of this attempt.
    """
    return OutcomeUnknownError(
        f"{what} by an earlier attempt, to which no answer came. This attempt: {error.message}",
        remedy="Look for it in the server's log or message tracking before you send it yourself. "
        f"{error.remedy}".strip(),
        phase=error.phase,
        reply=error.reply,
        retryable=error.retryable,
    )


def _parse_reply(text: str) -> Reply:
    """Read a reply as `Progress.rejected` holds it: `str(reply)`."""
    return Reply(code=int(text[:3]), text=text[4:])
