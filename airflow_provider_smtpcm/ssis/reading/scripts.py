"""Reads Script tasks that only set variables: their statements as assignments in the expression language.

A script is recognized only if each statement of `Main` is an assignment whose value can be computed without running it.
Everything else stays a Script task: a wrong translation is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

from airflow_provider_smtpcm.ssis.expressions import Call, unparse
from airflow_provider_smtpcm.ssis.reading.script_parser import (
    TYPES,
    Kind,
    NotRecognizedError,
    ScriptParser,
    ScriptValue,
    Token,
    convert,
    join,
    make_literal,
    negate,
    scan,
    to_text,
)

_SOURCE_FILE = re.compile(r"(?:^|[\\/])scriptmain\.(cs|vb|vsaitem)$", re.IGNORECASE)
# In characters. Visual Studio's template has some 6,000; a script that only sets variables adds little to it.
_MAX_LENGTH = 20_000
_ENTRY_POINTS = {"", "main", "scriptmain"}


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

    The expressions read the variables as they are before the script. A conversion to text by .NET becomes a cast to
    `(DT_WSTR, 4000)`. A conversion to an integer or a Boolean becomes a cast, which is valid only if the variable has
    that type already.

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


# --- The languages

_MAX_ASCII = 127
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
# After these tokens, and before a closing parenthesis, a Visual Basic statement may continue on the next line.
_VB_OPEN_ENDS = {"+", "&", "(", ",", "=", "+=", "&="}
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
_VB_CONVERSIONS = {"cstr": Kind.TEXT, "cint": Kind.INTEGER, "cbool": Kind.BOOLEAN}


class CSharpParser(ScriptParser):
    """C#."""

    _STATEMENT_END = ";"
    _SELF = "this"
    _MAIN: ClassVar = ["void", "Main", "(", ")", "{"]
    _CONSTRUCTOR: ClassVar = ["ScriptMain", "("]

    def _tokenize(self, source: str) -> list[Token]:
        tokens = []
        for kind, text in scan(_CSHARP_TOKENS, source):
            if kind == "verbatim":
                tokens.append(Token("string", text[2:-1].replace('""', '"')))
            elif kind == "string":
                tokens.append(Token("string", _unescape(text[1:-1])))
            else:
                tokens.append(Token(kind, text))
        return tokens

    def _find_end(self, texts: Sequence[str], start: int) -> int:
        depth, end = 1, start
        while depth and end < len(texts):
            depth += {"{": 1, "}": -1}.get(texts[end], 0)
            end += 1
        return end - 1

    def _parse_statement(self) -> None:
        if self._accept(";"):
            return
        if self._accept("try", "{"):
            self._parse_try()
            return
        if self._accept("return", ";"):
            if self._index < len(self._tokens):
                raise NotRecognizedError
            return
        self._accept("const")
        type_name = self._take_local_type()
        if type_name:
            self._parse_declarations(TYPES.get(type_name))
        else:
            self._parse_assignment()
        self._expect(";")

    def _parse_try(self) -> None:
        """Parse `try` with `catch`. Statements that are recognized raise nothing, so `catch` blocks are skipped."""
        while not self._accept("}"):
            self._parse_statement()
        if self._peek() != "catch":
            raise NotRecognizedError
        while self._accept("catch"):
            if self._peek() == "(":
                self._skip_balanced("(", ")")
            self._skip_balanced("{", "}")
        if self._peek() == "finally":
            raise NotRecognizedError

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
        if not is_declaration or word not in {"var", *TYPES}:
            return ""
        self._index = follows
        return word

    def _parse_declarations(self, kind: Kind | None) -> None:
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

    def _add(self, left: ScriptValue, right: ScriptValue) -> ScriptValue:
        if Kind.TEXT in {left.kind, right.kind}:
            return join(to_text(left), "+", to_text(right))
        if left.kind is right.kind is Kind.INTEGER:
            return join(left, "+", right)
        raise NotRecognizedError

    def _subtract(self, left: ScriptValue, right: ScriptValue) -> ScriptValue:
        if left.kind is right.kind is Kind.INTEGER:
            return join(left, "-", right)
        raise NotRecognizedError

    def _parse_unary(self) -> ScriptValue:
        if self._accept("-"):
            return negate(self._parse_postfix())
        kind = TYPES.get(self._peek(1).lower())
        if self._peek() == "(" and kind is not None and self._peek(2) == ")":
            self._index += 3
            return convert(self._parse_postfix(), kind)
        return self._parse_postfix()

    def _parse_empty_arguments(self) -> None:
        self._expect("(", ")")


