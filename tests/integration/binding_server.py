"""An SMTP server that checks channel bindings, as Exchange with Extended Protection does, in a process of its own.

GSSAPI's acceptors read their keys and users from the environment, from which a client in the same process would read
its own identity.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.integration.binding_settings import Attempt, BindingSettings, StoredMail
from tests.integration.kerberos import KerberosRealm
from tests.integration.programs import FAKETIME, GSS_NTLMSSP, absent, faked_clock
from tests.integration.samba_domain import SambaDomain

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 10


class BindingServerError(Exception):
    """The server's process has ended; the message has its error output."""


class BindingServer:
    r"""The server as a context manager. Its names in the realm are all of the realm's `services`.

    The realm's `users` can sign in: `alice@CORP.EXAMPLE` with Kerberos, `CORP\alice` with NTLM. In a `SambaDomain`
    the domain controller checks NTLM.
    """

    host = "localhost"

    def __init__(self, realm: KerberosRealm | SambaDomain, settings: BindingSettings | None = None) -> None:
        self.settings = settings or BindingSettings()
        self._realm = realm
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.ca_certificate = ""

    def __enter__(self) -> Self:
        env = {
            **os.environ,
            **self._realm.acceptor_environment(),
            **faked_clock(self.settings.clock_offset),
            "KRB5RCACHENAME": "none:",  # the machine's would outlive the realm
            "LC_ALL": "C.UTF-8",  # in other locales gss-ntlmssp accepts only ASCII names and passwords
            "LM_COMPAT_LEVEL": "5",  # NTLMv2 only
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.binding_smtpd"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            ready = self._ask(json.dumps(asdict(self.settings)))
        except BaseException:
            self.stop()
            raise
        self.port = ready["port"]
        self.ca_certificate = ready["ca_certificate"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process. Idempotent."""
        if self._process is None:
            return
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def attempts(self) -> list[Attempt]:
        """Every AUTH command so far, oldest first."""
        return [Attempt(**attempt | {"flags": tuple(attempt["flags"])}) for attempt in self._ask("attempts")]

    def messages(self) -> list[StoredMail]:
        """Every mail so far, oldest first."""
        return [StoredMail(**mail | {"recipients": tuple(mail["recipients"])}) for mail in self._ask("messages")]

    def clear(self) -> None:
        """Drop all attempts and mails."""
        self._ask("clear")

    @staticmethod
    def missing() -> str | None:
        """Return what the server needs beside the realm and this machine lacks, or None."""
        return absent(libraries={GSS_NTLMSSP: "gss-ntlmssp", FAKETIME: "libfaketime"})

    def _ask(self, question: str) -> Any:
        assert self._process is not None and self._process.stdin and self._process.stdout
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BindingServerError(f"The server's process ended with {self._process.wait()}.")
        return json.loads(answer)
