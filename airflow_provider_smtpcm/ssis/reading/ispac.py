"""Reads untrusted `.ispac` files: zips with URL-encoded member names. Nothing is unpacked to disk."""

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
from airflow_provider_smtpcm.ssis.reading.xml import (
    MAX_OCTETS,
    Document,
    read_document,
    too_large_error,
    unreadable_error,
)

MAX_PARTS = 10_000
MAX_TOTAL_OCTETS = 1024 * 1024 * 1024
# Maximum compression ratio of a part.
MAX_RATIO = 500
# Below this size in octets, a part may have any ratio.
_MIN_OCTETS_FOR_RATIO = 1024 * 1024
# Maximum size in octets of the central directory, which zipfile reads into memory.
_MAX_DIRECTORY = 8 * 1024 * 1024
# Maximum size of what follows the central directory: comment, end record, ZIP64 locator and ZIP64 end record.
_MAX_TAIL = 65_536 + 22 + 20 + 56
_ABSOLUTE = re.compile(r"^(?:[/\\]|[A-Za-z]:)")
# What zipfile raises for a damaged file. A bad offset makes it seek beyond the file, which is an OSError.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # includes NotImplementedError
    ValueError,
)
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_CHECK_SOURCE = "Check where the file comes from; if it is yours, build the project again."


class Ispac:
    """An open `.ispac`.

    Args:
        path: the file, for error messages.
        archive: the open zip.

    Raises:
        PackageError: it contains a part that SSIS would not write.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._parts = _check_parts(path, archive)
        self._remaining_octets = MAX_TOTAL_OCTETS

    def list_parts(self, suffix: str) -> list[str]:
        """Return the decoded names of the parts with a suffix, such as `.dtsx`, sorted."""
        return sorted(name for name in self._parts if name.lower().endswith(suffix))

    def format_part(self, name: str) -> str:
        """Return a part's name for errors and reports, such as `project.ispac!Part.dtsx`."""
        return f"{self.path}!{name}"

    def read(self, name: str) -> Document:
        """Read a part.

        Raises:
            PackageError: as in `read_document`; or the zip is damaged, or unpacks to more than 1 GiB.
        """
        info = self._parts[name]
        display_name = self.format_part(name)
        if info.file_size > MAX_OCTETS:
            raise too_large_error(display_name, MAX_OCTETS)
        self._remaining_octets -= info.file_size
        if self._remaining_octets < 0:
            raise PackageError(
                f"{self.path} unpacks to more than {MAX_TOTAL_OCTETS // 1024**2} MiB; the rest was not read.",
                remedy=_CHECK_SOURCE,
            )
        try:
            with self._archive.open(info) as part:
                return read_document(part, display_name)
        except _ZIP_ERRORS as error:
            raise PackageError(f"{display_name} could not be unpacked: {error}.", remedy=_CHECK_SOURCE) from error


@contextmanager
def open_ispac(path: Path) -> Iterator[Ispac]:
    """Open an `.ispac`.

    Raises:
        PackageError: it is not a zip, is damaged, or contains a part that SSIS would not write.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PackageError(f"{path} is not a regular file.", remedy="Pass the file itself.")
        if status.st_size > MAX_TOTAL_OCTETS:
            raise too_large_error(str(path), MAX_TOTAL_OCTETS)
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise unreadable_error(str(path), error) from error
    except _ZIP_ERRORS as error:
        raise PackageError(f"{path} is not an .ispac file (a zip archive): {error}.", remedy=_CHECK_SOURCE) from error
    with archive:
        yield Ispac(str(path), archive)


def _check_directory(path: Path) -> None:
    """Raise PackageError if the central directory is too large, before zipfile loads it into memory."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MAX_TAIL))
        tail = file.read()
    end_record = tail.rfind(b"PK\x05\x06")
    length = struct.unpack_from("<L", tail, end_record + 12)[0] if end_record >= 0 else 0
    locator = end_record - 20
    if locator >= 56 and tail.startswith(b"PK\x06\x07", locator):  # the ZIP64 end record precedes its locator
        length = max(length if length != 0xFFFFFFFF else 0, struct.unpack_from("<Q", tail, locator - 56 + 40)[0])
    if length > _MAX_DIRECTORY:
        raise PackageError(
            f"The list of parts in {path} has {length:,} octets, which is too large for the limit of {MAX_PARTS:,} "
            "parts; nothing was read.",
            remedy=_CHECK_SOURCE,
        )


def _check_parts(path: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the parts by decoded name.

    Raises:
        PackageError: a name is absolute, leads out of the zip or occurs twice, a part is encrypted or compressed too
            much, or there are too many parts.
    """
    parts: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAX_PARTS:
        raise PackageError(
            f"{path} has {len(infos):,} parts; the limit is {MAX_PARTS:,}. Nothing was read.", remedy=_CHECK_SOURCE
        )
    for info in infos:
        name = unquote(info.orig_filename, errors="replace")
        if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name) or any(char < " " for char in name):
            raise PackageError(
                f"{path} has a part named {name[:200]!r}, a path outside the archive; nothing was read.",
                remedy=_CHECK_SOURCE,
            )
        if info.is_dir():
            continue
        if info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise PackageError(
                f"{path} is encrypted with a password, or uses a compression method that SSIS does not use.",
                remedy=_CHECK_SOURCE,
            )
        if name in parts:
            raise PackageError(f"{path} has two parts named {name[:200]!r}; nothing was read.", remedy=_CHECK_SOURCE)
        if info.file_size > _MIN_OCTETS_FOR_RATIO and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise PackageError(
                f"{path} has a part {name[:200]!r} that unpacks to more than {MAX_RATIO} times its size; "
                "nothing was read.",
                remedy=_CHECK_SOURCE,
            )
        parts[name] = info
    return parts
