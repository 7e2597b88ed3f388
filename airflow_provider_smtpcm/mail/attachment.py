"""Attachments and inline images: the path or content of a file, its name, media type and Content-ID."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Protocol, cast

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail.files import (
    BinaryReader,
    FilePattern,
    FileState,
    RemotePath,
    file_remedy,
    is_local_path,
    is_windows_path,
    make_read_error,
    quote_path,
)
from airflow_provider_smtpcm.mail.tainted import TaintedStr, check_path, find_forbidden_character, short_repr

_TYPE_NAME = r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+"  # RFC 2045 5.1
_CONTENT_TYPE = rf'({_TYPE_NAME})/{_TYPE_NAME}(?: *; *{_TYPE_NAME}=(?:{_TYPE_NAME}|"[ !#-\[\]-~]*"))*'
_MAX_CONTENT_TYPE_OCTETS = 200
# In `Content-ID: <...>` and, percent-encoded, after `cid:` (RFC 2392). A subset of what RFC 5322 3.6.4 allows.
_CONTENT_ID = r"[A-Za-z0-9!#$%&'*+\-./=?^_`{|}~]+(?:@[A-Za-z0-9!#$%&'*+\-./=?^_`{|}~]+)?"
_MAX_CONTENT_ID_OCTETS = 250
_MAX_FILE_NAME_OCTETS = 1000
_COMPRESSED_TYPES = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
#: The media type of files of an unknown type.
OCTET_STREAM = "application/octet-stream"
#: The media type of a mail as a file.
MESSAGE_TYPE = "message/rfc822"
_UNENCODED_TYPES = ("message", "multipart")  # RFC 2045 6.4: neither quoted-printable nor base64
_USAGE_REMEDY = "Pass a path, or Attachment(content=b'...', name='report.csv')."
_NAME_REMEDY = "Pass Attachment(content, name='report.csv'), or attachments={'report.csv': content}."

# What others put between paths: `a.csv;b.csv`, `/a.csv,/b.csv`, `a.csv, b.csv`.
_WRONG_SEPARATOR = r";|,\s*/|,\s+\S"


class BinaryFile(Protocol):
    """An open file, such as a `BytesIO` or the result of `open(path, "rb")`."""

    def read(self) -> bytes: ...


#: The content of a file in memory: octets, or an open file, which is read at once, from its current position, and then
#: returned to it.
ContentLike = bytes | bytearray | memoryview | BinaryFile


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attachment(Record):
    """A file to attach to a mail, given by either `path` or `content`.

    Args:
        path: a path on the worker, or an object with `open("rb")` and `stat().st_size` such as an ObjectStoragePath. A
            content is accepted here too.
        content: the content as bytes, or a file that is open in binary mode, such as a `BytesIO`. It is read at once.
        name: the file name that the recipient sees; default: the last component of the path.
        content_type: the media type; default: guessed from the name. An unknown type is sent as
            application/octet-stream, and so are `multipart/*` and `message/*`, which do not allow base64
            (RFC 2045 6.4). `message/rfc822` (.eml) is sent as such if it is ASCII with lines of at most 998 octets,
            so that it needs no encoding. A `text/*` without a charset gets that of the file, if its octets tell it.
        content_id: the id by which the HTML body refers to it: `<img src="cid:...">`.

    Raises:
        MessageError: an argument is missing or invalid. The file itself is checked only when the mail is rendered.
    """

    path: str | os.PathLike[str] | RemotePath | ContentLike | None = None
    _: KW_ONLY
    content: ContentLike | None = field(default=None, repr=False)
    name: str = ""
    content_type: str = ""
    content_id: str | None = None

    def __post_init__(self) -> None:
        if self.content is None and is_content(self.path):
            object.__setattr__(self, "content", self.path)
            object.__setattr__(self, "path", None)
        if self.path is not None and self.content is not None:
            raise MessageError("An attachment needs either a path or content, not both.", remedy=_USAGE_REMEDY)
        if self.content is None:
            _check_path_type(self.path)
            name = _parse_name(self.name or _find_file_name(self.path))
        else:
            file_name = self.name or _find_name_of_open_file(self.content)
            content = _read_content(self.content)
            if not file_name:
                raise MessageError("An attachment with content needs a name.", remedy=_NAME_REMEDY)
            name = _parse_name(file_name)
            object.__setattr__(self, "content", content)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "content_type", _parse_content_type(self.content_type, name))
        if self.content_id is not None:
            object.__setattr__(self, "content_id", _parse_content_id(self.content_id))

    @property
    def octets(self) -> bytes | None:
        """The content, if it has no path."""
        return cast("bytes | None", self.content)

    @property
    def is_remote(self) -> bool:
        """Whether it is read through its path's own `open` (`RemotePath`), which may take a long time."""
        return self.path is not None and not is_local_path(self.path)

    @property
    def is_empty(self) -> bool:
        """Whether it has no octets now. False for a remote file, whose size would cost a request."""
        if self.content is not None:
            return not self.content
        path: Any = self.path
        try:
            return not self.is_remote and os.stat(path).st_size == 0  # noqa: PTH116 - as in `state`
        except (OSError, ValueError):
            return False

    @property
    def is_message(self) -> bool:
        """Whether it is a mail (`message/rfc822`)."""
        return self.content_type == MESSAGE_TYPE

    def size(self) -> int:
        """Return the current size in octets; raises as `state`."""
        return self.state().size

    def state(self, reader: BinaryReader | None = None) -> FileState:
        """Return the current size and version.

        Args:
            reader: the result of `open`. For a file on the worker, the state is that of the open file, even if its path
                now names another file. In object storage it is always that of the path.

        Raises:
            MessageError: the file is missing, not readable, or not a regular file.
        """
        if self.content is not None:
            return FileState(len(self.octets or b""), None, 0, 0, None)
        path: Any = self.path
        local = is_local_path(path)
        if local and reader is not None:
            return FileState.from_stat(os.fstat(reader.fileno()))
        try:
            status = os.stat(path) if local else path.stat()  # noqa: PTH116  (Path.stat takes twice as long)
            mode = getattr(status, "st_mode", 0)
            # Object storage may report no mode (0). Opening a FIFO would block until another process writes to it.
            if mode and not stat.S_ISREG(mode):
                raise MessageError(f"{self.describe()} is not a regular file.", remedy=file_remedy(str(path)))
            if local:
                self.open().close()  # reports a missing permission before a server is contacted
            return FileState.from_stat(status)
        except MessageError:
            raise
        except Exception as error:  # an object storage library may raise any class
            raise self.make_read_error(error) from error

    def open(self) -> BinaryReader:
        """Open the file for reading in blocks. The caller must close the reader.

        Raises:
            MessageError: the file is missing or not readable.
        """
        if self.content is not None:
            return io.BytesIO(self.octets or b"")
        path: Any = self.path
        try:
            # Unbuffered, since a buffer would copy every block once more.
            reader: BinaryReader = io.FileIO(path) if is_local_path(path) else path.open("rb")
        except Exception as error:  # as in `state`
            raise self.make_read_error(error) from error
        return reader

    def make_read_error(self, error: Exception, *, phase: Phase = Phase.MESSAGE) -> MessageError:
        """Make a `MessageError` from an error of stat, open or read, retryable if it may be temporary.

        Args:
            error: the error.
            phase: the phase in which it occurred.
        """
        path, remedy = str(self.path or ""), ""
        if isinstance(error, FileNotFoundError) and re.search(_WRONG_SEPARATOR, path):
            remedy = "If these are several files, put '|' between their paths, or pass a list."
        elif isinstance(self.path, str) and "://" in path:
            remedy = "Pass ObjectStoragePath(url): a URL as text is opened only where it is written in the DAG file."
        return make_read_error(self.describe(), path, error, remedy=remedy, phase=phase)

    def describe(self) -> str:
        """Describe it in an error message: by its path, or by its name if it has no path."""
        path = self.path
        if path is None:
            return f"The attachment {short_repr(self.name)}"
        text = str(path)
        relative = isinstance(path, str | os.PathLike) and not Path(text).is_absolute() and not is_windows_path(text)
        where = f" (from the working directory '{Path.cwd()}')" if relative else ""
        return f"The attachment {quote_path(text)}{where}"


