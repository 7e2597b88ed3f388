"""Both dialects: properties as child elements (2005, 2008), or as attributes without the defaults (2012 on)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_provider_smtpcm.ssis.reading.nodes import Node

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
