"""The parser of SMTP replies (RFC 5321 4.2). Pure: no sockets, no clock."""

from __future__ import annotations

import re
from functools import lru_cache

from airflow_provider_smtpcm.errors import Phase, ProtocolError, Reply

# RFC 5321 4.5.3.1.5 allows 512 octets per line; RFC 4954 4 allows challenges of 12288 octets.
MAX_LINE_OCTETS = 16384
MAX_REPLY_OCTETS = 65536
# Size of the cache of parsed replies: a server answers EHLO, MAIL, RCPT and DATA in the same words every time.
_MAX_CACHED = 64
_WHOLE_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:-[^\r\n]*\r\n\1)*(?: [^\r\n]*)?\r\n")
_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
# Control characters, line breaks, and characters that change the direction of text (UTR 36 2.1.1).
_UNPRINTABLE = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"


class ReplyParser:
    """Parses replies from octets that arrive in pieces of any size.

    Args:
        peer: the server's name in messages (`host:port`).
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        # The received octets; those before the offset were parsed.
        self._octets = b""
        self._offset = 0
        # The incomplete reply: its code, the texts of its lines, the number of octets in its lines.
        self._code: int | None = None
        self._texts: list[str] = []
        # Octets of those lines.
        self._size = 0

    def feed(self, octets: bytes) -> None:
        """Add received octets."""
        self._octets = self._octets[self._offset :] + octets if self._offset < len(self._octets) else octets
        self._offset = 0

    def clear(self) -> None:
        """Discard the received octets that are not part of a returned reply."""
        self._octets, self._offset = b"", 0
        self._reset()

    @property
    def pending(self) -> int:
        """The number of received octets that are not part of a returned reply."""
        return len(self._octets) - self._offset + self._size

    def next_reply(self, phase: Phase, *, secret: bool = False) -> Reply | None:
        """Return the next complete reply, of one or more lines; None if more octets are needed.

        Args:
            phase: the phase to report in errors.
            secret: whether to keep the text out of errors, as for an AUTH challenge.

        Raises:
            ProtocolError: the octets are not a reply, or exceed the length limits.
        """
        octets = self._octets
        while True:
            start = self._offset
            end = octets.find(b"\n", start)
            if end < 0:
                if len(octets) - start > MAX_LINE_OCTETS:
                    raise self._too_long_error(phase)
                return None
            self._offset = end + 1
            line = octets[start : self._offset]
            if self._code is None and len(line) <= MAX_LINE_OCTETS and not secret:
                if line[3:4] == b"-" and (whole := _WHOLE_REPLY.match(octets, start, start + MAX_LINE_OCTETS)):
                    line, self._offset = whole[0], whole.end()
                if (reply := _parse_whole_reply(line)) is not None:
                    return reply
            line = line[:-1]
            if len(line) > MAX_LINE_OCTETS or self._size > MAX_REPLY_OCTETS:
                raise self._too_long_error(phase)
            if (reply := self._add_line(line.removesuffix(b"\r"), phase, secret=secret)) is not None:
                return reply

    def _add_line(self, line: bytes, phase: Phase, *, secret: bool) -> Reply | None:
        self._size += len(line)
        match = _REPLY_LINE.fullmatch(line)
        if match is None:
            raise self._not_smtp_error(line, phase, secret=secret)
        code = int(match[1])
        if self._code not in (None, code):
            raise ProtocolError(
                f"{self._peer} changed the code from {self._code} to {code} within one reply.",
                remedy="The server's administrator must check why; a proxy in between may garble its replies.",
                phase=phase,
            )
        if self._size > MAX_REPLY_OCTETS:
            raise self._too_long_error(phase)
        self._code = code
        self._texts.append(_clean((match[3] or b"").decode("utf-8", "replace")))
        if match[2] == b"-":
            return None
        reply = _make_reply(code, self._texts)
        self._reset()
        return reply

    def _reset(self) -> None:
        self._code = None
        self._texts = []
        self._size = 0

    def _not_smtp_error(self, line: bytes, phase: Phase, *, secret: bool) -> ProtocolError:
        if line[:2] in (b"\x15\x03", b"\x16\x03"):
            remedy = "It speaks TLS from the start on this port: set SSL to 'Implicit TLS'."
        else:
            remedy = "Check that 'Port' is the mail server's SMTP port."
        shown = f"({len(line)} octets, not shown)" if secret else line[:60].decode("ascii", "backslashreplace")
        return ProtocolError(
            f"{self._peer} answered {_replace_unprintable(shown)!r}, which is not an SMTP reply.",
            remedy=remedy,
            phase=phase,
        )

    def _too_long_error(self, phase: Phase) -> ProtocolError:
        return ProtocolError(
            f"{self._peer} sent an endless reply (over {MAX_LINE_OCTETS} octets a line or {MAX_REPLY_OCTETS} in all).",
            remedy="Check that 'Port' is the mail server's SMTP port.",
            phase=phase,
        )


@lru_cache(_MAX_CACHED)
def _parse_whole_reply(octets: bytes) -> Reply | None:
    """Parse a reply of one or more lines; None if the octets are not a whole one. Cached, so not for secrets."""
    if _WHOLE_REPLY.fullmatch(octets) is None:
        return None
    text = octets[:-2].decode("utf-8", "replace")
    return _make_reply(int(text[:3]), [_clean(line[4:]) for line in text.split("\r\n")])


def _clean(text: str) -> str:
    return _replace_unprintable(text).strip()


def _replace_unprintable(text: str) -> str:
    # Nearly every text is printable, which is fast to test; and the pattern takes a long time to compile.
    return text if text.isprintable() else re.sub(_UNPRINTABLE, "?", text)


def _make_reply(code: int, texts: list[str]) -> Reply:
    match = _ENHANCED.match(texts[0])
    if match is None:
        return Reply(code=code, text="\n".join(texts))
    enhanced = match[1]
    return Reply(code=code, enhanced=enhanced, text="\n".join(t.removeprefix(enhanced).strip() for t in texts))