class VisualBasicParser(ScriptParser):
    """Visual Basic; names of locals and keywords are compared without regard to case."""

    _STATEMENT_END = "\n"
    _SELF = "me"
    _MAIN: ClassVar = ["sub", "main", "(", ")", "\n"]
    _CONSTRUCTOR: ClassVar = ["sub", "new"]

    @staticmethod
    def _key(text: str) -> str:
        return text.lower()

    def _tokenize(self, source: str) -> list[Token]:
        tokens: list[Token] = []
        for kind, text in scan(_VB_TOKENS, source.replace("\r\n", "\n").replace("\r", "\n")):
            last = tokens[-1] if tokens else Token("sign", "\n")
            if kind == "string":
                is_character = text.endswith("c")
                text = text.removesuffix("c")[1:-1].replace('""', '"')  # noqa: PLW2901
                tokens.append(Token("character" if is_character else "string", text))
            elif text == "\n":
                if not (last.kind == "sign" and last.text in {"\n", *_VB_OPEN_ENDS}):
                    tokens.append(Token("sign", "\n"))
            else:
                if text == ")" and last == Token("sign", "\n"):
                    tokens.pop()
                tokens.append(Token(kind, "\n" if text == ":" else text))
        return [*tokens, Token("sign", "\n")]

    def _find_end(self, texts: Sequence[str], start: int) -> int:
        end = next((i for i in range(start, len(texts)) if texts[i : i + 2] == ["end", "sub"]), None)
        if end is None:
            raise NotRecognizedError
        return end

    def _parse_statement(self) -> None:
        if self._accept("\n"):
            return
        if self._accept("try", "\n"):
            self._parse_try()
        elif self._accept("return") or self._accept("exit", "sub"):
            while self._accept("\n"):
                pass
            if self._index < len(self._tokens):
                raise NotRecognizedError
            return
        elif self._accept("dim") or self._accept("const"):
            self._parse_declarations()
        else:
            self._parse_assignment()
        self._expect("\n")

    def _parse_try(self) -> None:
        """Parse `Try` with `Catch`. Statements that are recognized raise nothing, so `Catch` blocks are skipped."""
        while self._peek() != "catch":
            if self._peek() in {"finally", "end"}:
                raise NotRecognizedError
            self._parse_statement()
        depth = 1
        while depth:
            if self._accept("end", "try"):
                depth -= 1
                continue
            if self._peek() == "finally" and depth == 1:
                raise NotRecognizedError
            depth += self._peek() == "try"
            self._take()

    def _parse_declarations(self) -> None:
        """Parse `Dim a, b As String, c As Integer = 1`."""
        names: list[str] = []
        while True:
            names.append(self._expect_kind("name"))
            if self._accept(","):
                continue
            kind: Kind | None = None
            if self._accept("as"):
                self._accept("system", ".")
                kind = TYPES.get(self._take().text.lower())
                if kind is None:
                    raise NotRecognizedError
            value = self._parse_expression() if self._accept("=") else None
            for name in names:
                self._declare(name, kind, value)
            names = []
            if not self._accept(","):
                return

    def _convert_to_local(self, value: ScriptValue, kind: Kind) -> ScriptValue:
        return to_text(value) if kind is Kind.TEXT else convert(value, kind)

    def _parse_variable(self) -> str:
        self._expect("variables")
        self._accept(".", "item")
        self._expect("(")
        name = self._expect_kind("string")
        self._expect(")", ".", "value")
        self._accept("(", ")")
        return name

    def _parse_assigned(self, read: Callable[[], ScriptValue]) -> ScriptValue:
        if self._accept("&="):
            return join(to_text(read()), "+", to_text(self._parse_expression()))
        return super()._parse_assigned(read)

    def _parse_expression(self) -> ScriptValue:
        value = self._parse_sum()
        while self._accept("&"):
            value = join(to_text(value), "+", to_text(self._parse_sum()))
        return value

    def _parse_unary(self) -> ScriptValue:
        return negate(self._parse_postfix()) if self._accept("-") else self._parse_postfix()

    def _add(self, left: ScriptValue, right: ScriptValue) -> ScriptValue:
        # `+` joins texts only. With a text and a number, it would add.
        for kind in (Kind.TEXT, Kind.INTEGER):
            if {left.kind, right.kind} in ({kind}, {kind, Kind.OBJECT}):
                return join(convert(left, kind), "+", convert(right, kind))
        raise NotRecognizedError

    def _subtract(self, left: ScriptValue, right: ScriptValue) -> ScriptValue:
        if {left.kind, right.kind} in ({Kind.INTEGER}, {Kind.INTEGER, Kind.OBJECT}):
            return join(convert(left, Kind.INTEGER), "-", convert(right, Kind.INTEGER))
        raise NotRecognizedError

    def _parse_known(self, path: str) -> ScriptValue | None:
        if path in _VB_CONSTANTS:
            return make_literal(_VB_CONSTANTS[path])
        if path == "now":
            self._accept("(", ")")
            return ScriptValue(Kind.DATE, Call(function="GETDATE", arguments=()))
        if path in {"chr", "chrw"}:
            self._expect("(")
            code = self._expect_kind("number")
            self._expect(")")
            if not code.isdecimal() or int(code) > _MAX_ASCII:
                raise NotRecognizedError
            return make_literal(chr(int(code)))
        if path in {"ctype", "directcast"}:
            self._expect("(")
            value = self._parse_nested()
            self._expect(",")
            self._accept("system", ".")
            kind = TYPES.get(self._take().text.lower())
            self._expect(")")
            if kind is None:
                raise NotRecognizedError
            return to_text(value) if kind is Kind.TEXT and path == "ctype" else convert(value, kind)
        kind = _VB_CONVERSIONS.get(path)
        return super()._parse_known(path) if kind is None else self._parse_conversion(kind)

    def _parse_empty_arguments(self) -> None:
        self._accept("(", ")")


