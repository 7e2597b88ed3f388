"""The hook: resolves an Airflow connection to a connection manager, opens its sessions and sends mail."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_smtpcm.connection_manager import FIELDS, AuthMode, Field, SmtpConnectionManager, SslMode, fields
from airflow_provider_smtpcm.connection_manager.fields import FieldType
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError

if TYPE_CHECKING:
    import ssl

    from airflow_provider_smtpcm.mail import Mail, MessageLike
    from airflow_provider_smtpcm.mail.mime_message import AnyMail
    from airflow_provider_smtpcm.mail.render import Rendering
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
    from airflow_provider_smtpcm.smtp.failover import Failover
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest
    from airflow_provider_smtpcm.smtp.retry import Journal
    from airflow_provider_smtpcm.smtp.session import Session
    from airflow_provider_smtpcm.smtp.throttling import ServerProfile
    from airflow_provider_smtpcm.smtp.tls import TlsContextCache


log = logging.getLogger(__name__)

# Time limit of the Test button in seconds. Airflow sets none, and a browser waits for the result.
TEST_SECONDS = 30.0

_T = TypeVar("_T")


class locked_cached_property(Generic[_T]):  # noqa: N801 - like `property` and `cached_property`
    """`functools.cached_property` with the instance's `cache_lock`: computed once, even if several threads read it.

    The one in functools has had no lock since Python 3.12; before that, all instances shared one.
    """

    def __init__(self, function: Callable[[Any], _T]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> _T:
        if instance is None:
            return self  # type: ignore[return-value]  # as `property` does
        lock: threading.RLock = instance.cache_lock
        with lock:
            attributes = vars(instance)  # its values take precedence over this descriptor, which has no `__set__`
            if self._name not in attributes:
                attributes[self._name] = self._function(instance)
            value: _T = attributes[self._name]
            return value


class SmtpConnectionManagerHook(BaseHook):
    """Send mail through the server that an Airflow connection of type `smtpcm` defines. Thread-safe.

    Args:
        smtpcm_conn_id: the Airflow connection, which is looked up once, on first use.
    """

    conn_name_attr = "smtpcm_conn_id"
    default_conn_name = "smtpcm_default"
    conn_type = "smtpcm"
    hook_name = "SMTP Connection Manager"

    def __init__(self, smtpcm_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.smtpcm_conn_id = smtpcm_conn_id
        #: Held while a `locked_cached_property` is computed.
        self.cache_lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Omit cached values, which a copy computes again: locks and TLS contexts can be neither copied nor pickled."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "cache_lock" and not isinstance(getattr(type(self), name, None), locked_cached_property)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, cache_lock=threading.RLock())

    @locked_cached_property
    def connection_manager(self) -> SmtpConnectionManager:
        """The parsed Airflow connection.

        Raises:
            ConnectionSettingsError: lists all faults at once, by their form labels.
        """
        manager = SmtpConnectionManager.from_airflow(self.get_connection(self.smtpcm_conn_id))
        for warning in manager.warnings:
            log.warning("Connection '%s': %s", self.smtpcm_conn_id, warning)
        return manager

    @locked_cached_property
    def _tls_contexts(self) -> TlsContextCache | None:
        if self.connection_manager.ssl_mode is SslMode.NONE:
            return None
        from airflow_provider_smtpcm.smtp.tls import TlsContextCache

        return TlsContextCache(self.connection_manager)

    @property
    def _tls_context(self) -> ssl.SSLContext | None:
        with self.cache_lock:
            contexts = self._tls_contexts
            return None if contexts is None else contexts.get()

    @locked_cached_property
    def _authenticator(self) -> WindowsAuthenticator | None:
        if self.connection_manager.auth_mode is AuthMode.ANONYMOUS or self.connection_manager.fallback_hosts:
            return None
        from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator

        return WindowsAuthenticator(self.connection_manager)

    @locked_cached_property
    def _failover(self) -> Failover | None:
        """The servers, if the connection has several. Each has its own authenticator and profile."""
        if not self.connection_manager.fallback_hosts:
            return None
        from airflow_provider_smtpcm.smtp.failover import Failover

        return Failover(self.connection_manager)

    @locked_cached_property
    def _server_profile(self) -> ServerProfile:
        from airflow_provider_smtpcm.smtp.throttling import ServerProfile

        return ServerProfile()

    def get_conn(self) -> Session:
        """Return an open, authenticated session. Close it when done; it is also a context manager.

        Raises:
            MailError: the connection or the sign-in failed, or the server cannot be trusted.
        """
        return self._new_session().open()

    def _new_session(self, *, give_up_at: float | None = None) -> Session:
        """Return a session that is not open yet.

        Args:
            give_up_at: the deadline (`time.monotonic`) of every operation of the session; None: no deadline.
        """
        from airflow_provider_smtpcm.smtp.session import Session

        return Session(
            self.connection_manager,
            context=self._tls_context,
            authenticator=self._authenticator,
            give_up_at=give_up_at,
            failover=self._failover,
        )

    def apply_defaults(self, mail: Mail) -> Mail:
        """Return the mail with the connection's From and Reply-To where it has none.

        Raises:
            MessageError: neither the mail nor the connection has a From.
        """
        from airflow_provider_smtpcm.smtp.queue import apply_defaults

        return apply_defaults(mail, self.connection_manager)

    def check(self, mail: Mail | MessageLike) -> None:
        """Check, without connecting, that a mail has a sender and that its files can be read.

        Raises:
            MailError: the mail cannot be sent as it is.
        """
        from airflow_provider_smtpcm.smtp.queue import as_mail, complete_mail

        self.render(complete_mail(as_mail(mail), self.connection_manager))

    def render(self, mail: AnyMail) -> Rendering | None:
        """Render a complete mail, so that a missing file is found before connecting.

        Args:
            mail: with sender and Message-ID.

        Returns:
            The rendering, to be passed in the mail's `SendRequest`; None if the mail has files, which may change until
            it is sent and are measured again then.

        Raises:
            MailError: the mail cannot be rendered.
        """
        from airflow_provider_smtpcm.smtp.queue import SendRequest

        request = SendRequest(0, mail)
        request.render()
        return request.rendering

    def send(self, mail: Mail | MessageLike) -> Delivery:
        """Send one mail over a session of its own.

        Args:
            mail: a mail; or a complete message, whose octets are sent as they are: a message of Python's `email`, its
                octets, the path of an .eml file, or a `MimeMessage`, which can have recipients of its own.

        Returns:
            The delivery: `accepted`, or `partial`, with the refused recipients in `refused`.

        Raises:
            MailError: no recipient was accepted, or the outcome is unknown (OutcomeUnknownError): the final reply is
                missing, or sending was interrupted after a recipient was accepted.
        """
        from airflow_provider_smtpcm.smtp.cancellation import get_single_delivery
        from airflow_provider_smtpcm.smtp.queue import SendRequest, as_mail, complete_mail

        request = SendRequest(0, complete_mail(as_mail(mail), self.connection_manager), is_last=True)
        request.render()
        delivery = get_single_delivery(self._sender([request]).deliveries())
        assert delivery is not None
        if delivery.error is not None and (not delivery.accepted or delivery.outcome == "unknown"):
            raise delivery.error
        return delivery

    def send_many(
        self, mails: Iterable[Mail | MessageLike], connections: int = 1, *, rate_limit: float | None = None
    ) -> Generator[Delivery, None, None]:
        """Send many mails over one or more sessions; yield one delivery per mail, in the order in which they finish.

        A mail that fails raises nothing: check each `delivery.outcome`.

        Args:
            mails: any iterable of mails and complete messages, as in `send`; read as needed, a few ahead of the
                deliveries.
            connections: the maximum number of sessions.
            rate_limit: the maximum number of mails per minute over all sessions, as Exchange's MessageRateLimit
                counts them; None: no limit.

        Raises:
            MailError: the connection cannot be used; no mail is sent.
            ValueError: `connections` or `rate_limit` is not positive.
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
        """Send requests, and retry transient refusals and unsent mails for a while; yields one delivery for each.

        Args:
            requests: complete mails, each with a unique index. A float instead of a request means that there is none
                before this time (`time.monotonic`).
            connections, rate_limit: as in `send_many`.
            retry_for: how long (s) to retry a mail, or connecting if the server cannot be reached; 0: mails are not
                retried, and connecting is attempted three times.
            journal: records each request before it is sent, and its result afterward; None: no record.
            cancellation: cancels the sending; None: it cannot be canceled.
        """
        from airflow_provider_smtpcm.smtp.retry import RetryQueue

        retries = RetryQueue(requests, retry_for, journal=journal)
        sender = self._sender(
            retries.admit_requests(),
            connections=connections,
            rate_limit=rate_limit,
            retry_connect_for=retry_for,
            cancellation=cancellation,
        )
        return retries.deliveries(sender)

    def _sender(self, source: Iterable[Mail | MessageLike | SendRequest | float], **options: Any) -> BatchSender:
        """Return a `BatchSender` for this connection.

        Args:
            source, options: as in `BatchSender`.
        """
        from airflow_provider_smtpcm.smtp.connection_pool import BatchSender

        # Created here: errors in the settings are raised before the sender starts its threads.
        _ = self._tls_context, self._authenticator
        return BatchSender(
            source,
            self.connection_manager,
            self._new_session,
            profile=self._server_profile,
            failover=self._failover,
            **options,
        )

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection for Airflow's *Test* button: connect, encrypt, sign in and send NOOP, within 30 seconds.

        The browser shows the result on one line, for two seconds, or five after a failure. So the process that runs the
        test logs it too.

        Returns:
            Whether it succeeded, and the result for the user.
        """
        give_up_at = time.monotonic() + TEST_SECONDS
        try:
            with self._new_session(give_up_at=give_up_at) as session:
                session.noop()
                result = describe_success(session)
        except MailError as error:
            timed_out = time.monotonic() >= give_up_at
            result = describe_failure(error, limit=TEST_SECONDS if timed_out else None)
            log.warning("Test Connection failed. %s", result)
            return False, result
        log.info("Test Connection succeeded. %s", result)
        return True, result

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form for Airflow 3.1; later versions take it from `get_provider_info`."""
        return build_connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders for Airflow 3.1; later versions take them from `get_provider_info`."""
        return build_ui_field_behaviour()


def get_configuration(section: str, key: str) -> str | None:
    """Return an option of Airflow's configuration; None if it is empty."""
    try:
        from airflow.sdk import conf
    except ImportError:  # Airflow 3.1 has it elsewhere
        from airflow.configuration import conf  # type: ignore[assignment]
    return conf.get(section, key, fallback=None) or None


