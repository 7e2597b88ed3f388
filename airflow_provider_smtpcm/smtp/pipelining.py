"""A pipelined session: one connection with mails in flight, which sends what may be sent and never waits.

Where the server offers PIPELINING (RFC 2920), an envelope is sent in one group, and the next mail's envelope right
behind this mail's final dot: one round trip for each mail. Where it does not, each command waits for its reply.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import ConnectionLostError, MailError, NoAnswerError, Phase, ProtocolError, Reply
from airflow_provider_smtpcm.smtp.threads import ReadAhead
from airflow_provider_smtpcm.smtp.transaction import (
    CONTENT,
    DONE,
    EMPTY_DATA,
    ENVELOPE,
    FINAL_DOT,
    FINAL_REPLY,
    Transaction,
    stuff_dots,
)
from airflow_provider_smtpcm.smtp.transport import BLOCK

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.batch import BatchSender
    from airflow_provider_smtpcm.smtp.delivery import Delivery
    from airflow_provider_smtpcm.smtp.session import Session

log = logging.getLogger(__name__)

# Blocks of a long message in a row, before the other sessions are served.
_BLOCKS_IN_A_ROW = 16

Content = Iterator[bytes] | ReadAhead


class PipelinedSession:
    """Sends the mails of a batch through one session, with one or two transactions in flight.

    Args:
        session: open.
        batch: gives mails, and takes deliveries.
        can_requeue: whether mails that were not committed when the connection broke may be sent through another one.
    """

    def __init__(self, session: Session, batch: BatchSender, *, can_requeue: bool = True) -> None:
        self.session = session
        #: Whether it has sent everything, and could not begin another mail when it last tried.
        self.wants_mail = False
        #: Whether it waits until the socket takes more.
        self.wants_write = False
        #: Whether `poll` reports when the socket takes more.
        self.polls_write = False
        #: When (`time.monotonic`) the server has had its time.
        self.deadline = math.inf
        #: Whether the connection is gone.
        self.is_closed = False
        self._batch = batch
        self._queue = batch.queue
        self._profile = batch.profile
        self._can_requeue = can_requeue
        self._transport = session.transport
        self._transport.set_nonblocking()
        self._transport.phase = Phase.ENVELOPE
        self._replies = self._transport.replies
        self._logs_commands = log.isEnabledFor(logging.DEBUG)
        self._offers_size = "SIZE" in session.extensions
        self._offers_pipelining = "PIPELINING" in session.extensions
        self._offers_binary = {"CHUNKING", "BINARYMIME"} <= session.extensions.keys()
        self._offers_smtputf8 = "SMTPUTF8" in session.extensions
        self._size_limit = session.size_limit
        self._recipient_limit = session.recipient_limit
        self._in_flight: deque[Transaction] = deque()
        # What is to be sent; the octet in it with which the last mail is committed; and what follows it.
        self._block: bytes | memoryview = b""
        self._commit_at: int | None = None
        self._content: Content | None = None
        # Octets of a BDAT chunk that are still to be sent.
        self._chunk_left = 0
        # When the current span of at most one `BLOCK` began, which has one deadline, and the octets left of it.
        self._block_since = 0.0
        self._timed_octets = 0

    def fileno(self) -> int:
        """Return the socket's descriptor, for `poll`."""
        return self._transport.fileno()

    @property
    def is_busy(self) -> bool:
        """Whether a mail is in flight."""
        return bool(self._in_flight)

    @property
    def is_past_envelope(self) -> bool:
        """Whether a message is being sent, or its final reply awaited."""
        return self._content is not None or (self.is_busy and self._in_flight[0].stage is FINAL_REPLY)

    @property
    def is_sending(self) -> bool:
        """Whether it has something to send, or will have with the server's next reply."""
        return self.is_busy and (bool(self._block) or self._in_flight[-1].stage is not FINAL_REPLY)

    def interrupt(self, interruption: BaseException) -> list[Delivery]:
        """Return what is known of each mail in flight when an exception from elsewhere ended the sending."""
        return [transaction.interrupt(interruption) for transaction in self._in_flight]

    def receive(self) -> None:
        """Take in what the server has sent, and send what may follow."""
        try:
            self._transport.receive_some()
        except MailError as error:
            if not self._process_replies():
                self._fail(error)
            return
        if not self._process_replies():
            self.send()

    def send(self) -> None:
        """Send whatever may be sent now."""
        try:
            blocks = _BLOCKS_IN_A_ROW
            while blocks and (self._block or self._next_block()):
                if not self._send_block():
                    break
                blocks -= 1
                if self._in_flight and self._in_flight[-1].is_awaiting_reply:
                    break  # until the server replies nothing more can be sent
            self.wants_write = bool(self._block) or not blocks
        except MailError as error:
            # What the server had sent before the connection broke, or the file could not be read, comes first.
            with contextlib.suppress(MailError):
                self._transport.receive_some()
            if not self._process_replies():
                self._fail(error)

    def check_deadline(self, now: float) -> None:
        """Close the connection if the server has had its time."""
        if now < self.deadline or self.is_closed:
            return
        self._transport.phase = self._in_flight[0].phase if self._in_flight else Phase.ENVELOPE
        what = "did not take what we sent" if self.wants_write else "did not answer in full"
        self._fail(self._transport.deadline_error(what))

    def drain(self, error: MailError, *, is_out_of_time: bool) -> None:
        """Begin nothing more, and end what no one can have, so that no one gets half a mail.

        After 354 a command would be message text, and a final dot would deliver half of it, so the socket is closed.
        Before DATA the session ends with RSET and QUIT. The final reply to a committed mail is awaited, and so is that
        to a DATA that was pipelined.

        Args:
            error: why the mails are not sent.
            is_out_of_time: whether nothing more is awaited.
        """
        if not self._in_flight:
            return
        last = self._in_flight[-1]
        if last.stage is ENVELOPE and not last.is_awaiting_reply and not self._block:
            self._in_flight.pop()
            self.session.needs_rset_before_quit = last.sent > 0
            self._batch.on_delivery(last.fail(error))
        elif is_out_of_time or (len(self._in_flight) == 1 and last.stage is not ENVELOPE and not last.committed):
            self._fail(error)

    def abort(self) -> None:
        """Close the socket without QUIT."""
        self.is_closed = True
        self._close_content()
        self._block = b""
        self.session.abort()

    # --- Sending

    def _next_block(self) -> bool:
        """Fill the block with all that may be sent now; return whether there is anything."""
        self.wants_mail = False
        return self._fill([]) if self._content is None else self._next_content_block(self._content)

    def _fill(self, parts: list[bytes]) -> bool:
        """Add to these parts whatever may follow them, up to a message that is sent block by block."""
        while self._add_next(parts):
            pass
        if parts:
            self._begin_block(parts[0] if len(parts) == 1 else b"".join(parts))
            return True
        return self._content is not None and self._next_content_block(self._content)

    def _next_content_block(self, content: Content) -> bool:
        for block in content:
            if block is None:  # it is still being read
                self.deadline = math.inf
                return False
            if block:
                self._begin_block(block)
                self._count_chunk(block)
                return True
        return self._end_content()

    def _add_next(self, parts: list[bytes]) -> bool:
        """Add what comes next; return whether more may follow at once."""
        if self._batch.is_closing:
            return False
        if not self._in_flight:
            return self._begin_transaction()
        transaction = self._in_flight[-1]
        stage = transaction.stage
        if stage is ENVELOPE:
            if transaction.sent < len(transaction.lines):
                self._add_lines(transaction, parts)
            return False
        if stage is FINAL_REPLY:
            return len(self._in_flight) == 1 and self._may_pipeline(transaction) and self._begin_transaction()
        if stage is EMPTY_DATA:
            parts.append(FINAL_DOT)
            self._commit_at = sum(map(len, parts)) - len(FINAL_DOT)
            transaction.stage = FINAL_REPLY
            return True
        return stage is CONTENT and self._content is None and self._begin_content(transaction, parts)

    def _may_pipeline(self, transaction: Transaction) -> bool:
        return transaction.grouped and self._profile.pipelining and self._queue.is_fast

    def _begin_transaction(self) -> bool:
        is_pipelined = bool(self._in_flight)
        self.wants_mail = not self._batch.claim_turn(is_pipelined=is_pipelined)
        if self.wants_mail:
            return False
        outgoing = self._queue.ready.popleft()
        rendering = outgoing.rendering
        if outgoing.binary_rendering is not None and self._offers_binary:
            rendering = outgoing.binary_rendering
        is_too_large = self._size_limit is not None and rendering.size > self._size_limit
        if is_too_large or (rendering.needs_smtputf8 and not self._offers_smtputf8):
            self._batch.on_delivery(outgoing.not_sent(self.session.limit_error(outgoing.mail, rendering)))
            return True
        parameters = f" SIZE={rendering.size}" if self._offers_size else ""
        if rendering.binary:
            parameters += " BODY=BINARYMIME"
        if rendering.needs_smtputf8:
            parameters += " SMTPUTF8"
        transaction = Transaction(
            outgoing,
            rendering,
            peer=self._transport.peer,
            parameters=parameters,
            chunking=rendering.binary,
            grouped=self._offers_pipelining and self._profile.pipelining,
            pipelined=is_pipelined,
            reset=self.session.needs_rset_before_mail and not is_pipelined,
            announced=self._recipient_limit,
            profile=self._profile,
        )
        self._in_flight.append(transaction)
        return True

    def _add_lines(self, transaction: Transaction, parts: list[bytes]) -> None:
        lines = transaction.next_lines()
        if not lines:
            return
        if self._logs_commands:
            for line in lines:
                log.debug("C: %s", line)
        transaction.sent += len(lines)
        parts.append(("\r\n".join(lines) + "\r\n").encode())

    def _begin_content(self, transaction: Transaction, parts: list[bytes]) -> bool:
        outgoing, is_chunked = transaction.outgoing, transaction.chunking
        if outgoing.data is not None and not is_chunked:
            parts.append(outgoing.data)
            self._commit_at = sum(map(len, parts)) - len(FINAL_DOT)
            transaction.stage = FINAL_REPLY
            return True
        if is_chunked:
            self._chunk_left = transaction.rendering.size
            parts.append(f"BDAT {self._chunk_left} LAST\r\n".encode())
        content = iter(transaction.rendering) if is_chunked else stuff_dots(transaction.rendering.segments)
        self._content = ReadAhead(content, self._batch.wake) if outgoing.mail.has_remote_files else content
        return False

    def _count_chunk(self, block: bytes) -> None:
        """After BDAT the server has the whole message with the last octet that was announced (RFC 3030 2)."""
        transaction = self._in_flight[-1]
        if transaction.chunking:
            self._chunk_left -= len(block)
            if not self._chunk_left:
                transaction.stage = FINAL_REPLY
                self._commit_at = len(block) - 1
                self._close_content()

    def _end_content(self) -> bool:
        """Send the final dot and what may follow it, unless the server has refused in the meantime."""
        self._content = None
        self._transport.receive_some()
        if self._process_replies():
            return False
        self._in_flight[-1].stage = FINAL_REPLY
        self._commit_at = 0
        return self._fill([FINAL_DOT])

    def _close_content(self) -> None:
        if isinstance(self._content, ReadAhead):
            self._content.close()
        self._content = None

    def _begin_block(self, block: bytes) -> None:
        self._block = block
        self._block_since = time.monotonic()
        self._timed_octets = BLOCK
        self.wants_mail = False

    def _send_block(self) -> bool:
        """Send the block, or as much of it as the socket takes; return whether more may follow at once."""
        block = self._block
        piece = block if len(block) <= self._timed_octets else memoryview(block)[: self._timed_octets]
        sent = (
            self._transport.send_some(piece) if self._commit_at is None else self._send_commit(piece, self._commit_at)
        )
        is_complete = sent == len(piece)
        self._block = b"" if sent == len(block) else memoryview(block)[sent:]
        self._timed_octets -= sent
        if is_complete and self._block:
            self._block_since = time.monotonic()
            self._timed_octets = BLOCK
        self._set_deadline()
        return is_complete

    def _send_commit(self, piece: bytes | memoryview, at: int) -> int:
        """Send what leads up to the octet with which the mail is committed; return how many octets were sent.

        The mail counts as committed before it is, so that an interruption in between does not find one that no one can
        have.
        """
        transaction = self._in_flight[-1]
        if transaction.stage is not FINAL_REPLY:  # the one behind it, whose envelope was pipelined
            transaction = self._in_flight[-2]
        transaction.committed = at < len(piece)
        try:
            sent = self._transport.send_some(piece)
        except MailError:
            transaction.committed = False
            raise
        transaction.committed = sent > at
        self._commit_at = None if sent > at else at - sent
        return sent

    def _set_deadline(self) -> None:
        if self._in_flight and self._in_flight[0].committed:
            # A server that is busy with this mail may take nothing more until it is done.
            self.deadline = time.monotonic() + self.session.manager.final_reply_timeout
        elif self._block:
            self.deadline = self._block_since + self._transport.timeout
        elif self._in_flight:
            self.deadline = time.monotonic() + self._transport.timeout
        else:
            self.deadline = math.inf

    # --- Receiving

    def _process_replies(self) -> bool:
        """Take every whole reply; return whether the connection is closed."""
        has_replies = False
        next_reply, in_flight, phase = self._replies.next, self._in_flight, self._transport.phase
        while not self.is_closed:
            try:
                reply = next_reply(phase)
                if reply is None:
                    break
                has_replies = True
                if self._logs_commands:
                    log.debug("S: %s", reply)
                if not in_flight:
                    self._on_unsolicited(reply)
                    continue
                transaction = in_flight[0]
                if reply.code == 421 and self._closes_session(transaction, reply):
                    self._fail(self._closed_by(reply))
                    continue
                transaction.on_reply(reply)
                if transaction.stage is DONE:
                    self._settle(transaction, reply)
            except ProtocolError as error:
                self._fail(error)
        if has_replies and not self.is_closed:
            if self._block:  # the server may have been too busy to take it
                self._block_since = time.monotonic()
            self._set_deadline()
        return self.is_closed

    def _closes_session(self, transaction: Transaction, reply: Reply) -> bool:
        """Return whether 421 closes only the session, for its limit of mails, its idle time or too many recipients."""
        has_reason = self.session.has_carried_mail or transaction.met_limit
        return has_reason and self._can_requeue and transaction.is_session_closed_by(reply)

    def _closed_by(self, reply: Reply) -> ConnectionLostError:
        return ConnectionLostError(f"{self._transport.peer} said '{reply}'.", reply=reply)

    def _settle(self, transaction: Transaction, reply: Reply) -> None:
        """Deliver, or requeue, the mail of a transaction that is done."""
        self.session.has_carried_mail = True
        self.session.needs_rset_before_mail = not transaction.committed
        if transaction.pipelined and not transaction.closes_connection:
            self._profile.pipelining_works = True
        if transaction.delivery is not None:
            self._batch.on_delivery(transaction.delivery)
        else:
            self._batch.requeue(transaction.outgoing, was_accepted=transaction.was_accepted)
        self._in_flight.popleft()  # last, so that an interruption finds it in one place at least
        if transaction.closes_connection:
            self._fail(self._closed_by(reply))

    def _on_unsolicited(self, reply: Reply) -> None:
        """Close on a reply to nothing: 421, or one reply too many, after which no reply could be trusted."""
        log.info("%s said '%s' without being asked; the session is closed.", self._transport.peer, reply)
        self.abort()

    def _fail(self, error: MailError) -> None:
        """Close the connection; deliver the error for each mail in flight, or requeue it."""
        in_flight, self._in_flight = self._in_flight, deque()
        self.abort()
        if self._profile.pipelining and any(self._is_due_to_pipelining(one, error) for one in in_flight):
            log.warning(
                "%s offers PIPELINING and does not do it well (%s); from here on each command waits for its reply.",
                self._transport.peer,
                error.message,
            )
            self._profile.pipelining = False
        is_first = True
        for transaction in in_flight:
            if not transaction.committed and self._can_requeue and self._may_requeue(transaction, error, is_first):
                self._batch.requeue(transaction.outgoing)
            else:
                self._batch.on_delivery(transaction.fail(error))
            is_first = False

    def _may_requeue(self, transaction: Transaction, error: MailError, is_first: bool) -> bool:  # noqa: FBT001
        """Return whether the failure was not this mail's fault, and no one can have it."""
        if transaction.stage is not ENVELOPE:
            return False
        if not is_first or self._is_due_to_pipelining(transaction, error):
            return True
        return (self.session.has_carried_mail or transaction.met_limit) and isinstance(error, ConnectionLostError)

    def _is_due_to_pipelining(self, transaction: Transaction, error: MailError) -> bool:
        """Return whether a server that got its commands one by one might not have failed."""
        if not (transaction.grouped and transaction.stage is ENVELOPE):
            return False
        has_begun = transaction.pipelined or transaction.has_reply
        if isinstance(error, ConnectionLostError):
            # Any connection may break, above all an idle one; but a server that has not yet taken a group is likely to
            # have hung up because of it.
            is_untried = has_begun or not self.session.has_carried_mail
            return error.reply is None and is_untried and not self._profile.pipelining_works
        return isinstance(error, ProtocolError | NoAnswerError) and has_begun
