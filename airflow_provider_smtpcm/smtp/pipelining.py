"""A pipelined session: the non-blocking I/O of one session in a batch, with one or two mails in flight.

If the server offers PIPELINING (RFC 2920), an envelope is sent as a group of commands, right behind the final dot of
the previous mail: one round trip per mail. Otherwise each command waits for its reply.
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
from airflow_provider_smtpcm.smtp.background_tasks import ReadAhead
from airflow_provider_smtpcm.smtp.throttling import is_throttled
from airflow_provider_smtpcm.smtp.transaction import (
    CONTENT,
    DONE,
    EMPTY_DATA,
    ENVELOPE,
    FINAL_DOT,
    FINAL_REPLY,
    Transaction,
    exceeds_recipient_limit,
    stuff_dots,
)
from airflow_provider_smtpcm.smtp.transport import BLOCK_OCTETS

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.session import Session

log = logging.getLogger(__name__)

# Blocks of a message sent in a row before other sessions are served.
_MAX_CONSECUTIVE_BLOCKS = 16

QUIT = b"QUIT\r\n"

Content = Iterator[bytes] | ReadAhead


class PipelinedSession:
    """Sends mails of a batch through one session.

    Args:
        session: an open session.
        batch: provides the mails, and receives their deliveries.
        can_requeue: whether mails that were not committed when the connection broke may be sent through another.
    """

    def __init__(self, session: Session, batch: BatchSender, *, can_requeue: bool = True) -> None:
        self.session = session
        #: Whether it has sent everything, and the batch had no mail for it when it last asked.
        self.wants_mail = False
        #: Whether it waits for the socket to become writable.
        self.wants_write = False
        #: Whether `poll` watches the socket for writability.
        self.polls_write = False
        #: The deadline (`time.monotonic`) for what the server must do next.
        self.deadline = math.inf
        #: Whether the connection is closed, or QUIT was sent with the last mail.
        self.is_closed = False
        self._batch = batch
        self._queue = batch.queue
        server = session.server
        self._profile = batch.profile if server is None else server.profile
        #: The sending rate of its server.
        self.rate = batch.rate
        self._can_requeue = can_requeue
        self._is_given = session is batch.given_session
        self._may_quit = can_requeue and not self._is_given
        self._began_at = time.monotonic()
        self._transport = session.transport
        self._transport.set_nonblocking()
        self._transport.phase = Phase.ENVELOPE
        self._replies = self._transport.replies
        self._logs_commands = log.isEnabledFor(logging.DEBUG)
        self._offers_size = "SIZE" in session.extensions
        self._offers_pipelining = "PIPELINING" in session.extensions
        self._offers_binary = {"CHUNKING", "BINARYMIME"} <= session.extensions.keys()
        self._offers_8bitmime = "8BITMIME" in session.extensions
        self._offers_smtputf8 = "SMTPUTF8" in session.extensions
        self._size_limit = session.size_limit
        self._recipient_limit = session.recipient_limit
        self._mail_limit = session.mail_limit if can_requeue else None
        self._in_flight: deque[Transaction] = deque()
        # The octets to send.
        self._block: bytes | memoryview = b""
        # The position in the block of the octet that commits its last mail: the final dot, or the last octet of the
        # BDAT chunk.
        self._commit_at: int | None = None
        # The further blocks of the message.
        self._content: Content | None = None
        # Octets of the BDAT chunk (RFC 3030) that are not in a block yet.
        self._chunk_octets_left = 0
        # A block is sent in spans of `BLOCK_OCTETS`. Each has its own deadline, counted from here (`time.monotonic`).
        self._span_started_at = 0.0
        # Octets of the current span that are not sent yet.
        self._span_octets_left = 0

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
        """Whether octets are to be sent now, or after the server's next reply."""
        return self.is_busy and (bool(self._block) or self._in_flight[-1].stage is not FINAL_REPLY)

    def interrupt(self, interruption: BaseException) -> list[Delivery]:
        """Return the delivery of each mail in flight when the batch is interrupted (see `cancellation`)."""
        return [transaction.interrupt(interruption) for transaction in self._in_flight]

    def receive(self) -> None:
        """Process the replies that have arrived, and send whatever may follow."""
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
            blocks = _MAX_CONSECUTIVE_BLOCKS
            while blocks and (self._block or self._next_block()):
                if not self._send_block():
                    break
                blocks -= 1
                if self._in_flight and self._in_flight[-1].is_awaiting_reply:
                    break  # nothing more may be sent before the reply
            self.wants_write = bool(self._block) or not blocks
        except MailError as error:
            # The connection broke, or an attachment could not be read. First process the replies that have arrived.
            with contextlib.suppress(MailError):
                self._transport.receive_some()
            if not self._process_replies():
                self._fail(error)

    def check_deadline(self, now: float) -> None:
        """Close the connection if the server's deadline has passed."""
        if now < self.deadline or self.is_closed:
            return
        self._transport.phase = self._in_flight[0].phase if self._in_flight else Phase.ENVELOPE
        what = "did not read what was sent" if self.wants_write else "did not answer in full"
        self._fail(self._transport.deadline_error(what))

    def drain(self, error: MailError, *, is_out_of_time: bool) -> None:
        """End the uncommitted mail in flight, if that is possible now; no mail is delivered in part.

        Before DATA the transaction ends with RSET and QUIT. After 354 the socket is closed: a command would be message
        text, and a final dot would deliver half a message. The replies to a committed mail, and to a pipelined DATA,
        are awaited first.

        Args:
            error: why the mail is not sent.
            is_out_of_time: whether to close the connection without waiting for replies.
        """
        if not self._in_flight:
            return
        last = self._in_flight[-1]
        if last.stage is ENVELOPE and not last.is_awaiting_reply and not self._block:
            self._in_flight.pop()
            self.session.needs_rset_before_quit = last.lines_sent > 0
            self._batch.on_delivery(last.fail(error), self.rate)
        elif is_out_of_time or (len(self._in_flight) == 1 and last.stage is not ENVELOPE and not last.committed):
            self._fail(error)

    def abort(self) -> None:
        """Close the socket without QUIT."""
        self.is_closed = True
        self._close_content()
        self._block = b""
        self.session.abort()

    def retire(self) -> None:
        """Send QUIT and close the socket, without waiting for the reply. No mail may be in flight."""
        self.session.send_quit()
        self.abort()

    # --- Sending

    def _next_block(self) -> bool:
        """Set the block to the octets that may be sent now; return whether there are any."""
        self.wants_mail = False
        return self._fill_block([]) if self._content is None else self._next_content_block(self._content)

    def _fill_block(self, buffers: list[bytes]) -> bool:
        """Set the block to these buffers and what may follow them, up to the content of a long message."""
        while self._add_next(buffers):
            pass
        if buffers:
            self._begin_block(buffers[0] if len(buffers) == 1 else b"".join(buffers))
            return True
        return self._content is not None and self._next_content_block(self._content)

    def _next_content_block(self, content: Content) -> bool:
        for block in content:
            if block is None:  # not read yet
                self.deadline = math.inf
                return False
            if block:
                self._begin_block(block)
                self._count_chunk_octets(block)
                return True
        return self._end_content()

    def _add_next(self, buffers: list[bytes]) -> bool:  # noqa: PLR0911 - one for each stage
        """Add the next command lines or message; return whether more may follow in the same block."""
        if self._batch.is_closing or self.session.has_quit:
            return False
        if not self._in_flight:
            return self._begin_transaction()
        transaction = self._in_flight[-1]
        stage = transaction.stage
        if stage is ENVELOPE:
            if transaction.lines_sent < len(transaction.lines):
                self._add_lines(transaction, buffers)
            return False
        if stage is FINAL_REPLY:
            if transaction.outgoing.is_last:
                self._add_quit(transaction, buffers)
                return False
            return len(self._in_flight) == 1 and self._may_pipeline(transaction) and self._begin_transaction()
        if stage is EMPTY_DATA:
            buffers.append(FINAL_DOT)
            self._commit_at = sum(map(len, buffers)) - len(FINAL_DOT)
            transaction.stage = FINAL_REPLY
            return True
        return stage is CONTENT and self._content is None and self._begin_content(transaction, buffers)

    def _may_pipeline(self, transaction: Transaction) -> bool:
        return transaction.grouped and self._profile.pipelining and self._queue.is_fast

    def _add_quit(self, transaction: Transaction, buffers: list[bytes]) -> None:
        """Add QUIT directly after the last message if that is allowed (RFC 2920 3.1): it saves a round trip."""
        may_pipeline = self._may_quit and transaction.grouped and self._profile.pipelining
        if may_pipeline and transaction.has_all_recipients and len(self._in_flight) == 1:
            buffers.append(QUIT)
            self.session.has_quit = True

    def _begin_transaction(self) -> bool:
        is_pipelined = bool(self._in_flight)
        if self._mail_limit is not None and self._has_reached_limit(self._mail_limit, is_pipelined=is_pipelined):
            return False
        self.wants_mail = not self._batch.claim_turn(self.rate, is_pipelined=is_pipelined)
        if self.wants_mail:
            return False
        outgoing = self._queue.ready.popleft()
        rendering = outgoing.rendering
        if outgoing.binary_rendering is not None and self._offers_binary:
            rendering = outgoing.binary_rendering
        is_too_large = self._size_limit is not None and rendering.size > self._size_limit
        lacks_8bitmime = rendering.is_8bit and not self._offers_8bitmime
        if is_too_large or lacks_8bitmime or (rendering.needs_smtputf8 and not self._offers_smtputf8):
            self._batch.on_delivery(outgoing.not_sent(self.session.limit_error(outgoing.mail, rendering)), self.rate)
            return True
        parameters = f" SIZE={rendering.size}" if self._offers_size else ""
        if rendering.binary:
            parameters += " BODY=BINARYMIME"
        elif rendering.is_8bit:
            parameters += " BODY=8BITMIME"
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
            announced_limit=self._recipient_limit,
            profile=self._profile,
        )
        if self._mail_limit is not None:
            self.session.mail_count += 1
        self._in_flight.append(transaction)
        return True

    def _has_reached_limit(self, limit: int, *, is_pipelined: bool) -> bool:
        """Return whether the session may begin no mail; close it if a mail needs another one."""
        if self.session.mail_count < limit:
            return False
        if not is_pipelined:
            self.wants_mail = not self._queue.ready
            if self._queue.ready:
                self.retire()
        return True

    def _add_lines(self, transaction: Transaction, buffers: list[bytes]) -> None:
        lines = transaction.next_lines()
        if not lines:
            return
        if self._logs_commands:
            for line in lines:
                log.debug("C: %s", line)
        transaction.lines_sent += len(lines)
        buffers.append(("\r\n".join(lines) + "\r\n").encode())

    def _begin_content(self, transaction: Transaction, buffers: list[bytes]) -> bool:
        outgoing, is_chunked = transaction.outgoing, transaction.chunking
        if outgoing.data is not None and not is_chunked:
            buffers.append(outgoing.data)
            self._commit_at = sum(map(len, buffers)) - len(FINAL_DOT)
            transaction.stage = FINAL_REPLY
            return True
        if is_chunked:
            self._chunk_octets_left = transaction.rendering.size
            buffers.append(f"BDAT {self._chunk_octets_left} LAST\r\n".encode())
        content = iter(transaction.rendering) if is_chunked else stuff_dots(transaction.rendering.segments)
        self._content = ReadAhead(content, self._batch.wake) if outgoing.mail.has_remote_files else content
        return False

    def _count_chunk_octets(self, block: bytes) -> None:
        """Count the octets of the BDAT chunk; its last one commits the mail (RFC 3030 2)."""
        transaction = self._in_flight[-1]
        if transaction.chunking:
            self._chunk_octets_left -= len(block)
            if not self._chunk_octets_left:
                transaction.stage = FINAL_REPLY
                self._commit_at = len(block) - 1
                self._close_content()

    def _end_content(self) -> bool:
        """Set the block to the final dot and what may follow it, unless the server has already refused the message."""
        self._content = None
        self._transport.receive_some()
        if self._process_replies():
            return False
        self._in_flight[-1].stage = FINAL_REPLY
        self._commit_at = 0
        return self._fill_block([FINAL_DOT])

    def _close_content(self) -> None:
        if isinstance(self._content, ReadAhead):
            self._content.close()
        self._content = None

    def _begin_block(self, block: bytes) -> None:
        self._block = block
        self._span_started_at = time.monotonic()
        self._span_octets_left = BLOCK_OCTETS
        self.wants_mail = False

    def _send_block(self) -> bool:
        """Send as much of the block as the socket takes; return whether it may take more."""
        block = self._block
        span = block if len(block) <= self._span_octets_left else memoryview(block)[: self._span_octets_left]
        commit_at = self._commit_at
        sent = self._transport.send_some(span) if commit_at is None else self._send_commit(span, commit_at)
        is_complete = sent == len(span)
        self._block = b"" if sent == len(block) else memoryview(block)[sent:]
        self._span_octets_left -= sent
        if is_complete and self._block:
            self._span_started_at = time.monotonic()
            self._span_octets_left = BLOCK_OCTETS
        self._set_deadline()
        return is_complete

    def _send_commit(self, span: bytes | memoryview, commit_at: int) -> int:
        """Send like `send_some`, and mark the mail as committed if the octet at `commit_at` was sent.

        It is marked before the octet is sent, so that an interruption in between reports it as unknown.
        """
        transaction = self._in_flight[-1]
        if transaction.stage is not FINAL_REPLY:  # the block also contains the next mail's pipelined envelope
            transaction = self._in_flight[-2]
        transaction.committed = commit_at < len(span)
        try:
            sent = self._transport.send_some(span)
        except MailError:
            transaction.committed = False
            raise
        transaction.committed = sent > commit_at
        self._commit_at = None if sent > commit_at else commit_at - sent
        return sent

    def _set_deadline(self) -> None:
        if self._in_flight and self._in_flight[0].committed:
            # The server may read nothing more before its final reply.
            self.deadline = time.monotonic() + self.session.manager.final_reply_timeout
        elif self._block:
            self.deadline = self._span_started_at + self._transport.timeout
        elif self._in_flight:
            self.deadline = time.monotonic() + self._transport.timeout
        else:
            self.deadline = math.inf

    # --- Receiving

    def _process_replies(self) -> bool:
        """Process all complete replies; return whether the connection is closed."""
        has_replies = False
        next_reply, in_flight, phase = self._replies.next_reply, self._in_flight, self._transport.phase
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
                    self._fail(self._closed_error(reply))
                    continue
                transaction.on_reply(reply)
                if transaction.stage is DONE:
                    self._settle(transaction, reply)
            except ProtocolError as error:
                self._fail(error)
        if has_replies and not self.is_closed:
            if self._block:  # a server that replies is not dead, even if it has not read the block
                self._span_started_at = time.monotonic()
            self._set_deadline()
        return self.is_closed

    def _closes_session(self, transaction: Transaction, reply: Reply) -> bool:
        """Return whether a 421 ends the session (a limit on its mails, recipients or idle time) and refuses no mail."""
        has_reason = self.session.has_processed_mail or transaction.has_met_limit
        return has_reason and self._can_requeue and transaction.is_session_closed_by(reply)

    def _closed_error(self, reply: Reply) -> ConnectionLostError:
        return ConnectionLostError(f"{self._transport.peer} closed the session with '{reply}'.", reply=reply)

    def _settle(self, transaction: Transaction, reply: Reply) -> None:
        """Deliver or requeue the mail of a finished transaction."""
        self.session.has_processed_mail = True
        self.session.needs_rset_before_mail = not transaction.committed
        if transaction.pipelined and not transaction.closes_connection:
            self._profile.pipelining_works = True
        is_over = False
        if transaction.delivery is None:
            if transaction.was_accepted:
                transaction.outgoing.refused_at = None
            self._batch.requeue(transaction.outgoing, accepting=self.rate if transaction.was_accepted else None)
        elif transaction.was_accepted or not self._can_requeue:
            self._batch.on_delivery(transaction.delivery, self.rate)
        else:
            is_over = self._settle_refused(transaction, transaction.delivery)
        if transaction.was_accepted:
            self.session.has_accepted_mail = True
        self._in_flight.popleft()  # last, so that an interruption does not lose the mail
        if transaction.closes_connection:
            self._fail(self._closed_error(reply))
        elif self.session.has_quit and self._block:  # QUIT was not sent in full, so there will be no reply to it
            self.abort()
        elif self.session.has_quit:
            self.is_closed = True
            self._batch.on_quit(self.session)
        elif is_over and not self._in_flight:
            self.retire()

    def _settle_refused(self, transaction: Transaction, delivery: Delivery) -> bool:
        """Deliver a refused mail, or requeue it for another session; return whether to close this one.

        OpenSMTPD, Stalwart and others refuse each mail after a number of mails or recipients in a session, with 4yz or
        552. A new session shows whether that was it. If the server refuses the mail there too, it throttles the client.
        Postfix' postscreen refuses each mail of a client's first session.
        """
        session, outgoing = self.session, transaction.outgoing
        throttled = is_throttled(delivery)
        if not throttled and not (delivery.reply is not None and exceeds_recipient_limit(delivery.reply)):
            self._batch.on_delivery(delivery, self.rate)
            return False
        if (
            session.has_accepted_mail
            and transaction.is_uncommitted_refusal
            and not self._batch.is_closing
            and not self.rate.throttled_for
            and (outgoing.refused_at is None or outgoing.refused_at > self._began_at)
        ):
            log.info("%s refuses a mail ('%s'): trying a new session.", self._transport.peer, delivery.reply)
            outgoing.refused_at = outgoing.refused_at or time.monotonic()
            transaction.reopen()
            self._batch.requeue(outgoing)
            return True
        is_over = (session.has_accepted_mail or session.has_throttled) and not self._is_given
        session.has_throttled = session.has_throttled or throttled
        self._batch.on_delivery(delivery, self.rate)
        return is_over

    def _on_unsolicited(self, reply: Reply) -> None:
        """Close the session on a reply to no command: a 421, or one that makes it impossible to match later replies."""
        log.info("%s sent '%s' without a command; the session is closed.", self._transport.peer, reply)
        self.abort()

    def _fail(self, error: MailError) -> None:
        """Close the connection; requeue each mail in flight, or deliver it with the error."""
        in_flight, self._in_flight = self._in_flight, deque()
        self.abort()
        if self._profile.pipelining and any(self._is_due_to_pipelining(one, error) for one in in_flight):
            log.warning(
                "%s offers PIPELINING, but does not support it (%s); from now on each command waits for its reply.",
                self._transport.peer,
                error.message,
            )
            self._profile.pipelining = False
        is_first = True
        for transaction in in_flight:
            if (
                not transaction.committed
                and self._can_requeue
                and self._may_requeue(transaction, error, is_first=is_first)
            ):
                self._batch.requeue(transaction.outgoing)
            else:
                self._batch.on_delivery(transaction.fail(error), self.rate)
            is_first = False

    def _may_requeue(self, transaction: Transaction, error: MailError, *, is_first: bool) -> bool:
        """Return whether the mail cannot have been delivered, and did not cause the failure."""
        if transaction.stage is not ENVELOPE:
            return False
        if not is_first or self._is_due_to_pipelining(transaction, error):
            return True
        return (self.session.has_processed_mail or transaction.has_met_limit) and isinstance(error, ConnectionLostError)

    def _is_due_to_pipelining(self, transaction: Transaction, error: MailError) -> bool:
        """Return whether the failure may be due to sending commands in groups."""
        if not (transaction.grouped and transaction.stage is ENVELOPE):
            return False
        is_underway = transaction.pipelined or transaction.has_reply
        if isinstance(error, ConnectionLostError):
            # A server may close an idle session at any time. But if the session was active, and pipelining has not
            # worked yet, the server may have closed the connection because of the group.
            was_active = is_underway or not self.session.has_processed_mail
            return error.reply is None and was_active and not self._profile.pipelining_works
        return isinstance(error, ProtocolError | NoAnswerError) and is_underway
