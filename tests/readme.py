"""Writes the connection tables of the documents from the code: `make readme`; a test compares them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS, Field
from airflow_provider_smtpcm.connection_manager.fields import FieldType

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/connection-fields.md"
BEGIN = "<!-- connection tables: written from connection_manager.FIELDS; `make readme` updates them -->\n"
END = "<!-- end of the connection tables -->\n"


def build_connection_tables() -> str:
    """Return a table for each section of the form, with one row for each field."""
    sections = {
        "Standard fields": STANDARD_FIELDS,
        "Extra fields": [field for field in FIELDS if not field.advanced],
        "Advanced": [field for field in FIELDS if field.advanced],
    }
    return "\n".join(f"## {title}\n\n{_table(fields)}" for title, fields in sections.items())


def _table(fields: Iterable[Field]) -> str:
    rows = ["| in the form, and its key | values (**default**) | what it means |", "|---|---|---|"]
    for field in fields:
        meaning = f"{field.help} {f'SSIS: *{field.ssis}*.' if field.ssis else ''}".strip().replace("|", "\\|")
        rows.append(f"| {field.label}<br>`{field.name}` | {_values(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _values(field: Field) -> str:
    match field.type:
        case FieldType.CHOICE:
            return ", ".join(f"**`{v}`**" if v == field.default else f"`{v}`" for v in field.choices)
        case FieldType.BOOLEAN:
            return ", ".join(f"**`{v}`**" if v == str(field.default).lower() else f"`{v}`" for v in ("true", "false"))
        case FieldType.NUMBER:
            default = f"**{field.default:g}**, " if isinstance(field.default, float) else ""
            return f"{default}{field.minimum:g} to {field.maximum:g}"
        case FieldType.MULTILINE:
            return "a path, or PEM text"
    return "text"


def render_page() -> str:
    """Return the page with the tables as the code has it now."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{build_connection_tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
