"""Reads XML from untrusted files, and SSIS properties from its elements.

A document with a DOCTYPE or an entity, or one that is too large or too deep, is an error. Properties come in two
dialects: child elements in SSIS 2005 and 2008, attributes in later versions, which also omit default values.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.reading.scripts import is_source_file

MAX_OCTETS = 64 * 1024 * 1024
MAX_DEPTH = 100
MAX_ELEMENTS = 1_000_000

# Small chunks are slow: expat before 2.6 restarts an incomplete token with every chunk.
_CHUNK_OCTETS = 256 * 1024
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_UTF16_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*encoding\s*=\s*["'](?:utf-?16|unicode|ucs-?2)""", re.IGNORECASE)
# expat: XML_ERROR_NO_ELEMENTS, _UNCLOSED_TOKEN, _PARTIAL_CHAR and _UNCLOSED_CDATA_SECTION.
_TRUNCATED_CODES = {3, 5, 6, 20}
_SAVE_AGAIN = "Open it in Visual Studio and save it again, or copy it again from its source."

# Elements unrelated to mail (designer layout, logging, passwords, most files of scripts), which are most of a file.
_IGNORED_ELEMENTS = {
    "BinaryItem",
    "DesignTimeProperties",
    "FlatFileColumn",
    "LogProvider",
    "LogProviders",
    "LoggingOptions",
    "PackagePassword",
    "PackageVariable",
}
# Properties in SSIS 2005 and 2008, which write each of them for every executable and variable.
_IGNORED_PROPERTIES = {
    "ExecValue",
    "ExecutionAddress",
    "ExecutionLocation",
    "FailPackageOnFailure",
    "FailParentOnFailure",
    "ForceExecValue",
    "ISOLevel",
    "IncludeInDebugDump",
    "LocaleID",
    "RaiseChangedEvent",
    "TaskContact",
    "TransactionOption",
    "VersionBuild",
    "VersionComments",
    "VersionGUID",
    "VersionMajor",
    "VersionMinor",
}
# A manifest has about twenty parameters for each connection manager; only these are read.
_READ_PARAMETERS = {
    "ConnectionString",
    "EnableSsl",
    "InitialCatalog",
    "ServerName",
    "SmtpServer",
    "Timeout",
    "UseWindowsAuthentication",
    "UserName",
}
# A data flow can have several megabytes. Of its components, only the properties that name variables are read.
_DATA_FLOW = "pipeline"
#: The tag of a child that is added to a script or data flow for each variable that its code locks for writing: such a
#: variable may be missing from its list of variables.
LOCKED_VARIABLE = "LockForWrite"
_LOCK_WORD = "ForWrite"
_LOCK = re.compile(r'Lock(?:One)?ForWrite\s*\(\s*@?"([^"\n]{1,200})"')
# Tasks of other vendors can have any data, of which the first levels are enough.
_OBJECT_DATA_LEVELS = 10

_GUID = re.compile(r"\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?(?::\w+)?")
_TRUE = {"true", "-1", "1"}


class ByteReader(Protocol):
    """A source of bytes: an open file, or a member of a zip."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True, kw_only=True)
class Element:
    """An XML element.

    Args:
        tag: the local name.
        namespace: the namespace URI.
        attributes: values by local name, since the dialects differ in which names have a namespace.
        children: the child elements, without ignored ones.
        text: the text; empty if the element has children.
    """

    tag: str
    namespace: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def find_all(self, tag: str) -> Iterator[Element]:
        """Yield the children with a tag."""
        return (child for child in self.children if child.tag == tag)

    def find(self, tag: str) -> Element | None:
        """Return the first child with a tag, or None."""
        return next(self.find_all(tag), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed document.

    Args:
        root: the root element.
        digest: the SHA-256 of the file, in hexadecimal.
    """

    root: Element
    digest: str


# --- Documents


def require_defusedxml() -> None:
    """Check that the XML parser is installed.

    Raises:
        PackageError: defusedxml is not installed.
    """
    try:
        import defusedxml.ElementTree  # noqa: F401
    except ImportError as error:
        raise PackageError(
            "Reading SSIS packages requires defusedxml, which is not installed.",
            remedy="Install it with: pip install 'airflow-provider-smtpcm[ssis]'",
        ) from error