#: One file: a path on the worker, a `RemotePath`, an attachment, or an open file; or those that match a pattern.
AttachmentLike = str | os.PathLike[str] | RemotePath | Attachment | FilePattern | BinaryFile
#: Any number of files: a string separated by `|`, a collection, or a mapping of file names to files or contents.
AttachmentsLike = AttachmentLike | Iterable[AttachmentLike] | Mapping[str, AttachmentLike | bytes]
#: Images for the HTML body: a mapping of content id to file, or files.
InlineImagesLike = Mapping[str, AttachmentLike] | AttachmentsLike


def parse_attachments(value: AttachmentsLike | None) -> tuple[Attachment, ...]:
    """Parse attachments: a string of paths separated by `|` (as in SSIS), a list, or a mapping of names to files.

    A `TaintedStr` is split only at each `|` that the author wrote, and no value in it may leave the author's folder.

    Raises:
        MessageError: an item is not a path or an attachment.
    """
    if isinstance(value, Mapping):
        return tuple([_parse_attachment(item, "Attachments", name=name) for name, item in value.items()])
    return _parse_items(value, "Attachments")


def parse_inline_images(value: InlineImagesLike | None) -> tuple[Attachment, ...]:
    """Parse inline images. The content id is the key of a mapping, else the attachment's own, else its file name.

    Raises:
        MessageError: an item is not a path or an attachment, or a content id is invalid.
    """
    if isinstance(value, tuple) and not value:
        return ()
    if isinstance(value, Mapping):
        return tuple(replace(_parse_attachment(item, "Inline images"), content_id=key) for key, item in value.items())
    images = _parse_items(value, "Inline images")
    return tuple(image if image.content_id else replace(image, content_id=image.name) for image in images)


