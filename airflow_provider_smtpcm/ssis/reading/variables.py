"""Reads variables, and the parameters of packages and projects. Sensitive values are not kept."""

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
    is_sensitive,
    is_true,
    parse_integer,
)

# OLE VARTYPEs, the data types of variables.
_STRING = 8
_OBJECTS = {12, 13}  # VT_VARIANT and VT_UNKNOWN
# Packages use VARTYPEs, as the model does; projects use .NET TypeCodes.
_VARTYPE_BY_TYPECODE = {3: 11, 5: 16, 6: 17, 7: 2, 8: 18, 9: 3, 10: 19, 11: 20, 12: 21, 13: 4, 14: 5, 15: 14, 16: 7}
_TYPECODE_STRING = 18


def read_variables(executable: Element, scope: tuple[str, ...], overrides: PropertyOverrides) -> tuple[Variable, ...]:
    """Return the variables that an executable or event handler declares, without System variables.

    Args:
        executable: the element.
        scope: the path of the executable.
        overrides: values from package configurations.
    """
    variables = []
    for element in find_members(executable, "Variables", "Variable"):
        namespace = get_text(element, "Namespace", "User")
        name = get_text(element, "ObjectName")
        if namespace == "System" or not name:
            continue
        value_element = element.find("VariableValue")
        attributes: Mapping[str, str] = value_element.attributes if value_element is not None else {}
        data_type = parse_integer(attributes.get("DataType"))
        expression = get_text(element, "Expression")
        is_secret = value_element is not None and is_sensitive(value_element)
        is_object = value_element is not None and (data_type in _OBJECTS or bool(value_element.children))
        value = None if value_element is None or is_secret or is_object else value_element.text
        variables.append(
            Variable(
                namespace=namespace,
                name=name,
                data_type=_STRING if data_type is None else data_type,
                value=None if is_secret else overrides.variable_value(scope, f"{namespace}::{name}", value),
                expression=expression if expression.strip() and get_flag(element, "EvaluateAsExpression") else None,
                scope=scope,
            )
        )
    return tuple(variables)


def read_propagate(handler: Element) -> bool | None:
    """Return the design-time value of System::Propagate in an event handler; None if the file has none."""
    for element in find_members(handler, "Variables", "Variable"):
        if get_text(element, "Namespace") == "System" and get_text(element, "ObjectName") == "Propagate":
            value_element = element.find("VariableValue")
            return None if value_element is None else is_true(value_element.text)
    return None


def read_package_parameters(package: Element) -> tuple[Parameter, ...]:
    """Return the parameters of a package."""
    parameters = []
    for element in find_members(package, "PackageParameters", "PackageParameter"):
        data_type = get_integer(element, "DataType")
        parameters.append(
            _read_parameter(
                element,
                name=get_text(element, "ObjectName"),
                data_type=_STRING if data_type is None else data_type,
                value_property="ParameterValue",
                scope="Package",
            )
        )
    return tuple(parameters)


def read_project_parameters(root: Element) -> tuple[Parameter, ...]:
    """Return the parameters in a `Project.params` file."""
    parameters = []
    for element in root.find_all("Parameter"):
        properties = element.find("Properties") or Element(tag="Properties")
        typecode = parse_integer(get_text(properties, "DataType")) or _TYPECODE_STRING
        parameters.append(
            _read_parameter(
                properties,
                name=element.attributes.get("Name", ""),
                data_type=_VARTYPE_BY_TYPECODE.get(typecode, _STRING),
                value_property="Value",
                scope="Project",
            )
        )
    return tuple(parameters)


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
        # An encrypted value is sensitive even if the parameter does not say so.
        if child.attributes.get("Name") == name:
            return None if is_sensitive(child) else child.text
    return None
