"""Reads which variables a task sets and reads that is neither a mail nor an Execute SQL or Expression task.

A Script task and a script component list their variables, a component of a data flow names one in a property, and
other tasks name those of their output. The data of a task that SSIS does not ship is searched for names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import find_variables, parse
from airflow_provider_smtpcm.ssis.model import OtherTask
from airflow_provider_smtpcm.ssis.reading.context import CommonFields
from airflow_provider_smtpcm.ssis.reading.scripts import read_assignments
from airflow_provider_smtpcm.ssis.reading.xml import LOCKED_VARIABLE, Element

# The attributes with the type and the name of an output; the name is a variable's if the type is `Variable`.
_OUTPUTS = {
    "WebServiceTaskData": (("OutputType", "OutputLocation"),),
    "WMIDRTaskData": (("DestinationType", "Destination"),),
    "XMLTaskData": (("DestinationType", "Destination"), ("DiffGramDestinationType", "DiffGramDestination")),
}
# The same for inputs.
_INPUTS = {
    "WMIDRTaskData": (("WQLQuerySourceType", "WQLQuerySource"),),
    "WMIEWTaskData": (("WQLQuerySourceType", "WQLQuerySource"),),
    "XMLTaskData": (
        ("SourceType", "Source"),
        ("SecondOperandType", "SecondOperand"),
        ("XPathStringSourceType", "XPathStringSource"),
    ),
}
# Tasks that set no variable.
_WITHOUT_OUTPUT = {"ASDdlData", "ASProcessingData", "BulkInsertTaskData", "FileSystemData", "FtpData", "WMIEWTaskData"}
# Properties of data flow components, and attributes of other vendors' tasks, that name a variable to read.
_INPUT_WORDS = (
    "readonly",
    "sqlcommand",
    "openrowset",
    "filename",
    "xmldata",
    "state",
    "source",
    "input",
    "query",
    "path",
)
_QUALIFIED_NAME = re.compile(r"\s*(?!System::)[^\W\d]\w*::[^\s:\[\]@\"][^:\[\]@\"]*")


# Properties of a Script task whose expressions do not change what it does.
_COSMETIC = {"Description", "Disable"}


@dataclass(slots=True)
class _Names:
    """The variables of a task, as the package names them, without repetitions."""

    sets: dict[str, None] = field(default_factory=dict)
    reads: dict[str, None] = field(default_factory=dict)


def read_other_task(data: Iterable[Element], kind: str, common: CommonFields, *, reads_scripts: bool) -> OtherTask:
    """Return a task of any other type, with the variables that its data names.

    Args:
        data: the elements in its ObjectData.
        kind: its CreationName.
        common: the fields that all executables have.
        reads_scripts: whether to look for scripts that only set variables.
    """
    names = _Names()
    assignments: tuple[tuple[str, str], ...] | None = None
    child_package = ""
    child_parameters: tuple[tuple[str, str], ...] = ()
    for element in data:
        if element.tag == "ExecutePackageTask":
            child_package, child_parameters = _read_child_package(element)
            _add(names.reads, (variable for _, variable in child_parameters))
        else:
            _read_names(element, names)
        if reads_scripts and element.tag == "ScriptProject" and _COSMETIC.issuperset(common["expressions"]):
            assignments = _read_script(element)
    if assignments is not None:
        names = _Names()
        _add(names.sets, (name for name, _ in assignments))
        _add(names.reads, (name for _, value in assignments for name in find_variables(parse(value))))
    return OtherTask(
        **common,
        kind=kind,
        sets=tuple(names.sets),
        reads=tuple(name for name in names.reads if assignments is not None or name not in names.sets),
        assignments=assignments,
        child_package=child_package,
        child_parameters=child_parameters,
    )


def _read_script(element: Element) -> tuple[tuple[str, str], ...] | None:
    """Return the variables that a Script task sets, with their values; None if it does anything else."""
    return read_assignments(
        [item.text for item in element.find_all("ProjectItem")],
        language=element.attributes.get("Language", ""),
        entry_point=element.attributes.get("EntryPoint", ""),
        read_only=split_names(_read_attribute_or_child(element, "ReadOnlyVariables")),
        read_write=split_names(_read_attribute_or_child(element, "ReadWriteVariables")),
    )


def split_names(text: str) -> list[str]:
    """Return the names in a list of variables, which commas separate."""
    return [name for part in text.split(",") if (name := part.strip())]


def _read_names(element: Element, names: _Names) -> None:
    attributes = element.attributes
    if element.tag == "ScriptProject":
        _add(names.sets, split_names(_read_attribute_or_child(element, "ReadWriteVariables")))
        _add(names.sets, (child.text for child in element.find_all(LOCKED_VARIABLE)))
        _add(names.reads, split_names(_read_attribute_or_child(element, "ReadOnlyVariables")))
    elif element.tag == "pipeline":
        for child in element.children:
            target = names.reads if _is_input(child.attributes.get("name", "")) else names.sets
            _add(target, split_names(child.text))
    elif element.tag == "ExecuteProcessData":
        _add(names.sets, (attributes.get(f"Standard{stream}Variable", "") for stream in ("Output", "Error")))
        _add(names.reads, (attributes.get("StandardInputVariable", ""),))
    elif element.tag == "CDCControlTask":
        _add(names.sets, (attributes.get("StateVariable", ""),))
    elif element.tag in _OUTPUTS or element.tag in _WITHOUT_OUTPUT:
        _add(names.sets, _read_typed_names(element, _OUTPUTS))
        _add(names.reads, _read_typed_names(element, _INPUTS))
        # `TaskIsSourceVariable="True"`: `TaskSourcePath` is the name of a variable.
        paths = [value for name, value in attributes.items() if "Path" in name and _QUALIFIED_NAME.fullmatch(value)]
        _add(names.reads, paths)
    else:
        _search_names(element, names)


def _read_attribute_or_child(element: Element, name: str) -> str:
    child = element.find(name)
    return element.attributes.get(name) or (child.text if child is not None else "")


def _read_typed_names(element: Element, pairs: dict[str, tuple[tuple[str, str], ...]]) -> Iterator[str]:
    for type_name, name in pairs.get(element.tag, ()):
        if element.attributes.get(type_name, "").strip().lower() == "variable":
            yield element.attributes.get(name, "")


def _search_names(element: Element, names: _Names) -> None:
    """Add every attribute and text that is the qualified name of a variable; an output unless its name says input."""
    for name, value in (*element.attributes.items(), (element.tag, element.text)):
        if _QUALIFIED_NAME.fullmatch(value):
            # Many tasks write `<Body Type="8" Value="User::Body" />`.
            target = names.reads if _is_input(element.tag if name == "Value" else name) else names.sets
            _add(target, (value,))
    for child in element.children:
        _search_names(child, names)


def _is_input(name: str) -> bool:
    return any(word in name.lower() for word in _INPUT_WORDS)


def _read_child_package(element: Element) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the package that an Execute Package task names, and its pairs of parameter and variable."""

    def read(owner: Element, tag: str) -> str:
        child = owner.find(tag)
        return child.text.strip() if child is not None else ""

    parameters = []
    for assignment in element.find_all("ParameterAssignment"):
        name, value = read(assignment, "ParameterName"), read(assignment, "BindedVariableOrParameterName")
        if name and value:
            parameters.append((name, value))
    return read(element, "PackageName"), tuple(parameters)


def _add(target: dict[str, None], names: Iterable[str]) -> None:
    target.update(dict.fromkeys(name for text in names if (name := text.strip())))
