"""Message text on its way through DATA (RFC 5321 4.5.2). Knows no server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_smtpcm.mail.encoded import Encoded

#: What ends a message.
FINAL_DOT = b".\r\n"
_DOT_AT_LINE_START = re.compile(rb"(?<=\r\n)\.")
_DOT_AFTER_BREAK = re.compile(rb"\n\.")  # found in a third of the time that `in` takes


def dot_stuffed(pieces: Iterable[bytes | Encoded]) -> Iterator[bytes]:
    """Double each dot that starts a line, across the borders of chunks too; ends with a line end.

    Files in which no line can begin with a dot are not looked at: that would take longer than to make their mail.
    """
    tail = b"\r\n"
    for piece in pieces:
        chunks: Iterable[bytes] = (piece,) if isinstance(piece, bytes) else piece
        look = isinstance(piece, bytes) or not piece.dot_free
        for chunk in chunks:
            if not chunk:
                continue
            if look and (_DOT_AFTER_BREAK.search(chunk) or chunk.startswith((b".", b"\n"))):
                joined = tail + chunk
                yield _DOT_AT_LINE_START.sub(b"..", joined)[len(tail) :]
                tail = joined[-2:]
            else:
                yield chunk
                tail = (tail + chunk)[-2:] if len(chunk) < 2 else chunk[-2:]
    if tail != b"\r\n":
        yield b"\r\n"


def with_final_dot(pieces: Sequence[bytes | Encoded]) -> bytes:
    """All that DATA sends of a message, in one piece; most messages are one piece, and need no dot doubled."""
    whole = pieces[0]
    if len(pieces) > 1 or not isinstance(whole, bytes) or _DOT_AFTER_BREAK.search(whole) or not whole.endswith(b"\r\n"):
        return b"".join((*dot_stuffed(pieces), FINAL_DOT))
    return whole + FINAL_DOT  # a message begins with a header field, so with no dot
