"""One mail through an open session: MAIL, RCPT, DATA, the final dot, and what became of it (RFC 5321 3.3)."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    ConnectionLostError,
    MailError,
    MessageError,
    OutcomeUnknownError,
    Phase,
    RefusedError,
    Reply,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.identity import new_message_id
from airflow_provider_smtpcm.mail.render import Rendering, render
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.remedies import remedy_for
from airflow_provider_smtpcm.smtp.wire import Wire

log = logging.getLogger(__name__)

_DOT_AT_LINE_START = re.compile(rb"(?<=\r\n)\.")


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
            said = wire.waiting_reply() if isinstance(error, ConnectionLostError) else None
            if said is not None and not said.positive:
                error = self._refusal(wire, "to go on and hung up", said, retryable=said.transient)
            return self.not_sent(error)
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
            names = ", ".join(address.address for address in self._mail.recipients if address.needs_smtputf8)
            raise MessageError(
                f"{peer} does not take addresses with letters outside ASCII before the @ (SMTPUTF8): "
                f"{names or self._mail.from_address}.",
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
        wire.phase = Phase.FINAL_DOT
        try:
            wire.write(b".\r\n")
            reply = wire.read_reply(timeout=self._manager.final_reply_timeout)
        except MailError as error:
            self.line_is_dead = True
            return self._unknown(wire, error.message)
        if reply.code // 100 == 3:
            self.line_is_dead = True
            return self._unknown(wire, f"{wire.peer} answered '{reply}', which is no answer to a final dot.", reply)
        if reply.positive:
            accepted = tuple(self._accepted)
            if not self._refused:
                return self._delivery(Outcome.ACCEPTED, reply=reply, accepted=accepted)
            return self._delivery(Outcome.PARTIAL, reply=reply, accepted=accepted, error=self._partial(wire))
        self.line_is_dead = reply.code == 421
        self._refused.update(dict.fromkeys(self._accepted, reply))
        refusal = self._refusal(wire, "the message", reply, retryable=reply.transient)
        return self._delivery(Outcome.REFUSED, reply=reply, error=refusal)

    def _unknown(self, wire: Wire, why: str, reply: Reply | None = None) -> Delivery:
        error = OutcomeUnknownError(
            f"The whole message {self._mail.message_id} was handed to {wire.peer}, but its answer never came: {why} "
            f"It may have been delivered to {', '.join(self._accepted)}.",
            remedy="Look for this Message-ID in the server's log or message tracking before sending it again.",
            reply=reply,
        )
        return self._delivery(Outcome.UNKNOWN, error=error, reply=reply)

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
        said = "; ".join(f"{address}: '{reply}'" for address, reply in self._refused.items())
        return RefusedError(
            f"{wire.peer} took {self._mail.message_id} for {', '.join(self._accepted)}, who do get it, "
            f"and refused {said}.",
            remedy="Send it to the refused addresses alone once they are put right.",
            phase=Phase.ENVELOPE,
            reply=next(iter(self._refused.values())),
        )

    def _refusal(self, wire: Wire, what: str, reply: Reply, *, retryable: bool) -> RefusedError:
        each = (
            ""
            if len(set(self._refused.values())) < 2
            else " (" + "; ".join(f"{address}: '{said}'" for address, said in self._refused.items()) + ")"
        )
        return RefusedError(
            f"{wire.peer} refused {what} with '{reply}'{each}.",
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


def complete(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail with the connection's From and Reply-To where it has none, and a Message-ID in the sender's domain."""
    changes: dict[str, object] = {}
    if mail.from_address is None and manager.from_address:
        changes["from_address"] = manager.from_address
    if not mail.reply_to and manager.reply_to:
        changes["reply_to"] = manager.reply_to
    if changes:
        mail = dataclasses.replace(mail, **changes)  # type: ignore[arg-type]
    if mail.from_address is None:
        raise MessageError(
            "The mail has no From address.",
            remedy="Set 'from_address' on the task, or 'From address' on the connection.",
        )
    if mail.message_id is None:
        mail = dataclasses.replace(mail, message_id=new_message_id(mail.from_address.domain))
    return mail


def dot_stuffed(chunks: Iterator[bytes] | Rendering) -> Iterator[bytes]:
    """Double each dot that starts a line (RFC 5321 4.5.2), across the borders of chunks too; ends with a line end."""
    tail = b"\r\n"
    for chunk in chunks:
        if not chunk:
            continue
        joined = tail + chunk
        stuffed = _DOT_AT_LINE_START.sub(b"..", joined)
        yield stuffed[len(tail) :]
        tail = joined[-2:]
    if tail != b"\r\n":
        yield b"\r\n"
