"""Reads Script tasks that only set variables: their statements as assignments in the expression language.

A script is recognized only if each statement of `Main` is an assignment whose value can be computed without running it.
Everything else stays a Script task: a wrong translation is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce

from airflow_provider_smtpcm.ssis.expressions import (
    Call,
    Cast,
    DataType,
    Expression,
    Literal,
    Name,
    Operation,
    TypeSpec,
    Unary,
    unparse,
)

#: The length of a cast that stands for .NET's conversion of a variable to text, whatever the variable's type is.
MAX_TEXT = 4000
# Locals are replaced by their values, and `a = a & a` doubles them each time.
_MAX_NODES = 1000
# Visual Studio's own text is some 6,000 characters.
_MAX_LENGTH = 20_000
_MAX_DEPTH = 50
_MAX_INT32 = 2**31 - 1
_MAX_ASCII = 127
_SOURCE_FILE = re.compile(r"(?:^|[\\/])scriptmain\.(cs|vb|vsaitem)$", re.IGNORECASE)
_ENTRY_POINTS = {"", "main", "scriptmain"}

_CSHARP_TOKENS = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* | /\*.*?\*/ | \#[ \t]*(?:region|endregion|pragma)\b[^\n]* )
    | (?P<verbatim> @"(?:[^"]|"")*" )
    | (?P<string> "(?:[^"\\\n]|\\.)*" )
    | (?P<character> '(?:[^'\\\n]|\\[^\n])[^'\n]*' )
    | (?P<name> [^\W\d]\w* )
    | (?P<number> \d\w* )
    | (?P<sign> \+= | == | [^\s\w] )
    """,
    re.VERBOSE | re.DOTALL,
)
_VB_TOKENS = re.compile(
    r"""
    (?P<skip> [^\S\n]+_[^\S\n]*\n | [^\S\n]+ | ['\u2018\u2019][^\n]*
        | \#[^\S\n]*(?:region|end[^\S\n]+region)\b[^\n]* | \brem\b[^\n]* )
    | (?P<string> "(?:[^"\n]|"")*"c? )
    | (?P<name> [^\W\d]\w* )
    | (?P<number> \d\w* )
    | (?P<sign> \+= | &= | [^\s\w] | \n )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CSHARP_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,4})|u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CSHARP_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
# Text, an escaped brace, a placeholder, or another use of a brace.
_FORMAT = re.compile(r"([^{}]+)|(\{\{|\}\})|\{(\d{1,3})\}|([{}])")
# After these, and before a closing parenthesis, VB lets a statement go on in the next line.
_VB_OPEN_ENDS = {"+", "&", "(", ",", "=", "+=", "&="}
_CONSTANTS = {
    "environment.newline": "\r\n",
    "system.environment.newline": "\r\n",
    "string.empty": "",
    "system.string.empty": "",
}
_VB_CONSTANTS = {
    "vbcrlf": "\r\n",
    "vbnewline": "\r\n",
    "vbcr": "\r",
    "vblf": "\n",
    "vbtab": "\t",
    "controlchars.crlf": "\r\n",
    "controlchars.newline": "\r\n",
    "controlchars.cr": "\r",
    "controlchars.lf": "\n",
    "controlchars.tab": "\t",
    "controlchars.quote": '"',
}
_CLOCKS = {"datetime.now", "system.datetime.now"}
_SUCCESS = {
    "scriptresults.success",
    "dts.results.success",
    "dtsexecresult.success",
    "microsoft.sqlserver.dts.runtime.dtsexecresult.success",
}


class _Kind(StrEnum):
    """The .NET type of a value."""

    TEXT = "String"
    INTEGER = "Int32"
    BOOLEAN = "Boolean"
    DATE = "DateTime"
    OBJECT = "Object"  # what `Dts.Variables("X").Value` is before it is converted


_TYPES = {
    "string": _Kind.TEXT,
    "int": _Kind.INTEGER,
    "integer": _Kind.INTEGER,
    "int32": _Kind.INTEGER,
    "bool": _Kind.BOOLEAN,
    "boolean": _Kind.BOOLEAN,
    "object": _Kind.OBJECT,
}
_CONVERSIONS = {
    "convert.tostring": _Kind.TEXT,
    "convert.toint32": _Kind.INTEGER,
    "convert.toboolean": _Kind.BOOLEAN,
}
_VB_CONVERSIONS = {"cstr": _Kind.TEXT, "cint": _Kind.INTEGER, "cbool": _Kind.BOOLEAN}


class _NotRecognizedError(Exception):
    """The script does something other than setting variables."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # `string`, `name`, `number`, `sign`, or `end`
    text: str


@dataclass(frozen=True, slots=True)
class _Value:
    """A value as an expression over the variables as they are when the script begins."""

    kind: _Kind
    tree: Expression
    nodes: int = 1


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
    if not read_write or len(sources[0]) > _MAX_LENGTH:  # most scripts, and it costs nothing
        return None
    parser_type = next((each for name, each in _LANGUAGES.items() if name in language.lower()), None)
    if parser_type is None:
        return None
    try:
        assigned = parser_type(sources[0], tuple(read_only), tuple(read_write)).parse()
    except _NotRecognizedError:
        return None
    return tuple((name, unparse(value.tree)) for name, value in assigned.items())


def _literal(value: str | int | bool) -> _Value:  # noqa: FBT001 - the value itself
    types = {str: (_Kind.TEXT, DataType.WSTR), bool: (_Kind.BOOLEAN, DataType.BOOL), int: (_Kind.INTEGER, DataType.I4)}
    kind, data_type = types[type(value)]
    return _Value(kind, Literal(type=TypeSpec(data_type), value=value))


def _cast(kind: _Kind, value: _Value, type_: TypeSpec) -> _Value:
    return _Value(kind, Cast(type=type_, operand=value.tree), value.nodes + 1)


def _to_text(value: _Value) -> _Value:
    """Return the text that `ToString` gives."""
    if value.kind is _Kind.TEXT:
        return value
    if value.kind is _Kind.DATE:  # the general format has no fraction of a second
        value = _cast(_Kind.DATE, value, TypeSpec(DataType.DATE))
    length = {_Kind.OBJECT: MAX_TEXT, _Kind.DATE: 30}.get(value.kind, 20)
    return _cast(_Kind.TEXT, value, TypeSpec(DataType.WSTR, (length,)))


def _convert(value: _Value, kind: _Kind) -> _Value:
    """Return a value as a type to which the script converts it; only a variable of that type can be converted."""
    if value.kind is kind:
        return value
    if value.kind is _Kind.OBJECT:
        if kind is _Kind.TEXT:
            return replace(value, kind=kind)
        if kind is _Kind.INTEGER:
            return _cast(kind, value, TypeSpec(DataType.I4))
        if kind is _Kind.BOOLEAN:
            return _cast(kind, value, TypeSpec(DataType.BOOL))
    if kind is _Kind.OBJECT:
        return value
    raise _NotRecognizedError


def _join(left: _Value, operator: str, right: _Value) -> _Value:
    """Return a sum or a concatenation of values of the same type."""
    nodes = left.nodes + right.nodes
    if left.kind is not right.kind or nodes > _MAX_NODES:
        raise _NotRecognizedError
    tree = left.tree
    if isinstance(tree, Operation):
        tree = replace(tree, rest=(*tree.rest, (operator, right.tree, 0)))
    else:
        tree = Operation(first=tree, rest=((operator, right.tree, 0),))
    return _Value(left.kind, tree, nodes)


def _concatenate(values: Sequence[_Value]) -> _Value:
    return reduce(lambda left, right: _join(left, "+", right), values)


def _format(values: Sequence[_Value]) -> _Value:
    """Return what `String.Format` gives for a literal with `{0}`, `{1}`, ... without formats."""
    pattern, *arguments = values
    if not (isinstance(pattern.tree, Literal) and isinstance(pattern.tree.value, str)):
        raise _NotRecognizedError
    parts: list[_Value] = []
    for match in _FORMAT.finditer(pattern.tree.value):
        text, index = match[1] or (match[2] and match[2][0]), match[3]
        if match[4] or (index and int(index) >= len(arguments)):
            raise _NotRecognizedError
        parts.append(arguments[int(index)] if index else _literal(text))
    return _concatenate(parts) if parts else _literal("")


class _Parser:
    """Parses `Main`, and keeps the value of each variable and local after each statement.

    Args:
        source: the file with `Main`.
        read_only: the names of the variables that the script may read.
        read_write: the names of those that it may also set.
    """

    def __init__(self, source: str, read_only: tuple[str, ...], read_write: tuple[str, ...]) -> None:
        self._read_only, self._read_write = read_only, read_write
        self._locals: dict[str, _Value | None] = {}
        self._types: dict[str, _Kind | None] = {}
        self._assigned: dict[str, _Value] = {}
        self._depth = 0
        self._tokens = self._find_main(self._tokenize(source))
        self._index = 0

    # What the languages have of their own.

    def _tokenize(self, source: str) -> list[_Token]:
        raise NotImplementedError

    def _find_main(self, tokens: list[_Token]) -> list[_Token]:
        """Return the tokens of the body of `Main`."""
        raise NotImplementedError

    def _parse_statement(self) -> None:
        raise NotImplementedError

    def _parse_expression(self) -> _Value:
        raise NotImplementedError

    def _ends_statement(self) -> bool:
        raise NotImplementedError

    # Tokens.

    @staticmethod
    def _key(text: str) -> str:
        """Return a name in the form in which equal names are equal."""
        return text

    def _peek(self, offset: int = 0) -> str:
        """Return the text of a token that is not a literal; empty for a literal and at the end."""
        index = self._index + offset
        token = self._tokens[index] if index < len(self._tokens) else _Token("end", "")
        return self._key(token.text) if token.kind in {"name", "sign"} else ""

    def _take(self) -> _Token:
        if self._index >= len(self._tokens):
            raise _NotRecognizedError
        self._index += 1
        return self._tokens[self._index - 1]

    def _accept(self, *texts: str) -> bool:
        """Take these tokens if they are next."""
        if all(self._peek(offset) == text for offset, text in enumerate(texts)):
            self._index += len(texts)
            return True
        return False

    def _expect(self, *texts: str) -> None:
        if not self._accept(*texts):
            raise _NotRecognizedError

    def _expect_kind(self, kind: str) -> str:
        token = self._take()
        if token.kind != kind:
            raise _NotRecognizedError
        return token.text

    # Statements.

    def parse(self) -> Mapping[str, _Value]:
        """Return the value of each variable that the script sets.

        Raises:
            _NotRecognizedError: it does something else.
        """
        while self._index < len(self._tokens):
            self._parse_statement()
        return self._assigned

    def _parse_result(self) -> None:
        """Parse what is assigned to `Dts.TaskResult`, which has to be success."""
        words: list[str] = []
        while not self._ends_statement():
            words.append(self._take().text.lower())
        text = "".join(words)
        for prefix in ("(int)", "cint", "ctype"):
            text = text.removeprefix(prefix)
        text = text.replace(",integer)", ")")
        if text.removeprefix("(").removesuffix(")") not in _SUCCESS | {"0"}:
            raise _NotRecognizedError

    def _declare(self, name: str, kind: _Kind | None, value: _Value | None) -> None:
        if self._key(name) in self._types:
            raise _NotRecognizedError
        self._types[self._key(name)] = kind
        self._locals[self._key(name)] = None
        if value is not None:
            self._set_local(name, value)

    def _set_local(self, name: str, value: _Value) -> None:
        key = self._key(name)
        if key not in self._types:
            raise _NotRecognizedError
        kind = self._types[key]
        self._locals[key] = value if kind is None else self._convert_to_local(value, kind)

    def _convert_to_local(self, value: _Value, kind: _Kind) -> _Value:
        return _convert(value, kind)

    def _get_local(self, name: str) -> _Value:
        value = self._locals.get(self._key(name))
        if value is None:
            raise _NotRecognizedError
        return value

    def _parse_assignment(self) -> None:
        """Parse an assignment to a local, to a variable of the package, or to `Dts.TaskResult`."""
        self._accept_self()
        if self._accept(self._key("Dts"), "."):
            if self._accept(self._key("TaskResult")):
                self._expect("=")
                self._parse_result()
                return
            name = self._parse_variable()
            value = self._parse_assigned(lambda: self._read_variable(name))
            if self._match(name, self._read_write) is None:
                raise _NotRecognizedError
            self._assigned[self._identify(name)] = value
            return
        local = self._expect_kind("name")
        value = self._parse_assigned(lambda: self._get_local(local))
        self._set_local(local, value)

    def _accept_self(self) -> None:
        """Take `this.` or `Me.`."""
        raise NotImplementedError

    def _parse_assigned(self, read: Callable[[], _Value]) -> _Value:
        """Parse an assignment from its operator on; return the value."""
        if self._accept("="):
            return self._parse_expression()
        if self._accept("+="):
            return self._add(read(), self._parse_expression())
        raise _NotRecognizedError

    def _add(self, left: _Value, right: _Value) -> _Value:
        raise NotImplementedError

    # Variables of the package.

    def _parse_variable(self) -> str:
        """Parse `Variables["X"].Value`, after `Dts.`; return the name."""
        raise NotImplementedError

    def _match(self, name: str, listed: Sequence[str]) -> str | None:
        """Return the name in a list of variables that means the same one; the list may lack the namespace."""
        found = {
            each
            for each in listed
            if each == name or each.endswith(f"::{name}") or ("::" not in each and name.endswith(f"::{each}"))
        }
        return found.pop() if len(found) == 1 else None

    def _identify(self, name: str) -> str:
        """Return the name of a variable with its namespace, if the script or the task has it."""
        listed = self._match(name, (*self._read_only, *self._read_write))
        if listed is None:  # SSIS does not find it, or locks it twice
            raise _NotRecognizedError
        return listed if "::" in listed else name

    def _read_variable(self, name: str) -> _Value:
        name = self._identify(name)
        return self._assigned.get(name) or _Value(_Kind.OBJECT, Name(name=name))

    # Expressions.

    def _parse_nested(self) -> _Value:
        """Parse an expression inside parentheses."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotRecognizedError
        value = self._parse_expression()
        self._depth -= 1
        return value

    def _parse_primary(self) -> _Value:
        """Parse a literal, a local, a variable, a constant or a conversion."""
        token = self._take()
        if token.kind == "string":
            return _literal(token.text)
        if token.kind == "number":
            if not token.text.isdecimal() or int(token.text) > _MAX_INT32:
                raise _NotRecognizedError
            return _literal(int(token.text))
        if token.kind == "name":
            return self._parse_name(token.text)
        if token.text == "(":
            value = self._parse_nested()
            self._expect(")")
            return value
        raise _NotRecognizedError

    def _parse_name(self, name: str) -> _Value:
        key = self._key(name)
        if key in self._types:
            return self._get_local(name)
        if key in {"true", "false"}:
            return _literal(key == "true")
        if key == self._key("Dts"):
            self._expect(".")
            return self._read_variable(self._parse_variable())
        return self._parse_path(name)

    def _parse_path(self, name: str) -> _Value:
        """Parse a constant such as `Environment.NewLine`, or a call such as `Convert.ToString(…)`."""
        path = name.lower()
        while True:
            value = self._parse_known(path)
            if value is not None:
                return value
            self._expect(".")
            path = f"{path}.{self._expect_kind('name').lower()}"
            if path.count(".") > 3:
                raise _NotRecognizedError

    def _parse_known(self, path: str) -> _Value | None:
        """Return the value of a constant or a call; None if the name may go on."""
        if path in _CONSTANTS:
            return _literal(_CONSTANTS[path])
        if path in _CLOCKS:
            return _Value(_Kind.DATE, Call(function="GETDATE", arguments=()))
        path = path.removeprefix("system.")
        if path in {"string.format", "string.concat"}:
            texts = self._parse_arguments()
            return _format(texts) if path == "string.format" else _concatenate(texts)
        kind = _CONVERSIONS.get(path)
        return None if kind is None else self._parse_conversion(kind)

    def _parse_arguments(self) -> list[_Value]:
        """Parse arguments, each converted to text."""
        self._expect("(")
        values = [_to_text(self._parse_nested())]
        while self._accept(","):
            values.append(_to_text(self._parse_nested()))
        self._expect(")")
        return values

    def _parse_conversion(self, kind: _Kind) -> _Value:
        """Parse the argument of a conversion."""
        self._expect("(")
        value = self._parse_nested()
        self._expect(")")
        return _to_text(value) if kind is _Kind.TEXT else _convert(value, kind)

    def _parse_postfix(self) -> _Value:
        """Parse a value, and `ToString` after it."""
        value = self._parse_primary()
        while self._peek() == ".":
            self._index += 1
            self._expect(self._key("ToString"))
            self._parse_empty_arguments()
            value = _to_text(value)
        return value

    def _parse_empty_arguments(self) -> None:
        raise NotImplementedError


class _CSharpParser(_Parser):
    """C#."""

    def _tokenize(self, source: str) -> list[_Token]:
        tokens = []
        position = 0
        while position < len(source):
            match = _CSHARP_TOKENS.match(source, position)
            if match is None:
                raise _NotRecognizedError
            position = match.end()
            kind, text = str(match.lastgroup), match[0]
            if kind == "verbatim":
                tokens.append(_Token("string", text[2:-1].replace('""', '"')))
            elif kind == "string":
                tokens.append(_Token("string", _unescape(text[1:-1])))
            elif kind != "skip":
                tokens.append(_Token(kind, text))
        return tokens

    def _find_main(self, tokens: list[_Token]) -> list[_Token]:
        texts = [token.text if token.kind in {"name", "sign"} else "" for token in tokens]
        starts = [index for index in range(len(texts)) if texts[index : index + 5] == ["void", "Main", "(", ")", "{"]]
        # A constructor runs before `Main`; `#if` and its like decide what is compiled.
        if len(starts) != 1 or "#" in texts or any(texts[i : i + 2] == ["ScriptMain", "("] for i in range(len(texts))):
            raise _NotRecognizedError
        start = end = starts[0] + 5
        depth = 1
        while depth and end < len(texts):
            depth += {"{": 1, "}": -1}.get(texts[end], 0)
            end += 1
        return tokens[start : end - 1]

    def _ends_statement(self) -> bool:
        return self._peek() == ";"

    def _accept_self(self) -> None:
        self._accept("this", ".")

    def _parse_statement(self) -> None:
        if self._accept(";"):
            return
        if self._accept("try", "{"):
            self._parse_try()
            return
        if self._accept("return", ";"):
            if self._index < len(self._tokens):
                raise _NotRecognizedError
            return
        self._accept("const")
        type_name = self._take_local_type()
        if type_name:
            self._parse_declarations(_TYPES.get(type_name))
        else:
            self._parse_assignment()
        self._expect(";")

    def _parse_try(self) -> None:
        """Parse `try` with `catch`. What is recognized raises no exception, so what catches one does not run."""
        while not self._accept("}"):
            self._parse_statement()
        if self._peek() != "catch":
            raise _NotRecognizedError
        while self._accept("catch"):
            if self._peek() == "(":
                self._skip_balanced("(", ")")
            self._skip_balanced("{", "}")
        if self._peek() == "finally":
            raise _NotRecognizedError

    def _skip_balanced(self, opening: str, closing: str) -> None:
        self._expect(opening)
        depth = 1
        while depth:
            token = self._take()
            if token.kind == "sign":
                depth += {opening: 1, closing: -1}.get(token.text, 0)

    def _take_local_type(self) -> str:
        """Return the type of a declaration in lower case; nothing if there is no declaration."""
        offset = 2 if (self._peek(), self._peek(1)) == ("System", ".") else 0
        word = self._peek(offset).lower()
        follows = self._index + offset + 1
        is_declaration = follows < len(self._tokens) and self._tokens[follows].kind == "name"
        if not is_declaration or word not in {"var", *_TYPES}:
            return ""
        self._index = follows
        return word

    def _parse_declarations(self, kind: _Kind | None) -> None:
        while True:
            name = self._expect_kind("name")
            self._declare(name, kind, self._parse_expression() if self._accept("=") else None)
            if not self._accept(","):
                return

    def _parse_variable(self) -> str:
        self._expect("Variables", "[")
        name = self._expect_kind("string")
        self._expect("]", ".", "Value")
        return name

    def _parse_expression(self) -> _Value:
        value = self._parse_unary()
        while self._peek() in {"+", "-"}:
            operator = self._take().text
            right = self._parse_unary()
            value = self._add(value, right) if operator == "+" else self._subtract(value, right)
        return value

    def _add(self, left: _Value, right: _Value) -> _Value:
        if _Kind.TEXT in {left.kind, right.kind}:
            return _join(_to_text(left), "+", _to_text(right))
        if left.kind is right.kind is _Kind.INTEGER:
            return _join(left, "+", right)
        raise _NotRecognizedError

    @staticmethod
    def _subtract(left: _Value, right: _Value) -> _Value:
        if left.kind is right.kind is _Kind.INTEGER:
            return _join(left, "-", right)
        raise _NotRecognizedError

    def _parse_unary(self) -> _Value:
        if self._accept("-"):
            return _negate(self._parse_postfix())
        kind = _TYPES.get(self._peek(1).lower())
        if self._peek() == "(" and kind is not None and self._peek(2) == ")":
            self._index += 3
            return _convert(self._parse_postfix(), kind)
        return self._parse_postfix()

    def _parse_empty_arguments(self) -> None:
        self._expect("(", ")")


class _VisualBasicParser(_Parser):
    """Visual Basic; names of locals and keywords are compared without regard to case."""

    @staticmethod
    def _key(text: str) -> str:
        return text.lower()

    def _tokenize(self, source: str) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        source = source.replace("\r\n", "\n").replace("\r", "\n")
        while position < len(source):
            match = _VB_TOKENS.match(source, position)
            if match is None:
                raise _NotRecognizedError
            position = match.end()
            kind, text = str(match.lastgroup), match[0]
            last = tokens[-1] if tokens else _Token("sign", "\n")
            if kind == "string":
                if text.endswith("c"):
                    kind, text = "character", text[:-1]
                tokens.append(_Token(kind, text[1:-1].replace('""', '"')))
            elif text == "\n":
                if not (last.kind == "sign" and last.text in {"\n", *_VB_OPEN_ENDS}):
                    tokens.append(_Token("sign", "\n"))
            elif kind != "skip":
                if text == ")" and last == _Token("sign", "\n"):
                    tokens.pop()
                tokens.append(_Token(kind, "\n" if text == ":" else text))
        return [*tokens, _Token("sign", "\n")]

    def _find_main(self, tokens: list[_Token]) -> list[_Token]:
        texts = [token.text.lower() if token.kind in {"name", "sign"} else "" for token in tokens]
        starts = [index for index in range(len(texts)) if texts[index : index + 5] == ["sub", "main", "(", ")", "\n"]]
        if len(starts) != 1 or "#" in texts or any(texts[i : i + 2] == ["sub", "new"] for i in range(len(texts))):
            raise _NotRecognizedError
        start = starts[0] + 5
        end = next((i for i in range(start, len(texts)) if texts[i : i + 2] == ["end", "sub"]), None)
        if end is None:
            raise _NotRecognizedError
        return tokens[start:end]

    def _ends_statement(self) -> bool:
        return self._peek() == "\n"

    def _accept_self(self) -> None:
        self._accept("me", ".")

    def _parse_statement(self) -> None:
        if self._accept("\n"):
            return
        if self._accept("try", "\n"):
            self._parse_try()
        elif self._accept("return") or self._accept("exit", "sub"):
            while self._accept("\n"):
                pass
            if self._index < len(self._tokens):
                raise _NotRecognizedError
            return
        elif self._accept("dim") or self._accept("const"):
            self._parse_declarations()
        else:
            self._parse_assignment()
        self._expect("\n")

    def _parse_try(self) -> None:
        """Parse `Try` with `Catch`. What is recognized raises no exception, so what catches one does not run."""
        while self._peek() != "catch":
            if self._peek() in {"finally", "end"}:
                raise _NotRecognizedError
            self._parse_statement()
        depth = 1
        while depth:
            if self._accept("end", "try"):
                depth -= 1
                continue
            if self._peek() == "finally" and depth == 1:
                raise _NotRecognizedError
            depth += self._peek() == "try"
            self._take()

    def _parse_declarations(self) -> None:
        """Parse `Dim a, b As String, c As Integer = 1`."""
        names: list[str] = []
        while True:
            names.append(self._expect_kind("name"))
            if self._accept(","):
                continue
            kind: _Kind | None = None
            if self._accept("as"):
                self._accept("system", ".")
                kind = _TYPES.get(self._take().text.lower())
                if kind is None:
                    raise _NotRecognizedError
            value = self._parse_expression() if self._accept("=") else None
            for name in names:
                self._declare(name, kind, value)
            names = []
            if not self._accept(","):
                return

    def _convert_to_local(self, value: _Value, kind: _Kind) -> _Value:
        return _to_text(value) if kind is _Kind.TEXT else _convert(value, kind)

    def _parse_variable(self) -> str:
        self._expect("variables")
        self._accept(".", "item")
        self._expect("(")
        name = self._expect_kind("string")
        self._expect(")", ".", "value")
        self._accept("(", ")")
        return name

    def _parse_assigned(self, read: Callable[[], _Value]) -> _Value:
        if self._accept("&="):
            return _join(_to_text(read()), "+", _to_text(self._parse_expression()))
        return super()._parse_assigned(read)

    def _parse_expression(self) -> _Value:
        value = self._parse_sum()
        while self._accept("&"):
            value = _join(_to_text(value), "+", _to_text(self._parse_sum()))
        return value

    def _parse_sum(self) -> _Value:
        value = self._parse_unary()
        while self._peek() in {"+", "-"}:
            operator = self._take().text
            right = self._parse_unary()
            value = self._add(value, right) if operator == "+" else self._subtract(value, right)
        return value

    def _parse_unary(self) -> _Value:
        return _negate(self._parse_postfix()) if self._accept("-") else self._parse_postfix()

    def _add(self, left: _Value, right: _Value) -> _Value:
        # `+` joins texts only. With a text and a number, it would add.
        for kind in (_Kind.TEXT, _Kind.INTEGER):
            if {left.kind, right.kind} in ({kind}, {kind, _Kind.OBJECT}):
                return _join(_convert(left, kind), "+", _convert(right, kind))
        raise _NotRecognizedError

    @staticmethod
    def _subtract(left: _Value, right: _Value) -> _Value:
        if {left.kind, right.kind} in ({_Kind.INTEGER}, {_Kind.INTEGER, _Kind.OBJECT}):
            return _join(_convert(left, _Kind.INTEGER), "-", _convert(right, _Kind.INTEGER))
        raise _NotRecognizedError

    def _parse_known(self, path: str) -> _Value | None:
        if path in _VB_CONSTANTS:
            return _literal(_VB_CONSTANTS[path])
        if path == "now":
            self._accept("(", ")")
            return _Value(_Kind.DATE, Call(function="GETDATE", arguments=()))
        if path in {"chr", "chrw"}:
            self._expect("(")
            code = self._expect_kind("number")
            self._expect(")")
            if not code.isdecimal() or int(code) > _MAX_ASCII:
                raise _NotRecognizedError
            return _literal(chr(int(code)))
        if path in {"ctype", "directcast"}:
            self._expect("(")
            value = self._parse_nested()
            self._expect(",")
            self._accept("system", ".")
            kind = _TYPES.get(self._take().text.lower())
            self._expect(")")
            if kind is None:
                raise _NotRecognizedError
            return _to_text(value) if kind is _Kind.TEXT and path == "ctype" else _convert(value, kind)
        kind = _VB_CONVERSIONS.get(path)
        return super()._parse_known(path) if kind is None else self._parse_conversion(kind)

    def _parse_empty_arguments(self) -> None:
        self._accept("(", ")")


def _negate(value: _Value) -> _Value:
    if value.kind is not _Kind.INTEGER:
        raise _NotRecognizedError
    return _Value(value.kind, Unary(operator="-", operand=value.tree), value.nodes + 1)


def _unescape(text: str) -> str:
    def replace_escape(match: re.Match[str]) -> str:
        if match[3] is not None:
            if match[3] not in _CSHARP_ESCAPES:
                raise _NotRecognizedError
            return _CSHARP_ESCAPES[match[3]]
        return chr(int(match[1] or match[2], 16))

    return _CSHARP_ESCAPE.sub(replace_escape, text)


_LANGUAGES: Mapping[str, type[_Parser]] = {"csharp": _CSharpParser, "basic": _VisualBasicParser}
