"""Lays out Python source as a formatter leaves it, whatever its line length. Knows no package and no Airflow.

Whatever has parts is written over several lines, with a comma after the last: so no formatter joins it. A long text is
written in pieces that could not be one line of 120 characters, and every other text is one line, however long.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.output import clean

_INDENT = "    "
_WIDTH = 88
_WHOLE = 120  # characters of a text, from which it cannot be joined by any formatter
_PIECE = 72
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_PIECES = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Raw:
    """Source as it is: a name, a tuple of names."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A keyword argument with the comments above it."""

    name: str
    value: object
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call by keyword arguments alone."""

    name: str
    arguments: Sequence[Argument] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedCall:
    """A call as one of the managers of a `with` statement."""

    call: Call
    name: str = ""
    comment: str = ""


@dataclass(slots=True)
class Source:
    """Lines as they grow."""

    lines: list[str] = field(default_factory=list)

    def blank(self, count: int = 1) -> None:
        """So many empty lines, and no more than that."""
        while self.lines and not self.lines[-1]:
            self.lines.pop()
        self.lines += [""] * count

    def comment(self, text: str, depth: int = 0) -> None:
        """A comment, wrapped, line by line as it was."""
        self.lines += comment_lines(text, depth)

    def statement(self, before: str, value: object, after: str = "", depth: int = 0) -> None:
        """`before`, a value and `after`: `x = ` and a call, or `with `, a call and `:`."""
        first, *rest = expression(value, depth)
        self.lines.append(f"{_INDENT * depth}{before}{first}")
        self.lines += rest
        self.lines[-1] += after

    def managed(self, items: Sequence[ManagedCall], depth: int = 0) -> None:
        """The head of a `with` statement."""
        if len(items) == 1:
            (one,) = items
            if one.comment:
                self.comment(one.comment, depth)
            self.statement("with ", one.call, f" as {one.name}:" if one.name else ":", depth)
            return
        self.lines.append(f"{_INDENT * depth}with (")
        for one in items:
            if one.comment:
                self.comment(one.comment, depth + 1)
            self.statement("", one.call, f" as {one.name}," if one.name else ",", depth + 1)
        self.lines.append(f"{_INDENT * depth}):")

    def arrow(self, before: Sequence[str], after: str, depth: int = 0) -> None:
        """`[a, b] >> c`."""
        names = before[0] if len(before) == 1 else f"[{', '.join(before)}]"
        line = f"{_INDENT * depth}{names} >> {after}"
        if len(line) <= _WIDTH:
            self.lines.append(line)
            return
        inner = [f"{_INDENT * (depth + 1)}{name}," for name in before]
        self.lines += [f"{_INDENT * depth}[", *inner, f"{_INDENT * depth}] >> {after}"]

    def text(self) -> str:
        """The module."""
        return "\n".join(self.lines).rstrip("\n") + "\n"


def expression(value: object, depth: int = 0) -> list[str]:
    """The lines of a value; the first without its indentation."""
    inner, outer = _INDENT * (depth + 1), _INDENT * depth
    if isinstance(value, Raw):
        return [value.text]
    if isinstance(value, str):
        pieces = string(value)
        return pieces if len(pieces) == 1 else ["(", *(f"{inner}{piece}" for piece in pieces), f"{outer})"]
    if isinstance(value, Call):
        lines: list[str] = []
        for argument in value.arguments:
            for comment in argument.comments:
                lines += comment_lines(comment, depth + 1)
            first, *rest = expression(argument.value, depth + 1)
            lines += [f"{inner}{argument.name}={first}", *rest]
            lines[-1] += ","
        return [f"{value.name}(", *lines, f"{outer})"] if lines else [f"{value.name}()"]
    if isinstance(value, Mapping):
        return _several("{", ((f"{string(str(key), whole=True)[0]}: ", one) for key, one in value.items()), "}", depth)
    if isinstance(value, list | tuple):
        return _several("[", (("", one) for one in value), "]", depth)
    return [repr(value)]


def _several(start: str, items: Iterable[tuple[str, object]], end: str, depth: int) -> list[str]:
    lines: list[str] = []
    for before, one in items:
        first, *rest = expression(one, depth + 1)
        lines += [f"{_INDENT * (depth + 1)}{before}{first}", *rest]
        lines[-1] += ","
    return [start, *lines, f"{_INDENT * depth}{end}"] if lines else [start + end]


def string(text: str, *, whole: bool = False) -> list[str]:
    """A text as one string, or as several that Python joins; `whole` forbids that."""
    one = _quoted(text)
    if whole or len(one) <= _WHOLE:
        return [one]
    pieces: list[str] = []
    for line in _PIECES.findall(text):
        pieces += _split(line)
    return [_quoted(piece) for piece in pieces]


def _split(line: str) -> list[str]:
    """A line in pieces that are not too long to read, broken behind blanks."""
    pieces = [""]
    for word in re.findall(r"[^ \n]* *\n|[^ \n]* +|[^ \n]+", line):
        if pieces[-1] and len(pieces[-1]) + len(word.strip()) > _PIECE:
            pieces.append("")
        pieces[-1] += word
    return [piece for piece in pieces if piece]


def _quoted(text: str) -> str:
    """With the quotation marks that need the fewest escapes, as formatters choose them."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(one, quote) for one in text) + quote


def _escaped(one: str, quote: str) -> str:
    if one == quote:
        return f"\\{one}"
    if one in _NAMED:
        return _NAMED[one]
    if one.isprintable():
        return one
    code = ord(one)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def comment_lines(text: str, depth: int = 0) -> list[str]:
    """A comment, each line of it wrapped."""
    start = f"{_INDENT * depth}# "
    lines: list[str] = []
    for line in clean(text).replace("\t", " ").split("\n"):
        lines += textwrap.wrap(line, max(_WIDTH - len(start), 40), break_long_words=False, break_on_hyphens=False) or [
            ""
        ]
    return [f"{start}{line}".rstrip() for line in lines]


def docstring(paragraphs: Iterable[str]) -> list[str]:
    """A module's docstring; the first paragraph is one line."""
    first, *rest = [clean(one).replace("\t", " ").replace('"""', "'''") for one in paragraphs]
    lines = [" ".join(first.split())]
    for paragraph in rest:
        lines.append("")
        for line in paragraph.split("\n"):
            hanging = "  " if line.startswith("* ") else ""
            lines += textwrap.wrap(
                line, _WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent=hanging
            ) or [""]
    raw = "r" if any("\\" in line for line in lines) else ""
    return [f'{raw}"""{lines[0].rstrip()}', *(line.rstrip() for line in lines[1:]), '"""']


# folded: Names for Airflow out of SSIS's: ASCII, readable, each given once.

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
