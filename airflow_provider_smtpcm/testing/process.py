"""The server's process as seen from the one that started it: events in, orders out, and its end. Knows no SMTP.

The server lives in a process of its own because pyspnego's NTLM acceptor reads its users from the file that
`NTLM_USER_FILE` names in the environment. A client takes *its own* identity from that same variable, so a relay in
the test's process would let a client without a password in. This process's environment is never touched.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage

    from airflow_provider_smtpcm.testing.settings import RelaySettings

START_TIMEOUT = 60.0
ANSWER_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0

# The package's folder comes last in the child's path, and the current folder (-P) not at all: whatever made the package
# importable here, no `email.py` that lies about can take the place of a standard module there.
BOOTSTRAP = f"""\
import runpy, sys
sys.path.append(sys.argv.pop())
runpy.run_module({f"{__package__}.server"!r}, run_name="__main__")
"""


class RelayError(RuntimeError):
    """The relay could not start, has ended by itself, or is not running where it has to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMail:
    r"""One mail that the relay has accepted.

    Args:
        mail_from: the envelope's sender; empty for the null sender `<>`.
        recipients: the envelope's accepted recipients, Bcc among them, in the order they were named.
        content: the message, octet by octet as it came, without the dots that SMTP adds (RFC 5321 4.5.2).
        authenticated_as: the user as the relay's table spells it, such as `CORP\alice`; None if nobody logged in.
        mechanism: `NTLM`, or None if nobody logged in.
        tls_version: such as `TLSv1.3`; None if it came in clear.
        helo_name: what the client called itself in EHLO or HELO.
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
        """The content, parsed anew at each call: `mail.message["Subject"]`, `mail.message.get_body()`."""
        from email import message_from_bytes, policy

        return message_from_bytes(self.content, policy=policy.default)


class ServerProcess:
    """A server from its start to its end; `messages` may be looked at while `changed` is held.

    Raises:
        RelayError: it does not listen; the message says why.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self.changed = threading.Condition()
        self.messages: list[ReceivedMail] = []
        self.stopped = False
        self._ready: dict[str, Any] | None = None
        self._failure: str | None = None
        self._ended = False
        self._asked = self._answered = 0
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the one who holds the relay, who then stops it
        )
        self._orders = cast("IO[bytes]", self._process.stdin)
        self._events = cast("IO[bytes]", self._process.stdout)
        self._reader = threading.Thread(target=self._read, name="smtpcm-relay", daemon=True)
        self._reader.start()
        try:
            self._tell(settings.to_json())
            self._wait(lambda: self._ready is not None, START_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    @property
    def port(self) -> int:
        """Where it listens, or listened."""
        return int((self._ready or {})["port"])

    @property
    def ca_certificate(self) -> str:
        """PEM; empty without TLS."""
        return str((self._ready or {})["ca_certificate"])

    def stop(self) -> None:
        """End the process, this one only. Does nothing the second time, or in a fork of the process that started it."""
        if self.stopped or self._owner != os.getpid():
            return
        self.stopped = True
        with suppress(OSError):
            self._tell("stop")  # more than the end of the input: a fork may hold the pipe's end open
        with suppress(OSError):
            self._orders.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._events.close()
        folder = (self._ready or {}).get("folder")
        if folder is not None and Path(folder).exists():  # the process was killed before it could do that itself
            import shutil

            shutil.rmtree(folder, ignore_errors=True)

    def wait_for(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until `reached`, the process's end, or the timeout in seconds; whether it was reached."""
        with self.changed:
            self.changed.wait_for(lambda: reached() or self._ended, min(timeout, threading.TIMEOUT_MAX))
            return reached()

    def catch_up(self) -> None:
        """Ask the server and wait for its answer, behind which nothing that it accepted before can be on its way."""
        if self.stopped:
            return
        if self._owner != os.getpid():
            message = f"The relay belongs to process {self._owner}, from which this one was forked. Ask it there."
            raise RelayError(message)
        with self.changed:
            self._asked += 1
            number = self._asked
            self._tell(f"answer {number}")
            self._wait(lambda: self._answered >= number, ANSWER_TIMEOUT)

    def _tell(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the reader notices, and knows more
            self._orders.write(line.encode() + b"\n")
            self._orders.flush()

    def _wait(self, reached: Callable[[], bool], timeout: float) -> None:
        if self.wait_for(reached, timeout):
            return
        if self._failure is not None:
            raise RelayError(self._failure)
        if self._ended:
            status = self._process.wait()
            raise RelayError(f"The relay's process has ended by itself, with exit status {status}. Start it again.")
        raise RelayError(f"The relay's process, {self._process.pid}, has not answered for {timeout:g} s.")

    def _read(self) -> None:
        """In a thread: take in one event after the other until the process is gone."""
        for line in self._events:
            if not line.endswith(b"\n"):  # killed in the middle of a word
                break
            with self.changed:
                self._take(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self._ended = True
            self.changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        match event.pop("event"):
            case "ready":
                self._ready = event
            case "failed":
                self._failure = event["error"]
            case "answer":
                self._answered = event["number"]
            case "mail":
                content = base64.b64decode(event.pop("content"))
                recipients = tuple(event.pop("recipients"))
                self.messages.append(ReceivedMail(content=content, recipients=recipients, **event))


def require_extra(*, tls: bool) -> None:
    """Raise `ModuleNotFoundError`, with the remedy, if a package is missing that the server needs."""
    missing = [name for name in ("aiosmtpd", *(["trustme"] * tls)) if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"The embedded relay needs {' and '.join(missing)}. "
            "Install it with: pip install 'airflow-provider-smtpcm[testing]'",
            name=missing[0],
        )
