"""Files as parts of a message: a text says its charset, and a mail is sent as a mail if it needs no encoding."""

from __future__ import annotations

import email.policy
import io
import tracemalloc
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.mail.encoding import BLOCK_SIZE
from airflow_provider_smtpcm.mail.render import BatchRenderer, Rendering, render

EML = b"From: a@corp.example\nSubject: =?utf-8?q?=C3=BC?=\n\n.one\n..two\nthree"
CANONICAL = EML.replace(b"\n", b"\r\n")


def rendering_of(*files: Attachment | Path | object, binary: bool = False) -> Rendering:
    return render(
        Mail(
            from_address="a@corp.example",
            to="b@corp.example",
            message_id="<1@corp.example>",
            text="x",
            attachments=list(files),  # type: ignore[arg-type]
        ),
        binary=binary,
    )


def octets_of(rendering: Rendering) -> bytes:
    octets = b"".join(rendering)
    assert len(octets) == rendering.size
    return octets


def part_of(octets: bytes) -> EmailMessage:
    message = message_from_bytes(octets, EmailMessage, policy=email.policy.default)
    [part] = message.iter_attachments()
    assert isinstance(part, EmailMessage)
    return part


def raw_body(octets: bytes) -> bytes:
    """Return the body of the last part by RFC 2046 5.1.1 alone."""
    boundary = octets.partition(b'boundary="')[2].partition(b'"')[0]
    return octets.split(b"\r\n--" + boundary)[-2].partition(b"\r\n\r\n")[2]


class Stored:
    """A file in object storage."""

    def __init__(self, octets: bytes, name: str = "mail.eml") -> None:
        self.octets, self.name, self.opened = octets, name, 0

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self.octets))

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        self.opened += 1
        return io.BytesIO(self.octets)


# --- Mails as attachments


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Just text\n",
        b"From jane Mon Jan  1 00:00:00 2024\nSubject: of a mailbox\n\n",
        b"Subject: \xfc\n\n",
        "Subject: x\n\nTäglich\n".encode(),
        b"\xef\xbb\xbfSubject: x\n\n",
        b"Subject: x\n\n" + b"y" * 999 + b"\n",
        b"Subject: x\n\na\0b",
        b"Subject: x\r\n\r\na\rb",
        b"Subject: x\r\n\r\na\r",
        b"Subject: x\n\n" + b"y" * BLOCK_SIZE,
        b"Subject: x\n\n" + b"y\n" * BLOCK_SIZE + b"\xfc",
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_mail_that_needs_an_encoding_is_sent_as_a_file(content: bytes, binary: bool) -> None:
    """RFC 2046 5.2.1 forbids to encode it as a mail; as a file it arrives octet by octet, and is opened by its name."""
    octets = octets_of(rendering_of(Attachment(content=content, name="mail.eml"), binary=binary))
    part = part_of(octets)

    assert part.get_content_type() == "application/octet-stream" and part.get_filename() == "mail.eml"
    assert part["Content-Transfer-Encoding"] == ("binary" if binary else "base64")
    if not binary:
        assert part.get_payload(decode=True) == content


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("content", [EML, CANONICAL, CANONICAL.replace(b"\r\n", b"\n", 1)])
@pytest.mark.parametrize("remote", [False, True])
def test_a_mail_in_seven_bits_is_sent_as_a_mail(content: bytes, binary: bool, remote: bool) -> None:
    """With CRLF at the end of its lines, whatever they ended with."""
    file: object = Stored(content) if remote else Attachment(content=content, name="mail.eml")
    rendering = rendering_of(file, binary=binary)
    octets = octets_of(rendering)
    part = part_of(octets)

    assert not rendering.binary
    assert part.get_content_type() == "message/rfc822" and part.get_filename() == "mail.eml"
    assert part["Content-Transfer-Encoding"] == "7bit"
    assert part.get_content()["Subject"] == "ü"
    assert raw_body(octets) == CANONICAL
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")


@pytest.mark.parametrize("offset", range(-3, 4))
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_end_may_be_where_a_block_ends(tmp_path: Path, offset: int, end: bytes) -> None:
    """Neither is it doubled nor is it lost, and a line of 998 is not one too many."""
    header = b"Subject: x" + end + end
    lines = end.join([b"y" * 500] * 200)
    content = header + b"z" * ((BLOCK_SIZE + offset - len(header) - 1) % (500 + len(end))) + end + lines
    content += end + b"w" * 998 + end + b"w" * 998
    path = tmp_path / "mail.eml"
    path.write_bytes(content)

    assert raw_body(octets_of(rendering_of(path))) == content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def test_the_boundary_around_a_mail_is_unpredictable() -> None:
    """A stable Message-ID is predictable, and a mail that contains the boundary would end its own part."""
    inner = octets_of(rendering_of(Attachment(content=EML, name="mail.eml")))
    outer = rendering_of(Attachment(content=inner, name="again.eml"))

    # The same Message-ID in the same process: the inner boundary is the outer one, and not longer unknown.
    assert raw_body(octets_of(rendering_of(Attachment(content=EML, name="mail.eml")))) == CANONICAL
    assert len(outer.segments) == 3
    base64 = octets_of(rendering_of(Attachment(content=b"x", name="x")))
    assert base64.partition(b"=_smtpcm_")[2][:24] not in inner