def find_updated(code: str, language: str, names: Iterable[str]) -> list[str]:
    """Return the names of variables of which a script may use the value that they have before it.

    It does not if all that it has for the variable is `Dts.Variables["Text"].Value = ...`.

    Args:
        code: the source; empty if the package has none.
        language: as in `read_assignments`.
        names: the variables that the script may set.
    """
    patterns = next((each for word, each in _ASSIGNMENTS.items() if word in language.lower()), None)
    if patterns is None or len(code) > _MAX_LENGTH:
        return list(names)
    token_pattern, assignment = patterns
    tokens = (text for _, text in scan(token_pattern, code.replace("\r\n", "\n")))
    text = " ".join(("\n", *tokens))
    return [name for name in names if not _is_only_set(name, text, assignment)]


def _is_only_set(name: str, text: str, assignment: str) -> bool:
    namespace, _, short = name.rpartition("::")
    literal = rf'@?"(?:{re.escape(namespace or "User")}::)?{re.escape(short)}"'
    uses = len(re.findall(literal, text))
    return 0 < uses == len(re.findall(assignment.replace("NAME", literal), text))


# The tokens of each language, and an assignment to the variable NAME with spaces between its tokens. In Visual Basic,
# `=` assigns only at the beginning of a statement.
_ASSIGNMENTS = {
    "csharp": (_CSHARP_TOKENS, r"\bVariables \[ NAME \] \. Value = "),
    "basic": (
        _VB_TOKENS,
        (
            r"(?i:(?:[\n:]|\bThen|\bElse) (?:Me \. )?(?:Dts \. )?Variables (?:\. Item )?\( )NAME"
            r"(?i: \) \. Value (?:\( \) )?= )"
        ),
    ),
}


def _unescape(text: str) -> str:
    def replace_escape(match: re.Match[str]) -> str:
        if match[3] is not None:
            if match[3] not in _CSHARP_ESCAPES:
                raise NotRecognizedError
            return _CSHARP_ESCAPES[match[3]]
        return chr(int(match[1] or match[2], 16))

    return _CSHARP_ESCAPE.sub(replace_escape, text)


_LANGUAGES: Mapping[str, type[ScriptParser]] = {"csharp": CSharpParser, "basic": VisualBasicParser}
