"""Files that are not, when they are sent, what they were when they were measured."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from airflow_provider_smtpcm.mail import Mail


class Changing:
    """A file that changes once the sending has begun.

    Args:
        path: where it is, for a file on the worker.
        size: octets that it has at first.
        how: "shorter", "longer", "gone", or "broken", which cannot be read to its end; or "same", since it does not.
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
        """The mails; when the one behind the file's is asked for, the file was measured, and it changes."""
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


class _Remote:
    """A path in a store."""

    name = "report.csv"

    def __init__(self, size: int, how: str) -> None:
        self._size = size
        self._how = how

    def stat(self) -> object:
        """As large as promised."""
        return SimpleNamespace(st_size=self._size)

    def open(self, mode: str) -> BinaryIO:
        """Not what was promised."""
        assert mode == "rb"
        if self._how == "gone":
            raise LookupError("no such key")
        sizes = {"shorter": self._size // 2, "longer": self._size * 2, "broken": self._size, "same": self._size}
        content = b"x" * sizes[self._how]
        return _Broken(content) if self._how == "broken" else io.BytesIO(content)


class _Broken(io.BytesIO):
    """A connection to a store that breaks in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > len(self.getbuffer()) // 2:
            raise ConnectionResetError("the store hung up")
        return super().read(size)
