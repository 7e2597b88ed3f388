"""Reads Script tasks that only set variables: their statements as assignments in the expression language.

A script is recognized only if each statement of `Main` is an assignment whose value can be computed without running it.
Everything else stays a Script task: a wrong translation is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from airflow_provider_smtpcm.ssis.expressions import unparse
from airflow_provider_smtpcm.ssis.reading.script_languages import CSharpParser, VisualBasicParser
from airflow_provider_smtpcm.ssis.reading.script_parser import ScriptParser
from airflow_provider_smtpcm.ssis.reading.script_values import NotRecognizedError

_SOURCE_FILE = re.compile(r"(?:^|[\\/])scriptmain\.(cs|vb|vsaitem)$", re.IGNORECASE)
# Visual Studio's own text is some 6,000 characters; a script that only sets variables adds little to it.
_MAX_LENGTH = 20_000
_ENTRY_POINTS = {"", "main", "scriptmain"}
_LANGUAGES: Mapping[str, type[ScriptParser]] = {"csharp": CSharpParser, "basic": VisualBasicParser}


def is_source_file(name: str) -> bool:
    """Whether the name of a ProjectItem is that of the file with `Main`."""
    return _SOURCE_FILE.search(name) is not None


def read_assignments(
    sources: Sequence[str],
    *,
    language: str,
    entry_point: str,
    read_only: Sequence[str],
    read_write: Sequence[str],
) -> tuple[tuple[str, str], ...] | None:
    """Return the variables that a script sets, each with the expression of its value; None if it does anything else.

    The expressions read the variables as they are before the script. A conversion to text by .NET is a cast to
    `(DT_WSTR, 4000)`, one to an integer or a Boolean a cast that the variable's type has to make unnecessary.

    Args:
        sources: the files with `Main`; a script with more than one is not recognized.
        language: `CSharp`, `VisualBasic`, or `Microsoft Visual Basic .NET` (2005).
        entry_point: the EntryPoint of the script; empty for the default.
        read_only: the names in its ReadOnlyVariables.
        read_write: the names in its ReadWriteVariables.
    """
    if len(sources) != 1 or entry_point.strip().lower() not in _ENTRY_POINTS:
        return None
    if len(sources[0]) > _MAX_LENGTH:
        return None
    parser_type = next((each for name, each in _LANGUAGES.items() if name in language.lower()), None)
    if parser_type is None:
        return None
    try:
        assigned = parser_type(sources[0], tuple(read_only), tuple(read_write)).parse()
    except NotRecognizedError:
        return None
    return tuple((name, unparse(value.tree)) for name, value in assigned.items())