def test_a_mail_with_only_some_binary_files_is_binary() -> None:
    """The mail among them has its own encoding."""
    rendering = rendering_of(
        Attachment(content=EML, name="mail.eml"), Attachment(content=b"\xff", name="x.png"), binary=True
    )
    message = message_from_bytes(octets_of(rendering), policy=email.policy.default)

    assert rendering.binary and message["Content-Transfer-Encoding"] == "binary"
    assert [part["Content-Transfer-Encoding"] for part in message.iter_attachments()] == ["7bit", "binary"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change", [EML + b"\n", EML.replace(b"three", b"thr\n\n"), EML.replace(b"three", b"thr\xfc\xfc")]
)
def test_a_mail_that_changes_after_it_was_measured_breaks_the_message_off(change: bytes) -> None:
    """Before its last octet, and without one that needs an encoding; also with as many octets as before."""
    stored = Stored(EML)
    rendering = rendering_of(stored)
    stored.octets = change

    received: list[bytes] = []
    with pytest.raises(MessageError) as caught:
        received.extend(rendering)
    assert (caught.value.phase, caught.value.retryable) == (Phase.DATA, True)
    assert b"".join(received).isascii() and len(b"".join(received)) < rendering.size


def test_a_mail_that_cannot_be_read_is_found_out_when_it_is_measured(tmp_path: Path) -> None:
    """As any other file."""
    with pytest.raises(MessageError, match="nowhere") as caught:
        rendering_of(Path("/nowhere/mail.eml"))
    assert caught.value.phase is Phase.MESSAGE

    class Broken(Stored):
        def open(self, mode: str) -> io.BytesIO:  # noqa: ARG002
            raise ConnectionResetError("reset by peer")

    with pytest.raises(MessageError, match="reset by peer") as caught:
        rendering_of(Broken(EML))
    assert (caught.value.phase, caught.value.retryable) == (Phase.MESSAGE, True)
    path = tmp_path / "mail.eml"
    path.write_bytes(EML)
    assert part_of(octets_of(rendering_of(path))).get_content_type() == "message/rfc822"


def test_a_large_mail_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Twenty MiB need less than two of memory, although every line end is changed."""
    path = tmp_path / "large.eml"
    with path.open("wb") as file:
        file.write(b"Subject: x\n\n")
        for _ in range(20):
            file.write(b"one line of the many in this mail\n" * (1024 * 1024 // 34))

    tracemalloc.start()
    rendering = rendering_of(path)
    size = sum(map(len, rendering))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == rendering.size > 20 * 1024 * 1024
    assert peak < 2 * 1024 * 1024


def test_a_batch_tells_a_mail_from_a_file_with_the_same_octets() -> None:
    """Its cache of files does not confuse them."""
    renderer = BatchRenderer()
    kinds = []
    for _ in range(2):
        for name in ("mail.eml", "mail.bin"):
            mail = Mail(
                from_address="a@corp.example",
                to="b@corp.example",
                message_id="<1@corp.example>",
                attachments=[Attachment(content=EML, name=name)],
            )
            octets = octets_of(renderer.render(mail))
            kinds.append(part_of(octets).get_content_type())
            assert (CANONICAL in octets) is (name == "mail.eml")
    assert kinds == ["message/rfc822", "application/octet-stream"] * 2


# --- The charset of a text


@pytest.mark.parametrize(
    ("content", "charset"),
    [
        (b"a;b\r\n", "us-ascii"),
        ("Zählung".encode(), "utf-8"),
        ("Zählung".encode("utf-16"), "utf-16"),
        ("Zählung".encode("cp1252"), None),
        (b"a" * BLOCK_SIZE + "ü".encode(), "utf-8"),
    ],
)
def test_a_text_says_the_charset_that_it_has(tmp_path: Path, content: bytes, charset: str | None) -> None:
    """Or none: then programs do what they did without it, and the octets are unchanged in any case."""
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    for file in (path, Attachment(content=content, name="rows.csv"), Attachment(path, content_type="text/csv")):
        part = part_of(octets_of(rendering_of(file)))
        assert (part.get_content_type(), part.get_content_charset()) == ("text/csv", charset)
        assert part.get_payload(decode=True) == content


def test_a_charset_that_the_author_gives_is_kept() -> None:
    """Even if the octets would tell another one."""
    given = Attachment(content=b"a", name="a.csv", content_type='text/csv; Charset="windows-1252"')

    assert b'Content-Type: text/csv; Charset="windows-1252"\r\n' in octets_of(rendering_of(given))


def test_only_a_text_has_a_charset() -> None:
    """A picture and JSON have none (RFC 8259 11)."""
    for name in ("a.png", "a.json", "a", "a.pdf"):
        assert (
            b"charset"
            not in octets_of(rendering_of(Attachment(content=b"x", name=name))).partition(b"base64")[0][-100:]
        )


def test_a_remote_text_is_not_read_twice_for_its_charset() -> None:
    """That would be another download."""
    stored = Stored("ü".encode(), name="rows.csv")
    part = part_of(octets_of(rendering_of(stored)))

    assert stored.opened == 1
    assert (part.get_content_type(), part.get_content_charset()) == ("text/csv", None)


def test_a_large_text_is_read_once_for_the_charset_however_many_mails_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the file changes."""
    from airflow_provider_smtpcm.mail import charset as module

    read: list[int] = []
    detect = module.detect_charset
    monkeypatch.setattr(module, "detect_charset", lambda blocks: read.append(1) or detect(blocks))
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a;b\n" * 1_000_000)
    renderer = BatchRenderer()
    mail = Mail(from_address="a@corp.example", to="b@corp.example", message_id="<1@corp.example>", attachments=[path])
    for _ in range(3):
        assert b"us-ascii" in b"".join(renderer.render(mail))
    assert len(read) == 1
    path.write_bytes("ü".encode() * 2_000_000)
    assert b"text/csv; charset=utf-8" in b"".join(renderer.render(mail))