def read_file(path: Path) -> Document:
    """Read a document from a file.

    Raises:
        PackageError: as in `read_document`; or the file does not exist, is not a regular file, or cannot be read.
    """
    name = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would block until something writes to it
            raise PackageError(f"{name} is not a regular file.", remedy="Pass the file itself.")
        if status.st_size > MAX_OCTETS:
            raise too_large_error(name, MAX_OCTETS)
        with path.open("rb") as file:
            return read_document(file, name)
    except (OSError, ValueError) as error:
        raise unreadable_error(name, error) from error


def read_document(reader: ByteReader, name: str) -> Document:
    """Read a document in chunks.

    Args:
        reader: an open file or member of a zip.
        name: the name for error messages.

    Raises:
        PackageError: the document is empty, not well-formed, too large or too deep, or has a DOCTYPE or an entity.
    """
    require_defusedxml()
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import XMLParser

    tree = _TreeBuilder(name)
    digest = hashlib.sha256()
    octets = 0
    parser = None
    try:
        while chunk := reader.read(_CHUNK_OCTETS):
            digest.update(chunk)
            octets += len(chunk)
            if octets > MAX_OCTETS:
                raise too_large_error(name, MAX_OCTETS)
            if parser is None:
                parser = XMLParser(target=tree, encoding=_detect_encoding(chunk), forbid_dtd=True)
                # ElementTree would rewrite the names of every attribute, most of which are ignored.
                parser.parser.StartElementHandler = tree.start
                parser.parser.EndElementHandler = tree.end
            parser.feed(chunk)
        if parser is None:
            raise PackageError(f"{name} is empty.", remedy=_SAVE_AGAIN)
        parser.close()
    except DefusedXmlException as error:
        raise PackageError(
            f"{name} declares a DOCTYPE or an entity, which no SSIS package does; the rest was not read.",
            remedy="Check where the file comes from; if it is yours, remove the declaration.",
        ) from error
    except ParseError as error:
        raise _not_well_formed_error(name, error) from error
    except (LookupError, UnicodeError, ValueError) as error:
        raise PackageError(
            f"{name} declares an encoding that is not supported or does not match its content ({error}).",
            remedy="Save it again as UTF-8.",
        ) from error
    except OSError as error:
        raise unreadable_error(name, error) from error
    assert tree.root is not None
    return Document(root=tree.root, digest=digest.hexdigest())


def list_files(folder: Path) -> tuple[Path, ...]:
    """Return the sorted contents of a folder, cached until it changes; nothing if the folder cannot be read."""
    try:
        return _list_files(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=16)
def _list_files(folder: Path, _modified: int) -> tuple[Path, ...]:
    return tuple(sorted(folder.iterdir()))


def too_large_error(name: str, limit: int) -> PackageError:
    """Return the error for a file larger than `limit` octets."""
    return PackageError(
        f"{name} is larger than {limit // 1024 // 1024} MiB, the limit for a file.",
        remedy="No SSIS package is that large: check what the file is.",
    )


def unreadable_error(name: str, error: OSError | ValueError) -> PackageError:
    """Return the error for a file that cannot be opened or read."""
    reason = getattr(error, "strerror", None) or error
    return PackageError(f"{name} could not be read: {reason}.", remedy="Check the path and its permissions.")


def _not_well_formed_error(name: str, error: Exception) -> PackageError:
    line, column = getattr(error, "position", (0, 0))
    where = f"line {line}, column {column + 1}"
    if getattr(error, "code", 0) in _TRUNCATED_CODES:
        return PackageError(f"{name} ends too early ({where}): it is empty or cut off.", remedy=_SAVE_AGAIN)
    reason = str(error).partition(":")[0]
    return PackageError(f"{name} is not well-formed XML: {reason} at {where}.", remedy=_SAVE_AGAIN)


def _detect_encoding(head: bytes) -> str | None:
    """Return the encoding that overrides the declaration, or None to trust it.

    UTF-8 exports from msdb and PowerShell declare UTF-16.
    """
    if head.startswith(_UTF8_BOM):
        return "utf-8"
    if head.startswith(_UTF16_BOMS):
        return "utf-16"
    return "utf-8" if _UTF16_DECLARED.match(head[:200]) else None


