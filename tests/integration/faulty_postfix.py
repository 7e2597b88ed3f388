"""A real Postfix that refuses recipients as a test needs it, and that can be stopped and started again."""

from __future__ import annotations

import shutil
import socket
import stat
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import unquote

from demo.processes import LOOPBACK
from tests.torture.anonymous_postfix import AnonymousPostfix


class AccessMap:
    """An access map (access(5)) that may change at any time: Postfix looks it up over TCP (tcp_table(5))."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        #: What the map has for a recipient: "450 4.2.1 later", "550 5.1.1 never".
        self.actions: dict[str, str] = {}
        #: How many times each was requested.
        self.asked: Counter[str] = Counter()

    def start(self) -> None:
        """Answer in daemon threads."""
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, suppress(OSError), peer.makefile("rb") as questions:
            for question in questions:
                key = unquote(question.decode().removeprefix("get ").rstrip("\n"))
                self.asked[key] += 1
                action = self.actions.get(key)
                answer = "500 nothing" if action is None else f"200 {action.replace(' ', '%20')}"
                peer.sendall(answer.encode() + b"\n")


class FaultyPostfix(AnonymousPostfix):
    """Accepts mail from this machine, for every recipient that its access map does not refuse."""

    services: ClassVar = {
        "anonymous_port": (
            "smtpd_tls_security_level=none",
            "smtpd_sasl_auth_enable=no",
            "smtpd_relay_restrictions=permit_mynetworks,reject",
        )
    }

    def __init__(self) -> None:
        super().__init__()
        self.access = AccessMap()

    def __enter__(self) -> Self:
        self.access.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.access.stop()

    def airflow_connection(self, **extra: object) -> dict[str, Any]:
        """Return the connection to this server, in Airflow's JSON form."""
        return {
            "conn_type": "smtpcm",
            "host": LOOPBACK,
            "port": self.anonymous_port,
            "extra": {"ssl_mode": "none", **extra},
        }

    def halt(self) -> None:
        """Run `postfix stop`, which leaves the queue as it is."""
        self._end()

    def resume(self) -> None:
        """Run `postfix start`, and wait until it answers."""
        # The pickup daemon is no longer root when it warns of an incomplete file.
        shutil.chown(self.folder / "maillog", "postfix")
        self._start_master()

    def _on_its_way(self) -> bool:
        """Return whether a queue file is not executable yet: an incomplete mail, which was not acknowledged."""
        queues = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
        try:
            modes = [path.lstat().st_mode for queue in queues for path in (self.folder / "spool" / queue).rglob("*")]
        except FileNotFoundError:  # gone since it was listed
            return True
        return any(stat.S_ISREG(mode) and mode & stat.S_IXUSR for mode in modes)

    def _configure(self) -> None:
        super()._configure()
        restrictions = f"check_recipient_access tcp:{LOOPBACK}:{self.access.port}, permit_mynetworks, reject"
        settings = self._etc / "main.cf"
        lines = settings.read_text().splitlines()
        kept = [line for line in lines if not line.startswith("smtpd_recipient_restrictions")]
        settings.write_text("\n".join([*kept, f"smtpd_recipient_restrictions = {restrictions}", ""]))
