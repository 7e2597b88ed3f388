"""A real Postfix that accepts every mail, and reports when it has delivered all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from tests.integration.loopback_postfix import ANONYMOUS, LoopbackPostfix, PostfixError


class AnonymousPostfix(LoopbackPostfix):
    """Postfix that accepts mail from this machine for any recipient, and stores each recipient's copy in a file."""

    anonymous_port: int
    services: ClassVar = {"anonymous_port": ANONYMOUS}

    def _configure_sasl(self) -> Mapping[str, str]:
        return {}

    def settled(self, count: int, *, timeout: float = 120) -> list[bytes]:
        """Every copy, with CRLF as on the wire, once there are this many and the queue is empty."""
        inbox = self.folder / "mail/inbox/new"
        deadline = time.monotonic() + timeout
        while len(copies := sorted(inbox.glob("*"))) < count or self._on_its_way():
            if time.monotonic() > deadline:
                raise PostfixError(f"{len(copies)} of {count} copies after {timeout} s:\n{self.log()[-5000:]}")
            time.sleep(0.05)
        return [copy.read_bytes().replace(b"\n", b"\r\n") for copy in sorted(inbox.glob("*"))]

    def _on_its_way(self) -> bool:
        queues = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
        return any(path.is_file() for queue in queues for path in (self.folder / "spool" / queue).rglob("*"))
