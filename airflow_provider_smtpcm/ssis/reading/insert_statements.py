"""Reads the rows in INSERT statements of Transact-SQL, as far as they consist of literals."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<skipped>\s+|--[^\n]*|/\*.*?\*/)
      | (?P<string>[Nn]?'(?:[^']|'')*')
      | (?P<name>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")
      | (?P<word>[@#\w$]+(?:\.\d+)?)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_END_OF_SELECT = {
    *("FROM", "WHERE", "UNION", "EXCEPT", "INSERT", "UPDATE", "DELETE", "MERGE", "SELECT", "SET", "GO", "IF", "BEGIN"),
    *("END", "ELSE", "PRINT", "DECLARE", "EXEC", "EXECUTE", "TRUNCATE", "COMMIT", "USE", "WITH", "ORDER", "OPTION"),
}


class Computed:
    """A value that is not a literal."""


#: A value in a row; None is NULL.
Value = str | None | Computed
_Token = tuple[str, str]  # kind and text


class _Tokens:
    """The tokens of a script, without comments."""

    def __init__(self, text: str) -> None:
        matches = _TOKEN.finditer(text)
        self._tokens = [(match.lastgroup or "", match[0]) for match in matches if match.lastgroup != "skipped"]
        self._position = 0

    def peek(self, offset: int = 0) -> _Token:
        position = self._position + offset
        return self._tokens[position] if position < len(self._tokens) else ("end", "")

    def next(self) -> _Token:
        token = self.peek()
        self._position += 1
        return token

    def accept(self, *texts: str) -> bool:
        """Skip the next token if it is one of these words or signs."""
        kind, text = self.peek()
        found = kind in {"word", "sign"} and text.upper() in texts
        self._position += found
        return found


def read_inserts(text: str) -> Iterator[tuple[list[str], list[Value]]]:
    """Yield the columns and the values of each row of a script; other statements are skipped.

    The columns are in lower case; there are none if the statement names none.
    """
    tokens = _Tokens(text)
    while tokens.peek()[0] != "end":
        if not tokens.accept("INSERT"):
            tokens.next()
            continue
        tokens.accept("INTO")
        while tokens.peek()[0] in {"name", "word"}:
            tokens.next()
            if not tokens.accept("."):
                break
        columns = _read_columns(tokens)
        for values in _read_tuples(tokens) if tokens.accept("VALUES") else _read_selects(tokens):
            yield columns, values


def _read_columns(tokens: _Tokens) -> list[str]:
    columns = []
    if tokens.accept("("):
        while tokens.peek()[0] != "end" and not tokens.accept(")"):
            kind, name = tokens.next()
            if kind in {"name", "word"}:
                columns.append(name.strip('[]"').lower())
    return columns


def _read_tuples(tokens: _Tokens) -> Iterator[list[Value]]:
    """Yield the rows after VALUES."""
    while tokens.accept("("):
        yield list(_read_values(tokens, in_parentheses=True))
        tokens.accept(")")
        if not tokens.accept(","):
            return


def _read_selects(tokens: _Tokens) -> Iterator[list[Value]]:
    """Yield the rows of SELECT statements that UNION joins."""
    while tokens.accept("SELECT"):
        yield list(_read_values(tokens, in_parentheses=False))
        if not tokens.accept("UNION"):
            return
        tokens.accept("ALL")


def _read_values(tokens: _Tokens, *, in_parentheses: bool) -> Iterator[Value]:
    """Yield the values of a row, up to the parenthesis or the keyword after it."""
    value: list[_Token] = []
    depth = 0
    while True:
        kind, text = tokens.peek()
        is_end = kind == "end" or (depth == 0 and (text == ")" if in_parentheses else text == ";"))
        is_end = is_end or (depth == 0 and not in_parentheses and kind == "word" and text.upper() in _END_OF_SELECT)
        if is_end or (depth == 0 and text == ","):
            yield _evaluate(value)
            value = []
            if is_end:
                return
        else:
            depth += (text == "(") - (text == ")") if kind == "sign" else 0
            value.append((kind, text))
        tokens.next()


def _evaluate(tokens: list[_Token]) -> Value:
    """Return the value of a literal: a string, several of them joined by `+`, a number, NULL, or a CAST of one."""
    words = [text.upper() for _, text in tokens]
    if len(tokens) > 2 and words[-2] == "AS":
        return _evaluate(tokens[:-2])  # a name for the column
    if words[:2] == ["CAST", "("] and words[-1] == ")" and "AS" in words:
        return _evaluate(tokens[2 : len(words) - 1 - words[::-1].index("AS")])
    if words == ["NULL"]:
        return None
    if tokens and all(kind == "string" for kind, _ in tokens[::2]) and set(words[1::2]) <= {"+"}:
        return "".join(text.lstrip("Nn")[1:-1].replace("''", "'") for _, text in tokens[::2])
    if re.fullmatch(r"-?\d+(?:\.\d+)?", "".join(words)):
        return "".join(words)
    return Computed()
