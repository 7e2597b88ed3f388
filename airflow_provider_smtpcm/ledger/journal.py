"""The write-ahead journal of a batch, in a ledger: each mail is recorded as open before it is sent.

The functions at the end decide how an attempt resumes a mail of an earlier one: which recipients are still pending, and
which may have the mail although no reply came.
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
from airflow_provider_smtpcm.ledger.record import BLOCK_ROWS, FINGERPRINT_OCTETS, NO_PROGRESS, Progress, RowState
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome, format_addresses
from airflow_provider_smtpcm.smtp.queue import SendRequest

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.mime_message import AnyMail

# If nothing else is ready, the first request of a reservation waits at most this many seconds for others: rows may come
# slowly.
_GATHER_SECONDS = 0.05


class LedgerJournal:
    """Records requests in a ledger before they are sent, and their results afterward; see `smtp.retry.Journal`.

    Args:
        ledger: an open ledger.
        fingerprint: returns the fingerprint of a row by its index.
    """

    def __init__(self, ledger: Ledger, fingerprint: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._fingerprint = fingerprint
        self._gathered: list[SendRequest] = []
        # The latest reservation, with those of its requests that are not recorded yet.
        self._reservation: tuple[Reservation, deque[SendRequest]] | None = None
        # Requests that are recorded and not passed on yet.
        self._ready: deque[SendRequest] = deque()
        #: The requests that were passed on and have no result yet, by their index.
        self.in_doubt: dict[int, SendRequest] = {}
        # The recipients who may have the mail from an earlier attempt, by the index of the request.
        self._maybe_delivered: dict[int, tuple[str, ...]] = {}

    def admit(self, requests: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
        """Pass requests on once they are recorded; the next ones are recorded while these are sent.

        Args:
            requests: the requests. A float instead of a request means that there is none before this time
                (`time.monotonic`), unless a result arrives first.

        Yields:
            Requests, and floats with the same meaning.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        is_exhausted = False
        gathering_since = 0.0
        while True:
            self._ledger.raise_if_failed()
            next_at = math.inf
            is_gathered = is_exhausted or self._is_gathered(gathering_since)
            if not is_gathered:
                item = next(requests, None)
                is_exhausted, is_gathered = item is None, not isinstance(item, SendRequest)
                if isinstance(item, float):
                    next_at = item
                elif item is not None:
                    gathering_since = gathering_since if self._gathered else time.monotonic()
                    self._gathered.append(item)
            if is_gathered or not self._ready:
                self._release()
                if is_gathered:
                    self._reserve()
                    self._release()  # `SingleMailLedger` has written it already
            if self._ready:
                request = self._ready.popleft()
                self.in_doubt[request.index] = request
                yield request
            elif is_exhausted and not self._gathered and self._reservation is None:
                return
            elif is_gathered:
                yield next_at

    def set_wakeup(self, wake: Callable[[], None]) -> None:
        """Set the function that the ledger's thread calls when requests may be ready."""
        self._ledger.on_write = wake

    def _is_gathered(self, since: float) -> bool:
        """Return whether the requests gathered since this time are to be reserved, even if the source has more."""
        if not self._gathered:
            return False
        if len(self._gathered) >= self._ledger.batch_rows:
            return True
        if (self._gathered[-1].index + 1) % BLOCK_ROWS == 0:  # rows of two blocks take two writes
            return True
        # While others are ready, waiting costs nothing, and a larger reservation saves writes.
        return not self._ready and time.monotonic() - since > _GATHER_SECONDS

    def _reserve(self) -> None:
        """Reserve the gathered requests, if no reservation is pending."""
        if self._reservation is not None or not self._gathered:
            return
        if self._ledger.rows_in_doubt:
            self._note_rows_in_doubt()
        rows = [(request.index, self._fingerprint(request.index)) for request in self._gathered]
        progress = {
            request.index: self.get_progress(request)
            for request in self._gathered
            if request.accepted or request.refused
        }
        self._reservation = self._ledger.reserve(rows, progress), deque(self._gathered)
        self._gathered = []

    def _release(self) -> None:
        """Move the requests that are written from the pending reservation to `_ready`."""
        if self._reservation is not None:
            reservation, waiting = self._reservation
            self._make_ready(waiting, keep=len(reservation.rows) - reservation.written)
            if not waiting:
                self._reservation = None

    def _make_ready(self, waiting: deque[SendRequest], *, keep: int) -> None:
        while len(waiting) > keep:
            self._ready.append(waiting.popleft())

    def on_result(self, delivery: Delivery, pending: tuple[str, ...]) -> None:
        """Record the result of a request.

        Args:
            delivery: the result.
            pending: the recipients to retry.
        """
        in_doubt = self._still_in_doubt(delivery)
        if delivery.outcome is Outcome.ACCEPTED and not in_doubt:
            state, progress = RowState.ACCEPTED, NO_PROGRESS
        else:
            # A recipient who may have the mail from an earlier attempt stays in doubt, even if the server refuses now.
            rejected = {
                address: str(reply)
                for address, reply in delivery.refused.items()
                if not reply.transient and address not in in_doubt
            }
            recipients = _get_recipients(self.in_doubt[delivery.index])
            state = RowState.UNKNOWN if in_doubt else _row_state(delivery, recipients, pending)
            progress = Progress(delivery.accepted, rejected)
        self._ledger.record(delivery.index, state, progress)
        del self.in_doubt[delivery.index]  # last: an interruption before it leaves the request in doubt

    def abandon(self, index: int) -> None:
        """Record that a request in doubt gets no result: its outcome is unknown."""
        self._ledger.record(index, RowState.UNKNOWN, self.get_progress(self.in_doubt.pop(index)))

    def annotate(self, delivery: Delivery) -> Delivery:
        """Return the delivery adjusted for earlier attempts; see `downgrade_to_unknown`."""
        if delivery.error is None:  # the usual case: accepted for all, so nothing is in doubt
            return delivery
        return downgrade_to_unknown(delivery, self._still_in_doubt(delivery))

    def _note_rows_in_doubt(self) -> None:
        for request in self._gathered:
            progress = self._ledger.rows_in_doubt.get(request.index)
            if progress is not None and request.index not in self._maybe_delivered:
                self._maybe_delivered[request.index] = pending_addresses(request.mail, progress)

    def _still_in_doubt(self, delivery: Delivery) -> tuple[str, ...]:
        may_have = self._maybe_delivered.get(delivery.index)
        if not may_have:
            return ()
        accepted = set(delivery.accepted)
        return tuple(address for address in may_have if address not in accepted)

    def get_progress(self, request: SendRequest) -> Progress:
        """Return the recipient progress of a request, as it is recorded."""
        may_have = set(self._maybe_delivered.get(request.index, ()))
        refused = request.refused.items()
        return Progress(
            request.accepted, {address: str(reply) for address, reply in refused if address not in may_have}
        )

    def close(self) -> None:
        """Cancel the reservation, and record the requests that were not passed on.

        They are pending, except those that an earlier attempt may have delivered, which stay unknown.
        """
        if self._reservation is not None:
            reservation, waiting = self._reservation
            self._make_ready(waiting, keep=len(reservation.rows) - self._ledger.withdraw(reservation))
        self._reservation = None
        for request in self._ready:
            state = RowState.UNKNOWN if self._maybe_delivered.get(request.index) else RowState.RETRY
            self._ledger.record(request.index, state, self.get_progress(request))
        self._ready.clear()


