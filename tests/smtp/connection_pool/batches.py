"""What the tests of many mails share: letters, ways to send them, and ways to interrupt that."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.dialogue import hang_up
from tests.smtp.server import MESSAGE, Server
from tests.waiting import wait_until

NO_FROM = Mail(to="a@corp.example")


def letter(number: int, *to: str, size: int = 0, text: str = "All is well.") -> Mail:
    """A mail, with a file of this many octets."""
    return Mail(
        from_address="etl@corp.example",
        to=to or (f"a{number}@corp.example", f"b{number}@corp.example"),
        text=text,
        attachments=[Attachment(content=b"." * size, name="report.csv")] if size else (),
        message_id=f"<{number}@corp.example>",
    )


def send_many(mails: Iterable[Mail], *manager_and_opener: object, **options: object) -> Generator[Delivery, None, None]:
    """Send them through a batch sender."""
    return BatchSender(mails, *manager_and_opener, **options).deliveries()  # type: ignore[arg-type]


def send(manager: SmtpConnectionManager, mails: Iterable[Mail], **how: object) -> Generator[Delivery, None, None]:
    """Send them through sessions that are opened on demand."""
    return send_many(mails, manager, lambda: Session(manager), **how)  # type: ignore[arg-type]


def send_through_a_strait(
    manager: SmtpConnectionManager, mails: Iterable[Mail], **how: float
) -> Generator[Delivery, None, None]:
    """Like `send`, with small send buffers on this side too."""

    def open_session() -> Session:
        session = Session(manager).open()
        session.transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return session

    return send_many(mails, manager, open_session, **how)  # type: ignore[arg-type]


def close_from_afar(server: Server, session: Session, reply: bytes) -> None:
    """Let the server close a session."""
    port = session.transport._sock.getsockname()[1]
    (peer,) = (peer for peer in server._peers if peer.fileno() >= 0 and peer.getpeername()[1] == port)
    peer.sendall(reply)
    hang_up(peer)


def outcomes(deliveries: list[Delivery]) -> list[str]:
    """The outcome of each mail, in order."""
    assert sorted(delivery.index for delivery in deliveries) == list(range(len(deliveries)))
    return [str(delivery.outcome) for delivery in sorted(deliveries, key=lambda delivery: delivery.index)]


def requests(mails: Iterable[Mail]) -> Iterator[SendRequest]:
    """A request for each mail, in order."""
    return (SendRequest(index, mail) for index, mail in enumerate(mails))


class TimeLimit(BaseException):
    """Like Airflow's own: not an `Exception`."""


class SilentServer(Server):
    """It accepts messages, and never sends the final reply."""

    def __init__(self) -> None:
        super().__init__(self._say_nothing)
        #: How many it has received.
        self.taken = 0

    def _say_nothing(self, about: str) -> None:
        if about == MESSAGE:
            self.taken += 1
            self.over.wait()


def interrupted(
    when: Callable[[], object], with_what: type[BaseException], deliveries: Iterable[Delivery]
) -> list[Delivery]:
    """All deliveries, those too that follow when a signal's handler raises, as that of Airflow's time limit does.

    Args:
        when: the signal comes when this is true.
        with_what: what the handler raises.
        deliveries: the ones to come.
    """

    def interrupt() -> None:
        wait_until(when)
        os.kill(os.getpid(), signal.SIGALRM)

    def time_is_up(_number: int, _frame: object) -> None:
        raise with_what

    before = signal.signal(signal.SIGALRM, time_is_up)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    told: list[Delivery] = []
    try:
        with pytest.raises(with_what):
            told.extend(deliveries)
    finally:
        interrupting.join()
        signal.signal(signal.SIGALRM, before)
    return told
