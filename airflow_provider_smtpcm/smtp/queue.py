"""The mails of a batch, a few ahead of their turn: completed, measured, rendered. Knows no socket.

Files that may take long to answer are measured in threads.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.batch_rendering import BatchRenderer
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.smtp.cancellation import not_sent_for
from airflow_provider_smtpcm.smtp.delivery import Delivery, SendRequest
from airflow_provider_smtpcm.smtp.outgoing import Outgoing, complete, not_prepared, with_final_dot

# A message up to so many octets is held ready in one piece while its envelope is on the way.
_HELD_READY = 65536
# Mails are prepared for so many seconds at a time, then the sessions have their turn.
_PREPARING = 0.002
# However many sessions there may be, so many mails at the most are held ready.
_HELD_AT_ONCE = 256
# Who took longer for one of the last two mails may take very long for the next one. While it is asked nobody serves the
# sessions, and a server that waits for a message gives up.
_QUICK, _QUICK_IN_A_ROW = 0.05, 2

Arrived = Callable[[], None]


class PrefetchQueue:
    """Errands on their way to the sessions.

    Args:
        errands: a number stands for nothing before that moment (`time.monotonic`), unless `ask_again` is called. If it
            raises, what it gave before is sent first.
        manager: what a mail lacks.
        ahead: how many are held ready, up to a limit.
        in_background: runs a function in a thread, and what that returns in the thread of the sessions.
        delivered: hears of errands that cannot be sent.
        at_hand: whether errands are there as soon as they are asked for.
    """

    def __init__(
        self,
        errands: Iterator[SendRequest | float],
        manager: SmtpConnectionManager,
        *,
        ahead: int,
        in_background: Callable[[Callable[[], Arrived]], None],
        delivered: Callable[[Delivery], None],
        at_hand: bool = False,
    ) -> None:
        self._errands = errands
        self._manager = manager
        self._ahead = min(ahead, _HELD_AT_ONCE)
        self._in_background = in_background
        self._delivered = delivered
        self._renderer = BatchRenderer()
        self._binary_renderer = BatchRenderer(binary=True) if manager.binary_mime else None
        #: Those that can be sent, in their order.
        self.ready: deque[Outgoing] = deque()
        # Those whose files are being measured in a thread.
        self._preparing: dict[int, tuple[SendRequest, Mail]] = {}
        self._ask_at = -math.inf
        self._quick_in_a_row = _QUICK_IN_A_ROW if at_hand else 0
        #: Whether whoever makes the errands has been quick lately, so that it can be asked while a server waits.
        self.quick = at_hand
        self._exhausted = False
        self._given_up: MailError | None = None
        #: What whoever makes the errands raised.
        self.failure: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left, and nothing comes."""
        return self._exhausted and not self.ready and not self._preparing

    @property
    def ask_at(self) -> float | None:
        """When (`time.monotonic`) it is worth asking for more; None: it is not."""
        if self._exhausted or len(self.ready) + len(self._preparing) >= self._ahead:
            return None
        return self._ask_at

    def ask_again(self) -> None:
        """Something has happened that errands may have waited for."""
        self._ask_at = -math.inf

    def fill(self) -> None:
        """Prepare some, but not for long."""
        room = self._ahead - len(self.ready) - len(self._preparing)
        if self._exhausted or room <= 0:
            return
        now = time.monotonic()
        if now < self._ask_at:
            return
        until = now + _PREPARING
        for _ in range(room):
            try:
                errand = next(self._errands, self)
            except Exception as error:  # noqa: BLE001 - the consumer hears of it once the mails before it are settled
                self.failure, errand = error, self
            if errand is self:
                self._exhausted = True
                return
            if isinstance(errand, float):
                self._ask_at = errand
                # Mostly it says so rather than have us wait.
                self._took(time.monotonic() - now, turns=_QUICK_IN_A_ROW)
                return
            assert isinstance(errand, SendRequest)
            try:
                self._prepare(errand)
            except BaseException as error:
                self._delivered(not_prepared(errand, errand.mail, not_sent_for(error)))
                raise
            asked, now = now, time.monotonic()
            self._took(now - asked)
            if now > until:
                return

    def _took(self, seconds: float, turns: int = 1) -> None:
        """Whoever makes the errands took so long for one."""
        self._quick_in_a_row = self._quick_in_a_row + turns if seconds < _QUICK else 0
        self.quick = self._quick_in_a_row >= _QUICK_IN_A_ROW

    def give_up(self, error: MailError) -> None:
        """Nothing can be sent any more, neither what is ready nor what comes."""
        self._given_up = error
        while self.ready:
            self._delivered(self.ready.popleft().not_sent(error))

    def cut_off(self, error: MailError) -> None:
        """Nothing is sent any more, and nobody is asked for more."""
        self._exhausted = True
        for delivery in self.not_sent(error):
            self._delivered(delivery)
        self.ready.clear()
        self._preparing.clear()
        self._given_up = error

    def not_sent(self, error: MailError) -> list[Delivery]:
        """The deliveries of all that was taken and not yet passed on, where none of it is sent any more."""
        preparing = list(self._preparing.values())
        return [
            *(not_prepared(errand, mail, error) for errand, mail in preparing),
            *(outgoing.not_sent(error) for outgoing in self.ready),
        ]

    def _prepare(self, errand: SendRequest) -> None:
        if self._given_up is not None:
            self._delivered(not_prepared(errand, errand.mail, self._given_up))
            return
        mail = errand.mail
        try:
            mail = complete(mail, self._manager)
            if mail.has_remote_files:
                self._preparing[errand.index] = errand, mail
                self._in_background(lambda: self._prepared_afar(errand, mail))
                return
            outgoing = Outgoing(errand, mail, self._renderer.render(mail), self._manager)
            if self._binary_renderer is not None and (mail.attachments or mail.inline_images):
                outgoing.binary = self._binary_renderer.render(mail)
            elif outgoing.rendering.size <= _HELD_READY:
                outgoing.message = with_final_dot(outgoing.rendering.pieces)
        except MailError as error:
            self._delivered(not_prepared(errand, mail, error))
            return
        self.ready.append(outgoing)

    def _prepared_afar(self, errand: SendRequest, mail: Mail) -> Arrived:
        """Measure files that may take long to answer; in a thread."""
        outgoing: Outgoing | MailError
        try:
            outgoing = Outgoing(errand, mail, render(mail), self._manager)
            if self._manager.binary_mime:
                outgoing.binary = render(mail, binary=True)
        except MailError as error:
            outgoing = error
        except Exception as error:  # noqa: BLE001 - whatever a storage makes of it
            outgoing = MessageError(f"The message could not be measured: {error!r}.")

        def arrived() -> None:
            if self._preparing.pop(errand.index, None) is None:
                return  # it was cut off
            if isinstance(outgoing, MailError):
                self._delivered(not_prepared(errand, mail, outgoing))
            elif self._given_up is not None:
                self._delivered(outgoing.not_sent(self._given_up))
            else:
                self.ready.append(outgoing)

        return arrived
