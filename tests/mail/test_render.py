"""A rendering follows RFC 5322 and MIME octet by octet, and its size is known beforehand."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.mail import render as module
from airflow_provider_smtpcm.mail.encoding import BLOCK_SIZE
from airflow_provider_smtpcm.mail.file_encoding import EncodedFile
from airflow_provider_smtpcm.mail.render import Rendering, render
from tests.smtp.files import Changing, overwrite, replace

NOON = datetime(2024, 1, 31, 12, 0, 0, tzinfo=UTC)


def mail(**fields: object) -> Mail:
    return Mail(
        **{
            "from_address": "reports@corp.example",
            "to": "jane@corp.example",
            "message_id": "<1@corp.example>",
            **fields,
        }
    )  # type: ignore[arg-type]


def rendered(**fields: object) -> bytes:
    rendering = render(mail(**fields), date=NOON)
    octets = b"".join(rendering)
    assert len(octets) == rendering.size
    assert octets.endswith(b"\r\n") and octets.count(b"\n") == octets.count(b"\r") == octets.count(b"\r\n")
    return octets


def read(octets: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(octets)
    assert isinstance(message, EmailMessage)
    assert [part.defects for part in message.walk()] == [[] for _ in message.walk()]
    return message


def types(message: EmailMessage) -> object:
    """The tree of media types."""
    if message.is_multipart():
        return (message.get_content_subtype(), [types(part) for part in message.iter_parts()])  # type: ignore[arg-type]
    return message.get_content_type()


def body(octets: bytes) -> bytes:
    return octets.partition(b"\r\n\r\n")[2]


class Growing:
    """A file whose size differs from its `stat`, and whose reader returns few octets at a time."""

    name = "report.csv"

    def __init__(self, measured: int, actual: int) -> None:
        self.measured, self.actual, self.closed = measured, actual, 0

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=self.measured)

    def open(self, mode: str) -> io.BufferedIOBase:  # noqa: ARG002
        outer = self

        class Reader(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(min(size or 0, 1000))

            def close(self) -> None:
                outer.closed += 1
                super().close()

        return Reader(b"x" * self.actual)


def test_a_mail_without_a_sender_is_refused_with_both_places_to_set_one() -> None:
    """The task's From or the connection's."""
    with pytest.raises(MessageError, match=r"no From address.*from_address.*task.*From address.*connection"):
        render(mail(from_address=None))


def test_a_mail_without_a_message_id_is_refused() -> None:
    """The sender decides which one."""
    with pytest.raises(MessageError, match="no Message-ID"):
        render(mail(message_id=None))


def test_a_missing_attachment_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    """When the mail is rendered, not in the middle of it."""
    with pytest.raises(MessageError, match=r"nope\.csv") as caught:
        render(mail(attachments=[tmp_path / "nope.csv"]))
    assert caught.value.phase is Phase.MESSAGE


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("actual", "how"), [(999_999, "shorter"), (1_000_001, "longer"), (0, "shorter")])
def test_an_attachment_that_changes_breaks_the_mail_off(actual: int, how: str, binary: bool) -> None:
    """The server discards a message without its end, so a retry is safe."""
    file = Growing(1_000_000, actual)
    rendering = render(mail(attachments=[file]), binary=binary)

    with pytest.raises(MessageError, match=how) as caught:
        list(rendering)
    assert caught.value.phase is Phase.DATA
    assert caught.value.retryable
    assert caught.value.remedy
    assert file.closed == 1


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("read", [0, 1, 3])
@pytest.mark.parametrize("harm", [overwrite, replace])
def test_an_attachment_that_keeps_its_length_and_changes_breaks_the_mail_off(
    harm: Callable[[Path, bytes], None], read: int, binary: bool, tmp_path: Path
) -> None:
    """However much of it was read by then: the last octets are not sent, and the error names the file."""
    path = tmp_path / "report.csv"
    path.write_bytes(b"x" * 2 * BLOCK_SIZE)
    rendering = render(mail(attachments=[path], text="x"), binary=binary)
    blocks = iter(rendering)
    got = [next(blocks) for _ in range(read)]
    harm(path, b"y" * 2 * BLOCK_SIZE)

    if harm is replace and read > 1:  # what is being read is the old file, and whole
        assert len(b"".join([*got, *blocks])) == rendering.size
        return
    with pytest.raises(
        MessageError, match=r"report\.csv' was overwritten or replaced after its 87552 octets"
    ) as caught:
        got += blocks
    assert len(b"".join(got)) < rendering.size
    assert (caught.value.phase, caught.value.retryable) == (Phase.DATA, True)
    assert b"".join(render(mail(attachments=[path])))


@pytest.mark.parametrize("how", ["overwritten", "replaced"])
def test_an_object_that_is_another_one_afterwards_breaks_the_mail_off(how: str, tmp_path: Path) -> None:
    """Detected by its time or its version: the blocks may come from both objects."""
    rendering = render(mail(attachments=[Changing(tmp_path, 100_000, how, remote=True).path]))
    with pytest.raises(MessageError, match="was overwritten or replaced") as caught:
        list(rendering)
    assert (caught.value.phase, caught.value.retryable) == (Phase.DATA, True)


@pytest.mark.parametrize("touch", ["chmod", "link", "unlink"])
def test_what_leaves_the_octets_alone_leaves_the_mail_alone(touch: str, tmp_path: Path) -> None:
    """A backup that links the file, or a clean-up that unlinks it while it is read."""
    path = tmp_path / "report.csv"
    path.write_bytes(b"x" * 2 * BLOCK_SIZE)
    rendering = render(mail(attachments=[path]))
    blocks = iter(rendering)
    got = [next(blocks), next(blocks)]
    match touch:
        case "chmod":
            path.chmod(0o600)
        case "link":
            (tmp_path / "backup").hardlink_to(path)
        case "unlink":
            path.unlink()
    assert len(b"".join([*got, *blocks])) == rendering.size


def test_an_attachment_that_vanishes_breaks_the_mail_off(tmp_path: Path) -> None:
    """In phase DATA."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"x")
    rendering = render(mail(attachments=[path]))
    path.unlink()

    with pytest.raises(MessageError, match="on the worker") as caught:
        list(rendering)
    assert caught.value.phase is Phase.DATA
    assert not caught.value.retryable


