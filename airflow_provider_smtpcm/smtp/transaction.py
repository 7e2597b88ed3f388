"""One transaction: MAIL, RCPT, DATA or BDAT, the message, the answer (RFC 5321 3.3, 3030). Knows no socket and no time.

It says which command lines there are and takes the replies in their order, whether they were asked for one by one or in
one group (RFC 2920).

A mail to more recipients than a server takes at once goes in further transactions, with the same octets. How many that
are is announced (RFC 9422 4), or is learned from the first 452 (RFC 5321 4.5.3.1.10): until then recipients are asked
for in groups, each of which waits for the replies to the one before, so that no more than one group is too many. Every
server takes 100 (4.5.3.1.8); Postfix takes 1,000, and closes the connection when 1,000 more were too many.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from itertools import islice

from airflow_provider_smtpcm.errors import MailError, Phase, ProtocolError, Reply
from airflow_provider_smtpcm.mail.render import Rendering
from airflow_provider_smtpcm.smtp.cancellation import interrupted_by, not_sent_for
from airflow_provider_smtpcm.smtp.delivery import Delivery
from airflow_provider_smtpcm.smtp.outgoing import Outgoing
from airflow_provider_smtpcm.smtp.throttling import ServerProfile

# RFC 5321 4.5.3.1.10: 452, and from servers of old 552, for "too many recipients"; RFC 3463 calls that X.5.3.
_TOO_MANY_CODES = (452, 552)
_TOO_MANY_WORDS = re.compile("too many", re.IGNORECASE)
# What servers say that find commands in a group although they had offered to take them so. Some repeat the address,
# and nobody's "data-pipeline@" is meant.
_NO_PIPELINING = re.compile(r"\bsynchroni[sz]ation error\b|\bpipelining\b", re.IGNORECASE)


class Stage(Enum):
    """Where a transaction stands."""

    #: Replies to command lines are outstanding, or lines are unsaid.
    ENVELOPE = auto()
    #: The server wants the message; it is being sent, or about to.
    CONTENT = auto()
    #: The server wants a message although it took nobody: it gets a final dot and nothing before it (RFC 2920 3.1).
    LONE_DOT = auto()
    #: The whole message was put on its way.
    ANSWER = auto()
    #: Nothing more is said or expected.
    OVER = auto()


# Python 3.11 finds a member of an enumeration ten times slower than a name, and a mail asks for thirty.
ENVELOPE, CONTENT, LONE_DOT, ANSWER, OVER = Stage


class Transaction:
    """One mail to (some of) its recipients on one connection.

    Args:
        outgoing: the mail.
        rendering: what is sent.
        peer: how messages call the server.
        parameters: of MAIL, each with a blank before it.
        chunking: whether the message goes by BDAT.
        pipelined: whether the lines are said in one group.
        on_heels: whether they go right behind another message, before its answer.
        reset: whether the server has to forget what was said before.
        announced: how many recipients a transaction may have (LIMITS RCPTMAX, RFC 9422 4); None: it does not say.
        manners: what is known of the server; what is learned of its limit is kept there.
    """

    __slots__ = (
        "_accepted",
        "_asked",
        "_group",
        "_heard",
        "_manners",
        "_peer",
        "_recipients",
        "_refused",
        "_reset",
        "_sender_refused",
        "_too_many",
        "chunking",
        "delivery",
        "handed_over",
        "line_is_dead",
        "lines",
        "lone_dot",
        "on_heels",
        "outgoing",
        "pipelined",
        "rendering",
        "said",
        "stage",
        "taken",
        "too_many",
    )

    def __init__(
        self,
        outgoing: Outgoing,
        rendering: Rendering,
        *,
        peer: str,
        parameters: str,
        chunking: bool,
        pipelined: bool,
        on_heels: bool,
        reset: bool,
        announced: int | None,
        manners: ServerProfile,
    ) -> None:
        self.outgoing = outgoing
        self.rendering = rendering
        self.chunking = chunking
        self.pipelined = pipelined
        self.on_heels = on_heels
        self.stage = ENVELOPE
        lines = ["RSET"] if reset else []
        lines.append(f"MAIL FROM:<{outgoing.sender}>{parameters}")
        limits = (len(outgoing.recipients), announced, manners.recipient_limit)
        self._recipients = list(islice(outgoing.recipients, min(limit for limit in limits if limit)))
        lines += [f"RCPT TO:<{address}>" for address in self._recipients]
        # How many of them this transaction asks for, and how many at once.
        self._asked = len(self._recipients)
        self._group = max(announced or 0, manners.recipients_at_once)
        if not chunking:
            lines.append("DATA")
        #: Every command line of the envelope.
        self.lines = lines
        #: How many of them were said.
        self.said = 0
        #: Whether the message is the server's, so that only it knows what becomes of it.
        self.handed_over = False
        #: Whether a final dot was owed although nobody wanted the message.
        self.lone_dot = False
        #: Whether the server has taken the message for those whom it had accepted.
        self.taken = False
        #: Whether it was asked for more recipients than it takes, and will be asked for fewer from now on.
        self.too_many = False
        #: Whether the connection can carry no further mail.
        self.line_is_dead = False
        #: What became of the mail; None where the rest of its recipients is asked in a further transaction.
        self.delivery: Delivery | None = None
        self._manners = manners
        self._peer = peer
        self._reset = reset
        self._heard = 0
        self._sender_refused: Reply | None = None
        self._accepted: list[str] = []
        self._refused: dict[str, Reply] = {}
        self._too_many: dict[str, Reply] = {}

    @property
    def phase(self) -> Phase:
        """What errors call the moment."""
        if self.handed_over:
            return Phase.FINAL_DOT
        return Phase.ENVELOPE if self.stage is ENVELOPE else Phase.DATA

    @property
    def unanswered(self) -> bool:
        """Whether a reply to a command line is outstanding."""
        return self._heard < self.said

    @property
    def answered(self) -> bool:
        """Whether a reply to a command line was heard."""
        return self._heard > 0

    def next_lines(self) -> list[str]:
        """The command lines that may be said now."""
        if self.unanswered:
            return []
        end = self.said + 1
        if self.pipelined:
            end = max(self._reset + 1, self.said) + self._group
            if end >= self._reset + 1 + self._asked:
                end = len(self.lines)
        return self.lines[self.said : end]

    def may_be_closed_by(self, reply: Reply) -> bool:
        """Whether a 421 is only about the session, so that the mail may go through another one."""
        return self.stage is ENVELOPE and not self._objects_to_the_group(reply)

    def hear(self, reply: Reply) -> None:
        """Take the next reply.

        Raises:
            ProtocolError: it is no answer to what was said.
        """
        if self.stage is not ENVELOPE:
            self._hear_answer(reply)
            return
        at = self._heard - self._reset
        self._heard += 1
        code = reply.code
        if code >= 400 and self._objects_to_the_group(reply):
            raise self._desynchronised(reply)
        if code == 421:
            self._closing(reply)
        elif at > self._asked:
            self._hear_data(reply)
        elif code // 100 == 3 or at < 0:
            if not reply.positive:
                raise self._desynchronised(reply)
        elif at > 0:
            self._hear_recipient(self._recipients[at - 1], reply)
        elif code >= 400:
            self._hear_sender_refused(reply)

    def broke(self, error: MailError) -> Delivery:
        """What became of the mail when the line did not survive."""
        if self.handed_over and not self.lone_dot:
            return self._unknown(error.message, error.reply)
        if self.lone_dot and (refused := self._all_refused()) is not None:
            return refused
        # Nobody can have the mail: its final dot was not sent.
        if error.phase is not self.phase:
            error = type(error)(
                error.message, remedy=error.remedy, phase=self.phase, reply=error.reply, retryable=error.retryable
            )
        return self.outgoing.not_sent(error)

    def interrupted(self, by: BaseException) -> Delivery:
        """What is known of the mail when an exception from elsewhere ended the sending."""
        if self.delivery is not None:
            return self.delivery
        if self.handed_over and not self.lone_dot and self.stage is not OVER:
            return self._unknown(f"{interrupted_by(by)}.")
        return self.outgoing.not_sent(not_sent_for(by))

    def _unknown(self, why: str, reply: Reply | None = None) -> Delivery:
        self.outgoing.refused.update(self._refused)
        self.outgoing.refused.update(self._too_many)
        return self.outgoing.unknown(why, self._accepted, self._left(), reply)

    def _hear_sender_refused(self, reply: Reply) -> None:
        self._sender_refused = reply
        self._ask_no_more()
        if not self._asked:
            self._over(self._all_refused())

    def _hear_recipient(self, address: str, reply: Reply) -> None:
        if self._sender_refused is None:
            if reply.positive:
                self._accepted.append(address)
            elif self._accepted and is_too_many(reply):
                self._take_too_many(address, reply)
            else:
                self._refused[address] = reply
        if self._heard - self._reset == self._asked + 1:
            if self.chunking and self._accepted:
                self.stage = CONTENT
            elif not self._accepted and not self.unanswered:
                self._over(self._all_refused())

    def _take_too_many(self, address: str, reply: Reply) -> None:
        if not self._too_many:
            self.too_many = self._manners.found_limit(len(self._accepted) + len(self._refused))
            self._ask_no_more()
        self._too_many[address] = reply

    def _ask_no_more(self) -> None:
        """Leave out the recipients that were not asked for yet."""
        asked = min(max(0, self.said - self._reset - 1), self._asked)
        del self.lines[self._reset + 1 + asked : self._reset + 1 + self._asked]
        self._asked = asked

    def _hear_data(self, reply: Reply) -> None:
        if reply.code == 354:
            self.stage = CONTENT if self._accepted else LONE_DOT
            self.lone_dot = not self._accepted
        elif reply.code < 400:
            raise self._desynchronised(reply)
        elif self._accepted:
            self._over(self._refuse("the message (DATA)", reply))
        else:
            self._over(self._all_refused())

    def _hear_answer(self, reply: Reply) -> None:
        if self.lone_dot:
            # Whatever it says: nobody was accepted, so nobody gets it.
            self.line_is_dead = reply.code == 421 or not self.handed_over
            self._over(self._all_refused())
        elif not self.handed_over:
            # Without its dot, or its last octet, the server forgets the message.
            self.line_is_dead = True
            if reply.code < 400:
                raise ProtocolError(
                    f"{self._peer} said '{reply}' before it had the whole message.",
                    remedy="The server's administrator must look at it: its answers do not belong to what they answer.",
                    phase=Phase.DATA,
                )
            self._over(self._refuse("to take the rest", reply))
        elif reply.code // 100 == 3:
            raise self._desynchronised(reply, "the end of the message")
        elif reply.positive:
            self._taken(reply)
        else:
            self.line_is_dead = reply.code == 421
            self._over(self._refuse("the message", reply))

    def _taken(self, reply: Reply) -> None:
        outgoing = self.outgoing
        outgoing.accepted += self._accepted
        outgoing.refused.update(self._refused)
        self._manners.took(self._asked - len(self._too_many))
        self.taken = True
        if not self._go_on():
            self.delivery = outgoing.answered(self._peer, reply)
        self.stage = OVER  # last, so that an interruption does not take it for a transaction that asks the rest

    def _go_on(self) -> bool:
        """Leave those to a further transaction whom the server was not asked to take; whether there are any."""
        left = self.outgoing.recipients
        for _ in range(self._asked):
            left.popleft()
        left.extendleft(reversed(self._too_many))
        return bool(left)

    def _left(self) -> list[str]:
        """The recipients whom the server was not asked to take, or not together with the others."""
        return [*self._too_many, *islice(self.outgoing.recipients, self._asked, None)]

    def _closing(self, reply: Reply) -> None:
        """421: the recipients that the server took are forgotten with the rest."""
        self.line_is_dead = True
        self._over(self._refuse("to go on", reply, retryable=True))

    def _all_refused(self) -> Delivery | None:
        """What becomes of a mail that the server took for none of those whom it was asked for; None: it is asked on."""
        if self._sender_refused is not None:
            return self._refuse(f"the sender {self.outgoing.sender}", self._sender_refused, phase=Phase.ENVELOPE)
        outgoing, refused = self.outgoing, self._refused.values()
        outgoing.refused.update(self._refused)
        said = next((reply for reply in refused if is_too_many(reply)), None)
        if said is None and self._go_on():
            return None
        said = said or next(iter(refused))
        transient = any(reply.transient for reply in outgoing.refused.values())
        return self._refuse("every recipient", said, phase=Phase.ENVELOPE, retryable=transient)

    def _refuse(
        self, what: str, reply: Reply, *, phase: Phase | None = None, retryable: bool | None = None
    ) -> Delivery:
        self.outgoing.refused.update(self._refused)
        return self.outgoing.refuse(self._peer, what, reply, phase=phase or self.phase, retryable=retryable)

    def _over(self, delivery: Delivery | None) -> None:
        self.stage = OVER
        self.delivery = delivery

    def _objects_to_the_group(self, reply: Reply) -> bool:
        return self.pipelined and _NO_PIPELINING.search(reply.text) is not None

    def _desynchronised(self, reply: Reply, what: str | None = None) -> ProtocolError:
        what = what or self.lines[self._heard - 1].partition(" ")[0]
        return ProtocolError(
            f"{self._peer} answered {what} with '{reply}', which is no answer to it.",
            remedy="The server's administrator must look at it: its answers do not belong to what they answer.",
            phase=self.phase,
            reply=reply,
        )


def is_too_many(reply: Reply) -> bool:
    """Whether the rest of the recipients will do in a transaction of their own."""
    if reply.code not in _TOO_MANY_CODES:
        return False
    if reply.enhanced is not None:
        return reply.enhanced.endswith(".5.3")
    return reply.code == _TOO_MANY_CODES[0] or _TOO_MANY_WORDS.search(reply.text) is not None
