"""What was learnt of a server by talking to it, kept from one batch to the next. Knows no server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Manners:
    """How a server behaves."""

    #: Whether it is taken at its word when it offers PIPELINING (RFC 2920).
    pipelining: bool = True
    #: Whether it has kept that word: an envelope on the heels of a message had its answers.
    pipelining_works: bool = False
