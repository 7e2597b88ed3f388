"""Every finding has a code, and the report and the documentation explain it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from airflow_provider_smtpcm.ssis.report.entries import FINDING_MEANINGS
from tests.documents.pages import DOCS, ROOT, table_after

_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")
_MAKERS = {"find", "add_findings", "add_finding", "note", "_note", "decision", "_decision", "Finding"}


def codes_in(path: Path) -> set[str]:
    """Return the codes in a module: `Finding(code="...")`, `find("...", ...)`, `note("...", ...)`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [word.value for word in node.keywords if word.arg == "code"] or node.args[:1]
        if name in _MAKERS and given:
            # One of several may be chosen on the spot.
            found |= {
                one.value
                for one in ast.walk(given[0])
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and _CODE.fullmatch(one.value)
            }
    return found


def test_every_code_in_the_source_is_explained_and_no_other() -> None:
    """A new finding needs an explanation; a removed one needs none."""
    source = {code for path in (ROOT / "airflow_provider_smtpcm/ssis").rglob("*.py") for code in codes_in(path)}
    assert len(source) > 10
    assert sorted(source) == sorted(FINDING_MEANINGS)


def test_the_documents_explain_them_in_the_same_words() -> None:
    """In a table, sorted by code."""
    rows = table_after(DOCS / "reference/ssis-findings.md", "## Codes")
    expected = [[code, FINDING_MEANINGS[code]] for code in sorted(FINDING_MEANINGS)]
    assert [[code.strip("`"), meaning] for code, meaning in rows] == expected