def _row_state(delivery: Delivery, recipients: Sequence[str], pending: tuple[str, ...]) -> RowState:
    outcome = delivery.outcome
    if outcome == Outcome.UNKNOWN:
        return RowState.UNKNOWN
    if pending or (outcome == Outcome.PARTIAL and delivery.never_asked(recipients)):
        return RowState.RETRY
    if outcome in (Outcome.PARTIAL, Outcome.REFUSED):
        return RowState.PARTIAL if outcome == Outcome.PARTIAL else RowState.REFUSED
    return RowState.FAILED if isinstance(delivery.error, MessageError) else RowState.RETRY


def _get_recipients(request: SendRequest) -> tuple[str, ...]:
    return request.recipients or tuple(address.address for address in request.mail.recipients)


class PriorDelivery:
    """What earlier attempts have recorded, for a task that sends one mail.

    Args:
        ledger: the task's ledger; None: before Airflow 3.3.
    """

    # A fixed fingerprint: the task sends only one mail, whose text may contain a date that changes with every attempt.
    _FINGERPRINT = bytes(FINGERPRINT_OCTETS)

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._row: PriorRow | None = None if ledger is None else ledger.prior(0, self._FINGERPRINT)
        #: The journal for sending the mail.
        self.journal = None if ledger is None else LedgerJournal(ledger, lambda _: self._FINGERPRINT)

    def find_accepted(self) -> Delivery | None:
        """Return the delivery if every recipient has the mail, else None. Needs no `Mail`: building one is costly."""
        # Even if the row is still open: the result is stored first, and the attempt may have ended before the rest.
        if self._ledger is None or self._row is None or self._row.state not in (RowState.ACCEPTED, RowState.OPEN):
            return None
        stored = self._ledger.stored_result()
        return Delivery.from_dict(stored) if stored is not None and stored["outcome"] == Outcome.ACCEPTED else None

    def find_settled(self, mail: AnyMail, *, retry_unknown: bool) -> Delivery | None:
        """Return the delivery, if this attempt has nothing to send; else None.

        Args:
            mail: the mail as this attempt would send it.
            retry_unknown: whether a mail that may have been delivered is sent again.
        """
        if self._ledger is None or self._row is None:
            return None
        state = self._row.state
        if state in (RowState.ACCEPTED, RowState.PARTIAL):
            return self._stored_delivery(mail, Outcome.ACCEPTED if state is RowState.ACCEPTED else Outcome.PARTIAL)
        if self._row.is_in_doubt and not retry_unknown:
            progress = self._ledger.rows_in_doubt[0]  # with the refusals that a clear has reset in `self._row`
            if in_doubt := pending_addresses(mail, progress):
                self._ledger.record(0, RowState.UNKNOWN, progress)
                return Delivery(
                    message_id=mail.message_id or "",
                    outcome=Outcome.UNKNOWN,
                    accepted=progress.accepted,
                    refused={address: _parse_reply(text) for address, text in progress.rejected.items()},
                    error=not_resent_error(
                        "The mail",
                        PriorRow(state, progress),
                        in_doubt,
                        remedy=f"Look for {mail.message_id} in the server's log. If the server accepted it for "
                        f"{format_addresses(in_doubt)}, mark the task as success; otherwise set on_unknown='retry', "
                        "and clear the task.",
                    ),
                )
        if self.pending_request(mail) is None:
            self._ledger.record(0, RowState.ACCEPTED)
            return self._stored_delivery(mail, Outcome.ACCEPTED)
        return None

    def pending_request(self, mail: AnyMail) -> SendRequest | None:
        """Return the request for the pending recipients, or None if there are none."""
        return pending_request(0, mail, self._row or UNSEEN)

    def not_begun(self, mail: AnyMail, error: MailError) -> Delivery:
        """Return the delivery for a mail that this attempt did not begin to send; see `not_begun_delivery`."""
        return not_begun_delivery(0, mail, self._row or UNSEEN, error)

    def annotate_error(self, error: MailError) -> MailError:
        """Return the error; if an earlier attempt may have delivered the mail, replace it with one that says so."""
        if self._row is None or not self._row.is_in_doubt:
            return error
        return in_doubt_error("The mail may have been delivered", error, self._row.progress)

    def find_skip_error(self, reason: str) -> MailError | None:
        """Return the error of a task that is to be skipped, if an earlier attempt has begun to deliver; else None.

        Args:
            reason: why this attempt has no mail.
        """
        if self._row is None or not (self._row.is_in_doubt or self._row.progress.accepted):
            return None
        error = MessageError(
            f"This attempt has no mail ({reason.rstrip('.') or 'it was to be skipped'}).",
            remedy="Mark the task as success if no other recipient needs the mail, "
            "or clear it when there is one to send.",
        )
        if self._row.is_in_doubt:
            return self.annotate_error(error)
        accepted = format_addresses(self._row.progress.accepted)
        return MessageError(
            f"An earlier attempt delivered the mail to {accepted}, and not to the other recipients. {error.message}",
            remedy=error.remedy,
        )

    def store(self, delivery: Delivery) -> None:
        """Store the delivery: a later attempt that finds the mail accepted returns it."""
        if self._ledger is not None and delivery.accepted:
            self._ledger.store_result(delivery.to_dict())

    def close(self) -> None:
        """Close the journal."""
        if self.journal is not None:
            self.journal.close()

    def _stored_delivery(self, mail: AnyMail, outcome: Outcome) -> Delivery:
        """Return the stored delivery; if the attempt ended before `store`, one made from the row's progress."""
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
            error=RefusedError(f"The server refused these recipients in an earlier attempt: {', '.join(rejected)}.")
            if rejected
            else None,
        )