class _TreeBuilder:
    """Parser target that builds the tree and skips ignored elements."""

    def __init__(self, name: str) -> None:
        self.root: Element | None = None
        self._name = name
        self._open: list[Element] = []
        self._text: list[str] = []
        self._ignored_depth = 0
        # The depth of the deepest element that is read in an ObjectData.
        self._max_depth = MAX_DEPTH
        # The current data flow or script, of which only the names of variables are read; and the component property
        # that is being read, with its depth.
        self._data_flow: Element | None = None
        self._script: Element | None = None
        self._property: Element | None = None
        self._property_depth = 0
        self._local_names: dict[str, str] = {}
        self._remaining = MAX_ELEMENTS

    def start(self, tag: str, attributes: Sequence[str]) -> None:
        """Begin an element.

        Args:
            tag: the namespace and the local name with `}` between, or the local name alone.
            attributes: names in the same form, each followed by its value.
        """
        if self._ignored_depth:
            self._ignored_depth += 1
            if tag == "property" and self._data_flow is not None:
                self._start_property(dict(zip(attributes[::2], attributes[1::2], strict=True)).get("name", ""))
            return
        namespace, _, local = tag.rpartition("}")
        local_attributes = self._localize(attributes)
        parent = self._open[-1] if self._open else None
        if self._is_ignored(local, local_attributes, parent):
            self._ignored_depth = 1
            return
        self._count(len(self._open))
        element = Element(tag=local, namespace=namespace, attributes=local_attributes)
        if parent is not None:
            parent.children.append(element)
        elif self.root is None:
            self.root = element
        self._open.append(element)
        self._text = []
        if local == "ObjectData":
            self._max_depth = len(self._open) + _OBJECT_DATA_LEVELS

    def _localize(self, attributes: Sequence[str]) -> dict[str, str]:
        """Return attributes by their local names."""
        names = self._local_names
        found = {}
        for index in range(0, len(attributes), 2):
            name = attributes[index]
            local = names.get(name)
            if local is None:
                local = names[name] = name.rpartition("}")[2]
            found[local] = attributes[index + 1]
        return found

    def _start_property(self, name: str) -> None:
        """Read a property of a data flow's component if it may name a variable."""
        if "Variable" in name:
            self._property = Element(tag="property", attributes={"name": name})
            self._property_depth = self._ignored_depth
            self._text = []

    def _is_ignored(self, tag: str, attributes: Mapping[str, str], parent: Element | None) -> bool:
        """Whether an element is not read; if it is a data flow or code, begin to search it for variables."""
        if parent is not None and parent.tag == "ObjectData" and tag == _DATA_FLOW:
            self._data_flow = self._script = Element(tag=tag)
            parent.children.append(self._data_flow)
            return True
        if tag == "ProjectItem" and not is_source_file(attributes.get("Name", "")):
            self._script = parent
            return True
        if tag in _IGNORED_ELEMENTS:
            return True
        if len(self._open) > self._max_depth:
            return True
        if tag == "Property":
            return attributes.get("Name") in _IGNORED_PROPERTIES
        return _is_ignored_parameter(tag, attributes)

    def _count(self, depth: int) -> None:
        self._remaining -= 1
        if depth >= MAX_DEPTH or self._remaining < 0:
            raise PackageError(
                f"{self._name} nests elements more than {MAX_DEPTH} levels deep, or has more than {MAX_ELEMENTS:,} of "
                "them; the rest was not read.",
                remedy="No SSIS package is like that: check what the file is.",
            )

    def data(self, text: str) -> None:
        if not self._ignored_depth or self._property is not None:
            self._text.append(text)
        elif self._script is not None and _LOCK_WORD in text:  # the parser passes whole lines
            self._add_locked_variables(self._script, text)

    def _add_locked_variables(self, script: Element, code: str) -> None:
        for name in find_locked_variables(code):
            self._count(0)
            script.children.append(Element(tag=LOCKED_VARIABLE, text=name))

    def end(self, _tag: str) -> None:
        if self._ignored_depth:
            if self._property is not None and self._property_depth == self._ignored_depth:
                self._end_property(self._property)
            self._ignored_depth -= 1
            if not self._ignored_depth:
                self._data_flow = self._script = None
            return
        element = self._open.pop()
        if not element.children:
            element.text = "".join(self._text)
        if element.tag == "ObjectData":
            self._max_depth = MAX_DEPTH
        elif element.tag == "ProjectItem" and self._open:
            self._add_locked_variables(self._open[-1], element.text)
        self._text = []

    def _end_property(self, element: Element) -> None:
        """Add a property of a component to its data flow."""
        element.text = "".join(self._text)
        if element.text and self._data_flow is not None:
            self._count(0)
            self._data_flow.children.append(element)
        self._property = None

    def close(self) -> Element | None:
        return self.root


