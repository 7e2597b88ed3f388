"""The hook: an Airflow connection becomes a connection manager, and that an open session. Knows no SMTP by itself."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError

if TYPE_CHECKING:
    import ssl

    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.mail.render import Rendering
    from airflow_provider_smtpcm.smtp.auth.windows import WindowsSignIn
    from airflow_provider_smtpcm.smtp.batch import BatchSender
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.delivery import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest
    from airflow_provider_smtpcm.smtp.retry import Journal
    from airflow_provider_smtpcm.smtp.session import Session
    from airflow_provider_smtpcm.smtp.throttling import ServerProfile


# folded: A property that is worked out once, however many threads ask for it first. Knows nothing else.

_T = TypeVar("_T")


class once(Generic[_T]):  # noqa: N801 - it is written as `property` is
    """As `functools.cached_property`, which since Python 3.12 lets each thread work it out; needs `self.once_lock`."""

    def __init__(self, work_out: Callable[[Any], _T]) -> None:
        self._work_out = work_out
        self._name = work_out.__name__
        self.__doc__ = work_out.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> _T:
        if instance is None:
            return self  # type: ignore[return-value]  # as `property` does
        lock: threading.RLock = instance.once_lock
        with lock:
            known = vars(instance)  # from here on Python finds it there, and does not come here again
            if self._name not in known:
                known[self._name] = self._work_out(instance)
            value: _T = known[self._name]
            return value


# folded: here began the module itself

log = logging.getLogger(__name__)

# The Test button waits in a browser, and Airflow sets no limit of its own.
TEST_SECONDS = 30.0


class SmtpConnectionManagerHook(BaseHook):
    """Send mail through the server that an Airflow connection of type `smtpcm` defines. Threads may share it.

    Args:
        smtpcm_conn_id: the Airflow connection; it is looked up once, on first use.
    """

    conn_name_attr = "smtpcm_conn_id"
    default_conn_name = "smtpcm_default"
    conn_type = "smtpcm"
    hook_name = "SMTP Connection Manager"

    def __init__(self, smtpcm_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.smtpcm_conn_id = smtpcm_conn_id
        #: Whoever works something out holds it.
        self.once_lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """A copy works everything out anew: locks and TLS contexts can be neither copied nor pickled."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "once_lock" and not isinstance(getattr(type(self), name, None), once)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, once_lock=threading.RLock())

    @once
    def connection_manager(self) -> SmtpConnectionManager:
        """What the Airflow connection says, parsed.

        Raises:
            ConnectionSettingsError: names everything that is wrong with it, by form label.
        """
        manager = SmtpConnectionManager.from_airflow(self.get_connection(self.smtpcm_conn_id))
        for warning in manager.warnings:
            log.warning("Connection '%s': %s", self.smtpcm_conn_id, warning)
        return manager

    @once
    def _tls_context(self) -> ssl.SSLContext | None:
        if self.connection_manager.ssl_mode is SslMode.NONE:
            return None
        from airflow_provider_smtpcm.smtp.tls import tls_context

        return tls_context(self.connection_manager)

    @once
    def _windows(self) -> WindowsSignIn:
        from airflow_provider_smtpcm.smtp.auth.windows import WindowsSignIn

        return WindowsSignIn(self.connection_manager)

    @once
    def _server_profile(self) -> ServerProfile:
        from airflow_provider_smtpcm.smtp.throttling import ServerProfile

        return ServerProfile()

    def get_conn(self) -> Session:
        """An open, signed-in session, which is also a context manager; close it when done.

        Raises:
            MailError: the server could not be reached, trusted or signed in to.
        """
        return self._open(give_up_at=None)

    def _open(self, *, give_up_at: float | None) -> Session:
        from airflow_provider_smtpcm.smtp.session import Session

        return Session(
            self.connection_manager, context=self._tls_context, windows=self._windows, give_up_at=give_up_at
        ).open()

    def apply_defaults(self, mail: Mail) -> Mail:
        """Return the mail with the connection's From and Reply-To where it has none.

        Raises:
            MessageError: neither has a From.
        """
        from airflow_provider_smtpcm.smtp.queue import apply_defaults

        return apply_defaults(mail, self.connection_manager)

    def check(self, mail: Mail) -> None:
        """Check a mail without a server: its sender, and that its files can be read.

        Raises:
            MailError: the mail cannot be sent as it is.
        """
        from airflow_provider_smtpcm.smtp.queue import complete_mail

        self.render(complete_mail(mail, self.connection_manager))

    def render(self, mail: Mail) -> Rendering:
        """Render a complete mail, so that a missing file is found before a server is asked.

        Args:
            mail: with sender and Message-ID.

        Returns:
            The rendering, for its `SendRequest`.

        Raises:
            MailError: the mail cannot be rendered.
        """
        from airflow_provider_smtpcm.mail.batch_rendering import MergeRenderer

        return MergeRenderer().render(mail)

    def send(self, mail: Mail) -> Delivery:
        """Send one mail over a session of its own.

        Returns:
            The delivery: `accepted`, or `partial`, in which case `refused` names who does not get it.

        Raises:
            MailError: no recipient was accepted; or (OutcomeUnknownError) the server did not answer the whole message,
                or sending was interrupted after a recipient was accepted.
        """
        from airflow_provider_smtpcm.smtp.cancellation import get_single_delivery
        from airflow_provider_smtpcm.smtp.queue import SendRequest, complete_mail

        mail = complete_mail(mail, self.connection_manager)
        request = SendRequest(0, mail, rendering=self.render(mail))
        delivery = get_single_delivery(self._sender([request]).deliveries())
        assert delivery is not None
        if delivery.error is not None and (not delivery.accepted or delivery.outcome == "unknown"):
            raise delivery.error
        return delivery

    def send_many(
        self, mails: Iterable[Mail], connections: int = 1, *, rate_limit: float | None = None
    ) -> Generator[Delivery, None, None]:
        """Send many mails over few sessions; each mail has exactly one delivery, in the order in which they finish.

        It never raises for one mail: look at each `delivery.outcome`.

        Args:
            mails: any number; taken as they are needed, a few ahead of the deliveries.
            connections: how many sessions at most.
            rate_limit: mails a minute at most, over all sessions, as Exchange's MessageRateLimit counts; None: no
                limit.
        """
        return self._sender(mails, connections=connections, rate_limit=rate_limit).deliveries()

    def send_requests(
        self,
        requests: Iterator[SendRequest | float],
        *,
        connections: int = 1,
        rate_limit: float | None = None,
        retry_for: float = 0.0,
        journal: Journal | None = None,
        cancellation: CancellationToken | None = None,
    ) -> Generator[Delivery, None, None]:
        """Send requests, and retry for a while what was refused for now or not sent; one delivery for each.

        Args:
            requests: each index once, with complete mails; a number means that there is none before that moment
                (`time.monotonic`).
            connections, rate_limit: as in `send_many`.
            retry_for: seconds for which a mail is retried, and a server that cannot be reached is tried again.
            journal: asked before anything is sent, and informed afterwards.
            cancellation: cancels the sending.
        """
        from airflow_provider_smtpcm.smtp.retry import RetryQueue

        retries = RetryQueue(requests, retry_for, journal=journal)
        sender = self._sender(
            retries.admitted(),
            connections=connections,
            rate_limit=rate_limit,
            retry_connect_for=retry_for,
            cancellation=cancellation,
        )
        return retries.deliveries(sender)

    def _sender(self, source: Iterable[Mail | SendRequest | float], **options: Any) -> BatchSender:
        """Return a sender of this connection; what is built here is built before there are threads.

        Args:
            source, options: as `BatchSender` has them.
        """
        from airflow_provider_smtpcm.smtp.batch import BatchSender

        manager, _ = self.connection_manager, (self._tls_context, self._windows)
        return BatchSender(source, manager, self.get_conn, profile=self._server_profile, **options)

    def test_connection(self) -> tuple[bool, str]:
        """What Airflow's *Test* button asks: connect, encrypt, sign in, say NOOP, send nothing; 30 seconds in all.

        The browser shows the answer as one line, and takes a good one away after two seconds and a bad one after five:
        so it is logged too, by the process that ran the test.
        """
        give_up_at = time.monotonic() + TEST_SECONDS
        try:
            with self._open(give_up_at=give_up_at) as session:
                session.noop()
                answer = good_answer(session)
        except MailError as error:
            out_of_time = time.monotonic() >= give_up_at
            answer = bad_answer(error, limit=TEST_SECONDS if out_of_time else None)
            log.warning("Test Connection failed. %s", answer)
            return False, answer
        log.info("Test Connection succeeded. %s", answer)
        return True, answer

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form of Airflow 3.1; newer ones take it from `get_provider_info`."""
        from airflow_provider_smtpcm.hooks.legacy_form import connection_form_widgets

        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Labels and placeholders for Airflow 3.1; newer ones take them from `get_provider_info`."""
        from airflow_provider_smtpcm.hooks.legacy_form import ui_field_behaviour

        return ui_field_behaviour()


