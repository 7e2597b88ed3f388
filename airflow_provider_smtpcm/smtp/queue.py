"""The send queue: send requests, and a queue that completes and renders the next mails of a batch. No sockets.

Mails with remote files are rendered in background threads, since object storage may take a long time to report the size
of a file.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import MailError, MessageError, Phase, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.address_list import parse_address
from airflow_provider_smtpcm.mail.file_encoding import Base64File
from airflow_provider_smtpcm.mail.headers import new_message_id
from airflow_provider_smtpcm.mail.render import BatchRenderer, Rendering, render
from airflow_provider_smtpcm.smtp.cancellation import interruption_error
from airflow_provider_smtpcm.smtp.outcome import (
    Delivery,
    Outcome,
    not_sent_delivery,
    partial_error,
    refused_error,
    unknown_error,
)
from airflow_provider_smtpcm.smtp.transaction import join_with_final_dot

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.mime_message import AnyMail, MessageLike

log = logging.getLogger(__name__)

# The largest message that is prepared for DATA in one buffer.
_MAX_BUFFERED_OCTETS = 65536
# Maximum seconds of preparing mails before the event loop serves the sessions again.
_PREPARE_SECONDS = 0.002
# Maximum prepared mails, however many sessions there are.
_MAX_AHEAD = 256
# A source is fast if each of its last two mails took less than this. `next(source)` blocks the event loop: with a slow
# source, a server that waits for a message could time out.
_FAST_SECONDS, _FAST_MAILS = 0.05, 2

_NO_REPLIES: Mapping[str, Reply] = MappingProxyType({})
# What `next` returns at the end of a source.
_END = object()

#: A callback that applies the result of a background function; runs in the event loop.
OnResult = Callable[[], None]


class SendRequest:
    """A mail to send, with its number in the batch and the progress of its recipients.

    Args:
        index: its number in the batch, which is also the index of its delivery.
        mail: the mail from `complete_mail`; its header has all recipients, even if some have received it.
        recipients: the pending addresses; None: all recipients of the mail.
        accepted: the addresses that the mail was accepted for before.
        refused: the addresses that were refused permanently before.
        rendering: the rendered mail; None: `render` or the queue renders it.
        is_last: whether no other mail follows, so that QUIT may be sent with it.
    """

    __slots__ = ("accepted", "index", "is_last", "mail", "recipients", "refused", "rendering")

    def __init__(
        self,
        index: int,
        mail: AnyMail,
        recipients: tuple[str, ...] | None = None,
        accepted: tuple[str, ...] = (),
        refused: Mapping[str, Reply] = _NO_REPLIES,
        *,
        rendering: Rendering | None = None,
        is_last: bool = False,
    ) -> None:
        self.index = index
        self.mail = mail
        self.recipients = recipients
        self.accepted = accepted
        self.refused = refused
        self.rendering = rendering
        self.is_last = is_last

    @property
    def pending(self) -> Sequence[str]:
        """The addresses that the mail is still to be sent to."""
        return self.recipients or [address.address for address in self.mail.recipients]

    def render(self) -> None:
        """Render the mail now, so that a missing file is found before connecting.

        The rendering of a mail with files is not kept: they may change until it is sent, and are measured again then.

        Raises:
            MailError: the mail cannot be rendered.
        """
        rendering = render_any(self.mail)
        for segment in rendering.segments:
            if isinstance(segment, Base64File) and not len(segment):
                log.warning("%s is empty (0 octets).", segment.attachment.describe())
        if not self.mail.has_files:
            self.rendering = rendering

    def not_sent(self, error: MailError) -> Delivery:
        """Return the delivery of a mail that is not sent to its pending recipients."""
        return not_sent_delivery(
            self.index,
            self.mail.message_id or "",
            accepted=self.accepted,
            refused=self.refused,
            pending=self.pending,
            error=error,
        )


#: The source of a batch: mails, or requests and times. A time (`time.monotonic`) means: no request is due before it.
Source = Iterator["Mail | MessageLike | SendRequest | float"]


def render_any(mail: AnyMail) -> Rendering:
    """Return the message of a complete mail for the server.

    Raises:
        MailError: it cannot be rendered.
    """
    return render(mail) if isinstance(mail, Mail) else mail.render()


def as_mail(value: Mail | MessageLike) -> AnyMail:
    """Return what is to be sent as a `Mail` or a `MimeMessage`; see `mail.mime_message.as_mail`."""
    if isinstance(value, Mail):
        return value
    from airflow_provider_smtpcm.mail.mime_message import as_mail as parse

    return parse(value)


def apply_defaults(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """Return the mail with the connection's From, Reply-To and envelope sender as defaults.

    Raises:
        MessageError: neither has a From, or the connection's From is not an address.
    """
    sender, reply_to = _sender(mail, manager), _default_reply_to(mail, manager)
    envelope_from = _default_envelope_from(mail, manager)
    if sender is mail.from_address and reply_to is None and envelope_from is None:
        return mail
    return mail.with_identity(from_address=sender, reply_to=reply_to, envelope_from=envelope_from)


def complete_mail(
    mail: AnyMail, manager: SmtpConnectionManager, *, make_message_id: Callable[[str], str] = new_message_id
) -> AnyMail:
    """Return the mail with `apply_defaults`, and with a Message-ID in the sender's domain if it has none.

    Args:
        mail: the mail.
        manager: the connection's defaults.
        make_message_id: returns the Message-ID, for the sender's domain.

    Raises:
        MessageError: see `apply_defaults` and `MimeMessage.complete`.
    """
    if not isinstance(mail, Mail):
        return mail.complete(envelope_from=manager.envelope_from, make_message_id=make_message_id)
    if mail.message_id is not None:
        return apply_defaults(mail, manager)
    sender = _sender(mail, manager)
    return mail.with_identity(
        from_address=sender,
        reply_to=_default_reply_to(mail, manager),
        message_id=make_message_id(sender.domain),
        envelope_from=_default_envelope_from(mail, manager),
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


def _default_envelope_from(mail: Mail, manager: SmtpConnectionManager) -> str | None:
    return None if mail.envelope_from else manager.envelope_from


class OutgoingMail:
    """A prepared mail, and the progress of its recipients over one or more transactions.

    Args:
        request: a request with a complete mail.
        rendering: the message to send.
        manager: the connection manager that it is sent through.
    """

    __slots__ = (
        "accepted",
        "binary_rendering",
        "data",
        "index",
        "is_last",
        "mail",
        "manager",
        "message_id",
        "recipients",
        "refused",
        "refused_at",
        "rendering",
        "sender",
        "server",
    )

    def __init__(self, request: SendRequest, rendering: Rendering, manager: SmtpConnectionManager) -> None:
        mail = request.mail
        self.index = request.index
        self.is_last = request.is_last
        self.mail = mail
        self.message_id = mail.message_id or ""
        self.rendering = rendering
        #: The message for a server with BINARYMIME (RFC 3030), if the connection enables it.
        self.binary_rendering: Rendering | None = None
        self.manager = manager
        #: The address in MAIL FROM; "" for a null return path.
        self.sender = mail.envelope_sender
        #: The server (`host:port`) that has accepted the mail for some recipients; None: none has.
        self.server: str | None = None
        #: The recipients of this and further transactions.
        self.recipients = deque(request.pending)
        self.accepted: list[str] = [*request.accepted]
        self.refused: dict[str, Reply] = {**request.refused}
        #: When (`time.monotonic`) a session refused it that had accepted others; None: none has, for these recipients.
        self.refused_at: float | None = None
        #: The message for DATA, dot-stuffed and with the final dot; None if it is too long for one buffer.
        self.data: bytes | None = None

    def accept(self, peer: str, reply: Reply) -> Delivery:
        """Return the delivery after the last transaction was accepted."""
        if self.refused:
            return self._partial(peer, reply)
        return Delivery(
            index=self.index,
            message_id=self.message_id,
            outcome=Outcome.ACCEPTED,
            accepted=tuple(self.accepted),
            reply=reply,
            server=peer,
        )

    def refuse(
        self,
        peer: str,
        what: str,
        reply: Reply,
        *,
        phase: Phase,
        retryable: bool | None = None,
        is_about_recipients: bool = False,
    ) -> Delivery:
        """Return the delivery after the server refused all remaining recipients.

        Args:
            peer: the server's name in messages (`host:port`).
            what: what the server refused, such as `the message`.
            reply: its reply; it applies to all remaining recipients that have no reply of their own.
            phase: how far the mail had got.
            retryable: whether another attempt may succeed; None: if the reply is transient.
            is_about_recipients: see `RefusedError`.
        """
        for address in self.recipients:
            self.refused.setdefault(address, reply)
        if self.accepted:
            return self._partial(peer, reply, is_about_recipients=is_about_recipients)
        error = refused_error(
            peer,
            what,
            reply,
            self.refused,
            is_anonymous=self.manager.auth_mode is AuthMode.ANONYMOUS,
            has_client_certificate=self.manager.client_certificate is not None,
            phase=phase,
            retryable=reply.transient if retryable is None else retryable,
        )
        error.is_about_recipients = is_about_recipients
        return self._delivery(peer, Outcome.REFUSED, error, reply)

    def not_sent(self, error: MailError) -> Delivery:
        """Return the delivery if the mail cannot have reached the remaining recipients."""
        pending = [address for address in self.recipients if address not in self.refused]
        return not_sent_delivery(
            self.index,
            self.message_id,
            accepted=tuple(self.accepted),
            refused=self.refused,
            pending=pending,
            error=error,
            server=self.server,
        )

    def unknown(
        self, peer: str, why: str, *, committed: Sequence[str], unattempted: Sequence[str], cause: MailError | None
    ) -> Delivery:
        """Return the delivery if the whole message was sent and no final reply came.

        Args:
            peer: the server's name in messages (`host:port`).
            why: why there is no reply, as a sentence.
            committed: the recipients of the transaction without a final reply.
            unattempted: the recipients left for later transactions.
            cause: the error that ended the session; None if it was interrupted.
        """
        error = unknown_error(
            self.message_id, why, committed=committed, accepted=self.accepted, unattempted=unattempted
        )
        error.__cause__ = cause
        return self._delivery(peer, Outcome.UNKNOWN, error, cause.reply if cause else None)

    def _partial(self, peer: str, reply: Reply, *, is_about_recipients: bool = True) -> Delivery:
        error = partial_error(peer, self.message_id, self.accepted, self.refused)
        error.is_about_recipients = is_about_recipients
        return self._delivery(peer, Outcome.PARTIAL, error, reply)

    def _delivery(self, peer: str, outcome: Outcome, error: MailError, reply: Reply | None) -> Delivery:
        return Delivery(
            index=self.index,
            message_id=self.message_id,
            outcome=outcome,
            accepted=tuple(self.accepted),
            refused=self.refused,
            reply=reply,
            error=error,
            server=peer,
        )


class PrefetchQueue:
    """Completes and renders the next mails of a batch, so that sessions do not wait for them.

    Args:
        source: see `Source`. It is read again when a time that it returned has come, or after `poll_now`. If it raises,
            the mails that it returned before are sent first.
        manager: the defaults for mails. The mails of requests are complete already.
        size: number of mails to prepare ahead, at most 256.
        run_in_background: runs a function in a background thread, and the callback that it returns in the event loop.
        on_delivery: called with the delivery of each mail that cannot be sent.
        is_in_memory: whether the source is a list or tuple, so that `next(source)` never blocks.
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
        # By whether they render for BINARYMIME. Created when first used, since a single mail comes with its rendering.
        self._renderers: dict[bool, BatchRenderer] = {}
        #: Prepared mails, in order.
        self.ready: deque[OutgoingMail] = deque()
        # Requests whose files are being measured in a background thread, by index.
        self._measuring: dict[int, SendRequest] = {}
        self._next_index = 0
        self._poll_at = -math.inf
        self._fast_count = _FAST_MAILS if is_in_memory else 0
        #: Whether the source was fast lately, so that it may be read while a server waits for a message.
        self.is_fast = is_in_memory
        self._is_exhausted = False
        self._failure: MailError | None = None
        #: The exception that the source raised.
        self.source_error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether the queue and its source are exhausted."""
        return self._is_exhausted and not self.ready and not self._measuring

    @property
    def poll_at(self) -> float | None:
        """When (`time.monotonic`) to call `fill`; None if the queue is full, or the source exhausted."""
        if self._is_exhausted or len(self.ready) + len(self._measuring) >= self._size:
            return None
        return self._poll_at

    def poll_now(self) -> None:
        """Read the source again with the next `fill`, even before the time that it returned."""
        self._poll_at = -math.inf

    def fill(self) -> None:
        """Prepare mails until the queue is full or 2 ms have passed; the source may block for longer."""
        free_slots = self._size - len(self.ready) - len(self._measuring)
        if self._is_exhausted or free_slots <= 0:
            return
        now = time.monotonic()
        if now < self._poll_at:
            return
        deadline = now + _PREPARE_SECONDS
        for _ in range(free_slots):
            item = self._next_item()
            if item is None:
                self._is_exhausted = True
                return
            if isinstance(item, SendRequest):
                request, is_complete = item, True
            elif not isinstance(item, float):
                new, is_complete = self._number(item), False
                if new is None:
                    continue
                request = new
            else:
                self._poll_at = item
                # A source that returns a time usually does so instead of blocking; one quick call is enough.
                self._time_source(time.monotonic() - now, count=_FAST_MAILS)
                return
            try:
                self._prepare(request, is_complete=is_complete)
            except BaseException as error:
                self._on_delivery(request.not_sent(interruption_error(error)))
                raise
            asked_at, now = now, time.monotonic()
            self._time_source(now - asked_at)
            if now > deadline:
                return

    def _number(self, item: Mail | MessageLike) -> SendRequest | None:
        """Return the request for the next mail; None if it is a message that cannot be sent, which is reported."""
        index = self._next_index
        self._next_index += 1
        try:
            return SendRequest(index, as_mail(item))
        except MessageError as error:
            self._on_delivery(refuse_message(index, error))
            return None
        except BaseException as error:
            self._on_delivery(refuse_message(index, interruption_error(error)))
            raise

    def _next_item(self) -> Mail | MessageLike | SendRequest | float | None:
        """Return the next item of the source; None if it has ended, or has failed.

        On failure, `source_error` is set. The batch raises that error after it has sent the mails before it.
        """
        try:
            item: object = next(self._source, _END)
        except Exception as error:  # noqa: BLE001 - the source may raise anything
            self.source_error = error
            return None
        if item is _END:
            return None
        # Only a source of requests may return a time; `_next_index` counts the mails.
        if isinstance(item, Mail | SendRequest) or (isinstance(item, float) and not self._next_index):
            return item
        from airflow_provider_smtpcm.mail.mime_message import is_message_like

        if is_message_like(item):
            return item
        self.source_error = TypeError(f"Only mails can be sent, not {type(item).__name__}.")
        return None

    def _time_source(self, seconds: float, count: int = 1) -> None:
        """Update `is_fast`.

        Args:
            seconds: how long reading and preparing an item took.
            count: the number of mails that the item counts as.
        """
        self._fast_count = self._fast_count + count if seconds < _FAST_SECONDS else 0
        self.is_fast = self._fast_count >= _FAST_MAILS

    def fail(self, error: MailError) -> None:
        """Report the mails in the queue, and those that the source still returns, as not sent."""
        self._failure = error
        while self.ready:
            self._on_delivery(self.ready.popleft().not_sent(error))

    def close(self, error: MailError) -> None:
        """Report the mails in the queue as not sent, and stop reading the source."""
        self._is_exhausted = True
        for delivery in self.not_sent(error):
            self._on_delivery(delivery)
        self.ready.clear()
        self._measuring.clear()
        self._failure = error

    def not_sent(self, error: MailError) -> list[Delivery]:
        """Return deliveries with the error for every mail in the queue; the queue does not change."""
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
            rendering = request.rendering or self._render(mail)
            outgoing = OutgoingMail(request, rendering, self._manager)
            if self._manager.binary_mime and (mail.attachments or mail.inline_images):
                outgoing.binary_rendering = self._render(mail, binary=True)
            elif rendering.size <= _MAX_BUFFERED_OCTETS:
                outgoing.data = join_with_final_dot(rendering.segments)
        except MailError as error:
            self._on_delivery(request.not_sent(error))
            return
        self.ready.append(outgoing)

    def _render(self, mail: AnyMail, *, binary: bool = False) -> Rendering:
        if not isinstance(mail, Mail):
            return mail.render()
        renderer = self._renderers.get(binary)
        if renderer is None:
            renderer = self._renderers[binary] = BatchRenderer(binary=binary)
        return renderer.render(mail)

    def _prepare_remote(self, request: SendRequest) -> OnResult:
        """Measure and render a mail with remote files; runs in a background thread."""
        outgoing: OutgoingMail | MailError
        try:
            mail = request.mail
            assert isinstance(mail, Mail)  # no other has files
            outgoing = OutgoingMail(request, request.rendering or render(mail), self._manager)
            if self._manager.binary_mime:
                outgoing.binary_rendering = render(mail, binary=True)
        except MailError as error:
            outgoing = error
        except Exception as error:  # noqa: BLE001 - a storage library may raise anything
            outgoing = MessageError(
                f"The size of the message cannot be determined: {error!r}.",
                remedy="Check the storage of its attachments.",
            )
            outgoing.__cause__ = error

        def on_result() -> None:
            if self._measuring.pop(request.index, None) is None:
                return  # `close` has reported it
            if isinstance(outgoing, MailError):
                self._on_delivery(request.not_sent(outgoing))
            elif self._failure is not None:
                self._on_delivery(outgoing.not_sent(self._failure))
            else:
                self.ready.append(outgoing)

        return on_result


def refuse_message(index: int, error: MailError) -> Delivery:
    """Return the delivery of a complete message that cannot be sent as it is."""
    return Delivery(index=index, message_id="", outcome=Outcome.NOT_SENT, error=error)
