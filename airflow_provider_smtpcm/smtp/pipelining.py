"""One session with mails in flight: what to say next, what was said, and whose answer is awaited. Never waits.

Where the server offers PIPELINING (RFC 2920), an envelope goes in one group, and the next mail's envelope on the heels
of this mail's final dot: one round trip a mail. Where it does not, each command waits for its reply.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectionLostError, MailError, NoAnswerError, Phase, ProtocolError, Reply
from airflow_provider_smtpcm.smtp.delivery import Delivery
from airflow_provider_smtpcm.smtp.outgoing import FINAL_DOT, Outgoing, dot_stuffed
from airflow_provider_smtpcm.smtp.threads import ReadAhead
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.transaction import ANSWER, CONTENT, ENVELOPE, LONE_DOT, OVER, Transaction
from airflow_provider_smtpcm.smtp.transport import BLOCK, Wire

# folded: What stands on both sides of a lane: the line that it speaks on, and the traffic that it takes its mails from.


class Line(Protocol):
    """What a lane needs of an open session; `Session` is one."""

    manager: SmtpConnectionManager
    extensions: dict[str, str]
    has_carried_mail: bool
    needs_reset: bool
    half_begun: bool

    @property
    def wire(self) -> Wire:
        """The octets to and from the server."""

    @property
    def usable(self) -> bool:
        """Whether it is open."""

    @property
    def size_limit(self) -> int | None:
        """The largest message that the server takes, in octets."""

    @property
    def recipient_limit(self) -> int | None:
        """How many recipients of one transaction the server takes."""

    def say_quit(self) -> None:
        """Say good-bye without waiting for the answer."""

    def close(self) -> None:
        """Say good-bye, if that was not done, and hear the answer."""

    def abandon(self) -> None:
        """Close the socket without a word."""


class Traffic(Protocol):
    """What a lane needs of the place where mails come from and deliveries go to."""

    #: What was learnt of the server.
    manners: ServerProfile
    #: Whether nothing more is begun.
    closing: bool

    @property
    def quick(self) -> bool:
        """Whether nobody has to wait long for the next mail."""

    def next_outgoing(self, *, on_heels: bool) -> Outgoing | None:
        """A mail that is ready to be sent, if there is one.

        Args:
            on_heels: whether it would go right behind another one, before that one's answer.
        """

    def again(self, outgoing: Outgoing, *, taken: bool = False) -> None:
        """Nobody has this one, or (`taken`) some have it by now: it goes first into whatever lane is free."""

    def delivered(self, delivery: Delivery) -> None:
        """This is what became of a mail."""

    def wake(self) -> None:
        """Called from another thread: a lane has something to say that it was waiting for."""


# folded: here began the module itself

log = logging.getLogger(__name__)

# So many blocks of a long message in a row, then the other lanes have their turn.
_BLOCKS_A_TURN = 16


Content = Iterator[bytes] | ReadAhead


class PipelinedSession:
    """One session and the one or two transactions on it.

    Args:
        session: open.
        traffic: see there.
        keep: whether mails that the line took down with it before they were handed over may go through another one.
    """

    def __init__(self, session: Line, traffic: Traffic, *, keep: bool = True) -> None:
        self.session = session
        #: Whether it has said everything, and there was no mail for it when it asked.
        self.hungry = False
        #: Whether it waits until the socket takes more.
        self.wants_write = False
        #: Whether `poll` was told so.
        self.write_awaited = False
        #: When (`time.monotonic`) the server has had its time.
        self.deadline = math.inf
        #: Whether the connection is gone.
        self.dead = False
        self._traffic = traffic
        self._manners = traffic.manners
        self._keep = keep
        self._wire = session.wire
        self._wire.do_not_wait()
        self._wire.phase = Phase.ENVELOPE
        self._replies = self._wire.replies
        self._tell = log.isEnabledFor(logging.DEBUG)
        self._offers_size = "SIZE" in session.extensions
        self._offers_pipelining = "PIPELINING" in session.extensions
        self._offers_smtputf8 = "SMTPUTF8" in session.extensions
        self._offers_binary = {"CHUNKING", "BINARYMIME"} <= session.extensions.keys()
        self._size_limit = session.size_limit
        self._in_flight: deque[Transaction] = deque()
        # What is to be sent, where in it the last one in flight is handed over, and what follows it.
        self._block: bytes | memoryview = b""
        self._handed_over_at: int | None = None
        self._content: Content | None = None
        self._left = 0
        # Since when so many of its octets are being sent.
        self._block_since = 0.0
        self._clocked = 0

    def fileno(self) -> int:
        """What `poll` waits for."""
        return self._wire.fileno()

    @property
    def busy(self) -> bool:
        """Whether a mail is in flight."""
        return bool(self._in_flight)

    @property
    def past_the_envelope(self) -> bool:
        """Whether a message is being sent, or its answer awaited."""
        return self._content is not None or (self.busy and self._in_flight[0].stage is ANSWER)

    @property
    def at_work(self) -> bool:
        """Whether it has something to say, or will have at the server's next word."""
        return self.busy and (bool(self._block) or self._in_flight[-1].stage is not ANSWER)

    def interrupted(self, by: BaseException) -> list[Delivery]:
        """What is known of each mail in flight when an exception from elsewhere ended the sending."""
        return [flying.interrupted(by) for flying in self._in_flight]

    def listen(self) -> None:
        """Take in what the server has said, and go on."""
        try:
            self._wire.receive_some()
        except MailError as error:
            if not self._hear():
                self._broke(error)
            return
        if not self._hear():
            self.speak()

    def speak(self) -> None:
        """Say whatever can be said now."""
        try:
            turns = _BLOCKS_A_TURN
            while turns and (self._block or self._next_block()):
                if not self._send():
                    break
                turns -= 1
                if self._in_flight and self._in_flight[-1].unanswered:
                    break  # until the server speaks nothing more can be said
            self.wants_write = bool(self._block) or not turns
        except MailError as error:
            self._sending_failed(error)

    def check_deadline(self, now: float) -> None:
        """Give the server up if it has had its time."""
        if now < self.deadline or self.dead:
            return
        self._wire.phase = self._in_flight[0].phase if self._in_flight else Phase.ENVELOPE
        self._broke(self._wire.no_answer("did not take what we sent" if self.wants_write else "did not answer in full"))

    def wind_up(self, error: MailError, *, out_of_time: bool) -> None:
        """Nothing more is begun: end what nobody can have, in a way that leaves nobody half a mail.

        After 354 a word would be message text and a dot would deliver half of it, so the socket is closed. Before DATA,
        the session says RSET and QUIT at its end. What was handed over has its answer heard, and so has a DATA that was
        pipelined.

        Args:
            error: why the mails are not sent.
            out_of_time: whether nothing more is waited for.
        """
        if not self._in_flight:
            return
        last = self._in_flight[-1]
        if last.stage is ENVELOPE and not last.unanswered and not self._block:
            self._in_flight.pop()
            self.session.half_begun = last.said > 0
            self._traffic.delivered(last.broke(error))
        elif out_of_time or (len(self._in_flight) == 1 and last.stage is not ENVELOPE and not last.handed_over):
            self._broke(error)

    def abandon(self) -> None:
        """Close the socket without a word."""
        self.dead = True
        self._close_content()
        self._block = b""
        self.session.abandon()

    # --- Speaking

    def _next_block(self) -> bool:
        """Fill the block with all that may be said now; whether there is anything."""
        self.hungry = False
        return self._fill([]) if self._content is None else self._next_of(self._content)

    def _fill(self, parts: list[bytes]) -> bool:
        """Add to these whatever may follow, up to a message that goes block by block."""
        while self._say(parts):
            pass
        if parts:
            self._begin(parts[0] if len(parts) == 1 else b"".join(parts))
            return True
        return self._content is not None and self._next_of(self._content)

    def _next_of(self, content: Content) -> bool:
        for block in content:
            if block is None:  # it is still being read
                self.deadline = math.inf
                return False
            if block:
                self._begin(block)
                self._count(block)
                return True
        return self._end_of_content()

    def _say(self, parts: list[bytes]) -> bool:
        """Add what comes next; whether more may follow at once."""
        if self._traffic.closing:
            return False
        if not self._in_flight:
            return self._begin_transaction()
        flying = self._in_flight[-1]
        stage = flying.stage
        if stage is ENVELOPE:
            return flying.said < len(flying.lines) and self._say_lines(flying, parts)
        if stage is ANSWER:
            return len(self._in_flight) == 1 and self._may_follow(flying) and self._begin_transaction()
        if stage is LONE_DOT:
            parts.append(FINAL_DOT)
            self._handed_over_at = sum(map(len, parts)) - len(FINAL_DOT)
            flying.stage = ANSWER
            return True
        return stage is CONTENT and self._content is None and self._begin_content(flying, parts)

    def _may_follow(self, flying: Transaction) -> bool:
        return flying.pipelined and self._manners.pipelining and self._traffic.quick

    def _begin_transaction(self) -> bool:
        outgoing = self._traffic.next_outgoing(on_heels=bool(self._in_flight))
        self.hungry = outgoing is None
        if outgoing is None:
            return False
        try:
            rendering = outgoing.rendering
            if outgoing.binary is not None and self._offers_binary:
                rendering = outgoing.binary
            outgoing.check(
                rendering,
                limit=self._size_limit,
                smtputf8=self._offers_smtputf8,
                peer=self._wire.peer,
            )
        except MailError as error:
            self._traffic.delivered(outgoing.not_sent(error))
            return True
        parameters = f" SIZE={rendering.size}" if self._offers_size else ""
        if rendering.binary:
            parameters += " BODY=BINARYMIME"
        if rendering.needs_smtputf8:
            parameters += " SMTPUTF8"
        flying = Transaction(
            outgoing,
            rendering,
            peer=self._wire.peer,
            parameters=parameters,
            chunking=rendering.binary,
            pipelined=self._offers_pipelining and self._manners.pipelining,
            on_heels=bool(self._in_flight),
            reset=self.session.needs_reset and not self._in_flight,
            announced=self.session.recipient_limit,
            manners=self._manners,
        )
        self._in_flight.append(flying)
        return True

    def _say_lines(self, flying: Transaction, parts: list[bytes]) -> bool:
        lines = flying.next_lines()
        if not lines:
            return False
        if self._tell:
            for line in lines:
                log.debug("C: %s", line)
        flying.said += len(lines)
        parts.append(("\r\n".join(lines) + "\r\n").encode())
        return False

    def _begin_content(self, flying: Transaction, parts: list[bytes]) -> bool:
        message = None if flying.chunking else flying.outgoing.message
        if message is not None:
            parts.append(message)
            self._handed_over_at = sum(map(len, parts)) - len(FINAL_DOT)
            flying.stage = ANSWER
            return True
        if flying.chunking:
            self._left = flying.rendering.size
            parts.append(f"BDAT {self._left} LAST\r\n".encode())
        content = iter(flying.rendering) if flying.chunking else dot_stuffed(flying.rendering.pieces)
        remote = flying.outgoing.mail.has_remote_files
        self._content = ReadAhead(content, self._traffic.wake) if remote else content
        return False

    def _count(self, block: bytes) -> None:
        """After BDAT, the server has the whole message with the last octet that was announced."""
        flying = self._in_flight[-1]
        if flying.chunking:
            self._left -= len(block)
            if not self._left:
                flying.stage = ANSWER
                self._handed_over_at = len(block) - 1
                self._close_content()

    def _end_of_content(self) -> bool:
        """The final dot and what may follow it, unless the server has refused in the meantime."""
        self._content = None
        self._wire.receive_some()
        if self._hear():
            return False
        self._in_flight[-1].stage = ANSWER
        self._handed_over_at = 0
        return self._fill([FINAL_DOT])

    def _close_content(self) -> None:
        if isinstance(self._content, ReadAhead):
            self._content.close()
        self._content = None

    def _begin(self, block: bytes) -> None:
        self._block = block
        self._block_since = time.monotonic()
        self._clocked = BLOCK
        self.hungry = False

    def _send(self) -> bool:
        """Send the block, or as much of it as fits; whether more may follow at once."""
        block = self._block
        piece = block if len(block) <= self._clocked else memoryview(block)[: self._clocked]
        sent = self._wire.send_some(piece) if self._handed_over_at is None else self._hand_over(piece)
        through = sent == len(piece)
        self._block = b"" if sent == len(block) else memoryview(block)[sent:]
        self._clocked -= sent
        if through and self._block:
            self._block_since = time.monotonic()
            self._clocked = BLOCK
        self._set_deadline()
        return through

    def _hand_over(self, piece: bytes | memoryview) -> int:
        """Send what leads up to an octet from which on only the server knows what becomes of the mail; how much it was.

        The mail counts as handed over before it is, so that an interruption in between does not find one that nobody
        can have.
        """
        flying = self._in_flight[-1]
        if flying.stage is not ANSWER:  # it follows on the heels of the one that is meant
            flying = self._in_flight[-2]
        at = self._handed_over_at or 0
        flying.handed_over = at < len(piece)
        try:
            sent = self._wire.send_some(piece)
        except MailError:
            flying.handed_over = False
            raise
        flying.handed_over = sent > at
        self._handed_over_at = None if sent > at else at - sent
        return sent

    def _set_deadline(self) -> None:
        if self._in_flight and self._in_flight[0].handed_over:
            # A server that is busy with what it has got may take nothing more until it is done.
            self.deadline = time.monotonic() + self.session.manager.final_reply_timeout
        elif len(self._block):
            self.deadline = self._block_since + self._wire.timeout
        elif self._in_flight:
            self.deadline = time.monotonic() + self._wire.timeout
        else:
            self.deadline = math.inf

    def _sending_failed(self, error: MailError) -> None:
        """What the server had said before the line broke, or before the file failed, comes first."""
        with contextlib.suppress(MailError):
            self._wire.receive_some()
        if not self._hear():
            self._broke(error)

    # --- Listening

    def _hear(self) -> bool:
        """Take every reply that is whole; whether the line is done for."""
        heard = False
        next_reply, in_flight = self._replies.next, self._in_flight
        while not self.dead:
            try:
                reply = next_reply(self._wire.phase)
                if reply is None:
                    break
                heard = True
                if self._tell:
                    log.debug("S: %s", reply)
                if not in_flight:
                    self._unasked(reply)
                    continue
                flying = in_flight[0]
                if reply.code == 421 and self._closes_the_session(flying, reply):
                    self._broke(ConnectionLostError(f"{self._wire.peer} said '{reply}'.", reply=reply))
                    continue
                flying.hear(reply)
                if flying.stage is OVER:
                    self._settle(flying, reply)
            except ProtocolError as error:
                self._broke(error)
        if heard and not self.dead:
            if self._block:  # the server may have been too busy to take it
                self._block_since = time.monotonic()
            self._set_deadline()
        return self.dead

    def _closes_the_session(self, flying: Transaction, reply: Reply) -> bool:
        """Whether a session is closed: its limit, its idle time, too many recipients. The mail is nobody's yet."""
        reason = self.session.has_carried_mail or flying.too_many
        return reason and self._keep and flying.may_be_closed_by(reply)

    def _settle(self, flying: Transaction, reply: Reply) -> None:
        """The transaction is over."""
        self.session.has_carried_mail = True
        self.session.needs_reset = not flying.handed_over
        if flying.on_heels and not flying.line_is_dead:
            self._manners.pipelining_works = True
        if flying.delivery is not None:
            self._traffic.delivered(flying.delivery)
        else:
            self._traffic.again(flying.outgoing, taken=flying.taken)
        self._in_flight.popleft()  # last, so that an interruption finds it in one place at least
        if flying.line_is_dead:
            self._broke(ConnectionLostError(f"{self._wire.peer} said '{reply}'.", reply=reply))

    def _unasked(self, reply: Reply) -> None:
        """What is said to nobody: a good-bye, or an answer too many, after which no answer could be trusted."""
        log.info("%s said '%s' without being asked; the session is closed.", self._wire.peer, reply)
        self.abandon()

    def _broke(self, error: MailError) -> None:
        """The line is done for, and each mail on it ends, or goes through another one."""
        flying, self._in_flight = self._in_flight, deque()
        self.abandon()
        if self._manners.pipelining and any(self._came_of_pipelining(transaction, error) for transaction in flying):
            log.warning(
                "%s offers PIPELINING and does not do it well (%s); from here on each command waits for its reply.",
                self._wire.peer,
                error.message,
            )
            self._manners.pipelining = False
        first = True
        for transaction in flying:
            if not transaction.handed_over and self._keep and self._may_go_again(transaction, error, first=first):
                self._traffic.again(transaction.outgoing)
            else:
                self._traffic.delivered(transaction.broke(error))
            first = False

    def _may_go_again(self, flying: Transaction, error: MailError, *, first: bool) -> bool:
        """Whether it was not this mail's fault, and nobody can have it."""
        if flying.stage is not ENVELOPE:
            return False
        if not first or self._came_of_pipelining(flying, error):
            return True
        return (self.session.has_carried_mail or flying.too_many) and isinstance(error, ConnectionLostError)

    def _came_of_pipelining(self, flying: Transaction, error: MailError) -> bool:
        """Whether a server that got its commands one by one might not have failed."""
        if not (flying.pipelined and flying.stage is ENVELOPE):
            return False
        begun = flying.on_heels or flying.answered
        if isinstance(error, ConnectionLostError):
            # Any line may break, above all an idle one; but a server that has not shown yet that it can take a group is
            # likely to have hung up because of it.
            fresh = begun or not self.session.has_carried_mail
            return error.reply is None and fresh and not self._manners.pipelining_works
        return isinstance(error, ProtocolError | NoAnswerError) and begun