# --- The result of Airflow's Test button. It names the machine: the test runs on the API server, whose files, DNS and
# --- firewall may differ from a worker's.

# Extensions that the result mentions elsewhere.
_MENTIONED = frozenset({"AUTH", "SIZE", "STARTTLS"})


def describe_success(session: Session) -> str:
    """Describe the connection, the sign-in, and what the server offers."""
    manager, limit = session.manager, session.size_limit
    facts = [
        f"Connected to {session.transport.peer} from {socket.gethostname()}",
        session.tls_version or "clear text, no TLS",
        f"signed in with {session.authentication}" if session.authentication else "anonymous",
        f"messages up to {limit:,} octets" if limit else "no size limit given",
        f"offers {', '.join(key for key in session.extensions if key not in _MENTIONED) or 'no extensions'}",
    ]
    warnings = [*manager.warnings, *(outage.error for outage in session.passed_over.values())]
    return " ".join((f"{'; '.join(facts)}.", *(f"Warning: {warning}" for warning in warnings)))


def describe_failure(error: MailError, *, limit: float | None) -> str:
    """Describe what failed and what to do about it.

    Args:
        error: the failure.
        limit: the time limit of the test in seconds if it was exceeded, else None.
    """
    if isinstance(error, ConnectionSettingsError):
        # Without the connection's id: Airflow tests under a generated one.
        if len(error.faults) == 1:
            return f"This connection cannot be used: {error.faults[0]}"
        numbered = " ".join(f"({number}) {fault}" for number, fault in enumerate(error.faults, 1))
        return f"This connection cannot be used, for {len(error.faults)} reasons: {numbered}"
    exceeded = "" if limit is None else f" A test takes {limit:g} seconds at most, whatever 'Timeout' says."
    return f"{error}{exceeded} (Tested on {socket.gethostname()}.)"


