"""`Relay`, the embedded SMTP server for tests and demos, which runs in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from airflow_provider_smtpcm.testing.exchange import Exchange
from airflow_provider_smtpcm.testing.process import RelayError, RelaySettings, ServerProcess, require_extra

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from airflow_provider_smtpcm.testing.process import ReceivedMail, SslMode

#: In octets; the default *MaxMessageSize* of an Exchange receive connector.
DEFAULT_SIZE_LIMIT = 36 * 1024 * 1024


class Relay:
    r"""An SMTP server on this machine that keeps the mails it receives. Use it as a context manager.

    Args:
        ssl_mode: `starttls` offers STARTTLS, `implicit` uses TLS from the first octet, `none` has no TLS.
        users: user names and passwords, such as `{r"CORP\alice": "secret"}`. With users, the relay requires Windows
            Authentication (AUTH NTLM, with `starttls` offered only after TLS); without, it is anonymous and offers no
            AUTH. Names are compared without regard to case.
        host: the loopback address to listen on.
        port: the port to listen on; 0: any free one.
        size_limit: the maximum size of a message, in octets.
        refuse: refused recipients, each with the whole reply line: `{"no@corp.example": "550 5.1.1 No"}`.
        smtputf8: whether non-ASCII addresses are accepted.
        certificate_names: the host names and addresses in the server's certificate; default: `localhost`, `127.0.0.1`
            and the host.
        certificate_expired: whether the certificate expired yesterday.
        personality: `"exchange"`, or an `Exchange` with settings, behaves as an on-premises Exchange does: its
            replies, its limits, its delays.

    Raises:
        ValueError: lists every fault of the arguments.
    """

    def __init__(
        self,
        *,
        ssl_mode: SslMode = "starttls",
        users: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        size_limit: int = DEFAULT_SIZE_LIMIT,
        refuse: Mapping[str, str] | None = None,
        smtputf8: bool = False,
        certificate_names: tuple[str, ...] | None = None,
        certificate_expired: bool = False,
        personality: Literal["exchange"] | Exchange | None = None,
    ) -> None:
        if certificate_names is None:
            certificate_names = tuple(dict.fromkeys(("localhost", "127.0.0.1", host)))
        self._settings = RelaySettings(
            ssl_mode=ssl_mode,
            users=None if users is None else dict(users),
            host=host,
            port=port,
            size_limit=size_limit,
            refuse=dict(refuse or {}),
            smtputf8=smtputf8,
            certificate_names=tuple(certificate_names),
            certificate_expired=certificate_expired,
            personality=Exchange() if personality == "exchange" else personality,
        )
        self._server: ServerProcess | None = None

    def __repr__(self) -> str:
        where = "not started" if self._server is None else f"port {self.port}{', stopped' * self._server.stopped}"
        return f"<Relay on {self.host}, {where}, ssl_mode={self._settings.ssl_mode!r}>"

    def start(self) -> Self:
        """Start the server and wait until it listens. A stopped relay can be started again; its messages are dropped.

        Raises:
            RelayError: the port is in use, or the relay is already running.
            ModuleNotFoundError: the `testing` extra is not installed.
        """
        if self._server is not None and not self._server.stopped:
            raise RelayError(f"{self!r} is already running. Call stop() first.")
        personality = self._settings.personality
        require_extra(
            tls=self._settings.ssl_mode != "none", kerberos=personality is not None and personality.keytab is not None
        )
        self._server = ServerProcess(self._settings)
        return self

    def stop(self) -> None:
        """Stop the server. Its messages are kept. Does nothing if it is not running."""
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- Address and connection

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self._settings.host

    @property
    def port(self) -> int:
        """The port that it listens on, or listened on before `stop()`."""
        return self._get_server().port

    @property
    def ca_certificate(self) -> str:
        """The CA certificate that issued the server's certificate, as PEM; empty with `ssl_mode="none"`."""
        return self._get_server().ca_certificate

    def airflow_connection(
        self, login: str | None = None, password: str | None = None, **extra: object
    ) -> dict[str, Any]:
        """Return a connection to this relay in Airflow's JSON form, as in `AIRFLOW_CONN_...`.

        Args:
            login: None means the first user; "" means no login and no password.
            password: None means the password of that user.
            extra: extras of the connection to add or replace; None removes one.
        """
        users = self._settings.users or {}
        if login is None:
            login = next(iter(users), "")
        if password is None:
            password = users.get(login)
        settings: dict[str, object] = {
            "auth_mode": "windows" if self._settings.requires_authentication else "anonymous",
            "ssl_mode": self._settings.ssl_mode,
            "ca_certificate": self.ca_certificate or None,
        }
        settings |= extra
        connection: dict[str, Any] = {
            "conn_type": "smtpcm",
            "host": "localhost" if self.host == "127.0.0.1" else self.host,
            "port": self.port,
        }
        if login:
            connection |= {"login": login} | ({} if password is None else {"password": password})
        return connection | {"extra": {key: value for key, value in settings.items() if value is not None}}

    # --- Received mails

    @property
    def messages(self) -> list[ReceivedMail]:
        """All mails that the server has accepted with 250 so far."""
        server = self._get_server()
        with server.changed:
            server.synchronize()
            return list(server.messages)

    def wait_for_messages(self, count: int, timeout: float = 10.0) -> list[ReceivedMail]:
        """Wait until there are at least `count` mails, and return all of them.

        Args:
            count: the number of mails to wait for.
            timeout: in seconds.

        Raises:
            TimeoutError: there are fewer after the timeout, or the relay was stopped.
        """
        server = self._get_server()
        with server.changed:
            server.wait_for(lambda: len(server.messages) >= count, timeout)
            server.synchronize()
            if len(server.messages) < count:
                end = "before the relay was stopped" if server.stopped else f"within {timeout:g} s"
                plural = "" if count == 1 else "s"
                raise TimeoutError(f"Waited for {count} mail{plural}; {len(server.messages)} arrived {end}.")
            return list(server.messages)

    def clear(self) -> list[ReceivedMail]:
        """Remove and return all mails so far, in one step, so that no mail can arrive in between and be lost."""
        server = self._get_server()
        with server.changed:
            server.synchronize()
            removed, server.messages = server.messages, []
            return removed

    def _get_server(self) -> ServerProcess:
        if self._server is None:
            raise RelayError("The relay has not been started. Use it in a `with` statement, or call start() first.")
        return self._server
