"""Attachments: named and typed when they are made, opened when they are measured."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail import Attachment, files
from airflow_provider_smtpcm.mail.attachment import parse_attachments, parse_inline_images


class StoredObject:
    """A path in object storage, which opens itself and is not in the file system."""

    def __init__(
        self, octets: bytes, *, name: str = "report.csv", mode: int = 0, error: Exception | None = None
    ) -> None:
        self.octets, self.name, self.mode, self.error = octets, name, mode, error

    def stat(self) -> SimpleNamespace:
        if self.error:
            raise self.error
        return SimpleNamespace(st_size=len(self.octets), st_mode=self.mode)

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        return io.BytesIO(self.octets)

    def __str__(self) -> str:
        return f"s3://bucket/{self.name}"


def fault(make: Callable[[], object]) -> str:
    with pytest.raises(MessageError) as caught:
        make()
    assert caught.value.phase is Phase.MESSAGE
    assert caught.value.remedy
    return str(caught.value)


def test_a_missing_file_is_named_with_the_place_where_it_is_looked_for(tmp_path: Path) -> None:
    """Most missing files exist on another machine."""
    path = tmp_path / "nope.csv"
    message = fault(Attachment(path).size)

    assert str(path) in message and "No such file" in message and "on the worker" in message


@pytest.mark.parametrize("path", [r"\\files\loads\rows.csv", r"D:\loads\rows.csv", "d:/loads/rows.csv"])
def test_a_windows_path_is_shown_as_written_with_its_own_remedy(path: str) -> None:
    """The files of an SSIS package are often on a share, which the worker must mount."""
    message = fault(Attachment(path).size)

    assert f"The attachment '{path}' cannot be read" in message
    assert "a path on Windows" in message and "mount the share" in message
    assert "working directory" not in message


def test_on_windows_such_a_path_is_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be missing there, but mounting a share would not help."""
    monkeypatch.setattr(files, "_ON_WINDOWS", True)

    assert "mount" not in fault(Attachment(r"D:\loads\rows.csv").size)


def test_a_path_adds_no_line_to_the_log() -> None:
    """A value in a template may contain line breaks."""
    message = fault(Attachment("/nowhere/a\nb.csv", name="a.csv").size)

    assert r"'/nowhere/a\nb.csv'" in message


def test_a_relative_path_is_shown_with_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a worker is hard to guess."""
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path) in fault(Attachment("nope.csv").size)


def test_only_a_regular_file_can_be_sent(tmp_path: Path) -> None:
    """A directory has no content, and opening a FIFO would block until something writes to it."""
    fifo = tmp_path / "fifo.csv"
    os.mkfifo(fifo)

    assert "not a regular file" in fault(Attachment(tmp_path).size)
    assert "not a regular file" in fault(Attachment(str(fifo)).size)
    assert "not a regular file" in fault(Attachment(StoredObject(b"", mode=0o040000)).size)


def test_a_file_that_may_not_be_read_is_found_out_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring a file needs no permission to read it, but sending does."""
    path = tmp_path / "secret.csv"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("io.FileIO", refuse)
    assert "Permission denied" in fault(Attachment(path).size)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [(FileNotFoundError("gone"), False), (ConnectionError("reset"), True), (KeyError("x"), True)],
)
def test_whatever_a_store_raises_becomes_our_error(error: Exception, *, retryable: bool) -> None:
    """Every storage has its own exceptions. A missing file is not retried."""
    with pytest.raises(MessageError, match=r"s3://bucket/report\.csv") as caught:
        Attachment(StoredObject(b"", error=error)).size()
    assert caught.value.retryable is retryable


@pytest.mark.parametrize(
    "make",
    [
        Attachment,
        lambda: Attachment("a.csv", content=b"x"),
        lambda: Attachment(content=b"x"),
        lambda: Attachment(content="text", name="a.txt"),  # type: ignore[arg-type]
        lambda: Attachment(7),  # type: ignore[arg-type]
        lambda: Attachment(b"a.csv"),  # type: ignore[arg-type]
        lambda: Attachment("/"),
        lambda: Attachment(""),
        lambda: Attachment("a.csv", name=7),  # type: ignore[arg-type]
        lambda: Attachment("a.csv", name="x" * 1001),
        lambda: Attachment("a.csv", name="  "),
    ],
)
def test_an_attachment_is_a_path_or_a_named_content(make: Callable[[], object]) -> None:
    """Both, neither and other types are refused."""
    fault(make)


