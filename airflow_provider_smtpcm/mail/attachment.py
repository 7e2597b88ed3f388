"""Attachments and inline images: the path or content of a file, its name, media type and Content-ID.

The last part is used for every file on the worker that a task reads: it detects that a file changes while it is read,
and quotes its path in error messages.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.frozen_dataclasses import Record
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
# Errors that a retry would not cure. Any other error of reading a file (a network, a busy share) may be temporary.
_PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_USAGE_REMEDY = "Pass a path, or Attachment(content=b'...', name='report.csv')."

#: The remedy for a file that changes while it is read.
FILE_CHANGED_REMEDY = (
    "Send it after the program that writes it has finished: let that program write to another name and rename the file "
    "at the end."
)

# `\\server\share`, `D:\folder` or `D:/folder`. Not `//server/share`, which is also a POSIX path.
_WINDOWS_PATH = r"\\\\|[A-Za-z]:[\\/]"
_ON_WINDOWS = os.name == "nt"
_CHECK_ON_WORKER = "The file must be on the worker that runs the task: check the path and its permissions there."
_MOUNT_SHARE = (
    "That is a path on Windows, and this worker does not run Windows: mount the share or copy the file there, and "
    "give its path on the worker, such as /mnt/loads/rows.csv."
)


class BinaryReader(Protocol):
    """The methods of an open file that reading an attachment needs."""

    def read(self, size: int, /) -> bytes: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


@runtime_checkable
class RemotePath(Protocol):
    """A path object with its own `open` and `stat`, such as Airflow's ObjectStoragePath."""

    def open(self, mode: str, /) -> Any: ...

    def stat(self) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attachment(Record):
    """A file to attach to a mail, given by either `path` or `content`.

    Args:
        path: a path on the worker, or an object with `open("rb")` and `stat().st_size` such as an ObjectStoragePath.
        content: the content as bytes.
        name: the file name that the recipient sees; default: the last component of the path.
        content_type: the media type; default: guessed from the name. An unknown type is sent as
            application/octet-stream, and so are `multipart/*` and `message/*`, which do not allow base64
            (RFC 2045 6.4). `message/rfc822` (.eml) is sent as such if it is ASCII with lines of at most 998 octets,
            so that it needs no encoding. A `text/*` without a charset gets that of the file, if its octets tell it.
        content_id: the id by which the HTML body refers to it: `<img src="cid:...">`.

    Raises:
        MessageError: an argument is missing or invalid. The file itself is checked only when the mail is rendered.
    """

    path: str | os.PathLike[str] | RemotePath | None = None
    _: KW_ONLY
    content: bytes | None = field(default=None, repr=False)
    name: str = ""
    content_type: str = ""
    content_id: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.content is None):
            raise MessageError("An attachment needs either a path or content, not both.", remedy=_USAGE_REMEDY)
        if self.content is None:
            name = _parse_name(self.name or _find_file_name(self.path))
        elif not isinstance(self.content, bytes | bytearray | memoryview):
            raise MessageError(
                f"The content of an attachment must be bytes, not {type(self.content).__name__}.",
                remedy="Encode text first: text.encode().",
            )
        elif not self.name:
            raise MessageError("An attachment with content needs a name.", remedy=_USAGE_REMEDY)
        else:
            name = _parse_name(self.name)
            object.__setattr__(self, "content", bytes(self.content))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "content_type", _parse_content_type(self.content_type, name))
        if self.content_id is not None:
            object.__setattr__(self, "content_id", _parse_content_id(self.content_id))

    @property
    def is_remote(self) -> bool:
        """Whether it is read through its path's own `open` (`RemotePath`), which may take a long time."""
        return self.path is not None and not _is_local(self.path)

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
            return FileState(len(self.content), None, 0, 0, None)
        path: Any = self.path
        local = _is_local(path)
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
            return io.BytesIO(self.content)
        path: Any = self.path
        try:
            # Unbuffered, since a buffer would copy every block once more.
            reader: BinaryReader = io.FileIO(path) if _is_local(path) else path.open("rb")
        except Exception as error:  # as in `state`
            raise self.make_read_error(error) from error
        return reader

    def make_read_error(self, error: Exception, *, phase: Phase = Phase.MESSAGE) -> MessageError:
        """Make a `MessageError` from an error of stat, open or read, retryable if it may be temporary.

        Args:
            error: the error.
            phase: the phase in which it occurred.
        """
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return MessageError(
            f"{self.describe()} cannot be read: {reason}.",
            remedy=file_remedy(str(self.path or "")),
            phase=phase,
            retryable=not isinstance(error, _PERMANENT_ERRORS),
        )

    def describe(self) -> str:
        """Describe it in an error message: by its path, or by its name if it has no path."""
        path = self.path
        if path is None:
            return f"The attachment {short_repr(self.name)}"
        text = str(path)
        relative = isinstance(path, str | os.PathLike) and not Path(text).is_absolute() and not is_windows_path(text)
        where = f" (from the working directory '{Path.cwd()}')" if relative else ""
        return f"The attachment {quote_path(text)}{where}"


#: One file: a path on the worker, a `RemotePath`, or an attachment.
AttachmentLike = str | os.PathLike[str] | RemotePath | Attachment
#: Any number of files: a string separated by `|`, or a collection.
AttachmentsLike = AttachmentLike | Iterable[AttachmentLike]
#: Images for the HTML body: a mapping of content id to file, or files.
InlineImagesLike = Mapping[str, AttachmentLike] | AttachmentsLike


