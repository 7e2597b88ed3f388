"""Reads For loops and Foreach loops."""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.model import ForeachLoop, ForLoop
from airflow_provider_smtpcm.ssis.reading.context import ReadContext
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    get_integer,
    get_text,
    is_true,
    parse_integer,
    read_expressions,
)

# The names of enumerators in SSIS's designer. All versions have them in the CreationName.
_ENUMERATORS = {
    "foreachadoenumerator": "ADO",
    "foreachfileenumerator": "File",
    "foreachfromvarenumerator": "Variable",
    "foreachitemenumerator": "Item",
    "foreachnodelistenumerator": "NodeList",
    "foreachschemarowset": "SchemaRowset",
    "foreachsmoenumerator": "SMO",
}
# The elements that hold the properties of an enumerator.
_TAGS = {
    "FEEADO": "ADO",
    "ForEachFileEnumeratorProperties": "File",
    "FEEFVE": "Variable",
    "FEIEItems": "Item",
    "FEENODELIST": "NodeList",
}


def read_for_loop(element: Element, path: tuple[str, ...], context: ReadContext) -> ForLoop:
    """Return the expressions of a For loop."""

    def read(name: str) -> str:
        return context.overrides.task_property(path, name, get_text(element, name)).strip()

    return ForLoop(initialize=read("InitExpression"), condition=read("EvalExpression"), assign=read("AssignExpression"))


def read_foreach_loop(element: Element, path: tuple[str, ...], context: ReadContext) -> ForeachLoop:
    """Return the enumerator of a Foreach loop and its variable mappings."""
    enumerator = element.find("ForEachEnumerator") or Element(tag="ForEachEnumerator")
    data = enumerator.find("ObjectData")
    properties = next(iter(data.children), None) if data is not None else None
    if properties is None:
        properties = Element(tag="")
    # A file enumerator has an element for each property.
    values = dict(properties.attributes)
    for child in properties.find_all("FEFEProperty"):
        values.update(child.attributes)

    def read(attribute: str, property_name: str) -> str:
        value = values.get(attribute, "")
        return context.overrides.task_property((*path[:-1], f"{path[-1]}.ForEachEnumerator"), property_name, value)

    kind = _read_enumerator(get_text(enumerator, "CreationName"), properties.tag)
    return ForeachLoop(
        enumerator=kind,
        mappings=_read_mappings(element),
        variable=_read_variable(kind, values),
        enumeration=values.get("EnumType") or values.get("EnumerationType") or "",
        folder=read("Folder", "Directory"),
        file_spec=read("FileSpec", "FileSpec"),
        recurse=is_true(read("Recurse", "Recurse")),
        file_name_retrieval=parse_integer(read("FileNameRetrievalType", "FileNameRetrieval")) or 0,
        items=tuple(
            tuple(value.attributes.get("Value", "") for value in item.find_all("FEIEItemValue"))
            for item in properties.find_all("FEIEItem")
        ),
        expressions=read_expressions(enumerator),
    )


def _read_enumerator(creation_name: str, tag: str) -> str:
    name = creation_name.partition(",")[0].strip()
    known = (kind for word, kind in _ENUMERATORS.items() if word in name.lower())
    return _TAGS.get(tag) or next(known, name)


def _read_variable(kind: str, values: dict[str, str]) -> str:
    if kind == "NodeList":
        is_variable = values.get("SourceType", "").strip().lower() == "variable"
        return values.get("SourceDocument", "").strip() if is_variable else ""
    return (values.get("VarName") or values.get("VariableName") or "").strip()


def _read_mappings(element: Element) -> tuple[tuple[int, str], ...]:
    mappings = []
    for mapping in find_members(element, "ForEachVariableMappings", "ForEachVariableMapping"):
        variable = get_text(mapping, "VariableName").strip()
        if variable:
            mappings.append((get_integer(mapping, "ValueIndex") or 0, variable))
    return tuple(sorted(mappings))
