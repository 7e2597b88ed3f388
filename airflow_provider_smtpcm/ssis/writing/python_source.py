"""Python source text: valid names, and a layout that ruff and black leave unchanged at line lengths of 88 and 120.

A call or a collection with elements takes one line per element and ends in a trailing comma, so that no formatter
joins the lines. A string literal of more than 120 characters is written as several, which Python concatenates.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.writing.secrets import sanitize

_MAX_NAME = 60  # characters in a task id
_MAX_VARIABLE = 32
_MODULE_GLOBALS = {
    "DAG",
    "dag",
    "EmptyOperator",
    "ExpressionOperator",
    "ListFilesOperator",
    "MailMergeOperator",
    "OnlyIfOperator",
    "PlaceholderOperator",
    "SQLExecuteQueryOperator",
    "SendMailNotifier",
    "SendMailOperator",
    "TaskGroup",
    "TypedTemplate",
    "fetch_results",
    "full_result_set",
    "macros",
    "no_result_set",
    "read_message_file",
    "result_rows",
    "single_row",
    "ssis",
    "task_group",
    "timedelta",
}
# Airflow passes the arguments of a task group as keyword arguments of a method with these two of its own.
_TASK_GROUP_ARGUMENTS = {"self", "tg_factory"}
_INDENT = "    "
_WIDTH = 88
_MAX_UNSPLIT = 120  # characters; the parts of a longer literal do not fit on one line, so no formatter joins them
_MAX_PART = 72
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
# The characters of a literal that may need an escape; those outside ASCII are looked at one by one.
_SPECIAL = re.compile(r"""["'\\]|[^ -~]""")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


def ascii_words(name: str) -> str:
    """Return a name in ASCII letters, digits and single underscores, transliterated.

    It has at most 60 characters, and may be empty.
    """
    if not name.isascii():
        from slugify import slugify  # loaded on use: most names are ASCII

        name = slugify(name, separator="_", lowercase=False, entities=False)
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_MAX_NAME].strip("_")


def slug(name: str, default: str) -> str:
    """Return a name as `ascii_words` in lower case, or the default if that is empty."""
    return ascii_words(name).lower() or default


def make_dag_id(name: str) -> str:
    """Return the name of a package as a DAG id: unchanged if it is a valid one in ASCII of at most 200 characters."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name):
        return name
    return ascii_words(name) or "package"


def variable_name(task_id: str) -> str:
    """Return the name of the Python variable for a task id."""
    short = task_id[:_MAX_VARIABLE].strip("_")
    return f"n_{short}" if short[:1].isdigit() else short


def quoted_list(names: Iterable[str]) -> str:
    """Return names for a sentence: `'a', 'b'`."""
    return ", ".join(repr(name) for name in names)


class UniqueNames:
    """Allocates names that are unique regardless of case.

    Args:
        taken: names that are not available.
    """

    def __init__(self, taken: set[str] | None = None) -> None:
        self._taken = {name.lower() for name in taken or ()}

    @classmethod
    def for_variables(cls) -> UniqueNames:
        """Return an allocator for the variables of a DAG module; keywords, builtins and imported names are taken."""
        return cls({*keyword.kwlist, *dir(builtins), *_MODULE_GLOBALS, *_TASK_GROUP_ARGUMENTS})

    def is_free(self, name: str) -> bool:
        """Whether the name is available."""
        return name.lower() not in self._taken

    def allocate(self, name: str) -> str:
        """Return the name, with a number appended if it is taken."""
        candidate, number = name, 2
        while not self.is_free(candidate):
            candidate, number = f"{name}_{number}", number + 1
        self._taken.add(candidate.lower())
        return candidate


@dataclass(frozen=True, slots=True)
class Raw:
    """An expression in source form, such as a variable name."""

    text: str


@dataclass(frozen=True, slots=True)
class KeywordArgument:
    """A keyword argument; each of its comments is written above it."""

    name: str
    value: object
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call with keyword arguments only."""

    name: str
    arguments: Sequence[KeywordArgument] = ()


