"""What is told of the packages, kept until the whole is known. Knows no format."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self


class Spool:
    """What is told of the packages, on the disk until the counts are known that stand above it."""

    lines: IO[str]
    sections: IO[str]

    def __enter__(self) -> Self:
        self.lines, self.sections = (TemporaryFile("w+", encoding="utf-8", newline="\n") for _ in range(2))  # noqa: SIM115
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.close()
        self.sections.close()

    def packages(self) -> Iterator[str]:
        """The lines."""
        self.lines.seek(0)
        return (line.rstrip("\n") for line in self.lines)

    def pieces(self) -> Iterator[str]:
        """The sections, in whatever pieces."""
        self.sections.seek(0)
        return iter(self.sections)
