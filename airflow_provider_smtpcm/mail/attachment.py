"""Files and images that a mail carries: where they are and what they are called. Reads nothing until it is asked to."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail.tainted import TaintedStr, checked_path, forbidden_character, shown
from airflow_provider_smtpcm.mail.worker_files import (
    FileState,
    as_written,
    file_remedy,
    is_plain,
    means_windows,
    state_of,
)

_NAME = r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+"  # RFC 2045 5.1
_CONTENT_TYPE = re.compile(rf'({_NAME})/{_NAME}(?: *; *{_NAME}=(?:{_NAME}|"[ !#-\[\]-~]*"))*')
_CONTENT_TYPE_OCTETS = 200
#: What may stand in `Content-ID: <...>` and, percent-encoded, behind `cid:` (RFC 2392); far less than RFC 5322 allows.
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+\-./=?^_`{|}~]+(?:@[A-Za-z0-9!#$%&'*+\-./=?^_`{|}~]+)?")
_CONTENT_ID_OCTETS = 250
_FILE_NAME_OCTETS = 1000
_ENCODED_FILES = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_ANY_TYPE = "application/octet-stream"
# A later try meets these again; anything else that reading a file raises (a network, a busy share) may pass.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_REMEDY = "Pass a path, or Attachment(content=b'...', name='report.csv')."


class BinaryReader(Protocol):
    """What reading an attachment takes; an open file is one."""

    def read(self, size: int, /) -> bytes: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


@runtime_checkable
class RemotePath(Protocol):
    """A path that opens itself, such as Airflow's ObjectStoragePath."""

    def open(self, mode: str, /) -> Any: ...

    def stat(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file, or octets, to go with a mail. Exactly one of `path` and `content` is given.

    Args:
        path: a path on the worker, or an object with `open("rb")` and `stat().st_size` such as an ObjectStoragePath.
        content: the octets themselves.
        name: the file name that the recipient sees; the last component of the path if it is not given.
        content_type: the media type; guessed from the name if it is not given. A message or a multipart must not be
            encoded (RFC 2046 5.2.1) and goes as application/octet-stream, and so does what is not known.
        content_id: the name by which an html refers to it, `<img src="cid:...">`.
    """

    path: str | os.PathLike[str] | RemotePath | None = None
    _: KW_ONLY
    content: bytes | None = field(default=None, repr=False)
    name: str = ""
    content_type: str = ""
    content_id: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.content is None):
            raise MessageError("An attachment has either a path or a content.", remedy=_REMEDY)
        if self.content is None:
            name = _checked_name(self.name or _last_component(self.path))
        elif not isinstance(self.content, bytes | bytearray | memoryview):
            raise MessageError(
                f"The content of an attachment is bytes, not {type(self.content).__name__}.",
                remedy="Encode a text first: text.encode().",
            )
        elif not self.name:
            raise MessageError("An attachment that is given by its content needs a name.", remedy=_REMEDY)
        else:
            name = _checked_name(self.name)
            object.__setattr__(self, "content", bytes(self.content))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "content_type", _checked_type(self.content_type, name))
        if self.content_id is not None:
            object.__setattr__(self, "content_id", checked_content_id(self.content_id))

    @property
    def remote(self) -> bool:
        """Whether its path is an object that opens itself, such as an ObjectStoragePath: reading it may take long."""
        return self.path is not None and not _is_local(self.path)

    def size(self) -> int:
        """Its octets as of now; raises as `state` does."""
        return self.state().size

    def state(self, reader: BinaryReader | None = None) -> FileState:
        """How large it is, and which version of it, as of now.

        Args:
            reader: what `open` gave; a file on the worker is then the one that was opened, whatever its path names by
                now. In object storage it is always what the path names.

        Raises:
            MessageError: it is missing, not readable, or not a regular file.
        """
        if self.content is not None:
            return FileState(len(self.content), None, 0, 0, None)
        path: Any = self.path
        local = _is_local(path)
        if local and reader is not None:
            return state_of(os.fstat(reader.fileno()))
        try:
            status = os.stat(path) if local else path.stat()  # noqa: PTH116 - a Path takes twice as long
            mode = getattr(status, "st_mode", 0)
            # An object store may say nothing of the mode (0); opening a FIFO would wait for somebody to write to it.
            if mode and not stat.S_ISREG(mode):
                raise MessageError(f"{self.label()} is not a regular file.", remedy=file_remedy(str(path)))
            if local:
                self.open().close()  # the permission to read it is better missed before a server is bothered
            return state_of(status)
        except MessageError:
            raise
        except Exception as error:  # whatever a storage's own library raises; its classes are not known here
            raise self.fault(error) from error

    def open(self) -> BinaryReader:
        """It from the beginning, to be read in blocks and closed."""
        if self.content is not None:
            return io.BytesIO(self.content)
        path: Any = self.path
        try:
            # Without a buffer of its own, which would copy every block once more.
            reader: BinaryReader = io.FileIO(path) if _is_local(path) else path.open("rb")
        except Exception as error:  # see size
            raise self.fault(error) from error
        return reader

    def fault(self, error: Exception, *, phase: Phase = Phase.MESSAGE) -> MessageError:
        """What stat, open or read raised, as one of our errors."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return MessageError(
            f"{self.label()} cannot be read: {reason}.",
            remedy=file_remedy(str(self.path or "")),
            phase=phase,
            retryable=not isinstance(error, _LASTING),
        )

    def label(self) -> str:
        """What errors call it: by its path, or by its name if it has none."""
        path = self.path
        if path is None:
            return f"The attachment {shown(self.name)}"
        text = str(path)
        relative = isinstance(path, str | os.PathLike) and not Path(text).is_absolute() and not means_windows(text)
        where = f" (from the working directory '{Path.cwd()}')" if relative else ""
        return f"The attachment {as_written(text)}{where}"