def test_a_reader_that_fails_breaks_the_mail_off() -> None:
    """Exceptions of an object storage become a `MessageError`."""

    class Broken(Growing):
        def open(self, mode: str) -> io.BufferedIOBase:  # noqa: ARG002
            class Reader(io.BytesIO):
                def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002
                    raise ConnectionResetError("reset by peer")

            return Reader()

    with pytest.raises(MessageError, match="reset by peer") as caught:
        list(render(mail(attachments=[Broken(5, 5)])))
    assert (caught.value.phase, caught.value.retryable) == (Phase.DATA, True)


def test_a_reader_that_hands_out_little_at_a_time_is_read_to_the_end() -> None:
    """Base64 has padding at its end only."""
    octets = rendered(attachments=[Growing(300_001, 300_001)])
    (part,) = read(octets).iter_attachments()

    assert part.get_payload(decode=True) == b"x" * 300_001


def test_the_simplest_mail_reads_like_this() -> None:
    """With no more than the necessary headers."""
    assert rendered(subject="Daily report", text="All is well.\n") == (
        b"Date: Wed, 31 Jan 2024 12:00:00 +0000\r\n"
        b"From: reports@corp.example\r\n"
        b"To: jane@corp.example\r\n"
        b"Subject: Daily report\r\n"
        b"Message-ID: <1@corp.example>\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"X-Auto-Response-Suppress: OOF, AutoReply\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"All is well.\r\n"
    )