def _is_ignored_parameter(tag: str, attributes: Mapping[str, str]) -> bool:
    """Whether an element is a parameter for a connection manager property that is unrelated to mail."""
    if tag != "Parameter":
        return False
    name = attributes.get("Name", "")
    return name.startswith("CM.") and name.rpartition(".")[2] not in _READ_PARAMETERS


def find_locked_variables(code: str) -> list[str]:
    """Return the names of the variables that C# or Visual Basic code locks for writing."""
    return _LOCK.findall(code)


# --- Properties, in both dialects


def find_property(element: Element, name: str) -> str | None:
    """Return a property's text, or None if the file omits it."""
    if name in element.attributes:
        return element.attributes[name]
    for child in element.children:
        if child.tag == "Property" and child.attributes.get("Name") == name:
            return child.text
    return None


def get_text(element: Element, name: str, default: str = "") -> str:
    """Return a property's text, or the default if the file omits it."""
    value = find_property(element, name)
    return default if value is None else value


def get_flag(element: Element, name: str, *, default: bool = False) -> bool:
    """Return a Boolean property, or the default if the file omits it."""
    value = find_property(element, name)
    return default if value is None else is_true(value)


def get_integer(element: Element, name: str) -> int | None:
    """Return an integer property; None if the file omits it, or it is not an integer."""
    return parse_integer(find_property(element, name))


def is_true(value: str) -> bool:
    """Whether SSIS reads a text as true: `True`, `-1` or `1`."""
    return value.strip().lower() in _TRUE


def parse_integer(value: str | None) -> int | None:
    """Return an integer of at most nine digits; None for anything else."""
    value = (value or "").strip()
    return int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else None


def is_sensitive(value: Element) -> bool:
    """Whether the element of a value marks it as sensitive or encrypted."""
    return get_flag(value, "Sensitive") or get_flag(value, "Encrypted")


def find_members(element: Element, collection: str, member: str) -> Iterator[Element]:
    """Yield the members of a collection, which SSIS 2005 and 2008 put directly into the owner.

    Args:
        element: the owner.
        collection: the tag of the collection, such as `Variables`.
        member: the tag of a member, such as `Variable`.
    """
    for child in element.children:
        if child.tag == member and "IDREF" not in child.attributes:
            yield child
        elif child.tag == collection:
            yield from child.find_all(member)


def read_expressions(element: Element) -> dict[str, str]:
    """Return the non-empty property expressions by property name."""
    return {
        child.attributes.get("Name", ""): child.text
        for child in find_members(element, "PropertyExpressions", "PropertyExpression")
        if child.text.strip() and child.attributes.get("Name")
    }


def normalize_id(value: str) -> str:
    """Return a GUID in upper case with braces; anything else, such as a refId, only stripped."""
    guid = _GUID.fullmatch(value.strip())
    return f"{{{guid[1].upper()}}}" if guid else value.strip()


def read_ids(element: Element) -> tuple[str, ...]:
    """Return the ids by which other elements may refer to this one: its GUID, then its refId."""
    return tuple(normalize_id(value) for name in ("DTSID", "refId") if (value := get_text(element, name)).strip())


def find_object_data(element: Element, tag: str) -> Element | None:
    """Return the child with this tag in the ObjectData of a task or connection manager, or None."""
    data = element.find("ObjectData")
    return None if data is None else data.find(tag)
