"""One mail on its way, through as many transactions as it takes, and the delivery that it ends in. Knows no socket."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError, Phase, RefusedError, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.address import Address, parse_address
from airflow_provider_smtpcm.mail.encoding import EncodedFile
from airflow_provider_smtpcm.mail.headers import new_message_id
from airflow_provider_smtpcm.mail.render import Rendering
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome, SendRequest
from airflow_provider_smtpcm.smtp.remedies import each_refused, remedy_for, some_of


class Outgoing:
    """A mail that waits for its turn, is on its way, or has arrived in part.

    Args:
        errand: its place in the batch, and who is still to be asked.
        mail: complete: with its sender and its Message-ID.
        rendering: what is sent.
        manager: whose server it goes to.
    """

    __slots__ = (
        "accepted",
        "binary",
        "index",
        "mail",
        "manager",
        "message",
        "recipients",
        "refused",
        "rendering",
        "sender",
    )

    def __init__(self, errand: SendRequest, mail: Mail, rendering: Rendering, manager: SmtpConnectionManager) -> None:
        self.index = errand.index
        self.mail = mail
        self.rendering = rendering
        #: The same for a server that takes files as they are (BINARYMIME, RFC 3030), where that is asked for.
        self.binary: Rendering | None = None
        self.manager = manager
        assert mail.from_address is not None
        self.sender = mail.from_address.address
        #: Whom the server has still to be asked to take.
        self.recipients = deque(errand.recipients or [address.address for address in mail.recipients])
        self.accepted: list[str] = list(errand.accepted)
        self.refused: dict[str, Reply] = dict(errand.refused)
        #: What DATA sends, dots doubled and the final one included, where that is short enough to be held ready.
        self.message: bytes | None = None

    def check(self, rendering: Rendering, *, limit: int | None, smtputf8: bool, peer: str) -> None:
        """What the server's EHLO already rules out.

        Args:
            rendering: what is to be sent.
            limit: octets that the server takes at the most (RFC 1870).
            smtputf8: whether it offers that (RFC 6531).
            peer: how messages call it.

        Raises:
            MessageError: with both numbers, or the addresses.
        """
        if limit is not None and rendering.size > limit:
            raise MessageError(
                f"The message has {rendering.size:,} octets, and {peer} takes {limit:,} at most (attachments grow by "
                "a third on their way).",
                remedy="Send a link instead of the file, compress it, or have the server's limit raised.",
            )
        if rendering.needs_smtputf8 and not smtputf8:
            sender = (self.mail.from_address,) if self.mail.from_address else ()
            everybody = (*sender, *self.mail.reply_to, *self.mail.recipients)
            names = [address.address for address in everybody if address.needs_smtputf8]
            raise MessageError(
                f"{peer} does not take addresses with letters outside ASCII before the @ (SMTPUTF8): {some_of(names)}.",
                remedy="Use an ASCII alias of that mailbox.",
            )

    def answered(self, peer: str, reply: Reply) -> Delivery:
        """Its delivery, once the server has taken it for everybody in `accepted`."""
        if not self.refused:
            return Delivery(
                index=self.index,
                message_id=self.mail.message_id or "",
                outcome=Outcome.ACCEPTED,
                accepted=tuple(self.accepted),
                reply=reply,
            )
        return self._delivery(Outcome.PARTIAL, self._partial(peer), reply)

    def refuse(self, peer: str, what: str, reply: Reply, *, phase: Phase, retryable: bool | None = None) -> Delivery:
        """Its delivery, when the server refused everybody whom it was still asked to take.

        Args:
            peer: how messages call the server.
            what: what it refused, for the message.
            reply: its words, which hold for whoever was not refused by others.
            phase: how far the mail had come.
            retryable: whether another try may help, if that does not follow from the reply.
        """
        for address in self.recipients:
            self.refused.setdefault(address, reply)
        if self.accepted:
            return self._delivery(Outcome.PARTIAL, self._partial(peer), reply)
        differs = len({(said.code, said.enhanced) for said in self.refused.values()}) > 1
        error = RefusedError(
            f"{peer} refused {what} with '{reply}'{f' ({each_refused(self.refused)})' if differs else ''}.",
            remedy=remedy_for(reply, anonymous=self.manager.auth_mode is AuthMode.ANONYMOUS),
            phase=phase,
            reply=reply,
            retryable=reply.transient if retryable is None else retryable,
        )
        return self._delivery(Outcome.REFUSED, error, reply)

    def not_sent(self, error: MailError) -> Delivery:
        """Its delivery, when nobody (else) can have received it."""
        return self._delivery(Outcome.PARTIAL if self.accepted else Outcome.NOT_SENT, self._rest(error), error.reply)

    def unknown(
        self, why: str, handed_over_for: Sequence[str], left: Sequence[str], reply: Reply | None = None
    ) -> Delivery:
        """Its delivery, when it was handed over and nobody said what became of it."""
        return self._delivery(Outcome.UNKNOWN, self.unknown_error(why, handed_over_for, left), reply)

    def unknown_error(self, why: str, handed_over_for: Sequence[str], left: Sequence[str]) -> OutcomeUnknownError:
        """What is known of a mail that was handed over without an answer.

        Args:
            why: why there is none.
            handed_over_for: the recipients whom the server had agreed to.
            left: those who would have been asked for in a further transaction.
        """
        surely = f" {some_of(self.accepted)} did get it, by an earlier transaction." if self.accepted else ""
        nobody_of = f" It was not sent to {some_of(left)}." if left else ""
        return OutcomeUnknownError(
            f"The whole message {self.mail.message_id} was handed to the server, and its answer never came: {why} "
            f"It may have been delivered to {some_of(handed_over_for)}.{surely}{nobody_of}",
            remedy="Look for this Message-ID in the server's log or message tracking before sending it again.",
        )

    def _rest(self, error: MailError) -> MailError:
        rest = [address for address in self.recipients if address not in self.refused]
        return _error_of_the_rest(self.mail, self.accepted, rest, error)

    def _partial(self, peer: str) -> RefusedError:
        return RefusedError(
            f"{peer} took {self.mail.message_id} for {some_of(self.accepted)}, who do get it, and refused "
            f"{each_refused(self.refused)}.",
            remedy="Send it to the refused addresses alone once they are put right.",
            phase=Phase.ENVELOPE,
            reply=next(iter(self.refused.values())),
            retryable=any(reply.transient for reply in self.refused.values()),
        )

    def _delivery(self, outcome: Outcome, error: MailError, reply: Reply | None) -> Delivery:
        return Delivery(
            index=self.index,
            message_id=self.mail.message_id or "",
            outcome=outcome,
            accepted=tuple(self.accepted),
            refused=self.refused,
            reply=reply,
            error=error,
        )


def not_prepared(errand: SendRequest, mail: Mail, error: MailError) -> Delivery:
    """The delivery of an errand that was never on its way; its mail may have reached others before."""
    rest = errand.recipients or [address.address for address in mail.recipients]
    return Delivery(
        index=errand.index,
        message_id=mail.message_id or "",
        outcome=Outcome.PARTIAL if errand.accepted else Outcome.NOT_SENT,
        accepted=errand.accepted,
        refused=errand.refused,
        reply=error.reply,
        error=_error_of_the_rest(mail, errand.accepted, rest, error),
    )


def _error_of_the_rest(mail: Mail, accepted: Sequence[str], rest: Sequence[str], error: MailError) -> MailError:
    """The error of those who are left, where others have the mail already: trying all of it again is no remedy."""
    if not accepted:
        return error
    return RefusedError(
        f"{mail.message_id} was taken for {some_of(accepted)}, who do get it, and not sent to {some_of(rest)}: "
        f"{error.message}",
        remedy="Send it to these alone.",
        phase=error.phase,
        reply=error.reply,
        retryable=error.retryable,
    )


# folded: A mail gets what it lacks from its connection: sender, Reply-To, Message-ID. Knows no socket.


def addressed(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail with the connection's From and Reply-To where it has none.

    Raises:
        MessageError: neither has a From, or the connection's is no address.
    """
    sender, reply_to = _sender(mail, manager), _reply_to(mail, manager)
    if sender is mail.from_address and reply_to is None:
        return mail
    return mail.with_identity(from_address=sender, reply_to=reply_to)


