"""Parameters of a package and of a project. The value of a sensitive one is never kept."""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.package import Parameter
from airflow_provider_smtpcm.ssis.reading.dialect import as_number, flag, members, number, text
from airflow_provider_smtpcm.ssis.reading.nodes import Node

# A project writes .NET's TypeCode where a package writes OLE's VARTYPE; here it is OLE's everywhere.
_OLE = {3: 11, 5: 16, 6: 17, 7: 2, 8: 18, 9: 3, 10: 19, 11: 20, 12: 21, 13: 4, 14: 5, 15: 14, 16: 7, 18: 8}
_STRING = 8


def package_parameters(package: Node) -> tuple[Parameter, ...]:
    """The `PackageParameters` of a package."""
    found = []
    for node in members(package, "PackageParameters", "PackageParameter"):
        sensitive = flag(node, "Sensitive")
        data_type = number(node, "DataType")
        found.append(
            Parameter(
                name=text(node, "ObjectName"),
                data_type=_STRING if data_type is None else data_type,
                value=None if sensitive else _value(node, "ParameterValue"),
                required=flag(node, "Required"),
                sensitive=sensitive,
                scope="Package",
            )
        )
    return tuple(found)


def project_parameters(root: Node) -> tuple[Parameter, ...]:
    """The parameters of a `Project.params`."""
    found = []
    for node in root.all("Parameter"):
        properties = node.first("Properties") or Node(tag="Properties")
        sensitive = flag(properties, "Sensitive")
        data_type = as_number(text(properties, "DataType")) or 18
        found.append(
            Parameter(
                name=node.attributes.get("Name", ""),
                data_type=_OLE.get(data_type, _STRING),
                value=None if sensitive else _value(properties, "Value"),
                required=flag(properties, "Required"),
                sensitive=sensitive,
                scope="Project",
            )
        )
    return tuple(found)


def _value(node: Node, name: str) -> str | None:
    for child in node.all("Property"):
        # An encrypted one is sensitive, whatever else is written.
        if child.attributes.get("Name") == name:
            return None if flag(child, "Encrypted") or flag(child, "Sensitive") else child.text
    return None