def _parse_content_id(value: object) -> str:
    """Return a content id, without the angle brackets around it if it has them."""
    text = value[1:-1] if isinstance(value, str) and value[:1] == "<" and value[-1:] == ">" else value
    if not isinstance(text, str) or not re.fullmatch(_CONTENT_ID, text) or len(text) > _MAX_CONTENT_ID_OCTETS:
        raise MessageError(
            f"{short_repr(value)} cannot be the content id of an image.",
            remedy="Choose a short one from ASCII letters, digits, '.', '-' and '_': inline_images={'logo': path}.",
        )
    return text


def _parse_items(value: Any, field: str) -> tuple[Attachment, ...]:
    attachments: list[Attachment] = []
    for item in _split_items(value, field):
        if isinstance(item, FilePattern):
            attachments += map(Attachment, item.find())
        else:
            attachments.append(_parse_attachment(item, field))
    return tuple(attachments)


def _split_items(value: Any, field: str) -> Iterable[Any]:
    if value is None:
        return ()
    if isinstance(value, tuple | list):  # first, since the check for a path is slow
        return value
    if isinstance(value, TaintedStr):
        return value.split_untainted("|")
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            raise MessageError(
                f"{field}: {short_repr(value)} is a list that was turned into text.",
                remedy="Pass the list as the whole field, or join the paths with '|'.",
            )
        return [path for part in value.split("|") if (path := part.strip())]
    if isinstance(value, Attachment | FilePattern | os.PathLike | RemotePath) or is_content(value):
        return (value,)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise MessageError(
            f"{field}: expected a list of paths, or one string of paths separated by '|', not {type(value).__name__}.",
            remedy=_USAGE_REMEDY,
        )
    return value


def _parse_attachment(value: Any, field: str, *, name: str = "") -> Attachment:
    if isinstance(value, FilePattern):
        found = value.find()
        if len(found) != 1:
            raise MessageError(
                f"{field}: {quote_path(str(value))} matches {len(found)} files, and a mapping names one.",
                remedy="Pass the pattern in a list, or narrow it.",
            )
        value = found[0]
    if isinstance(value, Attachment):
        return replace(value, name=name) if name else value
    value = check_path(value, field)
    try:
        return Attachment(value, name=name)
    except MessageError as error:
        raise MessageError(f"{field}: {error.message}", remedy=error.remedy) from error


def is_content(value: object) -> bool:
    """Whether a value is the content of a file (`ContentLike`), not its path."""
    if value is None or isinstance(value, str | os.PathLike | RemotePath | Attachment):
        return False
    return isinstance(value, bytes | bytearray | memoryview) or callable(getattr(value, "read", None))


