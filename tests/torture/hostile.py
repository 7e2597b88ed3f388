"""Hostile mails, and what is meant by each: made by a seeded generator out of what has broken mail clients before."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from airflow_provider_smtpcm.mail import Address, Attachment, Mail

EVE = "eve@evil.example"
_SMUGGLED = f"MAIL FROM:<{EVE}>\r\nRCPT TO:<{EVE}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"

# What no header and no address may hold, by this module's own account: what ends a line anywhere, and half characters.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What no body may hold.
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")

BREAKS = ("\r\n", "\n", "\r", "\0", "\t", "\x0b", "\x0c", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029")
SURROGATES = ("\ud800", "\udfff", "\udc0a", "\udc8a")
INJECTIONS = (
    f"\r\nBcc: {EVE}",
    f"\nBcc: {EVE}\n\nbody",
    f"\rBcc: {EVE}\r",
    "\r\n X-Folded: 1",
    "\r\n\r\n",
    "\n\n--",
    "\r\n\t\r\n",
    f"\u2028Bcc: {EVE}",
    f"\x85Bcc: {EVE}",
    "\0\r\n.\r\n",
)
SMUGGLING = ("\n.\n", "\r\n.\r", "\n.\r\n", "\r.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r\n", "\n.\r", "\r.\n", "\r\n\0.\r\n")
# None of these holds a line end, an "@" outside the names, or a "," or ";".
ENCODED = (
    f"=?utf-8?q?=0D=0ABcc=3A_{EVE.replace('@', '=40')}?=",
    "=?utf-8?b?DQpCY2M6IGV2ZUBldmlsLmV4YW1wbGU=?=",
    "=?utf-7?q?+AA0ACg-Bcc:?=",
    "=?utf-8?q?a?= =?utf-8?q?b?=",
    "=?utf-8?q?_?=",
    "=?x?b?!!?=",
    "=?",
    "?=",
    "=0D=0A",
    "%0d%0aBcc:%20eve",
    "\\r\\nBcc: eve",
    "&#13;&#10;",
)
SYNTAX = ('"', "\\", '\\"', "<", ">", "<>", "(", ")", "[", "]", ":", "@", "> SIZE=1", '"; filename="evil.exe', "'", "`")
SEPARATORS = (",", ";", f"; {EVE}", f", {EVE}", "|")
UNSEEN = ("\u202e", "\u2066", "\u2069", "\u200f", "\u200b", "\ufeff", "\xad", "\xa0", "\u3000", "\u2060", "\U000e0041")
LETTERS = ("ü", "日本", "🎉", "e\u0301", "ﬀ", "\uff0e", "\u3002", "\uff20", "\u037e", "\uff1c", "℀", "\u2488", "ß", "İ")
DOTS = (".", "..", "...", " .", ". ", ".\u200b.")
BLANKS = (" ", "  ", "   ")
WORDS = ("report", "Q1", "done", "a", "Jane Doe", "x-y", "100%", "SELECT *", "=", "--", "From ", "cid:x", "#!")
_POOLS = (ENCODED, SYNTAX, SEPARATORS, UNSEEN, LETTERS, DOTS, BLANKS, WORDS, WORDS)
_LENGTHS = (60, 77, 78, 250, 900, 998, 999, 1000, 2500)
_VERY_LONG = (12_000, 100_001)

FIELD_NAMES = (
    *("Bcc", "bcc", "BCC", "Resent-Bcc", "To", "Subject", "Content-Type", "content-transfer-encoding", "MIME-Version"),
    *("Date", "Received", "Return-Path", "Message-ID", "X-Priority", "Bcc ", " Bcc", "X:", "X Y", "", "Überschrift"),
    *("X" * 77, f"X\r\nBcc: {EVE}\r\nY", "X\nBcc", "X\rBcc", "X\0", "X\u2028", "\ud800", "=?utf-8?q?Bcc?="),
    *("X" * 76, ".", "..", "-", "X!#$%&'*+", "X-Report", "x-report", ">From", "{X}", "List-ID", "Bcc2", "X=?q?="),
)
CONTENT_TYPES = (
    *("text/csv\r\nBcc: x", "text", "text/", "/csv", "text/csv; charset", 'text/csv; x="\n"', "text/csv;", "\0/\0"),
    *("multipart/mixed; boundary=x", "Message/RFC822", "message/partial; id=x; number=1", "text/csv; charset=utf-8"),
    *(
        'application/x-t; name="a;b c"',
        "TEXT/HTML",
        "a/b ;c=d  ; e=f",
        'text/x; boundary="--=_smtpcm_"',
        "x/" + "y" * 300,
    ),
    *("text/x" + "; a=b" * 30, "text/x; name=.", 'text/x; a="' + "x" * 150 + '"'),
)
DOMAINS = (
    *("corp.example", "CORP.example", "bücher.example", "xn--bcher-kva.example", "日本。example", "corp\uff0eexample"),
    *("[10.0.0.1]", "[IPv6:::1]", "[IPv6:fe80::1%eth0]", "[10.0.0.1\r\n]", "[x]", "corp..example", ".example"),
    *("corp.example>", "corp.example> SIZE=1", "corp.example\r\nRCPT TO:<x@y>", "℀.example", "\uff1c.example"),
    *("corp.example.", "x\u200b.example", "xn--a", "a." * 130 + "b", "corp.example\\", "co rp.example", "ü" * 70),
    *("-.example", "_x.example", "a" * 64),
)


@dataclass(slots=True)
class Box:
    """A mailbox as a person means it.

    Args:
        written: as what it is handed over: "parts" (an Address), "text" (name and address, the name in quotation
            marks), or "raw" (name and address without, so that what is meant is for the parser to say).
    """

    name: str
    local: str
    domain: str
    written: str = "parts"

    def make(self) -> str | Address:
        """What the mail gets."""
        if self.written == "parts":
            return Address(display_name=self.name, local_part=self.local, domain=self.domain)
        address = f"{self.local}@{self.domain}"
        if self.written == "text":
            name = self.name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{name}" <{address}>'
        return f"{self.name} <{address}>" if self.name else address

    @property
    def texts(self) -> tuple[str, ...]:
        # White space after an address is none of it, as the end of a line that was read from a file.
        is_bare = self.written == "raw" and not self.name
        return self.name, self.local, self.domain.rstrip(" \t\r\n") if is_bare else self.domain


@dataclass(slots=True)
class File:
    """An attachment, or an inline image."""

    name: str
    content: bytes
    content_type: str = "application/x-test"
    content_id: str | None = None

    def make(self) -> Attachment:
        """What the mail gets."""
        return Attachment(
            content=self.content, name=self.name, content_type=self.content_type, content_id=self.content_id
        )

    @property
    def texts(self) -> tuple[str, ...]:
        return self.name, self.content_type, self.content_id or ""


@dataclass(slots=True)
class Hostile:
    """One mail as an attacker means it; `make` makes it, or raises the error that refuses it."""

    number: int
    message_id: str
    sender: Box = field(default_factory=lambda: Box("", "etl", "corp.example"))
    to: list[Box] = field(default_factory=list)
    cc: list[Box] = field(default_factory=list)
    bcc: list[Box] = field(default_factory=list)
    reply_to: list[Box] = field(default_factory=list)
    subject: str = "Report"
    text: str = "All is well.\n"
    html: str = ""
    files: list[File] = field(default_factory=list)
    images: list[File] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)

    def make(self) -> Mail:
        """The mail."""
        return Mail(
            from_address=self.sender.make(),
            to=[box.make() for box in self.to],
            cc=[box.make() for box in self.cc],
            bcc=[box.make() for box in self.bcc],
            reply_to=[box.make() for box in self.reply_to],
            subject=self.subject,
            text=self.text,
            html=self.html,
            attachments=[file.make() for file in self.files],
            inline_images=[image.make() for image in self.images],
            headers=self.headers,
            message_id=self.message_id,
        )

    @property
    def boxes(self) -> list[Box]:
        """Everybody in it."""
        return [self.sender, *self.to, *self.cc, *self.bcc, *self.reply_to]

    @property
    def written_headers(self) -> list[tuple[str, str]]:
        """The further headers, without one that is no free text and has no value."""
        return [(name, value) for name, value in self.headers if value.strip(" ") or name != "List-ID"]

    @property
    def is_beyond_writing(self) -> bool:
        """Whether a header of it holds what none can hold, so that only a refusal is right."""
        texts = [self.subject, self.message_id]
        texts += [text for box in (*self.boxes, *self.files, *self.images) for text in box.texts]
        texts += [text for pair in self.headers for text in pair]
        return any(map(FORBIDDEN.search, texts)) or any(map(_UNSENDABLE.search, (self.text, self.html)))


def hostile_mails(count: int, seed: int) -> Iterator[Hostile]:
    """So many mails, always the same ones for the same seed."""
    maker = _Maker(Random(seed))  # noqa: S311 - no secret
    for number in range(count):
        yield maker.make(number)


class _Maker:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._attacks: tuple[Callable[[Hostile], None], ...] = (
            *(self._subject, self._header, self._header, self._header_name, self._text, self._html, self._bodies),
            *(self._name, self._name, self._local_part, self._domain, self._raw_address, self._raw_address),
            *(self._file_name, self._file_name, self._content_type, self._content_id, self._image, self._content),
            *(self._message_id, self._everybody),
        )

    def make(self, number: int) -> Hostile:
        """A mail that is hostile in one to three ways."""
        mail = Hostile(number=number, message_id=f"<{number}.{self._random.getrandbits(64):016x}@corp.example>")
        mail.to = [Box("", f"r{number}", "corp.example")]
        mail.headers = [("X-Row", str(number))]
        for attack in self._random.sample(self._attacks, self._random.choice((1, 1, 2, 3))):
            attack(mail)
        return mail

    # --- Texts

    def _pieces(self, *more: tuple[str, ...]) -> str:
        pools = (*_POOLS, *more, *more)
        return "".join(self._random.choice(self._random.choice(pools)) for _ in range(self._random.randint(1, 5)))

    def _line(self) -> str:
        """A text for a header; in one case of five with what must never get there."""
        text = self._pieces()
        match self._random.randrange(15):
            case 0 | 1:
                at = self._random.randint(0, len(text))
                text = text[:at] + self._random.choice(BREAKS + INJECTIONS + SMUGGLING) + text[at:]
            case 3:
                text += self._random.choice(SURROGATES)
            case 4 | 5 | 6:
                text = self._long(text)
        return text

    def _long(self, text: str) -> str:
        length = self._random.choice(_VERY_LONG if self._random.random() < 0.01 else _LENGTHS)
        piece = self._random.choice(("x", "ü", " ", ".", '"', "=", "日本 ", "a ", "\u202e", "=?utf-8?q?x?= ", text))
        return (piece * (length // len(piece) + 1))[:length] + self._random.choice(("", "x", text))

    def _lines(self, mail: Hostile) -> str:
        """A text for a body, where nothing but half a character and a NUL is wrong."""
        boundary = f"=_smtpcm_{hashlib.sha256(mail.message_id.encode('utf-8', 'replace')).hexdigest()[:24]}"
        frames = tuple(
            f"{end}--{boundary}{suffix}" for end in ("\r\n", "\n", "") for suffix in ("", "_1", "_2", "_1--")
        )
        parts = ("\r\nContent-Type: text/html\r\n\r\n<b>evil</b>", "\n\nX: y", "\r\n\r\n")
        text = self._pieces(BREAKS, INJECTIONS, SMUGGLING, frames, parts) + self._pieces(SMUGGLING, frames)
        if self._random.random() < 0.3:
            text = text.replace(".\r\n", f".\r\n{_SMUGGLED}", 1)
        if self._random.random() < 0.1:
            text = self._long(text) + text
        return text + self._random.choice(SURROGATES) if self._random.random() < 0.05 else text

    # --- What is attacked

    def _subject(self, mail: Hostile) -> None:
        mail.subject = self._line()

    def _header(self, mail: Hostile) -> None:
        mail.headers.append((f"X-Report-{len(mail.headers)}", self._line()))

    def _header_name(self, mail: Hostile) -> None:
        mail.headers.append((self._random.choice(FIELD_NAMES), self._random.choice(("", "x", self._line()))))

    def _text(self, mail: Hostile) -> None:
        mail.text = self._lines(mail)

    def _html(self, mail: Hostile) -> None:
        mail.text, mail.html = "", "<p>" + self._lines(mail).replace("cid:", "")

    def _bodies(self, mail: Hostile) -> None:
        mail.text, mail.html = self._lines(mail), "<p>" + self._lines(mail).replace("cid:", "")

    def _list(self, mail: Hostile) -> list[Box]:
        return self._random.choice((mail.to, mail.to, mail.cc, mail.bcc, mail.reply_to))

    def _add(self, mail: Hostile, box: Box) -> None:
        if self._random.random() < 0.25:
            mail.sender = box
        else:
            self._list(mail).append(box)

    def _name(self, mail: Hostile) -> None:
        self._add(mail, Box(self._line(), "jane", "corp.example", self._random.choice(("parts", "text"))))

    def _local_part(self, mail: Hostile) -> None:
        local = f"{self._random.choice(('', 'jane'))}{self._line()}"
        self._add(mail, Box(self._random.choice(("", "Jane")), local[:70], "corp.example"))

    def _domain(self, mail: Hostile) -> None:
        domain = self._random.choice(DOMAINS) if self._random.random() < 0.7 else f"{self._line()}.example"
        self._add(mail, Box("", "jane", domain, self._random.choice(("parts", "raw"))))

    def _raw_address(self, mail: Hostile) -> None:
        """Without separators of addresses, so that a parser that finds two was tricked."""
        name, local, domain = "Jane", f"jane{mail.number}", "corp.example"
        text = re.sub(f"[,;]|{re.escape(EVE)}", "", self._line())[:1500]
        where = self._random.randrange(3)
        box = Box(
            name + text if where == 0 else self._random.choice(("", name)),
            local + text if where == 1 else local,
            domain + text if where == 2 else domain,
            "raw",
        )
        self._add(mail, box)

    def _everybody(self, mail: Hostile) -> None:
        number = mail.number
        mail.cc = [Box("C,c; <c>", f"c{number}", "corp.example")]
        mail.bcc = [Box("B", f"hidden{number}", "corp.example"), Box("", f"hidden{number}", "Corp.Example")]
        mail.reply_to = [Box(self._line(), f"p{number}", "corp.example"), Box("", "q", "bücher.example")]

    def _file_name(self, mail: Hostile) -> None:
        name = self._line()
        mail.files.append(File(name[:400] if self._random.random() < 0.8 else name, self._octets(mail)))

    def _content_type(self, mail: Hostile) -> None:
        kind = self._random.choice(CONTENT_TYPES) if self._random.random() < 0.8 else f"text/{self._line()}"
        mail.files.append(File("report.csv", self._octets(mail), content_type=kind))

    def _content_id(self, mail: Hostile) -> None:
        content_id = self._random.choice(("logo", "<logo>", "a@b", "x" * 251, self._line(), f"x{self._line()}"))
        mail.files.append(File("logo.png", self._octets(mail), content_id=content_id))

    def _image(self, mail: Hostile) -> None:
        content_id = self._random.choice(("logo", "logo", "a.b@c", self._line()))
        mail.html = f'{mail.html}<img src="cid:logo">' if content_id == "logo" else mail.html or "<p>"
        mail.images.append(File(f"i{self._line()[:100]}", self._octets(mail), "image/png", content_id))

    def _content(self, mail: Hostile) -> None:
        mail.files.append(File("report.csv", self._octets(mail)))

    def _octets(self, mail: Hostile) -> bytes:
        return self._lines(mail).encode("utf-8", "surrogatepass")

    def _message_id(self, mail: Hostile) -> None:
        left = f"{mail.number}.{self._random.getrandbits(64):016x}"
        hostile = self._line() if self._random.random() < 0.6 else self._random.choice(ENCODED + DOTS + WORDS)
        mail.message_id = self._random.choice((f"<{left}{hostile}@corp.example>", f"<{left}@{hostile}>", f"<{left}>"))