@pytest.mark.parametrize("value", [None, True, 1.5, ["a.csv"]])
def test_a_value_that_is_no_file_is_refused_whatever_name_it_has(value: Any) -> None:
    """In a list, in a mapping, and in an `Attachment`."""
    with pytest.raises(MessageError, match=r"neither a path nor content|is not text but") as caught:
        parse_attachments({"rows.csv": value})
    assert fault(lambda: Attachment(value, name="rows.csv")) in str(caught.value)
    assert fault(lambda: parse_attachments([value])) == str(caught.value)


def test_a_number_is_no_file_descriptor(tmp_path: Path) -> None:
    """A task that returns how many rows it has written must not make a mail read, and close, an open file."""
    with (tmp_path / "open.csv").open("w+b") as file:
        with pytest.raises(MessageError, match="The path of an attachment is not text but int"):
            parse_attachments({"rows.csv": file.fileno()})  # type: ignore[dict-item]
        assert os.fstat(file.fileno()).st_size == 0


@pytest.mark.parametrize("character", ["\r\n", "\0", "\x85", "\u2028", "\udc80"])
def test_a_control_character_in_a_name_is_refused(character: str) -> None:
    """Even if the name comes from the path."""
    said = "lone surrogate U+DC80" if character == "\udc80" else "control character"
    assert said in fault(lambda: Attachment("a.csv", name=f"a{character}Bcc: eve@x.example"))
    assert "name=" in fault(lambda: Attachment(f"/srv/a{character}.csv"))


@pytest.mark.parametrize(
    "content_type",
    [
        "csv",
        "text/",
        "/csv",
        "text/csv\r\nBcc: x",
        "text/csv; ",
        "text/csv; a",
        "täxt/csv",
        'text/csv; a="ü"',
        "text/" + "x" * 200,
        7,
    ],
)
def test_a_content_type_that_is_none_is_refused(content_type: str) -> None:
    """It is written into the message as it is."""
    assert "content type" in fault(lambda: Attachment("a.csv", content_type=content_type))


@pytest.mark.parametrize("content_id", ["", "a b", "a>b", "<>", "a\r\nb", "ü", "a@b@c", "x" * 251, 7, 'a"b'])
def test_a_content_id_that_is_none_is_refused(content_id: str) -> None:
    """It is written into the message as it is."""
    assert "content id" in fault(lambda: Attachment("a.png", content_id=content_id))


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("report.pdf", "application/pdf"),
        ("Bild.PNG", "image/png"),
        ("page.html", "text/html"),
        ("dump.tar.gz", "application/gzip"),
        ("dump.csv.gz", "application/gzip"),
        ("dump.csv.bz2", "application/x-bzip2"),
        ("dump.csv.xz", "application/x-xz"),
        ("dump.csv.Z", "application/octet-stream"),
        ("mail.eml", "message/rfc822"),
        ("Mail.EML", "message/rfc822"),
        ("mail.eml.gz", "application/gzip"),
        ("page.mht", "application/octet-stream"),
        ("unknown", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
        ("report:2024.pdf", "application/pdf"),
    ],
)
def test_the_type_is_guessed_from_the_name(name: str, content_type: str) -> None:
    """A web archive is registered as a message, but is none: it is sent as application/octet-stream."""
    assert Attachment(content=b"", name=name).content_type == content_type


def test_a_type_that_is_given_is_kept_unless_it_must_not_be_encoded() -> None:
    """RFC 2045 6.4; whether a mail needs an encoding is seen when it is measured."""
    assert Attachment("a", content_type="text/csv; charset=utf-8").content_type == "text/csv; charset=utf-8"
    assert Attachment("a", content_type="Message/RFC822; x=y").content_type == "message/rfc822"
    assert Attachment("a", content_type="message/delivery-status").content_type == "application/octet-stream"
    assert Attachment("a", content_type="multipart/mixed; boundary=x").content_type == "application/octet-stream"


