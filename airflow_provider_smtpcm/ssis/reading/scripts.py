"""Reads Script tasks that do nothing but copy variables, in C# or Visual Basic.

Event handlers often have one: it copies System::ErrorDescription and the like to user variables, for the mail after
it. A script with any other statement, such as an `if`, is not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_provider_smtpcm.ssis.reading.xml import Element

# In each language: a comment, or a string, in which there is none; the method Main with all that follows; and what
# ends a statement.
_C_SHARP_NOISE = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_C_SHARP_MAIN = re.compile(r"\bpublic\s+void\s+Main\s*\(\s*\)\s*\{(?P<body>[^{}]*)\}")
_BASIC_NOISE = re.compile(r"(\"(?:[^\"\n]|\"\")*\")|'[^\n]*")
_BASIC_MAIN = re.compile(r"\bPublic\s+Sub\s+Main\s*\(\s*\)(?P<body>.*?)\bEnd\s+Sub\b", re.DOTALL | re.IGNORECASE)
_VARIABLE = r'Dts\s*\.\s*Variables\s*[\[(]\s*"(?P<{}>[^"]+)"\s*[\])]\s*\.\s*Value'
_COPY = re.compile(
    _VARIABLE.format("target")
    + r"\s*=\s*(?:\(\s*(?:string|object)\s*\)\s*)?"
    + _VARIABLE.format("source")
    + r"(?:\s*\.\s*ToString\s*(?:\(\s*\))?)?",
    re.IGNORECASE,
)
_SUCCESS = re.compile(
    r"Dts\s*\.\s*TaskResult\s*=\s*(?:\(\s*int\s*\)\s*)?(?:Dts\s*\.\s*Results|ScriptResults)\s*\.\s*Success",
    re.IGNORECASE,
)


def read_copies(script: Element, known: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs of a variable and the one whose value it gets; none if the script does anything else.

    Args:
        script: the ScriptProject.
        known: the names of the variables that it lists, such as `System::ErrorDescription`.
    """
    items = [child for child in script.children if child.tag == "ProjectItem" and child.text]
    if len(items) != 1:
        return ()
    statements = _split_main(items[0])
    if statements is None:
        return ()
    values: dict[str, str] = {}
    names = tuple(known)
    for statement in statements:
        if _SUCCESS.fullmatch(statement):
            continue
        copy = _COPY.fullmatch(statement)
        if copy is None:
            return ()
        target, source = (_qualify(copy[part], names) for part in ("target", "source"))
        values[target] = values.get(source, source)
    return tuple((target, source) for target, source in values.items() if target != source)


def _split_main(item: Element) -> list[str] | None:
    """Return the statements of Main; None if it has blocks, or cannot be found."""
    if item.attributes.get("Name", "").lower().endswith(".cs"):
        main = _C_SHARP_MAIN.search(_C_SHARP_NOISE.sub(lambda match: match[1] or " ", item.text))
        separator = ";"
    else:
        main = _BASIC_MAIN.search(_BASIC_NOISE.sub(lambda match: match[1] or "", item.text))
        separator = "\n"
    if main is None:
        return None
    return [statement for part in main["body"].split(separator) if (statement := " ".join(part.split()))]


def _qualify(name: str, known: Iterable[str]) -> str:
    """Return the name of a variable with its namespace, which a script may leave out."""
    if "::" in name:
        return name
    return next((each for each in known if each.rpartition("::")[2] == name), f"User::{name}")
