"""Message text on its way through DATA (RFC 5321 4.5.2). Knows octets only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

#: What ends a message.
FINAL_DOT = b".\r\n"
_DOT_AT_LINE_START = re.compile(rb"(?<=\r\n)\.")


def dot_stuffed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Double each dot that starts a line, across the borders of chunks too; ends with a line end."""
    tail = b"\r\n"
    for chunk in chunks:
        if not chunk:
            continue
        if b"\n." in chunk or chunk.startswith((b".", b"\n")):
            joined = tail + chunk
            yield _DOT_AT_LINE_START.sub(b"..", joined)[len(tail) :]
            tail = joined[-2:]
        else:
            yield chunk
            tail = (tail + chunk)[-2:] if len(chunk) < 2 else chunk[-2:]
    if tail != b"\r\n":
        yield b"\r\n"
