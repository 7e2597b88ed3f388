"""The table of settings as Airflow's connection form takes it: declarative fields, labels, placeholders.

Knows the shape of Airflow's provider info, and imports no Airflow.
"""

from __future__ import annotations

from airflow_provider_smtpcm.connection_manager.fields import FIELDS, STANDARD_FIELDS, Field, Kind

ADVANCED = "Advanced"


def conn_fields() -> dict[str, dict[str, object]]:
    """`conn-fields`: one entry for each extra, in the order of the form."""
    return {
        field.name: {"label": field.label, "description": help_text(field), "schema": schema(field)} for field in FIELDS
    }


def ui_field_behaviour() -> dict[str, object]:
    """`ui-field-behaviour`: Airflow's own fields under this package's labels; its schema field means nothing here."""
    return {
        "hidden-fields": ["schema"],
        "relabeling": {field.name: field.label for field in STANDARD_FIELDS},
        "placeholders": {field.name: field.placeholder for field in STANDARD_FIELDS},
    }


def help_text(field: Field) -> str:
    """The help as plain text: the form shows no markup."""
    return field.help.replace("`", "")


def schema(field: Field) -> dict[str, object]:
    """What the form lets a person enter, as Airflow's own dialect of JSON schema."""
    types = {Kind.FLAG: "boolean", Kind.NUMBER: "number"}
    described: dict[str, object] = {"type": [types.get(field.kind, "string"), "null"]}
    # The form saves every default that it shows, and would so contradict an SSIS connection string.
    if field.default is not None and not field.in_ssis_properties:
        described["default"] = field.default if field.kind in types else str(field.default)
    match field.kind:
        case Kind.CHOICE:
            described["enum"] = [str(value) for value in field.choices]
            described["values_display"] = {str(value): label for value, label in field.choices.items()}
        case Kind.NUMBER:
            # No minimum: Airflow 3.1 and 3.2 write it into a box that a person empties, a timeout of one second.
            described["maximum"] = field.maximum
        case Kind.MULTILINE:
            described["format"] = "multiline"
        case Kind.SECRET:
            described["format"] = "password"
    if field.advanced:
        described["section"] = ADVANCED
    return described
