r"""Values that SSIS stores in SQL Server: exports of the configuration table, and of the environments of the catalog.

The configuration table has a row for each property: ConfigurationFilter, ConfiguredValue, PackagePath and
ConfiguredValueType. It is read from CSV, or from a script of INSERT statements. A package configuration
of the kind "SQL Server" uses the rows with its filter.

An environment is a CSV file with the columns `name` (of a parameter) and `value`; a column `environment` is optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.csv_dialects import read_header, read_lines, read_rows, read_text
from airflow_provider_smtpcm.ssis.model import Configuration, Parameter

#: The suffixes of the files that are read.
SUFFIXES = (".csv", ".sql")
_COLUMNS = ("configurationfilter", "configuredvalue", "packagepath", "configuredvaluetype")
_REQUIRED = set(_COLUMNS[:3])
_ENVIRONMENT_COLUMNS = {"name", "value"}
_SQL_REMEDY = "In SQL Server Management Studio, save it with the encoding UTF-8."


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentValue:
    """The value of a parameter in an environment of the catalog."""

    value: str = field(repr=False)
    source: str


@dataclass(slots=True, kw_only=True)
class Exports:
    """The values in exports.

    Args:
        configurations: the rows of the configuration table, by filter in lower case.
        environment: the values of an environment, by the name of the parameter in lower case.
    """

    configurations: dict[str, list[Configuration]] = field(default_factory=dict)
    environment: dict[str, EnvironmentValue] = field(default_factory=dict)
    _environment_name: str | None = None

    def rows(self, configuration: Configuration) -> Sequence[Configuration]:
        """Return the rows of the configuration table that a package configuration uses."""
        _, filter_name = split_source(configuration)
        return self.configurations.get(filter_name.lower(), ()) if filter_name else ()

    def apply(self, parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
        """Return parameters with their values in the environment; sensitive ones are unchanged."""
        applied = []
        for parameter in parameters:
            given = self.environment.get(parameter.name.lower())
            if given is not None and not parameter.sensitive:
                parameter = replace(parameter, value=given.value, configured_in=(), environment=given.source)  # noqa: PLW2901
            applied.append(parameter)
        return tuple(applied)

    def read(self, path: Path) -> None:
        """Read a file.

        Raises:
            PackageError: it cannot be read, is neither a configuration table nor an environment, or contains rows
                with values that are not literals; all other rows are kept.
        """
        if path.suffix.lower() == ".sql":
            self._read_script(path)
            return
        text = read_text(path)
        if header := read_header(text, _REQUIRED):
            for _, row in read_rows(path, text, *header):
                self._add_row([row.get(column, "") for column in _COLUMNS], path)
        elif header := read_header(text, _ENVIRONMENT_COLUMNS):
            self._read_environment(path, list(read_rows(path, text, *header)))
        elif read_header(text, {"key", "answer"}):
            raise PackageError(f"{path} contains answers to questions.", remedy=f"Give it with --answers {path}.")
        else:
            self._read_without_header(path, text)

    def _read_without_header(self, path: Path, text: str) -> None:
        """Read what Management Studio saves without column headers, which is its default."""
        for delimiter in ",;\t":
            lines = [cells for _, cells in read_lines(path, text, delimiter)]
            if lines and all(len(cells) == len(_COLUMNS) and cells[2].startswith("\\") for cells in lines):
                for cells in lines:
                    self._add_row(cells, path)
                return
        raise PackageError(
            f"{path} is neither an export of the SSIS configuration table (columns ConfigurationFilter, "
            "ConfiguredValue, PackagePath) nor of an environment of the catalog (columns name, value).",
            remedy="Export it with the names of the columns in the first line.",
        )

    def _read_environment(self, path: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
        names = {row["environment"].strip() for _, row in rows if row.get("environment", "").strip()}
        names |= {self._environment_name} if self._environment_name is not None else set()
        if len(names) > 1:
            raise PackageError(
                f"{path} has values of several environments: {', '.join(map(repr, sorted(names)))}.",
                remedy="Keep the lines of the one that is deployed.",
            )
        self._environment_name = next(iter(names), None)
        for line, row in rows:
            name = row["name"].strip()
            value = EnvironmentValue(value=row["value"], source=str(path))
            known = self.environment.setdefault(name.lower(), value)
            if known.value != value.value:
                raise PackageError(
                    f"{path}, line {line}, gives {name!r} a different value from {known.source}.",
                    remedy="Keep the lines of the environment that is deployed.",
                )

    def _read_script(self, path: Path) -> None:
        text = read_text(path, remedy=_SQL_REMEDY)
        count = computed = 0
        for columns, values in _read_inserts(text):
            names = columns or list(_COLUMNS)
            if not _REQUIRED.issubset(names):
                continue
            row = dict(zip(names, values, strict=False))
            cells = [row.get(column) for column in _COLUMNS]
            count += 1
            if any(isinstance(cell, _Computed) for cell in cells[:3]):
                computed += 1
            else:
                self._add_row([cell if isinstance(cell, str) else "NULL" for cell in cells], path)
        if not count:
            raise PackageError(
                f"{path} has no INSERT statement for the SSIS configuration table.",
                remedy="Generate a script of its data, with the columns ConfigurationFilter, ConfiguredValue and "
                "PackagePath.",
            )
        if computed:
            raise PackageError(
                f"{computed} of {count} rows in {path} are computed by SQL, and were not read.",
                remedy="Export the rows of the table instead.",
            )

    def _add_row(self, cells: Sequence[str], path: Path) -> None:
        filter_name, value, target = (cell.strip() if index != 1 else cell for index, cell in enumerate(cells[:3]))
        if not target or value == "NULL":
            return
        self.configurations.setdefault(filter_name.lower(), []).append(
            Configuration(kind="sql server", source=str(path), path=target, value=value, name=filter_name)
        )


def split_source(configuration: Configuration) -> tuple[str, str]:
    """Return the table and the filter of a "SQL Server" configuration: `"connection";"table";"filter";`."""
    parts = [part.strip().strip('"') for part in configuration.source.rstrip(";").split(";")]
    is_known = configuration.kind == "sql server" and not configuration.indirect and len(parts) > 2
    return (parts[1], parts[2]) if is_known else ("", "")


# --- The rows in INSERT statements of Transact-SQL, as far as they consist of literals

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


class _Computed:
    """A value that is not a literal."""


# A value in a row; None is NULL.
_Value = str | None | _Computed
_Token = tuple[str, str]  # kind and text


class _Tokens:
    """The tokens of a script, without comments."""

    def __init__(self, text: str) -> None:
        matches = _TOKEN.finditer(text)
        self._tokens = [(match.lastgroup or "", match[0]) for match in matches if match.lastgroup != "skipped"]
        self._position = 0

    def peek(self) -> _Token:
        return self._tokens[self._position] if self._position < len(self._tokens) else ("end", "")

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


def _read_inserts(text: str) -> Iterator[tuple[list[str], list[_Value]]]:
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


def _read_tuples(tokens: _Tokens) -> Iterator[list[_Value]]:
    """Yield the rows after VALUES."""
    while tokens.accept("("):
        yield list(_read_values(tokens, in_parentheses=True))
        tokens.accept(")")
        if not tokens.accept(","):
            return


def _read_selects(tokens: _Tokens) -> Iterator[list[_Value]]:
    """Yield the rows of SELECT statements that UNION joins."""
    while tokens.accept("SELECT"):
        yield list(_read_values(tokens, in_parentheses=False))
        if not tokens.accept("UNION"):
            return
        tokens.accept("ALL")


def _read_values(tokens: _Tokens, *, in_parentheses: bool) -> Iterator[_Value]:
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


def _evaluate(tokens: list[_Token]) -> _Value:
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
    return _Computed()