def test_a_mail_with_everything_reads_like_this() -> None:
    """The text, then the html with its image, then the file."""
    octets = rendered(
        cc="Jörg M <joerg@bücher.example>",
        bcc="eve@corp.example",
        reply_to="help@corp.example",
        text="Hi",
        html='<img src="cid:logo">',
        inline_images={"logo": Attachment(content=b"png", name="logo.png")},
        attachments=[Attachment(content=b"a;b\n", name="März.csv"), Attachment(content=b"", name="empty")],
        priority="high",
        headers={"X-Report": "täglich"},
    )
    boundary = "=_smtpcm_" + octets.partition(b"=_smtpcm_")[2][:24].decode()
    expected = f"""\
Date: Wed, 31 Jan 2024 12:00:00 +0000
From: reports@corp.example
To: jane@corp.example
Cc: =?utf-8?q?J=C3=B6rg_M?= <joerg@xn--bcher-kva.example>
Reply-To: help@corp.example
Subject:
Message-ID: <1@corp.example>
Auto-Submitted: auto-generated
X-Auto-Response-Suppress: OOF, AutoReply
Importance: high
X-Priority: 1
Priority: urgent
X-Report: =?utf-8?q?t=C3=A4glich?=
MIME-Version: 1.0
Content-Type: multipart/mixed;
 boundary="{boundary}_1"

--{boundary}_1
Content-Type: multipart/alternative;
 boundary="{boundary}_2"

--{boundary}_2
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

Hi
--{boundary}_2
Content-Type: multipart/related; type="text/html";
 boundary="{boundary}_3"

--{boundary}_3
Content-Type: text/html; charset=us-ascii
Content-Transfer-Encoding: 7bit

<img src="cid:logo">
--{boundary}_3
Content-Type: image/png
Content-Transfer-Encoding: base64
Content-Disposition: inline; filename="logo.png"
Content-ID: <logo>

cG5n
--{boundary}_3--

--{boundary}_2--

--{boundary}_1
Content-Type: text/csv; charset=us-ascii; name="=?utf-8?b?TcOkcnouY3N2?="
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename*=utf-8''M%C3%A4rz.csv

YTtiCg==
--{boundary}_1
Content-Type: application/octet-stream
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="empty"


--{boundary}_1--
"""
    assert octets == expected.replace("\n", "\r\n").encode()
    read(octets)


