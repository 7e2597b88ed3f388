"""A document as a small tree, without what a mail has no use for. Knows no parser: it is told what one comes across."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.errors import PackageError

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