def pending_request(index: int, mail: AnyMail, row: PriorRow) -> SendRequest | None:
    """Return the request for the recipients who do not have the mail, or None if all have it.

    If earlier attempts were refused for all of these, all are tried again.

    Args:
        index: the row's index, from 0.
        mail: the mail of this attempt; an address may have been fixed since the earlier one.
        row: what earlier attempts recorded.
    """
    if not row.progress:
        return SendRequest(index, mail)
    accepted, rejected = set(row.progress.accepted), row.progress.rejected
    missing = [address.address for address in mail.recipients if address.address not in accepted]
    pending = [address for address in missing if address not in rejected]
    if not missing:
        return None
    if not pending:
        return SendRequest(index, mail, tuple(missing), row.progress.accepted)
    refused = {address: _parse_reply(rejected[address]) for address in missing if address in rejected}
    return SendRequest(index, mail, tuple(pending), row.progress.accepted, refused)


def not_begun_delivery(index: int, mail: AnyMail, row: PriorRow, error: MailError) -> Delivery:
    """Return the delivery of a mail that this attempt did not begin to send.

    Args:
        index: the row's index, from 0.
        mail: the mail of this attempt.
        row: what earlier attempts recorded.
        error: why it was not sent.
    """
    delivery = (pending_request(index, mail, row) or SendRequest(index, mail)).not_sent(error)
    return downgrade_to_unknown(delivery, pending_addresses(mail, row.progress)) if row.is_in_doubt else delivery


