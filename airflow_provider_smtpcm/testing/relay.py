"""`Relay`, the embedded SMTP server for tests and demos, and the process of its own in which it runs.

The server has a process of its own because pyspnego's NTLM acceptor reads its users from the file in the environment
variable `NTLM_USER_FILE`. A client takes *its own* identity from the same variable, so a relay in the process of the
test would let a client in without a password. The environment of the parent is never changed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self, cast, get_args

from airflow_provider_smtpcm.testing.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import EmailMessage
    from types import TracebackType

#: In octets; the default *MaxMessageSize* of an Exchange receive connector.
DEFAULT_SIZE_LIMIT = 36 * 1024 * 1024
# In seconds.
START_TIMEOUT = 60.0
PING_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0

# The folder of the package is last in the child's `sys.path`, and the current folder is not in it (-P), so that a file
# `email.py` in either folder cannot shadow the module of the standard library.
BOOTSTRAP = f"""\
import runpy, sys
sys.path.append(sys.argv.pop())
runpy.run_module({f"{__package__}.server"!r}, run_name="__main__")
"""


class RelayError(RuntimeError):
    """The relay could not start, has ended unexpectedly, or is not running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMail:
    r"""One mail that the relay has accepted.

    Args:
        mail_from: the sender of the envelope; empty for the null sender `<>`.
        recipients: the accepted recipients of the envelope, including Bcc, in the order of their commands.
        content: the message as bytes, exactly as received, without the dots that SMTP adds (RFC 5321 4.5.2).
        authenticated_as: the user as in the relay's `users`, such as `CORP\alice`, or the principal, such as
            `alice@CORP.EXAMPLE`; None without authentication.
        mechanism: `NTLM`, `GSSAPI`, or None without authentication.
        tls_version: such as `TLSv1.3`; None without TLS.
        helo_name: the argument of EHLO or HELO.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    authenticated_as: str | None
    mechanism: str | None
    tls_version: str | None
    helo_name: str

    @property
    def message(self) -> EmailMessage:
        """The content, parsed on each access: `mail.message["Subject"]`, `mail.message.get_body()`."""
        from email import message_from_bytes, policy

        return message_from_bytes(self.content, policy=policy.default)


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
        refuse: refused recipients, each with the whole reply line: `{"no@corp.example": "550 5.1.1 No"}`; None: none.
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


# --- The process of the server, as its parent sees it: start, stop, commands to it and events from it.


class ServerProcess:
    """The server's process, which the constructor starts. Hold `changed` while using `messages`.

    Raises:
        RelayError: the server does not listen; the message says why.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self.changed = threading.Condition()
        self.messages: list[ReceivedMail] = []
        self.stopped = False
        self._ready_event: dict[str, Any] | None = None
        self._failure: str | None = None
        self._ended = False
        self._pings = self._pongs = 0
        self._owner_pid = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal must reach only the parent, which then stops the relay
        )
        self._commands = cast("IO[bytes]", self._process.stdin)
        self._events = cast("IO[bytes]", self._process.stdout)
        self._reader = threading.Thread(target=self._read_events, name="smtpcm-relay", daemon=True)
        self._reader.start()
        try:
            self._send_line(settings.to_json())
            self._wait(lambda: self._ready_event is not None, START_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    @property
    def port(self) -> int:
        """The port that it listens on, or listened on."""
        return int((self._ready_event or {})["port"])

    @property
    def ca_certificate(self) -> str:
        """The CA certificate of the server as PEM; empty without TLS."""
        return str((self._ready_event or {})["ca_certificate"])

    def stop(self) -> None:
        """End the process. Does nothing if it has been stopped, or in a fork of the parent."""
        if self.stopped or self._owner_pid != os.getpid():
            return
        self.stopped = True
        with suppress(OSError):
            self._send_line("stop")  # closing the pipe may not suffice: a fork of the parent may hold it open
        with suppress(OSError):
            self._commands.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._events.close()
        folder = (self._ready_event or {}).get("folder")
        if folder is not None and Path(folder).exists():  # the process was killed before it removed it
            import shutil

            shutil.rmtree(folder, ignore_errors=True)

    def wait_for(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until `reached` is true or the process ends.

        Args:
            reached: called after each event, with `changed` held.
            timeout: in seconds.

        Returns:
            The last result of `reached`.
        """
        with self.changed:
            self.changed.wait_for(lambda: reached() or self._ended, min(timeout, threading.TIMEOUT_MAX))
            return reached()

    def synchronize(self) -> None:
        """Wait until every mail that the server has accepted is in `messages`.

        The server answers a ping after it has written the events of all mails that it accepted before.

        Raises:
            RelayError: the process has ended, does not answer, or belongs to another process.
        """
        if self.stopped:
            return
        if self._owner_pid != os.getpid():
            raise RelayError(
                f"The relay belongs to process {self._owner_pid}, of which this one is a fork. Use the relay there."
            )
        with self.changed:
            self._pings += 1
            number = self._pings
            self._send_line(f"ping {number}")
            self._wait(lambda: self._pongs >= number, PING_TIMEOUT)

    def _send_line(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the thread that reads events notices the end, and its cause
            self._commands.write(line.encode() + b"\n")
            self._commands.flush()

    def _wait(self, reached: Callable[[], bool], timeout: float) -> None:
        if self.wait_for(reached, timeout):
            return
        if self._failure is not None:
            raise RelayError(self._failure)
        if self._ended:
            status = self._process.wait()
            raise RelayError(
                f"The relay's process has ended unexpectedly, with exit status {status}. Start the relay again."
            )
        raise RelayError(f"The relay's process, {self._process.pid}, has not answered for {timeout:g} s.")

    def _read_events(self) -> None:
        """Read events until the process ends. Runs in a thread."""
        for line in self._events:
            if not line.endswith(b"\n"):  # the process was killed while it wrote
                break
            with self.changed:
                self._handle_event(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self._ended = True
            self.changed.notify_all()

    def _handle_event(self, event: dict[str, Any]) -> None:
        match event.pop("event"):
            case "ready":
                self._ready_event = event
            case "failed":
                self._failure = event["error"]
            case "pong":
                self._pongs = event["number"]
            case "mail":
                content = base64.b64decode(event.pop("content"))
                recipients = tuple(event.pop("recipients"))
                self.messages.append(ReceivedMail(content=content, recipients=recipients, **event))


def require_extra(*, tls: bool, kerberos: bool = False) -> None:
    """Check that the packages that the server needs are installed.

    Args:
        tls: whether the server offers TLS.
        kerberos: whether the server offers GSSAPI.

    Raises:
        ModuleNotFoundError: a package is missing; the message says how to install it.
    """
    missing = [name for name in ("aiosmtpd", *["trustme"] * tls, *["gssapi"] * kerberos) if find_spec(name) is None]
    if missing:
        extras = "testing,kerberos" if "gssapi" in missing else "testing"
        raise ModuleNotFoundError(
            f"The embedded relay needs {' and '.join(missing)}. "
            f"Install it with: pip install 'airflow-provider-smtpcm[{extras}]'",
            name=missing[0],
        )


# --- The settings of a relay: validation, and their JSON form for its process.

SslMode = Literal["starttls", "none", "implicit"]

HIGHEST_PORT = 65535
#: A line with a negative reply (RFC 5321 4.2): 4yz or 5yz, a space, printable ASCII.
REFUSAL = re.compile(r"[45][0-5]\d [\x20-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """The settings of a relay, which are the arguments of `Relay`.

    Raises:
        ValueError: lists every fault.
    """

    ssl_mode: SslMode
    users: Mapping[str, str] | None = field(repr=False)
    host: str
    port: int
    size_limit: int
    refuse: Mapping[str, str]
    smtputf8: bool
    certificate_names: tuple[str, ...]
    certificate_expired: bool
    personality: Exchange | None = None

    @property
    def requires_authentication(self) -> bool:
        """Whether a client has to sign in."""
        return self.users is not None or (self.personality is not None and self.personality.keytab is not None)

    def __post_init__(self) -> None:
        faults = [*self._find_network_faults(), *self._find_user_faults()]
        if type(self.personality) not in (Exchange, type(None)):
            faults.append("personality: it must be 'exchange', an Exchange, or None")
        elif self.personality is not None:
            faults += [f"personality: {fault}" for fault in self.personality.find_faults()]
        faults += [
            f"refuse: the reply for recipient {number} is not a refusal; write a complete line such as "
            "'550 5.1.1 No such user'"
            for number, reply in enumerate(self.refuse.values(), start=1)
            if not REFUSAL.fullmatch(reply)
        ]
        if faults:
            lines = ["The relay cannot be set up like this:", *(f"  - {fault}" for fault in faults)]
            raise ValueError("\n".join(lines))

    def _find_network_faults(self) -> list[str]:
        faults = []
        if self.ssl_mode not in get_args(SslMode):
            faults.append(f"ssl_mode: it must be one of {', '.join(get_args(SslMode))}")
        if not is_loopback(self.host):
            faults.append(
                "host: other machines can reach it; a relay for tests listens on the loopback interface only, "
                "such as '127.0.0.1'"
            )
        if not 0 <= self.port <= HIGHEST_PORT:
            faults.append(f"port: it must be between 0 (any free one) and {HIGHEST_PORT}")
        if self.size_limit < 1:
            faults.append(f"size_limit: {self.size_limit} octets are too few for a message")
        if not self.certificate_names:
            faults.append("certificate_names: a certificate needs at least one name")
        return faults

    def _find_user_faults(self) -> list[str]:
        if self.users is None:
            return []
        if not self.users:
            return ["users: it is empty, so no client could sign in; add a user, or pass None for an anonymous relay"]
        faults = []
        # By number: a user name may contain a password by mistake, such as `user:password`.
        for number, (user, password) in enumerate(self.users.items(), start=1):
            if user.count("\\") > 1 or not user.rpartition("\\")[2]:
                faults.append(f"users: name {number} is neither a user name nor a domain, a backslash and a user name")
            # The lines of pyspnego's user file are columns separated by colons, without escapes.
            if not is_storable(user):
                faults.append(f"users: name {number} contains a colon or a line break, which the relay cannot store")
            if not is_storable(password):
                faults.append(f"users: password {number} contains a colon or a line break; choose another one")
        if len({user.upper() for user in self.users}) < len(self.users):
            faults.append("users: names that differ only in upper and lower case are the same user on Windows")
        return faults

    def to_json(self) -> str:
        """Return the settings as one line of ASCII."""
        values = asdict(self) | {"users": self.users and dict(self.users), "refuse": dict(self.refuse)}
        return json.dumps(values | {"personality": self.personality and self.personality.to_dict()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Make settings from the result of `to_json`."""
        values = json.loads(text)
        personality = values["personality"] and Exchange(**values["personality"])
        return cls(**values | {"certificate_names": tuple(values["certificate_names"]), "personality": personality})


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback IP address. A host name is not, since it could resolve to any address."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_storable(text: str) -> bool:
    """Whether text can be a column of the user file, which is read as UTF-8 with `str.splitlines`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return ":" not in text and text.splitlines() in ([], [text])
