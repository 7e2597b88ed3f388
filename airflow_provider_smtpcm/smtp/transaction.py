"""A mail transaction: MAIL, RCPT, DATA or BDAT, the message, the final reply (RFC 5321 3.3, RFC 3030). No sockets.

A state machine that provides the command lines and processes the replies in order, whether the lines are sent one by
one or in groups (RFC 2920).

A mail with more recipients than the server accepts in one transaction is sent in several, with the same octets. The
limit is announced (RFC 9422 4), or learned from the first 452 (RFC 5321 4.5.3.1.10). Until it is known, RCPT commands
are sent in groups, each after the replies to the previous one, so that at most one group exceeds it. Every server
accepts 100 recipients (4.5.3.1.8); Postfix accepts 1,000, and closes the connection after 1,000 rejected ones.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, Phase, ProtocolError, Reply
from airflow_provider_smtpcm.smtp.cancellation import describe_interruption, interruption_error

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.file_encoding import EncodedFile
    from airflow_provider_smtpcm.mail.render import Rendering
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.queue import OutgoingMail
    from airflow_provider_smtpcm.smtp.throttling import ServerProfile

#: Ends the message in DATA (RFC 5321 4.1.1.4).
FINAL_DOT = b".\r\n"
_DOT_AT_LINE_START = rb"(?<=\r\n)\."
_DOT_AFTER_BREAK = re.compile(rb"\n\.")  # three times as fast as `in`

# RFC 5321 4.5.3.1.10: 452, and from old servers 552, for "too many recipients"; RFC 3463 calls that X.5.3, which
# OpenSMTPD says with 451.
_TOO_MANY_CODES = (452, 552)
_TOO_MANY = "(?i)too many"
# Replies of servers that offer PIPELINING and then reject a group of commands. Not just "pipeline": some replies repeat
# an address, such as data-pipeline@corp.example.
_NO_PIPELINING = r"(?i)\bsynchroni[sz]ation error\b|\bpipelining\b"


class Stage(Enum):
    """The stages of a transaction."""

    #: Command lines are still to be sent, or replies to them are outstanding.
    ENVELOPE = auto()
    #: The server waits for the message.
    CONTENT = auto()
    #: The server waits for a message although it accepted no recipient: only the final dot is sent (RFC 2920 3.1).
    EMPTY_DATA = auto()
    #: The whole message is queued for the socket or sent.
    FINAL_REPLY = auto()
    #: The transaction is finished.
    DONE = auto()


# In Python 3.11 `Stage.DONE` takes ten times as long as a global name, and each mail takes thirty such look-ups.
ENVELOPE, CONTENT, EMPTY_DATA, FINAL_REPLY, DONE = Stage


class Transaction:
    """A transaction for one mail and its pending recipients, or as many as the server accepts at once.

    Args:
        outgoing: the mail.
        rendering: the message to send.
        peer: the server's name in messages (`host:port`).
        parameters: the parameters of MAIL, each preceded by a space.
        chunking: whether the message is sent with BDAT (RFC 3030).
        grouped: whether command lines are sent in groups (RFC 2920).
        pipelined: whether they are sent before the final reply to the previous mail.
        reset: whether RSET is sent first, for an unfinished transaction.
        announced_limit: maximum recipients per transaction (LIMITS RCPTMAX, RFC 9422 4); None: not announced.
        profile: the server's known limits; a newly learned one is stored in it.
    """

    __slots__ = (
        "_accepted",
        "_group_size",
        "_mail_index",
        "_peer",
        "_profile",
        "_recipient_count",
        "_recipients",
        "_refused",
        "_reply_count",
        "_sender_refused",
        "_too_many",
        "chunking",
        "closes_connection",
        "committed",
        "delivery",
        "empty_data",
        "grouped",
        "has_met_limit",
        "lines",
        "lines_sent",
        "outgoing",
        "pipelined",
        "rendering",
        "stage",
        "was_accepted",
    )

    def __init__(
        self,
        outgoing: OutgoingMail,
        rendering: Rendering,
        *,
        peer: str,
        parameters: str,
        chunking: bool,
        grouped: bool,
        pipelined: bool,
        reset: bool,
        announced_limit: int | None,
        profile: ServerProfile,
    ) -> None:
        self.outgoing = outgoing
        self.rendering = rendering
        self.chunking = chunking
        self.grouped = grouped
        self.pipelined = pipelined
        self.stage = ENVELOPE
        lines = ["RSET"] if reset else []
        lines.append(f"MAIL FROM:<{outgoing.sender}>{parameters}")
        limit = len(outgoing.recipients)
        if announced_limit and announced_limit < limit:
            limit = announced_limit
        if profile.recipient_limit and profile.recipient_limit < limit:
            limit = profile.recipient_limit
        self._recipients = list(islice(outgoing.recipients, limit))
        lines += [f"RCPT TO:<{address}>" for address in self._recipients]
        # The number of RCPT commands in all, and per group.
        self._recipient_count = len(self._recipients)
        self._group_size = max(announced_limit or 0, profile.recipients_at_once)
        if not chunking:
            lines.append("DATA")
        #: Every command line of the envelope.
        self.lines = lines
        #: The number of `lines` that were sent.
        self.lines_sent = 0
        #: Whether the server may have the whole message, so that only its final reply tells the outcome.
        self.committed = False
        #: Whether the server replied 354 to DATA although it had accepted no recipient.
        self.empty_data = False
        #: Whether the server accepted the message.
        self.was_accepted = False
        #: Whether this transaction revealed a limit on recipients, so that later ones have fewer.
        self.has_met_limit = False
        #: Whether the connection cannot be used for further mails.
        self.closes_connection = False
        #: The mail's delivery; None if a further transaction is needed for other recipients.
        self.delivery: Delivery | None = None
        self._profile = profile
        self._peer = peer
        self._mail_index = int(reset)  # the index of MAIL in `lines`
        self._reply_count = 0
        self._sender_refused: Reply | None = None
        self._accepted: list[str] = []
        self._refused: dict[str, Reply] = {}
        self._too_many: dict[str, Reply] = {}

    @property
    def phase(self) -> Phase:
        """How far the mail has got, for errors."""
        if self.committed:
            return Phase.FINAL_DOT
        return Phase.ENVELOPE if self.stage is ENVELOPE else Phase.DATA

    @property
    def is_awaiting_reply(self) -> bool:
        """Whether a reply to a command line is outstanding."""
        return self._reply_count < self.lines_sent

    @property
    def has_reply(self) -> bool:
        """Whether the server has replied to a command line."""
        return self._reply_count > 0

    @property
    def has_all_recipients(self) -> bool:
        """Whether no recipient is left for a later transaction."""
        return not self._too_many and len(self.outgoing.recipients) <= self._recipient_count

    def next_lines(self) -> list[str]:
        """Return the command lines that may be sent now: one, or a group."""
        if self.is_awaiting_reply:
            return []
        end = self.lines_sent + 1
        if self.grouped:
            end = max(self._mail_index + 1, self.lines_sent) + self._group_size
            if end >= self._mail_index + 1 + self._recipient_count:
                end = len(self.lines)
        return self.lines[self.lines_sent : end]

    def is_session_closed_by(self, reply: Reply) -> bool:
        """Return whether a 421 concerns only the session, so that the mail may be sent through another one."""
        return self.stage is ENVELOPE and not self._rejects_pipelining(reply)

    def on_reply(self, reply: Reply) -> None:
        """Process the next reply.

        Raises:
            ProtocolError: the reply cannot belong to the command.
        """
        if self.stage is not ENVELOPE:
            self._on_final_reply(reply)
            return
        position = self._reply_count - self._mail_index  # 0: MAIL, then RCPT commands, then DATA
        self._reply_count += 1
        code = reply.code
        if code >= 400 and self._rejects_pipelining(reply):
            raise self._desynchronized_error(reply)
        if code == 421:
            self._on_421(reply)
        elif position > self._recipient_count:
            self._on_data_reply(reply)
        elif code // 100 == 3 or position < 0:
            if not reply.positive:
                raise self._desynchronized_error(reply)
        elif position > 0:
            self._on_recipient_reply(self._recipients[position - 1], reply)
        elif code >= 400:
            self._on_sender_refused(reply)

    @property
    def is_uncommitted_refusal(self) -> bool:
        """Whether the server refused the mail before it was sent any of the message."""
        is_refused = self.delivery is not None and not self.was_accepted
        return is_refused and not self.closes_connection and (self.empty_data or not self.committed)

    def reopen(self) -> None:
        """Make the recipients pending again that were refused only for now, for another session."""
        outgoing = self.outgoing
        gone = {
            address
            for address, reply in self._refused.items()
            if not reply.transient and not exceeds_recipient_limit(reply)
        }
        pending = dict.fromkeys((*self._recipients, *outgoing.recipients))
        outgoing.recipients = deque(address for address in pending if address not in gone)
        for address in outgoing.recipients:
            outgoing.refused.pop(address, None)
        self.delivery = None

    def fail(self, error: MailError) -> Delivery:
        """Return the mail's delivery after its connection failed.

        Args:
            error: the connection's error.
        """
        if self.committed and not self.empty_data:
            return self._unknown(error.message, error)
        if self.empty_data and (refused := self._refuse_all()) is not None:
            return refused
        # The final dot was not sent, so no recipient can have the mail.
        return self.outgoing.not_sent(_with_phase(error, self.phase))

    def interrupt(self, interruption: BaseException) -> Delivery:
        """Return the mail's delivery when sending is interrupted (see `cancellation`)."""
        if self.delivery is not None:
            return self.delivery
        if self.committed and not self.empty_data and self.stage is not DONE:
            return self._unknown(f"{describe_interruption(interruption)}.", None)
        return self.outgoing.not_sent(interruption_error(interruption))

    def _unknown(self, why: str, error: MailError | None) -> Delivery:
        self.outgoing.refused.update(self._refused)
        self.outgoing.refused.update(self._too_many)
        return self.outgoing.unknown(
            self._peer, why, committed=self._accepted, unattempted=self._get_unattempted(), cause=error
        )

    def _on_sender_refused(self, reply: Reply) -> None:
        self._sender_refused = reply
        self._drop_unsent_recipients()
        if not self._recipient_count:
            self._finish(self._refuse_all())

    def _on_recipient_reply(self, address: str, reply: Reply) -> None:
        if self._sender_refused is None:
            if reply.positive:
                self._accepted.append(address)
            elif self._accepted and exceeds_recipient_limit(reply):
                self._on_too_many(address, reply)
            else:
                self._refused[address] = reply
        if self._reply_count - self._mail_index == self._recipient_count + 1:
            if self.chunking and self._accepted:
                self.stage = CONTENT
            elif not self._accepted and not self.is_awaiting_reply:
                self._finish(self._refuse_all())

    def _on_too_many(self, address: str, reply: Reply) -> None:
        if not self._too_many:
            self.has_met_limit = self._profile.on_limit(len(self._accepted) + len(self._refused))
            self._drop_unsent_recipients()
        self._too_many[address] = reply

    def _drop_unsent_recipients(self) -> None:
        """Keep the recipients whose RCPT was not sent, for a later transaction."""
        kept = min(max(0, self.lines_sent - self._mail_index - 1), self._recipient_count)
        del self.lines[self._mail_index + 1 + kept : self._mail_index + 1 + self._recipient_count]
        self._recipient_count = kept

    def _on_data_reply(self, reply: Reply) -> None:
        if reply.code == 354:
            self.stage = CONTENT if self._accepted else EMPTY_DATA
            self.empty_data = not self._accepted
        elif reply.code < 400:
            raise self._desynchronized_error(reply)
        elif self._accepted:
            self._finish(self._refuse("the message (DATA)", reply))
        else:
            self._finish(self._refuse_all())

    def _on_final_reply(self, reply: Reply) -> None:
        if self.empty_data:
            # Whatever the reply: no recipient was accepted, so the mail is not delivered.
            self.closes_connection = reply.code == 421 or not self.committed
            self._finish(self._refuse_all())
        elif not self.committed:
            # The server discards a message that ends without its final dot, or last BDAT octet.
            self.closes_connection = True
            if reply.code < 400:
                raise ProtocolError(
                    f"{self._peer} answered '{reply}' before it had the whole message.",
                    remedy="The server's administrator must check why its replies do not match the commands.",
                    phase=Phase.DATA,
                )
            self._finish(self._refuse("the message before its end", reply))
        elif reply.code // 100 == 3 or reply.code == 221:  # 221 closes the channel; it does not accept a message
            raise self._desynchronized_error(reply, "the end of the message")
        elif reply.positive:
            self._on_accepted(reply)
        else:
            self.closes_connection = reply.code == 421
            self._finish(self._refuse("the message", reply))

    def _on_accepted(self, reply: Reply) -> None:
        outgoing = self.outgoing
        outgoing.accepted += self._accepted
        outgoing.server = self._peer
        outgoing.refused.update(self._refused)
        self._profile.on_accepted(self._recipient_count - len(self._too_many))
        self.was_accepted = True
        if not self._keep_remaining_recipients():
            self.delivery = outgoing.accept(self._peer, reply)
        self.stage = DONE  # last: to `interrupt`, DONE without a delivery means further transactions

    def _keep_remaining_recipients(self) -> bool:
        """Keep the recipients that are left for a later transaction; return whether there are any."""
        remaining = self.outgoing.recipients
        for _ in range(self._recipient_count):
            remaining.popleft()
        remaining.extendleft(reversed(self._too_many))
        return bool(remaining)

    def _get_unattempted(self) -> list[str]:
        """Return the recipients left for a later transaction."""
        return [*self._too_many, *islice(self.outgoing.recipients, self._recipient_count, None)]

    def _on_421(self, reply: Reply) -> None:
        """Process a 421: the server closes the connection, and no recipient stays accepted."""
        self.closes_connection = True
        self._finish(self._refuse("to continue", reply, retryable=True))

    def _refuse_all(self) -> Delivery | None:
        """Return the delivery if every recipient was refused; None if a further transaction is needed for others."""
        if self._sender_refused is not None:
            sender = self.outgoing.sender or "<>"
            return self._refuse(f"the sender {sender}", self._sender_refused, phase=Phase.ENVELOPE)
        outgoing, refused = self.outgoing, self._refused.values()
        outgoing.refused.update(self._refused)
        reply = next((reply for reply in refused if exceeds_recipient_limit(reply)), None)
        if reply is None and self._keep_remaining_recipients():
            return None
        reply = reply or next(iter(refused))
        transient = any(reply.transient for reply in outgoing.refused.values())
        return self._refuse(
            "every recipient", reply, phase=Phase.ENVELOPE, retryable=transient, is_about_recipients=True
        )

    def _refuse(self, what: str, reply: Reply, *, phase: Phase | None = None, **details: bool) -> Delivery:
        self.outgoing.refused.update(self._refused)
        return self.outgoing.refuse(self._peer, what, reply, phase=phase or self.phase, **details)

    def _finish(self, delivery: Delivery | None) -> None:
        self.stage = DONE
        self.delivery = delivery

    def _rejects_pipelining(self, reply: Reply) -> bool:
        return self.grouped and re.search(_NO_PIPELINING, reply.text) is not None

    def _desynchronized_error(self, reply: Reply, command: str | None = None) -> ProtocolError:
        command = command or self.lines[self._reply_count - 1].partition(" ")[0]
        return ProtocolError(
            f"{self._peer} answered {command} with '{reply}', which is not a reply to it.",
            remedy="The server's administrator must check why its replies do not match the commands.",
            phase=self.phase,
            reply=reply,
        )


