"""Reads variables, and the parameters of packages and projects. The value of a sensitive one is never kept."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_smtpcm.ssis.model import Parameter, Variable
from airflow_provider_smtpcm.ssis.reading.configurations import PropertyOverrides
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    get_flag,
    get_integer,
    get_text,
    is_true,
    parse_integer,
)

# OLE's VARTYPE, the type of a variable.
_STRING = 8
_NOT_TEXT = {12, 13}  # Variant and Object
# A project has .NET's TypeCode where a package has OLE's VARTYPE. The model has VARTYPE.
_VARTYPE_OF_TYPECODE = {3: 11, 5: 16, 6: 17, 7: 2, 8: 18, 9: 3, 10: 19, 11: 20, 12: 21, 13: 4, 14: 5, 15: 14, 16: 7}
_TYPECODE_STRING = 18


def read_variables(executable: Element, scope: tuple[str, ...], overrides: PropertyOverrides) -> tuple[Variable, ...]:
    """Return the variables that an executable or an event handler declares, without SSIS's own.

    Args:
        executable: its element.
        scope: its path.
        overrides: the values that configurations assign.
    """
    found = []
    for element in find_members(executable, "Variables", "Variable"):
        namespace = get_text(element, "Namespace", "User")
        name = get_text(element, "ObjectName")
        if namespace == "System" or not name:
            continue
        holder = element.find("VariableValue")
        attributes: Mapping[str, str] = holder.attributes if holder is not None else {}
        data_type = parse_integer(attributes.get("DataType"))
        expression = get_text(element, "Expression")
        is_secret = holder is not None and (get_flag(holder, "Sensitive") or get_flag(holder, "Encrypted"))
        has_text = holder is not None and not is_secret and data_type not in _NOT_TEXT and not holder.children
        value = holder.text if holder is not None and has_text else None
        found.append(
            Variable(
                namespace=namespace,
                name=name,
                data_type=_STRING if data_type is None else data_type,
                value=None if is_secret else overrides.variable_value(scope, f"{namespace}::{name}", value),
                expression=expression if expression.strip() and get_flag(element, "EvaluateAsExpression") else None,
                scope=scope,
            )
        )
    return tuple(found)


def read_propagate(handler: Element) -> bool | None:
    """Return the design-time value of System::Propagate in an event handler; None if it is not written."""
    for element in find_members(handler, "Variables", "Variable"):
        if get_text(element, "Namespace") == "System" and get_text(element, "ObjectName") == "Propagate":
            holder = element.find("VariableValue")
            return None if holder is None else is_true(holder.text)
    return None


def read_package_parameters(package: Element) -> tuple[Parameter, ...]:
    """Return the parameters of a package."""
    found = []
    for element in find_members(package, "PackageParameters", "PackageParameter"):
        data_type = get_integer(element, "DataType")
        found.append(
            _read_parameter(
                element,
                name=get_text(element, "ObjectName"),
                data_type=_STRING if data_type is None else data_type,
                value_property="ParameterValue",
                scope="Package",
            )
        )
    return tuple(found)


def read_project_parameters(root: Element) -> tuple[Parameter, ...]:
    """Return the parameters in a `Project.params`."""
    found = []
    for element in root.find_all("Parameter"):
        properties = element.find("Properties") or Element(tag="Properties")
        typecode = parse_integer(get_text(properties, "DataType")) or _TYPECODE_STRING
        found.append(
            _read_parameter(
                properties,
                name=element.attributes.get("Name", ""),
                data_type=_VARTYPE_OF_TYPECODE.get(typecode, _STRING),
                value_property="Value",
                scope="Project",
            )
        )
    return tuple(found)


def _read_parameter(properties: Element, *, name: str, data_type: int, value_property: str, scope: str) -> Parameter:
    sensitive = get_flag(properties, "Sensitive")
    return Parameter(
        name=name,
        data_type=data_type,
        value=None if sensitive else _read_value(properties, value_property),
        required=get_flag(properties, "Required"),
        sensitive=sensitive,
        scope=scope,
    )


def _read_value(properties: Element, name: str) -> str | None:
    for child in properties.find_all("Property"):
        # An encrypted value is sensitive, even if its parameter is not marked so.
        if child.attributes.get("Name") == name:
            return None if get_flag(child, "Encrypted") or get_flag(child, "Sensitive") else child.text
    return None
