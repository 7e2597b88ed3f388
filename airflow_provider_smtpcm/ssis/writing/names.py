"""Names for Airflow out of SSIS's: ASCII, readable, each given once."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 60
_LONGEST_VARIABLE = 32
_SPELLED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "þ": "th"})
_OURS = {
    "DAG",
    "dag",
    "EmptyOperator",
    "OnlyIfOperator",
    "SendMailNotifier",
    "SendMailOperator",
    "TaskGroup",
    "macros",
    "read_message_file",
    "ssis",
}


def ascii_words(name: str) -> str:
    """A name in ASCII letters, digits and single underscores; empty where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name.translate(_SPELLED)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:_LONGEST].strip("_")


def slug(name: str, otherwise: str) -> str:
    """The same in lower case; `otherwise` where nothing is left."""
    return ascii_words(name).lower() or otherwise


def dag_id_of(name: str) -> str:
    """A package's name, if Airflow takes it as it is, or else one that it takes."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name):
        return name
    return ascii_words(name) or "package"


class Unique:
    """Gives each name once; names that differ in case alone are one."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self._taken = {name.lower() for name in taken or ()}

    def is_free(self, name: str) -> bool:
        """Whether nobody has it."""
        return name.lower() not in self._taken

    def give(self, name: str) -> str:
        """The name, or with a number behind it."""
        given, count = name, 2
        while not self.is_free(given):
            given, count = f"{name}_{count}", count + 1
        self._taken.add(given.lower())
        return given


def variables() -> Unique:
    """For the names of a module's variables."""
    return Unique({*keyword.kwlist, *dir(builtins), *_OURS})


def variable(name: str) -> str:
    """A task's id as a name of Python."""
    short = name[:_LONGEST_VARIABLE].strip("_")
    return f"n_{short}" if short[:1].isdigit() else short


def listed(names: Iterable[str]) -> str:
    """Names as a sentence has them: each in quotation marks."""
    return ", ".join(repr(name) for name in names)