def _with_phase(error: MailError, phase: Phase) -> MailError:
    """Return a connection's error with the phase of this mail, which may differ from that of the mail before it."""
    if error.phase is phase:
        return error
    copy = type(error)(error.message, remedy=error.remedy, phase=phase, reply=error.reply, retryable=error.retryable)
    copy.__cause__ = error.__cause__
    return copy


def exceeds_recipient_limit(reply: Reply) -> bool:
    """Return whether a recipient was refused only because the transaction has too many."""
    if reply.enhanced is not None:
        return reply.enhanced.endswith(".5.3")
    if reply.code not in _TOO_MANY_CODES:
        return False
    return reply.code == _TOO_MANY_CODES[0] or re.search(_TOO_MANY, reply.text) is not None


def stuff_dots(pieces: Iterable[bytes | EncodedFile]) -> Iterator[bytes]:
    """Double each dot at the start of a line (RFC 5321 4.5.2), and end the message with a line break.

    A line may begin in one chunk and its dot in the next. Files whose encoding has no dots (base64) are not searched:
    that would take longer than encoding them.

    Args:
        pieces: the octets and files of a rendering.
    """
    tail = b"\r\n"
    for piece in pieces:
        chunks: Iterable[bytes] = (piece,) if isinstance(piece, bytes) else piece
        search = isinstance(piece, bytes) or not piece.is_dot_free
        for chunk in chunks:
            if not chunk:
                continue
            if search and (_DOT_AFTER_BREAK.search(chunk) or chunk.startswith((b".", b"\n"))):
                joined = tail + chunk
                yield re.sub(_DOT_AT_LINE_START, b"..", joined)[len(tail) :]
                tail = joined[-2:]
            else:
                yield chunk
                tail = (tail + chunk)[-2:] if len(chunk) < 2 else chunk[-2:]
    if tail != b"\r\n":
        yield b"\r\n"


def join_with_final_dot(pieces: Sequence[bytes | EncodedFile]) -> bytes:
    """Return a message for DATA, dot-stuffed and with the final dot.

    Most messages are one piece without a dot to double, which is fast.
    """
    first = pieces[0]
    if len(pieces) > 1 or not isinstance(first, bytes) or _DOT_AFTER_BREAK.search(first) or not first.endswith(b"\r\n"):
        return b"".join((*stuff_dots(pieces), FINAL_DOT))
    return first + FINAL_DOT  # its first line is a header field, so it does not begin with a dot