@pytest.mark.parametrize(
    ("fields", "tree"),
    [
        ({}, "text/plain"),
        ({"text": "a"}, "text/plain"),
        ({"html": "a"}, "text/html"),
        ({"text": "", "html": "a"}, "text/html"),
        ({"text": "a", "html": ""}, "text/plain"),
        ({"text": "a", "html": "b"}, ("alternative", ["text/plain", "text/html"])),
        ({"html": "a", "inline_images": ["a.png"]}, ("related", ["text/html", "image/png"])),
        (
            {"text": "a", "html": "b", "inline_images": ["a.png"]},
            ("alternative", ["text/plain", ("related", ["text/html", "image/png"])]),
        ),
        ({"attachments": ["a.pdf"]}, ("mixed", ["text/plain", "application/pdf"])),
        ({"html": "a", "attachments": ["a.pdf", "b.html"]}, ("mixed", ["text/html", "application/pdf", "text/html"])),
    ],
)
def test_a_mail_has_the_structure_that_its_parts_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], tree: object
) -> None:
    """With an empty text before a file that is alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.pdf", "b.html"):
        (tmp_path / name).write_bytes(b"x")

    assert types(read(rendered(**fields))) == tree


def test_bcc_is_in_no_header() -> None:
    """Neither the name nor the address."""
    octets = rendered(bcc="eve@corp.example")

    assert b"eve" not in octets and b"bcc" not in octets.lower()


def test_recipients_that_are_all_hidden_are_called_undisclosed() -> None:
    """Without a destination field, spam filters object, and some servers add one that names them all."""
    assert b"\r\nTo: undisclosed-recipients:;\r\n" in rendered(to=(), bcc="eve@corp.example")
    octets = rendered(to=(), cc="jane@corp.example")
    assert b"\r\nTo:" not in octets and b"\r\nCc: jane@corp.example\r\n" in octets


def test_priority_has_all_three_headers() -> None:
    """`Importance`, `X-Priority` and `Priority`; none of them for normal."""
    assert b"\r\nImportance: low\r\nX-Priority: 5\r\nPriority: non-urgent\r\n" in rendered(priority="low")
    assert b"riority" not in rendered() and b"Importance" not in rendered()


def test_auto_submitted_can_be_overridden() -> None:
    """For a mail that should get out-of-office replies."""
    octets = rendered(headers={"auto-submitted": "no"})

    assert b"auto-submitted: no\r\n" in octets and octets.lower().count(b"auto-submitted") == 1


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("", b"7bit", b""),
        ("a\nb\rc\r\nd", b"7bit", b"a\r\nb\r\nc\r\nd\r\n"),
        ("\n", b"7bit", b"\r\n"),
        ("x" * 78, b"7bit", b"x" * 78 + b"\r\n"),
        ("\ta\n.\n..", b"7bit", b"\ta\r\n.\r\n..\r\n"),
        ("x" * 79, b"quoted-printable", b"x" * 75 + b"=\r\nxxxx\r\n"),
        ("a \nb\t\nc ", b"quoted-printable", b"a=20\r\nb=09\r\nc=20\r\n"),
        ("über\n.\nuns", b"quoted-printable", b"=C3=BCber\r\n=2E\r\nuns\r\n"),
        ("aaaaa\x01bbbbb\x0cccccc\x7f", b"quoted-printable", b"aaaaa=01bbbbb=0Cccccc=7F\r\n"),
        ("--=_smtpcm_x", b"quoted-printable", b"--=3D_smtpcm_x\r\n"),
        ("日本語日本語\n", b"base64", b"5pel5pys6Kqe5pel5pys6KqeDQo=\r\n"),
    ],
)
def test_a_text_goes_in_the_encoding_that_it_survives(text: str, encoding: bytes, expected: bytes) -> None:
    """7bit if every server passes it on unchanged, otherwise the shorter of two. Every line break becomes CRLF."""
    octets = rendered(text=text)

    assert b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n" in octets
    assert body(octets) == expected


def test_a_text_that_holds_a_boundary_ends_no_part() -> None:
    """The author of a text may know the Message-ID, and so the boundary."""
    boundary = rendered(text="a", html="b").partition(b'boundary="')[2].partition(b'"')[0].decode()
    text = f"a\n--{boundary}--\n\n--{boundary}\nContent-Type: text/html\n\nevil\n"
    message = read(rendered(text=text, html=text))

    assert types(message) == ("alternative", ["text/plain", "text/html"])
    for part in message.iter_parts():
        assert part.get_content().replace("\r\n", "\n") == text


@pytest.mark.parametrize(
    "octets", [0, 1, 2, 3, 56, 57, 58, 114, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 4 * BLOCK_SIZE, 300_000]
)
def test_a_file_of_any_size_arrives_whole(tmp_path: Path, octets: int) -> None:
    """Even if it ends with a line or a block."""
    path = tmp_path / "data.bin"
    path.write_bytes(content := bytes(index * 7 % 256 for index in range(octets)))
    message = rendered(attachments=[path, Attachment(content=content, name="same.bin")])

    assert [part.get_content() for part in read(message).iter_attachments()] == [content, content]
    assert max(map(len, message.split(b"\r\n"))) <= 78


def test_a_rendering_can_be_iterated_again() -> None:
    """A retry before the final dot sends the same octets."""
    rendering = render(mail(text="ü", attachments=[Attachment(content=b"x" * 500_000, name="x")]))
    first, second = list(rendering), list(rendering)

    assert first == second
    assert all(first)
    assert isinstance(iter(rendering), Iterator)
    assert repr(rendering) == f"<Rendering of {rendering.size} octets>"


def test_the_same_mail_renders_the_same() -> None:
    """The boundaries follow from the Message-ID."""
    fields = {"text": "a", "html": "b", "attachments": [Attachment(content=b"x", name="x")]}

    assert rendered(**fields) == rendered(**fields)
    assert rendered(**fields) != rendered(**fields, message_id="<2@corp.example>")


def test_a_mail_without_attachments_is_one_chunk() -> None:
    """One write for the whole message."""
    assert len(list(render(mail(text="a", html="b")))) == 1


@pytest.mark.parametrize("binary", [False, True])
def test_a_large_attachment_is_never_whole_in_memory(tmp_path: Path, binary: bool) -> None:
    """Twenty MiB need less than one of memory."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(20 * 1024 * 1024)

    def consume() -> int:
        return sum(map(len, rendering))

    tracemalloc.start()
    rendering: Rendering = render(mail(attachments=[path]), binary=binary)
    assert consume() == rendering.size
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024 * 1024


def test_only_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    """In any header or in the envelope."""
    plain = render(mail(to="Jörg <joerg@bücher.example>", subject="ü", text="ü"))
    assert not plain.needs_smtputf8
    assert b"".join(plain).isascii()

    for field in ("from_address", "to", "cc", "bcc", "reply_to"):
        assert render(mail(**{field: "jörg@corp.example"})).needs_smtputf8
    octets = rendered(to="Jörg M <jörg@bücher.example>", subject="ü", text="ü")
    assert "To: =?utf-8?q?J=C3=B6rg_M?= <jörg@xn--bcher-kva.example>\r\n".encode() in octets
    assert octets.replace("jörg".encode(), b"").isascii()