# folded: What Airflow's *Test* button answers, worded for the small box in which the browser shows it on one line.
#   Names the machine that ran the test: the button runs it on the API server, whose files, names and firewall need
#   not be
#   a worker's.

# The answer says them in words of its own.
_TOLD = frozenset({"AUTH", "SIZE", "STARTTLS"})


def good_answer(session: Session) -> str:
    """How the session got in, and what the server can do."""
    manager, limit = session.manager, session.size_limit
    facts = [
        f"Connected to {session.transport.peer} from {socket.gethostname()}",
        session.tls_version or "clear text, no TLS",
        f"signed in by {session.signed_in}" if session.signed_in else "anonymous",
        f"messages up to {limit:,} octets" if limit else "no size limit given",
        f"offers {', '.join(key for key in session.extensions if key not in _TOLD) or 'no extension'}",
    ]
    return " ".join((f"{'; '.join(facts)}.", *(f"Warning: {warning}" for warning in manager.warnings)))


def bad_answer(error: MailError, *, limit: float | None) -> str:
    """What went wrong and what to do about it.

    Args:
        error: what ended the test.
        limit: seconds that a test may take, where it took them all.
    """
    if isinstance(error, ConnectionSettingsError):
        # Without the connection's id: Airflow tests under one that it makes up.
        if len(error.faults) == 1:
            return f"This connection cannot be used: {error.faults[0]}"
        numbered = " ".join(f"({number}) {fault}" for number, fault in enumerate(error.faults, 1))
        return f"This connection cannot be used, for {len(error.faults)} reasons: {numbered}"
    ceiling = "" if limit is None else f" A test takes {limit:g} seconds at the most, whatever 'Timeout' says."
    return f"{error}{ceiling} (Tested on {socket.gethostname()}.)"
