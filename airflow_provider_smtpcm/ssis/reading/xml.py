"""XML that others wrote, read into a small tree with care.

No DOCTYPE, no entity, nothing external; a limit on its size. The XML parser is loaded on use.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from airflow_provider_smtpcm.errors import PackageError

# folded: A document as a small tree, without what a mail has no use for. Knows no parser: it is told what one comes
#   across.

MAX_DEPTH = 100
MAX_ELEMENTS = 1_000_000

# The designer's layout, logging and the innards of loops: of no use here, and most of a file.
_DROPPED = {
    "DesignTimeProperties",
    "ForEachEnumerator",
    "ForEachVariableMapping",
    "ForEachVariableMappings",
    "LogProvider",
    "LogProviders",
    "LoggingOptions",
    "PackageVariable",
}
# A manifest has some twenty parameters for each connection manager of each package.
_KEPT_PARAMETERS = {"ConnectionString", "EnableSsl", "SmtpServer", "Timeout", "UseWindowsAuthentication"}
# What a task or a connection manager keeps under ObjectData; a data flow of megabytes stands there too.
_KEPT_DATA = {"ConnectionManager", "EncryptedData", "SendMailTaskData", "SmtpConnectionManager"}


@dataclass(slots=True, kw_only=True)
class Node:
    """An element: local names only, since each dialect qualifies other ones."""

    tag: str
    namespace: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> Iterator[Node]:
        """The children of that name."""
        return (child for child in self.children if child.tag == tag)

    def first(self, tag: str) -> Node | None:
        """The first child of that name."""
        return next(self.all(tag), None)


def _is_dropped_parameter(tag: str, attributes: Mapping[str, str]) -> bool:
    """Whether it is a property of a connection manager that says nothing of mail."""
    if tag != "Parameter":
        return False
    name = next((value for key, value in attributes.items() if key.rpartition("}")[2] == "Name"), "")
    return name.startswith("CM.") and name.rpartition(".")[2] not in _KEPT_PARAMETERS


class TreeBuilder:
    """A target for the parser that builds nodes and forgets what is dropped."""

    def __init__(self, name: str) -> None:
        self.root: Node | None = None
        self._name = name
        self._open: list[Node] = []
        self._text: list[str] = []
        self._dropping = 0
        self._left = MAX_ELEMENTS

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self._dropping:
            self._dropping += 1
            return
        namespace, _, local = tag.rpartition("}")
        parent = self._open[-1] if self._open else None
        if (
            local in _DROPPED
            or _is_dropped_parameter(local, attributes)
            or (parent is not None and parent.tag == "ObjectData" and local not in _KEPT_DATA)
        ):
            self._dropping = 1
            return
        self._left -= 1
        if len(self._open) >= MAX_DEPTH or self._left < 0:
            raise PackageError(
                f"{self._name} nests its elements deeper than {MAX_DEPTH} levels, or has more than {MAX_ELEMENTS:,} of "
                "them; it was not read further.",
                remedy="No SSIS package is like that: look at what the file is.",
            )
        plain = {name.rpartition("}")[2]: value for name, value in attributes.items()}
        node = Node(tag=local, namespace=namespace.lstrip("{"), attributes=plain)
        if parent is not None:
            parent.children.append(node)
        elif self.root is None:
            self.root = node
        self._open.append(node)
        self._text = []

    def data(self, text: str) -> None:
        if not self._dropping:
            self._text.append(text)

    def end(self, _tag: str) -> None:
        if self._dropping:
            self._dropping -= 1
            return
        node = self._open.pop()
        if not node.children:
            node.text = "".join(self._text)
        self._text = []

    def close(self) -> Node | None:
        return self.root


# folded: here began the module itself

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


# folded: Both dialects: properties as child elements (2005, 2008), or as attributes without the defaults (2012 on).

_GUID = re.compile(r"\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?(?::\w+)?")
_TRUE = {"true", "-1", "1"}


def written(node: Node, name: str) -> str | None:
    """A property as it is written, or None where it is not, which means its default."""
    if name in node.attributes:
        return node.attributes[name]
    for child in node.children:
        if child.tag == "Property" and child.attributes.get("Name") == name:
            return child.text
    return None


def text(node: Node, name: str, default: str = "") -> str:
    """A property's text."""
    value = written(node, name)
    return default if value is None else value


def flag(node: Node, name: str, *, default: bool = False) -> bool:
    """A property that is `True`, `-1` or `1`."""
    value = written(node, name)
    return default if value is None else value.strip().lower() in _TRUE


def number(node: Node, name: str) -> int | None:
    """A property that is a whole number; None where it is not written or is none."""
    return as_number(written(node, name))


def as_number(value: str | None) -> int | None:
    """A whole number of few digits, or None."""
    value = (value or "").strip()
    return int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else None


def members(node: Node, collection: str, member: str) -> Iterator[Node]:
    """What stands in a collection (2012 on) or directly in its owner (2005, 2008)."""
    for child in node.children:
        if child.tag == member and "IDREF" not in child.attributes:
            yield child
        elif child.tag == collection:
            yield from child.all(member)


def expressions(node: Node) -> dict[str, str]:
    """The property expressions by the name of their property; an empty one is none."""
    return {
        child.attributes.get("Name", ""): child.text
        for child in members(node, "PropertyExpressions", "PropertyExpression")
        if child.text.strip() and child.attributes.get("Name")
    }


def normal_id(value: str) -> str:
    """A GUID in upper case with braces; anything else, such as a refId, as it is."""
    found = _GUID.fullmatch(value.strip())
    return f"{{{found[1].upper()}}}" if found else value.strip()


def ids(node: Node) -> tuple[str, ...]:
    """All that a reference may call it by, the best first: its GUID, its refId."""
    return tuple(normal_id(value) for name in ("DTSID", "refId") if (value := text(node, name)).strip())


def object_data(node: Node, tag: str) -> Node | None:
    """The data of a task or a connection manager that is of that name."""
    data = node.first("ObjectData")
    return None if data is None else data.first(tag)
