"""XML that others wrote, read into a small tree with care.

No DOCTYPE, no entity, nothing external; a limit on its size. The XML parser is loaded on use.
"""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.reading.nodes import Node, TreeBuilder

MAX_OCTETS = 64 * 1024 * 1024

# Not smaller: an expat before 2.6 reads a long token again with every piece.
_CHUNK = 256 * 1024
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_UTF16_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*encoding\s*=\s*["'](?:utf-?16|unicode|ucs-?2)""", re.IGNORECASE)
# expat's numbers for a document that ends too soon.
_ENDS_TOO_SOON = {3, 5, 6, 20}
MISSING = "Reading SSIS packages needs defusedxml, which is not installed."
REMEDY_MISSING = "Install it with: pip install 'airflow-provider-smtpcm[ssis]'"
_AGAIN = "Open it in Visual Studio and save it again, or copy it anew from where it came from."


class ByteReader(Protocol):
    """What reading takes; an open file and a part of a zip are one."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document that was read: its root, and the digest of its octets."""

    root: Node
    digest: str


def read_file(path: Path, name: str | None = None) -> Document:
    """Read a document from a file.

    Raises:
        PackageError: as `read_document`, or it is missing, not a regular file, or not ours to read.
    """
    shown = name or str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for somebody to write to it
            raise PackageError(f"{shown} is not a regular file.", remedy="Pass the file itself.")
        if status.st_size > MAX_OCTETS:
            raise too_large(shown, MAX_OCTETS)
        with path.open("rb") as file:
            return read_document(file, shown)
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from error


def files_in(folder: Path) -> tuple[Path, ...]:
    """What stands in a folder, in order; nothing where it cannot be read. Asked for every package, so it is kept."""
    try:
        return _listing(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=16)
def _listing(folder: Path, _changed: int) -> tuple[Path, ...]:
    return tuple(sorted(folder.iterdir()))


def require_defusedxml() -> None:
    """Fail before anything is read.

    Raises:
        PackageError: it is not installed.
    """
    try:
        import defusedxml.ElementTree  # noqa: F401
    except ImportError as error:
        raise PackageError(MISSING, remedy=REMEDY_MISSING) from error


def read_document(reader: ByteReader, name: str, *, limit: int = MAX_OCTETS) -> Document:
    """Read a document piece by piece.

    Raises:
        PackageError: it is empty, not well-formed, too large, too deep, or declares a DOCTYPE or entities.
    """
    require_defusedxml()
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import XMLParser

    tree = TreeBuilder(name)
    digest = hashlib.sha256()
    octets = 0
    parser = None
    try:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            octets += len(chunk)
            if octets > limit:
                raise too_large(name, limit)
            if parser is None:
                encoding = _encoding(chunk)
                parser = XMLParser(target=tree, encoding=encoding, forbid_dtd=True)
            parser.feed(chunk)
        if parser is None:
            raise PackageError(f"{name} is empty.", remedy=_AGAIN)
        parser.close()
    except DefusedXmlException as error:
        raise PackageError(
            f"{name} declares a DOCTYPE or an entity, which no SSIS package does; it was not read further.",
            remedy="Look at where the file comes from; if it is yours, remove the declaration.",
        ) from error
    except ParseError as error:
        raise _malformed(name, error) from error
    except (LookupError, UnicodeError, ValueError) as error:
        raise PackageError(
            f"{name} declares an encoding that it is not written in, or that is not known here ({error}).",
            remedy="Save it again as UTF-8.",
        ) from error
    except OSError as error:
        raise unreadable(name, error) from error
    assert tree.root is not None
    return Document(root=tree.root, digest=digest.hexdigest())


def too_large(name: str, limit: int) -> PackageError:
    """The error for a file beyond the limit."""
    return PackageError(
        f"{name} is larger than the {limit // 1024 // 1024} MiB that are read of a file.",
        remedy="No SSIS package is that large: look at what the file is.",
    )


def unreadable(name: str, error: OSError | ValueError) -> PackageError:
    """The error for a file that the system does not let us read."""
    reason = getattr(error, "strerror", None) or error
    return PackageError(f"{name} could not be read: {reason}.", remedy="Check the path and its permissions.")


def _encoding(head: bytes) -> str | None:
    """The encoding that the octets are in, where a declaration may lie: exports from msdb and PowerShell do."""
    if head.startswith(_UTF8_BOM):
        return "utf-8"
    if head.startswith(_UTF16_BOMS):
        return "utf-16"
    return "utf-8" if _UTF16_DECLARED.match(head[:200]) else None


def _malformed(name: str, error: Exception) -> PackageError:
    line, column = getattr(error, "position", (0, 0))
    where = f"line {line}, column {column + 1}"
    if getattr(error, "code", 0) in _ENDS_TOO_SOON:
        return PackageError(f"{name} ends in the middle ({where}): it is empty or cut off.", remedy=_AGAIN)
    reason = str(error).partition(":")[0]
    return PackageError(f"{name} is not well-formed XML: {reason} at {where}.", remedy=_AGAIN)
