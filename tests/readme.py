"""Writes the connection table of the documents from the code: `make readme`; a test compares them."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS, Field
from airflow_provider_smtpcm.connection_manager.fields import FieldType

PAGE = Path(__file__).resolve().parent.parent / "docs/connection.md"
BEGIN = "<!-- connection table: written from connection_manager.FIELDS; `make readme` updates it -->\n"
END = "<!-- end of the connection table -->\n"


def build_connection_table() -> str:
    """Return one row for each field of the form."""
    rows = ["| in the form | key | values (**default**) | what it means |", "|---|---|---|---|"]
    for field in (*STANDARD_FIELDS, *FIELDS):
        where = "" if field in STANDARD_FIELDS else "extra "
        meaning = f"{field.help} {f'SSIS: *{field.ssis}*.' if field.ssis else ''}".strip().replace("|", "\\|")
        cells = (field.label, f"{where}`{field.name}`", _values(field), meaning)
        rows.append(f"| {' | '.join(cells)} |")
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
    """Return the page with the table as the code has it now."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{build_connection_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