# --- The connection form of Airflow 3.1. wtforms is imported only when the form is built: Airflow 3.1 then provides a
# --- stand-in for it, and otherwise it need not be installed.


def build_connection_form_widgets() -> dict[str, Any]:
    """Return one widget for each extra."""
    return {field.name: _create_widget(field) for field in FIELDS}


def build_ui_field_behaviour() -> dict[str, Any]:
    """Return `fields.build_ui_field_behaviour()` with underscores in the keys, as Airflow 3.1 spells them."""
    return {key.replace("-", "_"): value for key, value in fields.build_ui_field_behaviour().items()}


def _create_widget(field: Field) -> Any:
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import any_of

    widgets = {FieldType.BOOLEAN: BooleanField, FieldType.NUMBER: IntegerField, FieldType.SECRET: PasswordField}
    default = field.form_default
    if field.type is FieldType.NUMBER and default is not None:
        default = int(default)
    elif isinstance(default, str):
        default = str(default)
    validators = [any_of([str(value) for value in field.choices])] if field.type is FieldType.CHOICE else []
    widget = widgets.get(field.type, StringField)(
        field.label, description=fields.get_plain_help(field), default=default, validators=validators
    )
    # Airflow's stand-in keeps the browser's schema in this attribute, which wtforms itself does not have. The schema
    # also has labels of choices, maxima, sections and multiline boxes.
    param = getattr(widget, "param", None)
    if param is not None:
        param.schema |= fields.build_form_schema(field)
    return widget