def _find_name_of_open_file(content: object) -> str:
    name = getattr(content, "name", None)  # of a file without a path, a number
    return PurePath(name).name if isinstance(name, str) else ""


def _read_content(content: Any) -> bytes:
    if hasattr(content, "read"):
        try:
            content = _read_and_rewind(content)
        except (OSError, ValueError) as error:
            raise MessageError(
                f"The content of an attachment cannot be read: {error}.", remedy="Pass the path of the file."
            ) from error
        if isinstance(content, str):
            raise MessageError(
                "The file of an attachment is open as text.", remedy="Open it in binary mode: open(path, 'rb')."
            )
    if not isinstance(content, bytes | bytearray | memoryview):
        raise MessageError(
            f"The content of an attachment must be bytes, not {type(content).__name__}.",
            remedy="Encode text first: text.encode().",
        )
    return bytes(content)


def _read_and_rewind(file: Any) -> Any:
    """Read an open file, and return to where it was, since it may be in several mails, or in a preview before."""
    if not (hasattr(file, "seekable") and file.seekable()):
        return file.read()
    position = file.tell()
    content = file.read()
    file.seek(position)
    return content


def _check_path_type(path: object) -> None:
    """Check that a path is one, since `stat` and `open` take a number for a file descriptor, and close it."""
    if path is None:
        raise MessageError("An attachment has neither a path nor content.", remedy=_USAGE_REMEDY)
    if not isinstance(path, str | os.PathLike) and not isinstance(path, RemotePath):
        raise MessageError(f"The path of an attachment is not text but {type(path).__name__}.", remedy=_USAGE_REMEDY)


def _find_file_name(path: Any) -> str:
    name = getattr(path, "name", None)
    if not isinstance(name, str):
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else str(path)
        if not isinstance(text, str):
            raise MessageError(
                f"The path {short_repr(text)} is bytes, not text.", remedy="Decode it: os.fsdecode(path)."
            )
        name = PurePath(text).name
    if not name:
        raise MessageError(f"{short_repr(str(path))} is not the path of a file.", remedy=_USAGE_REMEDY)
    return name


def _parse_name(name: object) -> str:
    if not isinstance(name, str):
        raise MessageError(f"The name of an attachment must be text, not {type(name).__name__}.", remedy=_USAGE_REMEDY)
    if character := find_forbidden_character(name):
        raise MessageError(
            f"The name of the attachment {short_repr(name)} contains {character}.",
            remedy="Give it another one: Attachment(path, name='report.csv').",
        )
    name = name.strip()  # mail clients drop the whitespace around it, even no-break spaces
    if not name or len(name.encode()) > _MAX_FILE_NAME_OCTETS:
        problem = "is too long" if name else "is blank"
        raise MessageError(f"The name of the attachment {short_repr(name)} {problem}.", remedy="Give it another name.")
    return name


def _parse_content_type(content_type: object, name: str) -> str:
    if not content_type:
        return _guess_content_type(name)
    match = re.fullmatch(_CONTENT_TYPE, content_type) if isinstance(content_type, str) else None
    if not match or len(match[0]) > _MAX_CONTENT_TYPE_OCTETS:
        raise MessageError(
            f"{short_repr(content_type)}, the content type of the attachment {short_repr(name)}, is not a media type.",
            remedy="Write it as 'text/csv' or 'text/csv; charset=utf-8', or leave it out: it is guessed from the name.",
        )
    if match[1].lower() not in _UNENCODED_TYPES:
        return match[0]
    return MESSAGE_TYPE if match[0].partition(";")[0].rstrip().lower() == MESSAGE_TYPE else OCTET_STREAM


def _guess_content_type(name: str) -> str:
    # The same type is registered for web archives (.mht), which are opened by a browser.
    if name[-4:].lower() == ".eml":
        return MESSAGE_TYPE
    import mimetypes

    # With the prefix, a name such as "data:text/html,x" is not parsed as a URL that contains its own type.
    guessed, encoding = mimetypes.guess_type(f"./{name}")
    if encoding:
        return _COMPRESSED_TYPES.get(encoding, OCTET_STREAM)
    match = re.fullmatch(_CONTENT_TYPE, guessed or "")
    return OCTET_STREAM if not match or match[1].lower() in _UNENCODED_TYPES else match[0]
