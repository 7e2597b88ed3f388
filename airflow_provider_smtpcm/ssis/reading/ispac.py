"""An `.ispac`: a zip whose parts have URL-encoded names. Nothing is ever written to a disk."""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.reading.xml import MAX_OCTETS, Document, read_document, too_large, unreadable

MAX_PARTS = 10_000
MAX_TOTAL_OCTETS = 1024 * 1024 * 1024
MAX_RATIO = 500
# A small part may be packed as well as it likes.
_RATIO_FROM = 1024 * 1024
_MAX_DIRECTORY = 8 * 1024 * 1024
_TAIL = 65_536 + 22 + 20 + 56  # the longest comment, and the records that say where the list of parts is
_ABSOLUTE = re.compile(r"^(?:[/\\]|[A-Za-z]:)")
# What the library makes of octets that were changed: an offset beyond the file is an OSError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # NotImplementedError is one
    ValueError,
)
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOOK = "Look at where the file comes from; if it is yours, build the project again."


class Ispac:
    """An open `.ispac`: its parts by their decoded names."""

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._parts = _checked_parts(path, archive)
        self._left = MAX_TOTAL_OCTETS

    def names(self, suffix: str) -> list[str]:
        """The parts whose name ends so, in order."""
        return sorted(name for name in self._parts if name.lower().endswith(suffix))

    def shown(self, name: str) -> str:
        """A part's name to people."""
        return f"{self.path}!{name}"

    def read(self, name: str) -> Document:
        """Read a part.

        Raises:
            PackageError: as for a file, or the zip is damaged or a bomb.
        """
        info = self._parts[name]
        shown = self.shown(name)
        if info.file_size > MAX_OCTETS:
            raise too_large(shown, MAX_OCTETS)
        self._left -= info.file_size
        if self._left < 0:
            raise PackageError(
                f"{self.path} unpacks to more than {MAX_TOTAL_OCTETS // 1024**2} MiB; the rest was not read.",
                remedy=_LOOK,
            )
        try:
            with self._archive.open(info) as part:
                return read_document(part, shown, limit=MAX_OCTETS)
        except _DAMAGE as error:
            raise PackageError(f"{shown} could not be unpacked: {error}.", remedy=_LOOK) from error


@contextmanager
def open_ispac(path: Path) -> Iterator[Ispac]:
    """Open an `.ispac`.

    Raises:
        PackageError: it is no zip, damaged, or one that no SSIS would write.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PackageError(f"{path} is not a regular file.", remedy="Pass the file itself.")
        if status.st_size > MAX_TOTAL_OCTETS:
            raise too_large(str(path), MAX_TOTAL_OCTETS)
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise unreadable(str(path), error) from error
    except _DAMAGE as error:
        raise PackageError(f"{path} is no .ispac: {error}. An .ispac is a zip.", remedy=_LOOK) from error
    with archive:
        yield Ispac(str(path), archive)


def _check_directory(path: Path) -> None:
    """Refuse a list of parts that is too long before it is loaded: it is read whole."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    length = struct.unpack_from("<L", tail, found + 12)[0] if found >= 0 else 0
    locator = found - 20
    if locator >= 56 and tail.startswith(b"PK\x06\x07", locator):  # the 64 bit form stands right before
        length = max(length if length != 0xFFFFFFFF else 0, struct.unpack_from("<Q", tail, locator - 56 + 40)[0])
    if length > _MAX_DIRECTORY:
        raise PackageError(
            f"{path} has a list of parts of {length:,} octets; more than {MAX_PARTS:,} parts are not read.",
            remedy=_LOOK,
        )


def _checked_parts(path: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    parts: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAX_PARTS:
        raise PackageError(f"{path} has {len(infos):,} parts; more than {MAX_PARTS:,} are not read.", remedy=_LOOK)
    for info in infos:
        name = unquote(info.orig_filename, errors="replace")
        if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name) or any(char < " " for char in name):
            raise PackageError(
                f"{path} has a part named {name[:200]!r}, which leads out of it; nothing was read.", remedy=_LOOK
            )
        if info.is_dir():
            continue
        if info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise PackageError(
                f"{path} is a zip with a password, or packed in a way that SSIS knows not.", remedy=_LOOK
            )
        if name in parts:
            raise PackageError(f"{path} has two parts named {name[:200]!r}; nothing was read.", remedy=_LOOK)
        if info.file_size > _RATIO_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise PackageError(
                f"{path} has a part {name[:200]!r} that unpacks to more than {MAX_RATIO} times its size; "
                "nothing was read.",
                remedy=_LOOK,
            )
        parts[name] = info
    return parts
