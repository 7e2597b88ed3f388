"""The send queue: requests, and the mails of a batch completed and rendered a few ahead of their turn. No sockets.

Remote files, which may take long to answer, are measured in threads.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import MailError, MessageError, Phase, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.address import Address, parse_address
from airflow_provider_smtpcm.mail.batch_rendering import BatchRenderer
from airflow_provider_smtpcm.mail.headers import new_message_id
from airflow_provider_smtpcm.mail.render import Rendering, render
from airflow_provider_smtpcm.smtp.cancellation import interruption_error
from airflow_provider_smtpcm.smtp.delivery import (
    Delivery,
    Outcome,
    not_sent_delivery,
    partial_error,
    refused_error,
    unknown_error,
)
from airflow_provider_smtpcm.smtp.transaction import join_with_final_dot

# The largest message that is held ready in one piece while its envelope is sent.
_MAX_HELD_OCTETS = 65536
# Seconds for which mails are prepared at a time, before the sessions are served again.
_PREPARE_SECONDS = 0.002
# Mails that are held ready at most, however many sessions there are.
_MAX_AHEAD = 256
# A source is fast if it took fewer seconds than these for each of its last two mails. A slow one may take very long for
# the next one; while it is asked no session is served, and a server that waits for a message gives up.
_FAST_SECONDS, _FAST_IN_A_ROW = 0.05, 2

#: Runs in the thread of the sessions, with the result of what ran in the background.
OnResult = Callable[[], None]


@dataclass(slots=True)  # never changed by others; frozen, it would take twice as long to make
class SendRequest:
    """A mail to send, with its place in the batch and the progress of its recipients.

    Recipients that are neither in `accepted` nor in `refused` are still pending.

    Args:
        index: its number in the batch, which its delivery has too.
        mail: complete (see `complete_mail`); its header names all recipients, those too that have it.
        recipients: the addresses that are still to be asked; None: all.
        accepted: the addresses that have it already.
        refused: the addresses that were refused for good.
        rendering: the mail's, where it was rendered already; None: it is rendered when its turn comes.
    """

    index: int
    mail: Mail
    recipients: tuple[str, ...] | None = None
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, Reply] = field(default_factory=dict)
    rendering: Rendering | None = None

    @property
    def pending(self) -> Sequence[str]:
        """The addresses that are still to be asked."""
        return self.recipients or [address.address for address in self.mail.recipients]

    def not_sent(self, error: MailError) -> Delivery:
        """Return its delivery, where it is not sent; other recipients may have the mail already."""
        return not_sent_delivery(
            self.index,
            self.mail.message_id or "",
            accepted=self.accepted,
            refused=self.refused,
            pending=self.pending,
            error=error,
        )


#: What a batch is made of: mails in their order, or requests; a number means that there is none before that moment
#: (`time.monotonic`).
Source = Iterator[Mail | SendRequest | float]


def apply_defaults(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """Return the mail with the connection's From and Reply-To where it has none.

    Raises:
        MessageError: neither has a From, or the connection's is not an address.
    """
    sender, reply_to = _sender(mail, manager), _default_reply_to(mail, manager)
    if sender is mail.from_address and reply_to is None:
        return mail
    return mail.with_identity(from_address=sender, reply_to=reply_to)


def complete_mail(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """Return the mail as it is sent: with `apply_defaults`, and a Message-ID in the sender's domain if it has none.

    Raises:
        MessageError: as `apply_defaults`.
    """
    if mail.message_id is not None:
        return apply_defaults(mail, manager)
    sender = _sender(mail, manager)
    return mail.with_identity(
        from_address=sender, reply_to=_default_reply_to(mail, manager), message_id=new_message_id(sender.domain)
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


def _default_reply_to(mail: Mail, manager: SmtpConnectionManager) -> str | None:
    return None if mail.reply_to else manager.reply_to


class OutgoingMail:
    """A prepared mail on its way, through as many transactions as it takes, and the delivery in which it ends.

    Args:
        request: with a complete mail.
        rendering: what is sent.
        manager: the connection that it is sent through.
    """

    __slots__ = (
        "accepted",
        "binary_rendering",
        "data",
        "index",
        "mail",
        "manager",
        "message_id",
        "recipients",
        "refused",
        "rendering",
        "sender",
    )

    def __init__(self, request: SendRequest, rendering: Rendering, manager: SmtpConnectionManager) -> None:
        mail = request.mail
        assert mail.from_address is not None
        self.index = request.index
        self.mail = mail
        self.message_id = mail.message_id or ""
        self.rendering = rendering
        #: The same for a server that takes BINARYMIME (RFC 3030), where the connection asks for that.
        self.binary_rendering: Rendering | None = None
        self.manager = manager
        self.sender = mail.from_address.address
        #: The recipients that the server is still to be asked for.
        self.recipients = deque(request.pending)
        self.accepted: list[str] = [*request.accepted]
        self.refused: dict[str, Reply] = {**request.refused}
        #: What DATA sends, dot-stuffed and with the final dot, where that is short enough to be held ready.
        self.data: bytes | None = None

    def accept(self, peer: str, reply: Reply) -> Delivery:
        """Return its delivery, once the server has accepted it for every recipient in `accepted`."""
        if self.refused:
            return self._partial(peer, reply)
        return Delivery(
            index=self.index,
            message_id=self.message_id,
            outcome=Outcome.ACCEPTED,
            accepted=tuple(self.accepted),
            reply=reply,
        )

    def refuse(self, peer: str, what: str, reply: Reply, *, phase: Phase, retryable: bool | None = None) -> Delivery:
        """Return its delivery, when the server refused every recipient that it was still to be asked for.

        Args:
            peer: the server, as messages name it.
            what: what it refused, such as `the message`.
            reply: its reply, which holds for every recipient without a reply of its own.
            phase: how far the mail had come.
            retryable: whether another attempt may help; None: it follows from the reply.
        """
        for address in self.recipients:
            self.refused.setdefault(address, reply)
        if self.accepted:
            return self._partial(peer, reply)
        error = refused_error(
            peer,
            what,
            reply,
            self.refused,
            is_anonymous=self.manager.auth_mode is AuthMode.ANONYMOUS,
            phase=phase,
            retryable=reply.transient if retryable is None else retryable,
        )
        return self._delivery(Outcome.REFUSED, error, reply)

    def not_sent(self, error: MailError) -> Delivery:
        """Return its delivery, when no further recipient can have received it."""
        pending = [address for address in self.recipients if address not in self.refused]
        return not_sent_delivery(
            self.index,
            self.message_id,
            accepted=tuple(self.accepted),
            refused=self.refused,
            pending=pending,
            error=error,
        )

    def unknown(
        self, why: str, *, committed: Sequence[str], not_asked: Sequence[str], cause: MailError | None
    ) -> Delivery:
        """Return its delivery, when the whole message was sent and no final reply came.

        Args:
            why: why there is none.
            committed: the recipients that the server had agreed to take it for.
            not_asked: those that a further transaction would have asked for.
            cause: the error that ended the session, if it was one.
        """
        error = unknown_error(self.message_id, why, committed=committed, accepted=self.accepted, not_asked=not_asked)
        error.__cause__ = cause
        return self._delivery(Outcome.UNKNOWN, error, cause.reply if cause else None)

    def _partial(self, peer: str, reply: Reply) -> Delivery:
        error = partial_error(peer, self.message_id, self.accepted, self.refused)
        return self._delivery(Outcome.PARTIAL, error, reply)

    def _delivery(self, outcome: Outcome, error: MailError, reply: Reply | None) -> Delivery:
        return Delivery(
            index=self.index,
            message_id=self.message_id,
            outcome=outcome,
            accepted=tuple(self.accepted),
            refused=self.refused,
            reply=reply,
            error=error,
        )


class PrefetchQueue:
    """Prepares the mails of a batch a few ahead of their turn, so that a session never waits for the next one.

    Args:
        source: what the batch is made of. A number holds until then, or until `poll_now` is called. If the source
            raises, what it gave before is sent first.
        manager: completes bare mails; requests hold complete ones.
        size: mails that are held ready, at most 256.
        run_in_background: runs a function in a thread, and the result of that in the thread of the sessions.
        on_delivery: called with the deliveries of mails that cannot be sent.
        is_in_memory: whether the source has its mails already, so that asking it never waits.
    """

    def __init__(
        self,
        source: Source,
        manager: SmtpConnectionManager,
        *,
        size: int,
        run_in_background: Callable[[Callable[[], OnResult]], None],
        on_delivery: Callable[[Delivery], None],
        is_in_memory: bool = False,
    ) -> None:
        self._source = source
        self._manager = manager
        self._size = min(size, _MAX_AHEAD)
        self._run_in_background = run_in_background
        self._on_delivery = on_delivery
        self._renderer = BatchRenderer()
        self._binary_renderer = BatchRenderer(binary=True) if manager.binary_mime else None
        #: Mails that can be sent, in their order.
        self.ready: deque[OutgoingMail] = deque()
        # Requests whose files are being measured in a thread.
        self._measuring: dict[int, SendRequest] = {}
        self._mails_taken = 0
        self._poll_at = -math.inf
        self._fast_in_a_row = _FAST_IN_A_ROW if is_in_memory else 0
        #: Whether the source has been fast lately, so that it can be asked while a server waits.
        self.is_fast = is_in_memory
        self._is_exhausted = False
        self._failure: MailError | None = None
        #: The exception that the source raised.
        self.source_error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether the queue is empty and stays so."""
        return self._is_exhausted and not self.ready and not self._measuring

    @property
    def poll_at(self) -> float | None:
        """When (`time.monotonic`) the source is to be asked for more; None: not before a mail is taken."""
        if self._is_exhausted or len(self.ready) + len(self._measuring) >= self._size:
            return None
        return self._poll_at

    def poll_now(self) -> None:
        """Ask the source again, without waiting for the moment that it named."""
        self._poll_at = -math.inf

    def fill(self) -> None:
        """Prepare mails, for two milliseconds at most."""
        room = self._size - len(self.ready) - len(self._measuring)
        if self._is_exhausted or room <= 0:
            return
        now = time.monotonic()
        if now < self._poll_at:
            return
        until = now + _PREPARE_SECONDS
        for _ in range(room):
            try:
                item = next(self._source, None)
            except Exception as error:  # noqa: BLE001 - raised to the consumer once the mails before it are settled
                self.source_error, item = error, None
            if item is None:
                self._is_exhausted = True
                return
            if isinstance(item, Mail):
                request, is_complete = SendRequest(self._mails_taken, item), False
                self._mails_taken += 1
            elif isinstance(item, SendRequest):
                request, is_complete = item, True
            else:
                self._poll_at = item
                # A source that has no mail yet mostly returns at once, rather than wait.
                self._measure_source(time.monotonic() - now, turns=_FAST_IN_A_ROW)
                return
            try:
                self._prepare(request, is_complete=is_complete)
            except BaseException as error:
                self._on_delivery(request.not_sent(interruption_error(error)))
                raise
            asked_at, now = now, time.monotonic()
            self._measure_source(now - asked_at)
            if now > until:
                return

    def _measure_source(self, seconds: float, turns: int = 1) -> None:
        """Note how long the source took for one mail."""
        self._fast_in_a_row = self._fast_in_a_row + turns if seconds < _FAST_SECONDS else 0
        self.is_fast = self._fast_in_a_row >= _FAST_IN_A_ROW

    def fail(self, error: MailError) -> None:
        """Send nothing any more: deliver the error for every mail, of those that are ready and of those to come."""
        self._failure = error
        while self.ready:
            self._on_delivery(self.ready.popleft().not_sent(error))

    def close(self, error: MailError) -> None:
        """Send nothing any more, and ask the source for no more mails; deliver the error for those that were taken."""
        self._is_exhausted = True
        for delivery in self.not_sent(error):
            self._on_delivery(delivery)
        self.ready.clear()
        self._measuring.clear()
        self._failure = error

    def not_sent(self, error: MailError) -> list[Delivery]:
        """Return the deliveries of all mails that were taken from the source and not from here, if none is sent."""
        return [
            *(request.not_sent(error) for request in list(self._measuring.values())),
            *(outgoing.not_sent(error) for outgoing in self.ready),
        ]

    def _prepare(self, request: SendRequest, *, is_complete: bool) -> None:
        if self._failure is not None:
            self._on_delivery(request.not_sent(self._failure))
            return
        try:
            if not is_complete:
                request.mail = complete_mail(request.mail, self._manager)
            mail = request.mail
            if mail.has_remote_files:
                self._measuring[request.index] = request
                self._run_in_background(lambda: self._prepare_remote(request))
                return
            rendering = request.rendering
            if rendering is None:
                rendering = self._renderer.render(mail)
            outgoing = OutgoingMail(request, rendering, self._manager)
            if self._binary_renderer is not None and (mail.attachments or mail.inline_images):
                outgoing.binary_rendering = self._binary_renderer.render(mail)
            elif rendering.size <= _MAX_HELD_OCTETS:
                outgoing.data = join_with_final_dot(rendering.segments)
        except MailError as error:
            self._on_delivery(request.not_sent(error))
            return
        self.ready.append(outgoing)

    def _prepare_remote(self, request: SendRequest) -> OnResult:
        """Measure files that may take long to answer; runs in a thread."""
        outgoing: OutgoingMail | MailError
        mail, rendering = request.mail, request.rendering
        try:
            outgoing = OutgoingMail(request, render(mail) if rendering is None else rendering, self._manager)
            if self._manager.binary_mime:
                outgoing.binary_rendering = render(mail, binary=True)
        except MailError as error:
            outgoing = error
        except Exception as error:  # noqa: BLE001 - a storage's own library may raise anything
            outgoing = MessageError(f"The message could not be measured: {error!r}.")
            outgoing.__cause__ = error

        def on_result() -> None:
            if self._measuring.pop(request.index, None) is None:
                return  # the queue was closed
            if isinstance(outgoing, MailError):
                self._on_delivery(request.not_sent(outgoing))
            elif self._failure is not None:
                self._on_delivery(outgoing.not_sent(self._failure))
            else:
                self.ready.append(outgoing)

        return on_result