@pytest.mark.parametrize("octets", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 300_000])
def test_a_binary_file_goes_as_it_is(tmp_path: Path, octets: int) -> None:
    """RFC 3030 3: no encoding; every multipart around it is binary too (RFC 2045 6.4)."""
    path = tmp_path / "data.bin"
    path.write_bytes(content := bytes(index * 7 % 256 for index in range(octets)))
    image = Attachment(content=content, name="logo.png", content_id="logo")
    rendering = render(
        mail(text="über uns alle", html='<img src="cid:logo">', attachments=[path], inline_images=[image]),
        date=NOON,
        binary=True,
    )
    message = b"".join(rendering)
    assert rendering.binary and len(message) == rendering.size
    assert b"base64" not in message

    encodings = {part.get_content_type(): part["Content-Transfer-Encoding"] for part in read(message).walk()}
    assert encodings == {
        "multipart/mixed": "binary",
        "multipart/alternative": "binary",
        "text/plain": "quoted-printable",
        "multipart/related": "binary",
        "text/html": "7bit",
        "image/png": "binary",
        "application/octet-stream": "binary",
    }
    assert parts_between(message, message.partition(b'boundary="')[2].partition(b'"')[0])[1] == content


def parts_between(message: bytes, boundary: bytes) -> list[bytes]:
    """Split a multipart into the bodies of its parts, by RFC 2046 5.1.1 alone."""
    _, *parts, end = message.split(b"\r\n--" + boundary)
    assert end == b"--\r\n" and all(part.startswith(b"\r\n") for part in parts)
    return [part[2:].partition(b"\r\n\r\n")[2] for part in parts]


def test_only_what_holds_a_binary_file_is_called_binary() -> None:
    """The texts next to it are not."""
    fields = {"text": "a", "html": "b", "attachments": [Attachment(content=b"x", name="x")]}
    message = read(b"".join(render(mail(**fields), binary=True)))

    assert [part["Content-Transfer-Encoding"] for part in message.walk()] == ["binary", None, "7bit", "7bit", "binary"]


def test_a_mail_without_files_is_never_binary() -> None:
    """It is the same as without `binary`, and every server accepts it."""
    for fields in ({"text": "ü"}, {"text": "a", "html": "b"}):
        rendering = render(mail(**fields), date=NOON, binary=True)
        assert not rendering.binary
        assert b"".join(rendering) == rendered(**fields)
    assert not render(mail(attachments=[Attachment(content=b"x", name="x")])).binary


def test_the_boundary_around_a_binary_file_is_unpredictable() -> None:
    """A stable Message-ID is predictable, and a file that contains the boundary would end its own part."""

    def boundary(message_id: str = "<1@corp.example>", *, binary: bool = True) -> bytes:
        fields = {"attachments": [Attachment(content=b"x", name="x")], "message_id": message_id}
        return b"".join(render(mail(**fields), binary=binary)).partition(b'boundary="')[2].partition(b'"')[0]

    here = boundary()
    assert here == boundary() != boundary("<2@corp.example>")
    assert len(here) == len(b"=_smtpcm_" + b"_1") + 192 // 4 <= 70  # RFC 2046 5.1.1
    assert here[9:20] not in boundary(binary=False)
    module._boundary_key.cache_clear()  # as in another process
    assert boundary() != here


def test_the_pieces_show_where_a_line_can_begin_with_a_dot() -> None:
    """Base64 has no dots, so only the other octets must be searched."""
    file = Attachment(content=b"\n.\r\n." * 100_000, name="x")
    for binary in (False, True):
        rendering = render(mail(text=".\n", attachments=[file]), binary=binary)
        before, encoded, after = rendering.segments
        assert isinstance(before, bytes) and b"\r\n." in before and isinstance(after, bytes)
        assert isinstance(encoded, EncodedFile) and encoded.is_dot_free is not binary
        assert (b"\r\n." in b"".join(encoded)) is binary
        assert rendering.size == sum(map(len, rendering.segments)) == len(b"".join(rendering))
        assert max(map(len, rendering)) <= 128 * 1024
