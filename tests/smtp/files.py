"""Files that change between being measured and being sent."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from airflow_provider_smtpcm.mail import Mail


class Changing:
    """A file that changes once sending has begun.

    Args:
        path: where it is, for a file on the worker.
        size: octets that it has at first.
        how: "shorter", "longer", "gone", or "broken", which cannot be read to its end; "overwritten" or "replaced" by
            as many octets; or "same", since it does not.
        remote: whether it is in a store, and its path an object that opens itself.
    """

    def __init__(self, path: Path, size: int, how: str, *, remote: bool) -> None:
        self._local = path
        self._size = size
        self._how = how
        self.path: Any = _Remote(size, how) if remote else path
        if not remote:
            path.write_bytes(b"x" * size)

    def watch(self, mails: Iterable[Mail]) -> Iterator[Mail]:
        """The mails. When the one after the file's is requested, the file has been measured; then it changes."""
        for at, mail in enumerate(mails):
            if at == 2 and isinstance(self.path, Path):
                self._change()
            yield mail

    def _change(self) -> None:
        match self._how:
            case "shorter" | "broken":
                self._local.write_bytes(b"x" * (self._size // 2))
            case "longer":
                self._local.write_bytes(b"x" * (self._size * 2))
            case "gone":
                self._local.unlink()
            case "overwritten":
                overwrite(self._local, b"y" * self._size)
            case "replaced":
                replace(self._local, b"y" * self._size)


def overwrite(path: Path, octets: bytes) -> None:
    """Overwrite the file from its start, as a program that has it open does, until its mtime changes."""
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:
        with path.open("r+b") as file:
            file.write(octets)


def replace(path: Path, octets: bytes) -> None:
    """Replace it with another file that has the same mtime."""
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(octets)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


class _Remote:
    """A path in a store."""

    name = "report.csv"

    def __init__(self, size: int, how: str) -> None:
        self._size = size
        self._how = how
        self._opened = 0

    def stat(self) -> object:
        """Of the promised size; its time or version changes once it was opened."""
        at, tag = (self._opened, "") if self._how == "overwritten" else (0, str(self._opened))
        if self._how in ("overwritten", "replaced"):
            return _Status(self._size, at, tag)
        return SimpleNamespace(st_size=self._size)

    def open(self, mode: str) -> BinaryIO:
        """Not what was promised."""
        assert mode == "rb"
        self._opened += 1
        if self._how == "gone":
            raise LookupError("no such key")
        sizes = {"shorter": self._size // 2, "longer": self._size * 2}
        content = b"x" * sizes.get(self._how, self._size)
        return _Broken(content) if self._how == "broken" else io.BytesIO(content)


class _Status(dict[str, str]):
    """As Airflow's ObjectStoragePath has it."""

    def __init__(self, size: int, modified: float, tag: str) -> None:
        super().__init__(ETag=tag)
        self.st_size, self.st_mtime = size, modified


class _Broken(io.BytesIO):
    """A connection to a store that breaks while it is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > len(self.getbuffer()) // 2:
            raise ConnectionResetError("the store hung up")
        return super().read(size)