def test_the_name_is_the_last_component_of_the_path() -> None:
    """Unless another one is given."""
    assert Attachment("/srv/reports/März.csv").name == "März.csv"
    assert Attachment(Path("reports") / "a.csv").name == "a.csv"
    assert Attachment(StoredObject(b"", name="b.csv")).name == "b.csv"
    assert Attachment("/srv/a.csv", name="b.csv").name == "b.csv"


def test_every_kind_of_path_is_measured_and_opened(tmp_path: Path) -> None:
    """Text, paths, path-like objects, paths that open themselves, and bytes."""

    class PathLike:
        def __fspath__(self) -> str:
            return str(path)

    path = tmp_path / "a.csv"
    path.write_bytes(b"a;b")
    for attachment in (
        Attachment(path),
        Attachment(str(path)),
        Attachment(PathLike()),
        Attachment(StoredObject(b"a;b")),
        Attachment(content=b"a;b", name="a.csv"),
        Attachment(content=memoryview(b"a;b"), name="a.csv"),  # type: ignore[arg-type]
    ):
        assert attachment.size() == 3
        reader = attachment.open()
        assert reader.read(100) == b"a;b"
        reader.close()


def test_only_a_path_that_opens_itself_is_remote() -> None:
    """In some versions, Airflow's are subclasses of `pathlib.Path` too."""

    class LikeAPath(type(Path())):  # type: ignore[misc]
        """A subclass of `pathlib`, as in older versions of universal_pathlib."""

    assert Attachment(StoredObject(b"")).is_remote
    assert Attachment(LikeAPath("a.csv")).is_remote
    for local in (Attachment("a.csv"), Attachment(Path("a.csv")), Attachment(content=b"x", name="a.csv")):
        assert not local.is_remote


def test_octets_are_not_shown() -> None:
    """The content of a file must not appear in a log."""
    assert "secret" not in repr(Attachment(content=b"secret", name="a.csv"))


def test_an_attachment_travels_between_processes() -> None:
    """Airflow pickles what it maps over."""
    attachment = Attachment(content=b"x", name="a.csv", content_id="a")

    assert pickle.loads(pickle.dumps(attachment)) == attachment  # noqa: S301


def test_a_list_of_attachments_is_a_list_or_one_string() -> None:
    """With `|` between, as in SSIS; or a single path."""
    for value in (7, b"a.csv", [b"a.csv"], [7], "['a.csv', 'b.csv']"):
        assert "Attachments" in fault(lambda value=value: parse_attachments(value))  # type: ignore[misc]

    def names(value: object) -> list[str]:
        return [attachment.name for attachment in parse_attachments(value)]  # type: ignore[arg-type]

    assert names(None) == names("") == names(" | ") == names([]) == []
    assert names("/srv/a.csv | b c.csv||") == ["a.csv", "b c.csv"]
    assert names(["/srv/a.csv", Path("b.csv"), Attachment("c.csv")]) == ["a.csv", "b.csv", "c.csv"]
    assert names(Path("a.csv")) == names(Attachment("a.csv")) == names(StoredObject(b"", name="a.csv")) == ["a.csv"]


def test_inline_images_have_the_content_id_that_is_nearest() -> None:
    """The key of a mapping, their own, or their file name."""
    assert "content id" in fault(lambda: parse_inline_images(["my logo.png"]))

    def ids(value: object) -> list[str | None]:
        return [image.content_id for image in parse_inline_images(value)]  # type: ignore[arg-type]

    assert ids({"logo": "a.png", "<x@corp.example>": Attachment("b.png", content_id="other")}) == [
        "logo",
        "x@corp.example",
    ]
    assert ids([Attachment("a.png", content_id="logo"), "b.png", Path("c.png")]) == ["logo", "b.png", "c.png"]
    assert ids("a.png|b.png") == ["a.png", "b.png"]
    assert ids(None) == ids({}) == []