def pending_addresses(mail: AnyMail, progress: Progress) -> tuple[str, ...]:
    """Return the recipients who were neither accepted nor permanently refused."""
    known = {*progress.accepted, *progress.rejected}
    return tuple(address.address for address in mail.recipients if address.address not in known)


def downgrade_to_unknown(delivery: Delivery, in_doubt: Sequence[str]) -> Delivery:
    """Downgrade a delivery to `unknown` if an earlier attempt may have delivered the mail.

    Args:
        delivery: the result of this attempt.
        in_doubt: the recipients who may have it from an earlier attempt, and were not accepted in this one.
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


def not_resent_error(
    name: str, row: PriorRow, in_doubt: Sequence[str], *, remedy: str | None = None
) -> OutcomeUnknownError:
    """Return the error for a mail that an earlier attempt may have delivered and that is not sent again.

    Args:
        name: what the message calls the mail, at its beginning.
        row: what earlier attempts recorded.
        in_doubt: the recipients who may have it; empty: not known.
        remedy: what to do; None: what to do about a row of a merge.
    """
    what = (
        f"{name} was about to be sent, or in flight, when an earlier attempt ended without recording its result."
        if row.state is RowState.OPEN
        else f"{name} got no final reply in an earlier attempt."
    )
    names = format_addresses(in_doubt) or ("the other recipients" if row.progress else "")
    return OutcomeUnknownError(
        f"{what} It is not sent again, since it may have been delivered{f' to {names}' if names else ''}."
        f"{describe_progress(row.progress)}",
        remedy=remedy or find_delivery_remedy(names),
    )


def find_delivery_remedy(names: str) -> str:
    """Return what to do before a mail is sent again that the recipients with these names may have; empty: any may."""
    # Its Message-ID alone is in the log because of the recipients who have it.
    delivery = f"its delivery to {names}" if names else "it"
    return f"Look for {delivery} in the server's log before you send it again."


def describe_progress(progress: Progress) -> str:
    """Return who has the mail and who was refused, as sentences that follow others."""
    accepted = f" It was accepted for {format_addresses(progress.accepted)}." if progress.accepted else ""
    refused = f" It was refused for {format_addresses([*progress.rejected])}." if progress.rejected else ""
    return accepted + refused


def in_doubt_error(statement: str, error: MailError, progress: Progress = NO_PROGRESS) -> OutcomeUnknownError:
    """Return the error for a mail that an earlier attempt may have delivered and that this one could not deliver.

    Args:
        statement: the beginning of the message: what may have been delivered, and to which recipients.
        error: the error of this attempt.
        progress: the mail's recipient progress, unless `error` names it.
    """
    return OutcomeUnknownError(
        f"{statement} by an earlier attempt that got no reply.{describe_progress(progress)} This attempt: "
        f"{error.message}",
        remedy="Look for it in the server's log or message tracking before you send it yourself. "
        f"{error.remedy}".strip(),
        phase=error.phase,
        reply=error.reply,
        retryable=error.retryable,
    )


def _parse_reply(text: str) -> Reply:
    """Parse a reply in the form that `Progress.rejected` holds: `str(reply)`."""
    return Reply(code=int(text[:3]), text=text[4:])