def keywords(**values: object) -> list[KeywordArgument]:
    """Return keyword arguments without comments."""
    return [KeywordArgument(name, value) for name, value in values.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithItem:
    """A context manager of a `with` statement; `name` is the variable after `as`, or empty."""

    call: FunctionCall
    name: str = ""
    comment: str = ""


@dataclass(slots=True)
class Source:
    """Collects the lines of a module."""

    lines: list[str] = field(default_factory=list)

    def blank(self) -> None:
        """End with exactly one empty line."""
        while self.lines and not self.lines[-1]:
            self.lines.pop()
        self.lines.append("")

    def comment(self, text: str, depth: int = 0) -> None:
        """Write a comment; its lines are wrapped."""
        self.lines += comment_lines(text, depth)

    def statement(self, before: str, value: object, after: str = "", depth: int = 0) -> None:
        """Write a value between two source texts, such as `with ` and `:`.

        Args:
            before: such as `x = `.
            value: see `expression_lines`.
            depth: the level of indentation.
        """
        first, *rest = expression_lines(value, depth)
        self.lines.append(f"{_INDENT * depth}{before}{first}")
        self.lines += rest
        self.lines[-1] += after

    def with_statement(self, items: Sequence[WithItem], depth: int = 0) -> None:
        """Write the head of a `with` statement."""
        if len(items) == 1:
            (item,) = items
            if item.comment:
                self.comment(item.comment, depth)
            self.statement("with ", item.call, f" as {item.name}:" if item.name else ":", depth)
            return
        self.lines.append(f"{_INDENT * depth}with (")
        for item in items:
            if item.comment:
                self.comment(item.comment, depth + 1)
            self.statement("", item.call, f" as {item.name}," if item.name else ",", depth + 1)
        self.lines.append(f"{_INDENT * depth}):")

    def function(self, name: str, parameters: Sequence[str], depth: int = 0) -> None:
        """Write the head of a function."""
        line = f"{_INDENT * depth}def {name}({', '.join(parameters)}):"
        if len(line) <= _WIDTH:
            self.lines.append(line)
            return
        inner = [f"{_INDENT * (depth + 1)}{parameter}," for parameter in parameters]
        self.lines += [f"{_INDENT * depth}def {name}(", *inner, f"{_INDENT * depth}):"]

    def dependency(self, upstream: Sequence[str], downstream: str, depth: int = 0) -> None:
        """Write `[a, b] >> c`."""
        names = upstream[0] if len(upstream) == 1 else f"[{', '.join(upstream)}]"
        line = f"{_INDENT * depth}{names} >> {downstream}"
        if len(line) <= _WIDTH:
            self.lines.append(line)
            return
        inner = [f"{_INDENT * (depth + 1)}{name}," for name in upstream]
        self.lines += [f"{_INDENT * depth}[", *inner, f"{_INDENT * depth}] >> {downstream}"]

    def text(self) -> str:
        """Return the text of the module."""
        return "\n".join(self.lines).rstrip("\n") + "\n"


def expression_lines(value: object, depth: int = 0) -> list[str]:
    """Return a value as source lines.

    Args:
        value: a string, number, mapping, list, `Raw` or `FunctionCall`, in any nesting.
        depth: the level of indentation of all lines but the first, which has none.
    """
    inner, outer = _INDENT * (depth + 1), _INDENT * depth
    if isinstance(value, Raw):
        return [value.text]
    if isinstance(value, str):
        literals = string_literals(value)
        return literals if len(literals) == 1 else ["(", *(f"{inner}{literal}" for literal in literals), f"{outer})"]
    if isinstance(value, FunctionCall):
        lines: list[str] = []
        for argument in value.arguments:
            for comment in argument.comments:
                lines += comment_lines(comment, depth + 1)
            first, *rest = expression_lines(argument.value, depth + 1)
            lines += [f"{inner}{argument.name}={first}", *rest]
            lines[-1] += ","
        return [f"{value.name}(", *lines, f"{outer})"] if lines else [f"{value.name}()"]
    if isinstance(value, Mapping):
        return _collection("{", ((f"{_string_literal(str(key))}: ", item) for key, item in value.items()), "}", depth)
    if isinstance(value, list | tuple):
        return _collection("[", (("", item) for item in value), "]", depth)
    return [repr(value)]


def _collection(start: str, items: Iterable[tuple[str, object]], end: str, depth: int) -> list[str]:
    lines: list[str] = []
    for before, value in items:
        first, *rest = expression_lines(value, depth + 1)
        lines += [f"{_INDENT * (depth + 1)}{before}{first}", *rest]
        lines[-1] += ","
    return [start, *lines, f"{_INDENT * depth}{end}"] if lines else [start + end]


def string_literals(text: str) -> list[str]:
    """Return a text as one string literal, or as several that Python concatenates."""
    literal = _string_literal(text)
    if len(literal) <= _MAX_UNSPLIT:
        return [literal]
    parts: list[str] = []
    for line in _LINES.findall(text):
        parts += _split(line)
    return [_string_literal(part) for part in parts]


def _split(line: str) -> list[str]:
    """Split a line after spaces."""
    parts = [""]
    for word in re.findall(r"[^ \n]* *\n|[^ \n]* +|[^ \n]+", line):
        if parts[-1] and len(parts[-1]) + len(word.strip()) > _MAX_PART:
            parts.append("")
        parts[-1] += word
    return [part for part in parts if part]


def _string_literal(text: str) -> str:
    """Return one string literal, with the quotes that need fewer escapes, as formatters choose them."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    if text.isprintable() and quote not in text and "\\" not in text:
        return f"{quote}{text}{quote}"
    return quote + _SPECIAL.sub(lambda match: _escape(match[0], quote), text) + quote


def _escape(char: str, quote: str) -> str:
    if char == quote:
        return f"\\{char}"
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def comment_lines(text: str, depth: int = 0) -> list[str]:
    """Return a comment, sanitized; each of its lines is wrapped."""
    start = f"{_INDENT * depth}# "
    width = max(_WIDTH - len(start), 40)
    lines: list[str] = []
    for line in sanitize(text).replace("\t", " ").split("\n"):
        lines += textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{start}{line}".rstrip() for line in lines]


def docstring_lines(paragraphs: Iterable[str]) -> list[str]:
    """Return the docstring of a module, sanitized; the first paragraph becomes one line."""
    first, *rest = [sanitize(paragraph).replace("\t", " ").replace('"""', "'''") for paragraph in paragraphs]
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
