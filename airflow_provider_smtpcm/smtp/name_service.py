"""The addresses of a server's name, within a deadline. Knows no SMTP."""

from __future__ import annotations

import socket
import threading
import time

from airflow_provider_smtpcm.errors import ConnectError


def look_up(host: str, port: int, deadline: float) -> list[tuple[int, tuple[str, int]]]:
    """The addresses of a name, each with its family, before the deadline (`time.monotonic`).

    The system's resolver knows no deadline, so it is waited for in a thread.

    Raises:
        ConnectError: the name service does not know it, or does not answer.
    """
    answer: list[tuple[int, tuple[str, int]]] = []
    problem = "no answer from the name service"

    def ask() -> None:
        nonlocal problem
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", None) or str(error)
        else:
            answer.extend(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]

    resolver = threading.Thread(target=ask, daemon=True, name="smtpcm-name-service")
    resolver.start()
    resolver.join(max(0.0, deadline - time.monotonic()))
    if not answer:
        raise ConnectError(
            f"The name {host!r} cannot be resolved ({problem}).",
            remedy="Check 'SMTP server', and that this worker's name service knows it.",
        )
    return list(answer)