def complete(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail as it is sent: `addressed`, and with a Message-ID in the sender's domain if it has none."""
    if mail.message_id is not None:
        return addressed(mail, manager)
    sender = _sender(mail, manager)
    return mail.with_identity(
        from_address=sender, reply_to=_reply_to(mail, manager), message_id=new_message_id(sender.domain)
    )


def _sender(mail: Mail, manager: SmtpConnectionManager) -> Address:
    if mail.from_address is not None:
        return mail.from_address
    if not manager.from_address:
        raise MessageError(
            "The mail has no From address.",
            remedy="Set 'from_address' on the task, or 'From address' on the connection.",
        )
    return parse_address(manager.from_address, field="From")


def _reply_to(mail: Mail, manager: SmtpConnectionManager) -> str | None:
    """What is missing."""
    return None if mail.reply_to else manager.reply_to


# folded: Message text on its way through DATA (RFC 5321 4.5.2). Knows no server.

#: What ends a message.
FINAL_DOT = b".\r\n"
_DOT_AT_LINE_START = re.compile(rb"(?<=\r\n)\.")
_DOT_AFTER_BREAK = re.compile(rb"\n\.")  # found in a third of the time that `in` takes


def dot_stuffed(pieces: Iterable[bytes | EncodedFile]) -> Iterator[bytes]:
    """Double each dot that starts a line, across the borders of chunks too; ends with a line end.

    Files in which no line can begin with a dot are not looked at: that would take longer than to make their mail.
    """
    tail = b"\r\n"
    for piece in pieces:
        chunks: Iterable[bytes] = (piece,) if isinstance(piece, bytes) else piece
        look = isinstance(piece, bytes) or not piece.is_dot_free
        for chunk in chunks:
            if not chunk:
                continue
            if look and (_DOT_AFTER_BREAK.search(chunk) or chunk.startswith((b".", b"\n"))):
                joined = tail + chunk
                yield _DOT_AT_LINE_START.sub(b"..", joined)[len(tail) :]
                tail = joined[-2:]
            else:
                yield chunk
                tail = (tail + chunk)[-2:] if len(chunk) < 2 else chunk[-2:]
    if tail != b"\r\n":
        yield b"\r\n"


def with_final_dot(pieces: Sequence[bytes | EncodedFile]) -> bytes:
    """All that DATA sends of a message, in one piece; most messages are one piece, and need no dot doubled."""
    whole = pieces[0]
    if len(pieces) > 1 or not isinstance(whole, bytes) or _DOT_AFTER_BREAK.search(whole) or not whole.endswith(b"\r\n"):
        return b"".join((*dot_stuffed(pieces), FINAL_DOT))
    return whole + FINAL_DOT  # a message begins with a header field, so with no dot