def parse_attachments(value: AttachmentsLike | None) -> tuple[Attachment, ...]:
    """Parse attachments: a string of paths separated by `|` (as in SSIS), or a list of paths and attachments.

    A `TaintedStr` is split only at each `|` that the author wrote, and no value in it may leave the author's folder.

    Raises:
        MessageError: an item is not a path or an attachment.
    """
    return tuple([_parse_attachment(item, "Attachments") for item in _split_items(value, "Attachments")])


def parse_inline_images(value: InlineImagesLike | None) -> tuple[Attachment, ...]:
    """Parse inline images. The content id is the key of a mapping, else the attachment's own, else its file name.

    Raises:
        MessageError: an item is not a path or an attachment, or a content id is invalid.
    """
    if isinstance(value, tuple) and not value:
        return ()
    if isinstance(value, Mapping):
        return tuple(replace(_parse_attachment(item, "Inline images"), content_id=key) for key, item in value.items())
    images = (_parse_attachment(item, "Inline images") for item in _split_items(value, "Inline images"))
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
                remedy="Pass a list and give the DAG render_template_as_native_obj=True, or join the paths with '|'.",
            )
        return [path for part in value.split("|") if (path := part.strip())]
    if isinstance(value, Attachment | os.PathLike | RemotePath):
        return (value,)
    if isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise MessageError(
            f"{field}: expected a list of paths, or one string of paths separated by '|', not {type(value).__name__}.",
            remedy=_USAGE_REMEDY,
        )
    return value


def _parse_attachment(value: Any, field: str) -> Attachment:
    if isinstance(value, Attachment):
        return value
    value = check_path(value, field)
    try:
        return Attachment(value)
    except MessageError as error:
        raise MessageError(f"{field}: {error.message}", remedy=error.remedy) from error


def _is_local(path: object) -> bool:
    """Whether a path names a local file. Even a `pathlib.Path` may be remote: see `is_pathlib_path`."""
    if isinstance(path, PurePath):
        return is_pathlib_path(path)
    return isinstance(path, str) or not isinstance(path, RemotePath)


def _find_file_name(path: Any) -> str:
    if not isinstance(path, str | os.PathLike) and not isinstance(path, RemotePath):
        raise MessageError(f"The path of an attachment is not text but {type(path).__name__}.", remedy=_USAGE_REMEDY)
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


# --- Files on the worker: whether they change while they are read, and their paths in error messages.


class FileState(NamedTuple):
    """The size and version of a file. Equal states mean equal content, as far as the file system can tell.

    The ctime is not part of it: hard-linking the file (a backup) or unlinking it while it is read changes the ctime,
    but not the content.

    Args:
        size: the size in octets.
        modified: the mtime, in nanoseconds if the file system reports them, else in seconds; None if it reports none.
        inode, device: identify the file; 0 in object storage.
        tag: the ETag in object storage; None if there is none.
    """

    size: int
    modified: float | None
    inode: int
    device: int
    tag: str | None

    @classmethod
    def from_stat(cls, status: Any) -> Self:
        """Make a state from the result of `stat` or `fstat`, or from an object storage's counterpart of it.

        Args:
            status: must have `st_size`; everything else is optional.
        """
        tag = status.get("ETag", status.get("etag")) if isinstance(status, Mapping) else None
        modified = getattr(status, "st_mtime_ns", None) or getattr(status, "st_mtime", None)
        return cls(
            int(status.st_size), modified, getattr(status, "st_ino", 0), getattr(status, "st_dev", 0), tag and str(tag)
        )


class FileChangedError(OSError):
    """The file was modified while it was read."""

    def __init__(self) -> None:
        super().__init__("it was written to while it was read")


class UnchangedFile(io.FileIO):
    """A local file, open for reading, that raises instead of returning content written after it was opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._state = FileState.from_stat(os.fstat(self.fileno()))

    def readinto(self, buffer: Any, /) -> int | None:
        """Read as `io.RawIOBase.readinto` does.

        Raises:
            FileChangedError: the file was modified after it was opened.
        """
        octets = super().readinto(buffer)
        self._check()
        return octets

    def readall(self) -> bytes:
        """Read as `io.RawIOBase.readall` does; raises as `readinto`."""
        octets = super().readall()
        self._check()
        return octets

    def _check(self) -> None:
        if FileState.from_stat(os.fstat(self.fileno())) != self._state:
            raise FileChangedError


def is_pathlib_path(path: object) -> bool:
    """Whether a path is of one of `pathlib`'s own types, and so names a local file.

    A path of a subclass may be remote: `ObjectStoragePath` is a subclass in some versions of Airflow.
    """
    return type(path).__module__.partition(".")[0] == "pathlib"


def is_windows_path(path: str) -> bool:
    """Whether a path is a Windows path, and this machine does not run Windows."""
    return not _ON_WINDOWS and re.match(_WINDOWS_PATH, path.strip()) is not None


def quote_path(path: str) -> str:
    """Quote a path for a message: backslashes are not doubled, and control characters are escaped."""
    return f"'{path}'" if path.isprintable() else repr(path)


def file_remedy(path: str, *, default: str = _CHECK_ON_WORKER) -> str:
    """Return the remedy for a missing or unreadable file.

    Args:
        path: the path as the user wrote it.
        default: the remedy for a path that is not a Windows path.
    """
    return _MOUNT_SHARE if is_windows_path(path) else default
