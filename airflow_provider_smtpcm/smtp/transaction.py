"""One transaction: MAIL, RCPT, DATA or BDAT, the message, the final reply (RFC 5321 3.3, 3030). No sockets, no clock.

It gives out the command lines and takes the replies in their order, whether the lines are sent one by one or in one
group (RFC 2920).

A mail to more recipients than a server takes at once goes in further transactions, with the same octets. The limit is
announced (RFC 9422 4), or is learned from the first 452 (RFC 5321 4.5.3.1.10): until then recipients are asked for in
groups, each of which waits for the replies to the one before, so that no more than one group is too many. Every server
takes 100 (4.5.3.1.8); Postfix takes 1,000, and closes the connection when 1,000 more were too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, Phase, ProtocolError, Reply
from airflow_provider_smtpcm.smtp.cancellation import describe_interruption, interruption_error

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.encoding import EncodedFile
    from airflow_provider_smtpcm.mail.render import Rendering
    from airflow_provider_smtpcm.smtp.delivery import Delivery
    from airflow_provider_smtpcm.smtp.queue import OutgoingMail
    from airflow_provider_smtpcm.smtp.throttling import ServerProfile

#: The end of a message in DATA.
FINAL_DOT = b".\r\n"
_DOT_AT_LINE_START = re.compile(rb"(?<=\r\n)\.")
_DOT_AFTER_BREAK = re.compile(rb"\n\.")  # found in a third of the time that `in` takes

# RFC 5321 4.5.3.1.10: 452, and from old servers 552, for "too many recipients"; RFC 3463 calls that X.5.3.
_TOO_MANY_CODES = (452, 552)
_TOO_MANY = re.compile("too many", re.IGNORECASE)
# Servers that reject commands in a group although they offered PIPELINING. Some replies repeat an address, and one such
# as data-pipeline@ is not meant.
_NO_PIPELINING = re.compile(r"\bsynchroni[sz]ation error\b|\bpipelining\b", re.IGNORECASE)


class Stage(Enum):
    """The stages of a transaction."""

    #: Command lines are to be sent, or their replies are outstanding.
    ENVELOPE = auto()
    #: The server waits for the message, which is being sent or about to be.
    CONTENT = auto()
    #: The server waits for a message although it accepted no recipient: it gets the final dot alone (RFC 2920 3.1).
    EMPTY_DATA = auto()
    #: The whole message was given to the socket.
    FINAL_REPLY = auto()
    #: Nothing more is sent or expected.
    DONE = auto()


# Python 3.11 takes ten times longer to find a member of an enumeration than a name, and a mail looks up thirty.
ENVELOPE, CONTENT, EMPTY_DATA, FINAL_REPLY, DONE = Stage


class Transaction:
    """One mail to (some of) its recipients on one connection.

    Args:
        outgoing: the mail.
        rendering: what is sent.
        peer: the server, as messages name it.
        parameters: of MAIL, each with a blank before it.
        chunking: whether the message is sent by BDAT.
        grouped: whether the command lines are sent in groups (RFC 2920).
        pipelined: whether they are sent right behind another message, before its final reply.
        reset: whether the server has to forget an unfinished transaction first.
        announced_limit: how many recipients a transaction may have (LIMITS RCPTMAX, RFC 9422 4); None: not announced.
        profile: what is known of the server; a limit that is learned is kept there.
    """

    __slots__ = (
        "_accepted",
        "_recipient_count",
        "_group_size",
        "_peer",
        "_profile",
        "_recipients",
        "_refused",
        "_reply_count",
        "_has_rset",
        "_sender_refused",
        "_too_many",
        "chunking",
        "closes_connection",
        "committed",
        "delivery",
        "empty_data",
        "grouped",
        "lines",
        "has_met_limit",
        "outgoing",
        "pipelined",
        "rendering",
        "lines_sent",
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
        # How many of them this transaction asks for in all, and in one group.
        self._recipient_count = len(self._recipients)
        self._group_size = max(announced_limit or 0, profile.recipients_at_once)
        if not chunking:
            lines.append("DATA")
        #: Every command line of the envelope.
        self.lines = lines
        #: How many of them were sent.
        self.lines_sent = 0
        #: Whether the server may have the whole message: from here on only its reply tells what becomes of it.
        self.committed = False
        #: Whether the server wanted a message although it had accepted no recipient.
        self.empty_data = False
        #: Whether the server has accepted the message for the recipients that it had accepted.
        self.was_accepted = False
        #: Whether a limit of recipients was learned in this transaction, so that later ones ask for fewer.
        self.has_met_limit = False
        #: Whether the connection can carry no further mail.
        self.closes_connection = False
        #: What became of the mail; None where its other recipients are asked in a further transaction.
        self.delivery: Delivery | None = None
        self._profile = profile
        self._peer = peer
        self._has_rset = reset
        self._reply_count = 0
        self._sender_refused: Reply | None = None
        self._accepted: list[str] = []
        self._refused: dict[str, Reply] = {}
        self._too_many: dict[str, Reply] = {}

    @property
    def phase(self) -> Phase:
        """How far the mail has come, for errors."""
        if self.committed:
            return Phase.FINAL_DOT
        return Phase.ENVELOPE if self.stage is ENVELOPE else Phase.DATA

    @property
    def is_awaiting_reply(self) -> bool:
        """Whether a reply to a command line is outstanding."""
        return self._reply_count < self.lines_sent

    @property
    def has_reply(self) -> bool:
        """Whether a command line was answered."""
        return self._reply_count > 0

    def next_lines(self) -> list[str]:
        """Return the command lines that may be sent now."""
        if self.is_awaiting_reply:
            return []
        end = self.lines_sent + 1
        if self.grouped:
            end = max(self._has_rset + 1, self.lines_sent) + self._group_size
            if end >= self._has_rset + 1 + self._recipient_count:
                end = len(self.lines)
        return self.lines[self.lines_sent : end]

    def is_session_closed_by(self, reply: Reply) -> bool:
        """Return whether a 421 is only about the session, so that the mail may be sent through another one."""
        return self.stage is ENVELOPE and not self._rejects_pipelining(reply)

    def on_reply(self, reply: Reply) -> None:
        """Take the next reply.

        Raises:
            ProtocolError: it does not answer what was sent.
        """
        if self.stage is not ENVELOPE:
            self._on_final_reply(reply)
            return
        at = self._reply_count - self._has_rset
        self._reply_count += 1
        code = reply.code
        if code >= 400 and self._rejects_pipelining(reply):
            raise self._desynchronized(reply)
        if code == 421:
            self._on_421(reply)
        elif at > self._recipient_count:
            self._on_data_reply(reply)
        elif code // 100 == 3 or at < 0:
            if not reply.positive:
                raise self._desynchronized(reply)
        elif at > 0:
            self._on_recipient_reply(self._recipients[at - 1], reply)
        elif code >= 400:
            self._on_sender_refused(reply)

    def fail(self, error: MailError) -> Delivery:
        """Return what became of the mail when its connection broke.

        Args:
            error: what broke it.
        """
        if self.committed and not self.empty_data:
            return self._unknown(error.message, error)
        if self.empty_data and (refused := self._refuse_all()) is not None:
            return refused
        # No one can have the mail: its final dot was not sent.
        return self.outgoing.not_sent(_with_phase(error, self.phase))

    def interrupt(self, interruption: BaseException) -> Delivery:
        """Return what is known of the mail when an exception from elsewhere ended the sending."""
        if self.delivery is not None:
            return self.delivery
        if self.committed and not self.empty_data and self.stage is not DONE:
            return self._unknown(f"{describe_interruption(interruption)}.", None)
        return self.outgoing.not_sent(interruption_error(interruption))

    def _unknown(self, why: str, error: MailError | None) -> Delivery:
        self.outgoing.refused.update(self._refused)
        self.outgoing.refused.update(self._too_many)
        return self.outgoing.unknown(why, committed=self._accepted, unattempted=self._unattempted(), cause=error)

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
        if self._reply_count - self._has_rset == self._recipient_count + 1:
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
        """Leave out the recipients that the server was not asked for yet."""
        asked = min(max(0, self.lines_sent - self._has_rset - 1), self._recipient_count)
        del self.lines[self._has_rset + 1 + asked : self._has_rset + 1 + self._recipient_count]
        self._recipient_count = asked

    def _on_data_reply(self, reply: Reply) -> None:
        if reply.code == 354:
            self.stage = CONTENT if self._accepted else EMPTY_DATA
            self.empty_data = not self._accepted
        elif reply.code < 400:
            raise self._desynchronized(reply)
        elif self._accepted:
            self._finish(self._refuse("the message (DATA)", reply))
        else:
            self._finish(self._refuse_all())

    def _on_final_reply(self, reply: Reply) -> None:
        if self.empty_data:
            # Whatever the reply is: no recipient was accepted, so no one gets the mail.
            self.closes_connection = reply.code == 421 or not self.committed
            self._finish(self._refuse_all())
        elif not self.committed:
            # The server discards a message without its final dot, or its last octet.
            self.closes_connection = True
            if reply.code < 400:
                raise ProtocolError(
                    f"{self._peer} said '{reply}' before it had the whole message.",
                    remedy="The server's administrator must look at it: its answers do not belong to what they answer.",
                    phase=Phase.DATA,
                )
            self._finish(self._refuse("to take the rest", reply))
        elif reply.code // 100 == 3:
            raise self._desynchronized(reply, "the end of the message")
        elif reply.positive:
            self._on_accepted(reply)
        else:
            self.closes_connection = reply.code == 421
            self._finish(self._refuse("the message", reply))

    def _on_accepted(self, reply: Reply) -> None:
        outgoing = self.outgoing
        outgoing.accepted += self._accepted
        outgoing.refused.update(self._refused)
        self._profile.on_accepted(self._recipient_count - len(self._too_many))
        self.was_accepted = True
        if not self._keep_remaining_recipients():
            self.delivery = outgoing.accept(self._peer, reply)
        self.stage = DONE  # last, so that an interruption does not take it for a transaction that asks the rest

    def _keep_remaining_recipients(self) -> bool:
        """Leave the recipients that were not asked for to a further transaction; return whether there are any."""
        remaining = self.outgoing.recipients
        for _ in range(self._recipient_count):
            remaining.popleft()
        remaining.extendleft(reversed(self._too_many))
        return bool(remaining)

    def _unattempted(self) -> list[str]:
        """Return the recipients that the server was not asked for, or that were too many for this transaction."""
        return [*self._too_many, *islice(self.outgoing.recipients, self._recipient_count, None)]

    def _on_421(self, reply: Reply) -> None:
        """Take a 421: the server forgets the recipients that it had accepted."""
        self.closes_connection = True
        self._finish(self._refuse("to go on", reply, retryable=True))

    def _refuse_all(self) -> Delivery | None:
        """Return the delivery if every recipient was refused; None if a further transaction asks for others."""
        if self._sender_refused is not None:
            return self._refuse(f"the sender {self.outgoing.sender}", self._sender_refused, phase=Phase.ENVELOPE)
        outgoing, refused = self.outgoing, self._refused.values()
        outgoing.refused.update(self._refused)
        reply = next((reply for reply in refused if exceeds_recipient_limit(reply)), None)
        if reply is None and self._keep_remaining_recipients():
            return None
        reply = reply or next(iter(refused))
        transient = any(reply.transient for reply in outgoing.refused.values())
        return self._refuse("every recipient", reply, phase=Phase.ENVELOPE, retryable=transient)

    def _refuse(
        self, what: str, reply: Reply, *, phase: Phase | None = None, retryable: bool | None = None
    ) -> Delivery:
        self.outgoing.refused.update(self._refused)
        return self.outgoing.refuse(self._peer, what, reply, phase=phase or self.phase, retryable=retryable)

    def _finish(self, delivery: Delivery | None) -> None:
        self.stage = DONE
        self.delivery = delivery

    def _rejects_pipelining(self, reply: Reply) -> bool:
        return self.grouped and _NO_PIPELINING.search(reply.text) is not None

    def _desynchronized(self, reply: Reply, what: str | None = None) -> ProtocolError:
        command = what or self.lines[self._reply_count - 1].partition(" ")[0]
        return ProtocolError(
            f"{self._peer} answered {command} with '{reply}', which is no answer to it.",
            remedy="The server's administrator must look at it: its answers do not belong to what they answer.",
            phase=self.phase,
            reply=reply,
        )


def _with_phase(error: MailError, phase: Phase) -> MailError:
    """Return the error of the connection as that of a mail, which may have come less far than the one before it."""
    if error.phase is phase:
        return error
    copy = type(error)(error.message, remedy=error.remedy, phase=phase, reply=error.reply, retryable=error.retryable)
    copy.__cause__ = error.__cause__
    return copy


def exceeds_recipient_limit(reply: Reply) -> bool:
    """Return whether a recipient was refused only as too many for one transaction, so that a further one may do."""
    if reply.code not in _TOO_MANY_CODES:
        return False
    if reply.enhanced is not None:
        return reply.enhanced.endswith(".5.3")
    return reply.code == _TOO_MANY_CODES[0] or _TOO_MANY.search(reply.text) is not None


def stuff_dots(pieces: Iterable[bytes | EncodedFile]) -> Iterator[bytes]:
    """Double each dot that starts a line (RFC 5321 4.5.2), across the borders of chunks too, and end with a line break.

    Files in which no line can begin with a dot are not searched: that would take longer than encoding them.
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
                yield _DOT_AT_LINE_START.sub(b"..", joined)[len(tail) :]
                tail = joined[-2:]
            else:
                yield chunk
                tail = (tail + chunk)[-2:] if len(chunk) < 2 else chunk[-2:]
    if tail != b"\r\n":
        yield b"\r\n"


def join_with_final_dot(pieces: Sequence[bytes | EncodedFile]) -> bytes:
    """Return all that DATA sends of a message; most messages are one piece without a dot to double."""
    first = pieces[0]
    if len(pieces) > 1 or not isinstance(first, bytes) or _DOT_AFTER_BREAK.search(first) or not first.endswith(b"\r\n"):
        return b"".join((*stuff_dots(pieces), FINAL_DOT))
    return first + FINAL_DOT  # a message begins with a header field, so with no dot
