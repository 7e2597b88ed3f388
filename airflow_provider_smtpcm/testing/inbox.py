"""`Inbox`: a page on which a browser shows the mails that a relay has received, as a mail program would.

The mails come from anyone who reaches the relay, so nothing in them is trusted: HTML is shown without scripts and
without anything from other hosts, and parsing is bounded in time and memory.

Starlette and uvicorn come with Airflow; they are imported when an inbox starts.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.parser import BytesFeedParser
from email.policy import Compat32
from functools import partial
from html import unescape
from itertools import count
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

    from airflow_provider_smtpcm.testing.relay import ReceivedMail

HOST = "127.0.0.1"
#: How many mails an inbox keeps, and how many octets of them; the oldest are dropped.
KEPT_MAILS = 1000
KEPT_OCTETS = 128 * 1024 * 1024
#: Octets of a mail in which its header fields are looked for, and characters of one field that are shown.
HEADER_LIMIT = 64 * 1024
FIELD_LIMIT = 4000
#: Characters of a subject and of the recipients in the list.
LISTED_LIMIT = 300
#: Characters of a plain text, and octets of the source, that the page shows.
SHOWN_LIMIT = 500_000
#: What is parsed of a mail: the parser of the standard library keeps each line as an object, and compares it with the
#: boundaries of all enclosing parts. In lines, parts, and seconds of the processor, checked after each chunk of octets.
PARSED_LINES = 1_000_000
PARSED_PARTS = 100
PARSING_TIME = 5.0
PARSED_CHUNK = 64 * 1024
#: Inline images of a mail that are shown.
INLINE_IMAGES = 500
#: Seconds that open connections get when the inbox stops.
STOP_TIMEOUT = 2

# Images that a browser shows wherever a mail has them. Everything else is only ever downloaded.
IMAGE_TYPES = frozenset({"image/bmp", "image/gif", "image/jpeg", "image/png", "image/svg+xml", "image/webp"})
# Codecs of Python that take quadratic time; no mail is encoded in them.
SLOW_CODECS = frozenset({"idna", "punycode"})
# RFC 2392 2, in an attribute or in `url()`.
CID_URL = re.compile(r"""(?<=["'(=\s])cid:([^"'()<>\s]{1,998})""", re.IGNORECASE)

HEADERS = {
    "Cache-Control": "no-store",  # another run of the relay has other mails under the same addresses
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The addresses of images are spelled out: in a sandboxed document, `'self'` may match nothing. Links may be opened, in
# a tab of their own that is not sandboxed.
HTML_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src {images} data:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
DOWNLOAD_POLICY = "sandbox; default-src 'none'"


class Inbox:
    """A web server on the loopback interface that shows mails. Use it as a context manager.

    Args:
        port: the port to listen on; 0: any free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        #: Holds for everything below, and wakes who waits for the last browser to leave.
        self._changed = threading.Condition()
        self._kept: deque[KeptMail] = deque()
        self._octets = 0
        self._numbers = count(1)
        self._watchers: set[Callable[[], object]] = set()
        self._stopping = False
        #: Tells the numbers of this run from those of another one that had the same address.
        self._run = secrets.token_hex(8)
        self._parsing = threading.Lock()
        self._parsed: tuple[int, ParsedMail] | None = None

    def __enter__(self) -> Self:
        import uvicorn

        try:
            listener = socket.create_server((HOST, self._port))
        except OSError as error:
            raise OSError(
                f"The inbox cannot listen on {HOST}, port {self._port}: {error.strerror}. "
                "Choose another port, or 0 for any free one."
            ) from None
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            create_application(self),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_TIMEOUT,
        )
        self._server = uvicorn.Server(config)
        run = partial(self._server.run, sockets=[listener])
        self._thread = threading.Thread(target=run, name="smtpcm-inbox", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
            self._wake_watchers()
        self._server.should_exit = True
        self._thread.join()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self._port}/"

    def add(self, mail: ReceivedMail) -> None:
        """Show a mail, in every browser that has the page open."""
        kept = KeptMail(next(self._numbers), datetime.now(UTC), mail)
        with self._changed:
            self._kept.append(kept)
            self._octets += kept.octets
            while len(self._kept) > KEPT_MAILS or (self._octets > KEPT_OCTETS and len(self._kept) > 1):
                self._octets -= self._kept.popleft().octets
            self._wake_watchers()

    @property
    def is_watched(self) -> bool:
        """Whether a browser has the page open."""
        with self._changed:
            return bool(self._watchers)

    def wait_until_unwatched(self) -> None:
        """Wait until no browser has the page open."""
        with self._changed:
            self._changed.wait_for(lambda: not self._watchers)

    def find(self, number: int) -> KeptMail | None:
        """Return the mail with this number; None if it was dropped or never arrived."""
        with self._changed:
            return next((kept for kept in self._kept if kept.number == number), None)

    def parse(self, kept: KeptMail) -> ParsedMail:
        """Parse a mail. Only one is parsed at a time, and the last one is remembered, which bounds the memory."""
        with self._parsing:
            if self._parsed is None or self._parsed[0] != kept.number:
                self._parsed = None
                self._parsed = (kept.number, ParsedMail.parse(kept.mail.content))
            return self._parsed[1]

    async def watch(self, last_event_id: str) -> AsyncIterator[str]:
        """Yield server-sent events: the list of mails, and then what changes in it.

        Args:
            last_event_id: the id of the last event that the browser has received; empty if there was none.
        """
        run, _, number = last_event_id.partition("-")
        known = run == self._run and is_number(number)
        seen = int(number) if known else 0
        awake = asyncio.Event()
        wake = partial(asyncio.get_running_loop().call_soon_threadsafe, awake.set)
        with self._changed:
            self._watchers.add(wake)
        try:
            first = True
            while not self._stopping:
                awake.clear()
                with self._changed:
                    oldest = self._kept[0].number if self._kept else seen + 1
                    new = [kept.summary for kept in self._kept if kept.number > seen]
                if new or first:
                    seen = new[-1]["number"] if new else seen
                    event = {"all": first and not known, "oldest": oldest, "mails": new}
                    yield f"id: {self._run}-{seen}\ndata: {json.dumps(event)}\n\n"
                first = False
                await awake.wait()
        finally:
            with self._changed:
                self._watchers.discard(wake)
                self._changed.notify_all()

    def _wake_watchers(self) -> None:
        for wake in self._watchers:
            wake()


class KeptMail:
    """A mail of the inbox, with its entry in the list.

    Args:
        number: from 1, in the order of arrival.
        time: when it arrived.
        mail: as received.
    """

    def __init__(self, number: int, time: datetime, mail: ReceivedMail) -> None:
        self.number = number
        self.mail = mail
        self.octets = len(mail.content) + sum(map(len, mail.recipients))
        subject = next((value for name, value in read_headers(mail.content) if name.lower() == "subject"), "")
        first, more = mail.recipients[:5], len(mail.recipients) - 5
        self.summary: dict[str, Any] = {
            "number": number,
            "time": time.isoformat(),
            "from": mail.mail_from or "<>",
            "to": clip(", ".join(first), LISTED_LIMIT) + (f" and {more} more" if more > 0 else ""),
            "subject": clip(subject, LISTED_LIMIT),
            "size": len(mail.content),
            "user": mail.authenticated_as,
            "mechanism": mail.mechanism,
            "tls": mail.tls_version,
        }


def clip(text: str, limit: int) -> str:
    """Return the beginning of a text, with an ellipsis if that is not all of it."""
    return text if len(text) <= limit else f"{text[:limit]}…"


# --- Parsing. Every function takes any octets: a mail that is broken is shown as far as it can be read.


def read_headers(content: bytes) -> list[tuple[str, str]]:
    """Return the header fields, unfolded and decoded, from the beginning of a mail.

    Not by the standard library's parser of addresses and parameters, which takes minutes for a hostile field.
    """
    head = re.split(rb"(?:^|\r?\n)\r?\n", content[:HEADER_LIMIT], maxsplit=1)[0].decode(errors="replace")
    fields = (line.partition(":") for line in re.split(r"\r?\n(?![ \t])", head))
    return [(name.strip(), decode_words(value.strip())) for name, colon, value in fields if colon]


def decode_words(value: str) -> str:
    """Decode the encoded words (RFC 2047) of a header field, and cut a field that is very long."""
    value = clip(re.sub(r"\r?\n(?=[ \t])", "", value), FIELD_LIMIT)
    try:
        words = decode_header(value)
    except (HeaderParseError, ValueError):
        return value
    return "".join(word if isinstance(word, str) else decode(word, charset) for word, charset in words)


def decode(octets: bytes, charset: str | None) -> str:
    """Decode text in any charset; unknown ones as UTF-8, with a replacement for each wrong octet."""
    if charset is None or charset.lower() in SLOW_CODECS:
        charset = "utf-8"
    try:
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):
        return octets.decode("utf-8", "replace")


class UnparsableMailError(Exception):
    """Parsing a mail would take too much time or memory. The text says why."""


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """The parts of a mail.

    Args:
        parts: all that are not multipart, in their order; a forwarded mail is one part.
        text: the number of the part with the plain text, as an index of `parts`; None without one.
        html: the number of the part with the HTML.
        fault: why the mail could not be parsed; empty if it could.
    """

    parts: tuple[Message, ...] = ()
    text: int | None = None
    html: int | None = None
    fault: str = ""

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Parse the octets of a mail."""
        try:
            parts = tuple(iterate_parts(parse_structure(content)))
        except UnparsableMailError as error:
            return cls(fault=str(error))
        except Exception as error:  # noqa: BLE001  (the parser promises never to raise, and does: RecursionError, ...)
            return cls(fault=f"Python cannot parse it ({type(error).__name__}).")
        bodies = {
            part.get_content_type(): number
            for number, part in reversed(list(enumerate(parts)))
            if part.get_content_disposition() != "attachment" and find_filename(part) is None
        }
        return cls(parts, bodies.get("text/plain"), bodies.get("text/html"))

    def read_text(self, number: int) -> str:
        """Return a part as text."""
        part = self.parts[number]
        return decode(read_octets(part), part.get_content_charset())

    def render_html(self, parts_url: str) -> str:
        """Return the HTML as it is shown: with its inline images, and with links that open a new tab.

        Args:
            parts_url: the address of the mail's parts; each has its number after it.
        """
        if self.html is None:
            return ""
        inline = {str(part.get("Content-ID", "")).strip(" <>\r\n\t"): n for n, part in enumerate(self.parts)}

        def find_image(match: re.Match[str]) -> str:
            number = inline.get(unquote(unescape(match[1])))
            return match[0] if number is None else f"{parts_url}{number}"

        html = CID_URL.sub(find_image, self.read_text(self.html), count=INLINE_IMAGES)
        # No policy keeps Chromium from connecting to the hosts of `<link rel="preconnect">` and of frames.
        html = re.sub(r"<(?=link|i?frame|object|embed)", "<inert-", html, flags=re.IGNORECASE)
        # Anything before the document type would switch the browser to quirks mode.
        doctype = re.match(r"\s*<!doctype[^>]*>", html, re.IGNORECASE)
        end = doctype.end() if doctype else 0
        return f'{html[:end]}<base target="_blank">{html[end:]}'


def parse_structure(content: bytes) -> Message:
    """Parse a mail with the standard library.

    Raises:
        UnparsableMailError: it has too many lines or parts, or takes too long.
    """
    if content.count(b"\n") > PARSED_LINES:
        raise UnparsableMailError(f"It has more than {PARSED_LINES:,} lines.")
    made = count(1)

    def make_part(**options: Any) -> Message:
        if next(made) > PARSED_PARTS + 1:  # the parser makes one that it does not use
            raise UnparsableMailError(f"It has more than {PARSED_PARTS} parts.")
        return Message(**options)

    parser = BytesFeedParser(make_part, policy=ClippedFields())
    deadline = thread_time() + PARSING_TIME
    for start in range(0, len(content), PARSED_CHUNK):
        parser.feed(content[start : start + PARSED_CHUNK])
        if thread_time() > deadline:
            raise UnparsableMailError(f"Parsing it takes more than {PARSING_TIME:g} s.")
    return parser.close()


class ClippedFields(Compat32):
    """The policy under which header fields are read as UTF-8 (RFC 6532), and long ones are cut.

    Looking for the parameters of a field takes quadratic time.
    """

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:FIELD_LIMIT].encode("ascii", "surrogateescape").decode("utf-8", "replace")


def iterate_parts(message: Any) -> Iterator[Message]:
    """Yield the parts that are not multipart."""
    payload = message.get_payload()
    if message.get_content_maintype() == "multipart" and isinstance(payload, list):
        for part in payload:
            yield from iterate_parts(part)
    else:
        yield message


def read_octets(part: Message) -> bytes:
    """Return the decoded content of a part."""
    if part.is_multipart():  # a forwarded mail, or a delivery status (RFC 3464)
        return b"\n".join(each.as_bytes() for each in part.get_payload())  # type: ignore[union-attr]
    octets = part.get_payload(decode=True)
    return octets if isinstance(octets, bytes) else b""


def find_filename(part: Message) -> str | None:
    """Return the name of an attachment as its sender has written it; None if it has none."""
    try:
        name = part.get_filename()
    except Exception:  # noqa: BLE001  (the parser of parameters fails for some that are broken)
        return "attachment"
    return None if name is None else decode_words(str(name))


def make_safe_name(name: str) -> str:
    """Return a name for a downloaded file: no folders, no control or invisible characters, not hidden, not long.

    >>> make_safe_name("../../etc/passwd")
    'passwd'
    """
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c if c.isprintable() and c not in '<>:"|?*' else "_" for c in name).strip(" .")
    stem, dot, extension = name.rpartition(".")
    if len(name) > 100:
        name = f"{stem[:80]}{dot}{extension[:19]}" if stem else name[:100]
    return name or "attachment"


# --- The pages


def create_application(inbox: Inbox) -> Starlette:
    """Return the web application of an inbox."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    pages = Pages(inbox)
    routes = [
        Route("/", pages.show_page),
        Route("/events", pages.stream_events),
        Route("/mails/{number}", pages.show_mail),
        Route("/mails/{number}/html", pages.show_html),
        Route("/mails/{number}/parts/{part}", pages.download_part),
        Route("/mails/{number}/source", pages.download_source),
    ]
    # A page of another host whose name resolves to this machine (DNS rebinding) must not read the mails.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


class Pages:
    """What the web server answers. All that may take a while runs in a thread."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._nonce = secrets.token_urlsafe(16)
        page = Path(__file__).with_name("inbox.html").read_text(encoding="utf-8")
        self._page = page.replace("{{ nonce }}", self._nonce)

    def show_page(self, _request: Request) -> Response:
        """The page, which fills itself from the other addresses."""
        return make_response(self._page, "text/html; charset=utf-8", PAGE_POLICY.format(nonce=self._nonce))

    async def stream_events(self, request: Request) -> Response:
        """The list, as server-sent events."""
        from starlette.responses import StreamingResponse

        events = self._inbox.watch(request.headers.get("last-event-id", ""))
        return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)

    def show_mail(self, request: Request) -> Response:
        """What there is to show of a mail besides its HTML, as JSON."""
        kept = self._find_mail(request)
        return make_response(json.dumps(describe(kept, self._inbox.parse(kept))), "application/json")

    def show_html(self, request: Request) -> Response:
        """The HTML of a mail, for a sandboxed frame."""
        kept = self._find_mail(request)
        parts_url = f"{request.base_url}mails/{kept.number}/parts/"
        html = self._inbox.parse(kept).render_html(parts_url)
        return make_response(html, "text/html; charset=utf-8", HTML_POLICY.format(images=parts_url))

    def download_part(self, request: Request) -> Response:
        """A part, which a browser shows only as an image of the HTML."""
        parts, number = self._inbox.parse(self._find_mail(request)).parts, request.path_params["part"]
        if not is_number(number) or int(number) >= len(parts):
            raise make_not_found("The mail has no such part.")
        part = parts[int(number)]
        kind = part.get_content_type()
        media_type = kind if kind in IMAGE_TYPES else "application/octet-stream"
        return make_response(read_octets(part), media_type, filename=make_safe_name(name_part(part)))

    def download_source(self, request: Request) -> Response:
        """A mail as it was received."""
        kept = self._find_mail(request)
        return make_response(kept.mail.content, "application/octet-stream", filename=f"{kept.number:04}.eml")

    def _find_mail(self, request: Request) -> KeptMail:
        number = request.path_params["number"]
        kept = self._inbox.find(int(number)) if is_number(number) else None
        if kept is None:
            raise make_not_found("The inbox does not keep this mail.")
        return kept