#: One file: a path on the worker, an object that opens itself, or an attachment.
AttachmentLike = str | os.PathLike[str] | RemotePath | Attachment
#: Any number of files: one string with `|` between, or a collection.
AttachmentsLike = AttachmentLike | Iterable[AttachmentLike]
#: Images for an html: a mapping of content id to file, or files.
InlineImagesLike = Mapping[str, AttachmentLike] | AttachmentsLike


def parse_attachments(value: AttachmentsLike | None) -> tuple[Attachment, ...]:
    """Attachments from one string with `|` between (as SSIS has it), or from a list of paths and attachments.

    In a `TaintedStr` only a `|` that the author wrote separates, and no value leads out of a folder.
    """
    return tuple([_attachment(item, "Attachments") for item in _items(value, "Attachments")])


def parse_inline_images(value: InlineImagesLike | None) -> tuple[Attachment, ...]:
    """Inline images, each with its content id: the key of a mapping, its own, or else its file name."""
    if isinstance(value, tuple) and not value:
        return ()
    if isinstance(value, Mapping):
        return tuple(replace(_attachment(item, "Inline images"), content_id=key) for key, item in value.items())
    images = (_attachment(item, "Inline images") for item in _items(value, "Inline images"))
    return tuple(image if image.content_id else replace(image, content_id=image.name) for image in images)


def checked_content_id(value: object) -> str:
    """A content id without the angle brackets that it may have been written in."""
    text = value[1:-1] if isinstance(value, str) and value[:1] == "<" and value[-1:] == ">" else value
    if not isinstance(text, str) or not _CONTENT_ID.fullmatch(text) or len(text) > _CONTENT_ID_OCTETS:
        raise MessageError(
            f"{shown(value)} cannot be the content id of an image.",
            remedy="Choose a short one from ASCII letters, digits, '.', '-' and '_': inline_images={'logo': path}.",
        )
    return text


def _items(value: Any, what: str) -> Iterable[Any]:
    if value is None:
        return ()
    if isinstance(value, tuple | list):  # before the others: to be asked whether it is a path takes a while
        return value
    if isinstance(value, TaintedStr):
        return value.split_written("|")
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            raise MessageError(
                f"{what}: {shown(value)} is a list that was turned into text.",
                remedy="Pass a list and give the DAG render_template_as_native_obj=True, or join the paths with '|'.",
            )
        return [path for part in value.split("|") if (path := part.strip())]
    if isinstance(value, Attachment | os.PathLike | RemotePath):
        return (value,)
    if isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise MessageError(
            f"{what}: a list of paths or one string with '|' between is expected, not {type(value).__name__}.",
            remedy=_REMEDY,
        )
    return value


def _attachment(value: Any, what: str) -> Attachment:
    if isinstance(value, Attachment):
        return value
    value = checked_path(value, what)
    try:
        return Attachment(value)
    except MessageError as error:
        raise MessageError(f"{what}: {error.message}", remedy=error.remedy) from error


def _is_local(path: object) -> bool:
    """Whether a path only names a file; any other opens itself, even one that is like a path in all else."""
    if isinstance(path, PurePath):
        return is_plain(path)
    return isinstance(path, str) or not isinstance(path, RemotePath)


def _last_component(path: Any) -> str:
    if not isinstance(path, str | os.PathLike) and not isinstance(path, RemotePath):
        raise MessageError(f"The path of an attachment is not text but {type(path).__name__}.", remedy=_REMEDY)
    name = getattr(path, "name", None)
    if not isinstance(name, str):
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else str(path)
        if not isinstance(text, str):
            raise MessageError(f"The path {shown(text)} is bytes, not text.", remedy="Decode it: os.fsdecode(path).")
        name = PurePath(text).name
    if not name:
        raise MessageError(f"{shown(str(path))} is not the path of a file.", remedy=_REMEDY)
    return name


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise MessageError(f"The name of an attachment is text, not {type(name).__name__}.", remedy=_REMEDY)
    if character := forbidden_character(name):
        raise MessageError(
            f"The name of the attachment {shown(name)} holds the control character {character}.",
            remedy="Give it another one: Attachment(path, name='report.csv').",
        )
    name = name.strip()  # readers drop the blanks around it, no-break ones too
    if not name or len(name.encode()) > _FILE_NAME_OCTETS:
        what = "is too long" if name else "is blank"
        raise MessageError(f"The name of the attachment {shown(name)} {what}.", remedy="Give it another name.")
    return name


def _checked_type(content_type: object, name: str) -> str:
    if not content_type:
        return _guessed_type(name)
    found = _CONTENT_TYPE.fullmatch(content_type) if isinstance(content_type, str) else None
    if not found or len(found[0]) > _CONTENT_TYPE_OCTETS:
        raise MessageError(
            f"The content type {shown(content_type)} of the attachment {shown(name)} is not one.",
            remedy="Write it as 'text/csv' or 'text/csv; charset=utf-8', or leave it out: it is guessed from the name.",
        )
    return _ANY_TYPE if found[1].lower() in ("message", "multipart") else found[0]


def _guessed_type(name: str) -> str:
    import mimetypes

    # The prefix keeps a name such as "data:text/html,x" from being taken for a URL that states its own type.
    guessed, encoding = mimetypes.guess_type(f"./{name}")
    if encoding:
        return _ENCODED_FILES.get(encoding, _ANY_TYPE)
    found = _CONTENT_TYPE.fullmatch(guessed or "")
    return _ANY_TYPE if not found or found[1].lower() in ("message", "multipart") else found[0]
