"""One mail through an open session: MAIL, RCPT, DATA, the final dot, and what became of it (RFC 5321 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    ConnectionLostError,
    MailError,
    MessageError,
    NoAnswerError,
    OutcomeUnknownError,
    Phase,
    ProtocolError,
    RefusedError,
    Reply,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import Rendering, render
from airflow_provider_smtpcm.smtp.complete import complete
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.dot_stuffing import dot_stuffed
from airflow_provider_smtpcm.smtp.refusals import each_refused, remedy_for, some_of
from airflow_provider_smtpcm.smtp.wire import Wire

log = logging.getLogger(__name__)


class Transaction:
    """One mail on its way.

    Args:
        mail: what to say.
        index: its place in the batch.
        manager: whose From and Reply-To stand in for the ones that the mail lacks.
    """

    def __init__(self, mail: Mail, *, index: int, manager: SmtpConnectionManager) -> None:
        self._index = index
        self._manager = manager
        self._mail = mail
        self._accepted: list[str] = []
        self._refused: dict[str, Reply] = {}
        #: Whether the connection can carry no further mail.
        self.line_is_dead = False
        #: Whether the whole message is the server's, and its answer is still to come.
        self.handed_over = False

    def run(self, wire: Wire, extensions: Mapping[str, str], size_limit: int | None) -> Delivery:
        """Send the mail, and say what became of it."""
        try:
            self._mail = complete(self._mail, self._manager)
            rendering = render(self._mail)
            self._check(rendering, extensions, size_limit, wire.peer)
        except MailError as error:
            return self.not_sent(error)
        wire.phase = Phase.ENVELOPE
        try:
            refusal = self._envelope(wire, rendering, extensions)
            if refusal is not None:
                return self._all_refused(wire, refusal)
            self._data(wire, rendering)
        except MailError as error:
            # Nobody can have the mail: its final dot was not sent. The line may be in the middle of it, so it is dead.
            self.line_is_dead = True
            return self._refused_meanwhile(wire, error) or self.not_sent(error)
        return self._final_dot(wire)

    def not_sent(self, error: MailError) -> Delivery:
        """The delivery of a mail that nobody can have received."""
        return self._delivery(Outcome.NOT_SENT, error=error, reply=error.reply)

    def _check(self, rendering: Rendering, extensions: Mapping[str, str], limit: int | None, peer: str) -> None:
        if limit is not None and rendering.size > limit:
            raise MessageError(
                f"The message has {rendering.size:,} octets, and {peer} takes {limit:,} at most (attachments grow by "
                "a third on their way).",
                remedy="Send a link instead of the file, compress it, or have the server's limit raised.",
            )
        if rendering.needs_smtputf8 and "SMTPUTF8" not in extensions:
            sender = (self._mail.from_address,) if self._mail.from_address else ()
            everybody = (*sender, *self._mail.reply_to, *self._mail.recipients)
            names = [address.address for address in everybody if address.needs_smtputf8]
            raise MessageError(
                f"{peer} does not take addresses with letters outside ASCII before the @ (SMTPUTF8): {some_of(names)}.",
                remedy="Use an ASCII alias of that mailbox.",
            )

    def _envelope(self, wire: Wire, rendering: Rendering, extensions: Mapping[str, str]) -> RefusedError | None:
        """MAIL, every RCPT and DATA; the refusal if nobody is left who wants the message."""
        sender = self._mail.from_address.address if self._mail.from_address else ""
        parameters = f" SIZE={rendering.size}" if "SIZE" in extensions else ""
        parameters += " SMTPUTF8" if rendering.needs_smtputf8 else ""
        reply = self._ask(wire, f"MAIL FROM:<{sender}>{parameters}")
        if not reply.positive:
            self._refused = {address.address: reply for address in self._mail.recipients}
            return self._refusal(wire, f"the sender {sender}", reply, retryable=reply.transient)
        for address in self._mail.recipients:
            reply = self._ask(wire, f"RCPT TO:<{address.address}>")
            if reply.code == 421:  # the server is closing: the recipients that it took are forgotten with the rest
                self._refused = {recipient.address: reply for recipient in self._mail.recipients}
                return self._refusal(wire, "to go on", reply, retryable=True)
            if reply.positive:
                self._accepted.append(address.address)
            else:
                self._refused[address.address] = reply
        if not self._accepted:
            transient = any(said.transient for said in self._refused.values())
            return self._refusal(wire, "every recipient", next(iter(self._refused.values())), retryable=transient)
        reply = self._ask(wire, "DATA")
        if reply.code == 354:
            return None
        self._refused.update(dict.fromkeys(self._accepted, reply))
        return self._refusal(wire, "the message (DATA)", reply, retryable=reply.transient)

    def _ask(self, wire: Wire, command: str) -> Reply:
        wire.command(command)
        return wire.read_reply()

    def _data(self, wire: Wire, rendering: Rendering) -> None:
        wire.phase = Phase.DATA
        for block in dot_stuffed(rendering):
            wire.write(block)

    def _final_dot(self, wire: Wire) -> Delivery:
        """From the first octet of the final dot on, only the server knows what became of the mail."""
        if (early := wire.early_reply()) is not None:
            self.line_is_dead = True  # without its dot the server forgets the message
            return self._out_of_turn(wire, early)
        wire.phase = Phase.FINAL_DOT
        self.handed_over = True
        try:
            wire.write(b".\r\n")
            reply = wire.read_reply(timeout=self._manager.final_reply_timeout)
        except MailError as error:
            self.line_is_dead = True
            return self._refused_meanwhile(wire, error) or self._unknown(error.message)
        self.handed_over = False
        if reply.code // 100 == 3:
            self.line_is_dead = True
            return self._unknown(f"'{reply}' is no answer to a final dot.", reply)
        if reply.positive:
            accepted = tuple(self._accepted)
            if not self._refused:
                return self._delivery(Outcome.ACCEPTED, reply=reply, accepted=accepted)
            return self._delivery(Outcome.PARTIAL, reply=reply, accepted=accepted, error=self._partial(wire))
        self.line_is_dead = reply.code == 421
        return self._everybody_refused(wire, "the message", reply)

    def _refused_meanwhile(self, wire: Wire, error: MailError) -> Delivery | None:
        """What a refusal means that the server had sent before the line broke, or before it took no more."""
        if not isinstance(error, ConnectionLostError | NoAnswerError):
            return None
        said = wire.early_reply()
        if said is None or said.code < 400:
            return None
        return self._everybody_refused(wire, "to take the rest", said)

    def _out_of_turn(self, wire: Wire, early: Reply) -> Delivery:
        if early.code >= 400:
            return self._everybody_refused(wire, "the message", early)
        return self.not_sent(
            ProtocolError(
                f"{wire.peer} said '{early}' before it had the whole message.",
                remedy="The server's administrator must look at it: its answers do not belong to what they answer.",
                phase=wire.phase,
            )
        )

    def _everybody_refused(self, wire: Wire, what: str, reply: Reply) -> Delivery:
        """Who was not refused before is refused by this."""
        for address in self._mail.recipients:
            self._refused.setdefault(address.address, reply)
        refusal = self._refusal(wire, what, reply, retryable=reply.transient)
        return self._delivery(Outcome.REFUSED, reply=reply, error=refusal)

    def unknown(self, why: str) -> OutcomeUnknownError:
        """What is known of a mail that was handed over without an answer."""
        return OutcomeUnknownError(
            f"The whole message {self._mail.message_id} was handed to the server, and its answer never came: {why} "
            f"It may have been delivered to {some_of(self._accepted)}.",
            remedy="Look for this Message-ID in the server's log or message tracking before sending it again.",
        )

    def _unknown(self, why: str, reply: Reply | None = None) -> Delivery:
        return self._delivery(Outcome.UNKNOWN, error=self.unknown(why), reply=reply)

    def _all_refused(self, wire: Wire, refusal: RefusedError) -> Delivery:
        if refusal.reply is not None and refusal.reply.code == 421:
            self.line_is_dead = True
        else:
            try:
                self.line_is_dead = not self._ask(wire, "RSET").positive
            except MailError:
                self.line_is_dead = True
        return self._delivery(Outcome.REFUSED, error=refusal, reply=refusal.reply)

    def _partial(self, wire: Wire) -> RefusedError:
        return RefusedError(
            f"{wire.peer} took {self._mail.message_id} for {some_of(self._accepted)}, who do get it, and refused "
            f"{each_refused(self._refused)}.",
            remedy="Send it to the refused addresses alone once they are put right.",
            phase=Phase.ENVELOPE,
            reply=next(iter(self._refused.values())),
        )

    def _refusal(self, wire: Wire, what: str, reply: Reply, *, retryable: bool) -> RefusedError:
        differs = len({(said.code, said.enhanced) for said in self._refused.values()}) > 1
        return RefusedError(
            f"{wire.peer} refused {what} with '{reply}'{f' ({each_refused(self._refused)})' if differs else ''}.",
            remedy=remedy_for(reply, anonymous=self._manager.auth_mode is AuthMode.ANONYMOUS),
            phase=wire.phase,
            reply=reply,
            retryable=retryable,
        )

    def _delivery(
        self,
        outcome: Outcome,
        *,
        accepted: tuple[str, ...] = (),
        reply: Reply | None = None,
        error: MailError | None = None,
    ) -> Delivery:
        return Delivery(
            index=self._index,
            message_id=self._mail.message_id or "",
            outcome=outcome,
            accepted=accepted,
            refused=self._refused,
            reply=reply,
            error=error,
        )