def is_number(text: str) -> bool:
    """Whether text is a number of a mail or a part."""
    return re.fullmatch(r"[0-9]{1,12}", text) is not None


def make_not_found(text: str) -> HTTPException:
    """Return the exception that Starlette turns into a 404."""
    from starlette.exceptions import HTTPException

    return HTTPException(404, text)


def make_response(
    body: str | bytes, media_type: str, content_policy: str = DOWNLOAD_POLICY, *, filename: str | None = None
) -> Response:
    """Return a response.

    Args:
        body: text is sent as UTF-8.
        media_type: of the body.
        content_policy: the Content-Security-Policy.
        filename: the name under which a browser saves the body; None: it may be shown.
    """
    from starlette.responses import Response

    headers = HEADERS | {"Content-Security-Policy": content_policy}
    if filename is not None:  # RFC 6266 5: a name in ASCII, and the name
        ascii_name = re.sub(r"[^ -~]|[\\\"%]", "_", filename)
        disposition = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(filename, safe='')}"
        headers["Content-Disposition"] = disposition
    octets = body.encode("utf-8", "replace") if isinstance(body, str) else body
    return Response(octets, media_type=media_type, headers=headers)


def describe(kept: KeptMail, parsed: ParsedMail) -> dict[str, Any]:
    """Return what the page shows about a mail besides its entry in the list and its HTML."""
    mail = kept.mail
    return kept.summary | {
        "to": clip(", ".join(mail.recipients), SHOWN_LIMIT),
        "helo": mail.helo_name,
        "fault": parsed.fault,
        "text": None if parsed.text is None else clip(parsed.read_text(parsed.text), SHOWN_LIMIT),
        "html": parsed.html is not None,
        "headers": read_headers(mail.content),
        "source": clip(mail.content[: SHOWN_LIMIT + 1].decode(errors="replace"), SHOWN_LIMIT),
        "attachments": [
            {
                "part": number,
                "name": make_safe_name(name_part(part)),
                "type": clip(part.get_content_type(), LISTED_LIMIT),
                "size": len(read_octets(part)),
            }
            for number, part in enumerate(parsed.parts)
            if number not in (parsed.text, parsed.html)
        ],
    }


def name_part(part: Message) -> str:
    """Return the name of a part, or one that says what it is."""
    return find_filename(part) or part.get_content_type().replace("/", ".")
