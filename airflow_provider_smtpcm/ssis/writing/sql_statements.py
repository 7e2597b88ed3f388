"""Translates the statement of an Execute SQL task to what `SQLExecuteQueryOperator` runs over ODBC.

An ODBC statement has `?` for each input. What SSIS does beside that, T-SQL can do: named parameters become variables of
the batch (`DECLARE @day datetime2 = ?`), output parameters and return values too, and a SELECT at its end returns them.
Pure: no Airflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_smtpcm.ssis.expressions import NotTranslatable
from airflow_provider_smtpcm.ssis.model import DatabaseKind, SqlParameter

# What may contain a `?` or an `@` that is not a parameter: strings, quoted names and comments; then the parameters.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \[(?:[^\]]|\]\])*\] | --[^\r\n]* | /\*.*?\*/
        | (?P<marker>\?) | @@\w+ | (?P<name>@[\w@$\#]+)""",
    re.VERBOSE | re.DOTALL,
)
# SQL Server's tools, and so SSIS, split a script at these lines; no server knows them.
_BATCH_SEPARATOR = re.compile(r"^[ \t]*GO(?:[ \t]+(?P<count>\d+))?[ \t]*;?[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CALL_ESCAPE = re.compile(r"\s*\{.*\}\s*", re.DOTALL)
_TEXT = "nvarchar(max)"
# The T-SQL type of each number in packages: OLE DB's DBTYPE, .NET's DbType, ODBC's SQL data types.
_OLE_DB_TYPES = {
    2: "smallint",
    3: "int",
    4: "real",
    5: "float",
    6: "money",
    7: "datetime2",
    11: "bit",
    14: "decimal(38, 10)",
    16: "smallint",
    17: "tinyint",
    18: "int",
    19: "bigint",
    20: "bigint",
    21: "decimal(20, 0)",
    64: "datetime2",
    72: "uniqueidentifier",
    128: "varbinary(max)",
    131: "decimal(38, 10)",
    133: "date",
    134: "time",
    135: "datetime2",
    145: "time",
    146: "datetimeoffset",
}
_DOT_NET_TYPES = {
    1: "varbinary(max)",
    2: "tinyint",
    3: "bit",
    4: "money",
    5: "date",
    6: "datetime2",
    7: "decimal(38, 10)",
    8: "float",
    9: "uniqueidentifier",
    10: "smallint",
    11: "int",
    12: "bigint",
    13: "sql_variant",
    14: "smallint",
    15: "real",
    17: "time",
    18: "int",
    19: "bigint",
    20: "decimal(20, 0)",
    21: "decimal(38, 10)",
    25: "xml",
    26: "datetime2",
    27: "datetimeoffset",
}
_ODBC_TYPES = {
    -11: "uniqueidentifier",
    -7: "bit",
    -6: "tinyint",
    -5: "bigint",
    -4: "varbinary(max)",
    -3: "varbinary(max)",
    -2: "varbinary(max)",
    2: "decimal(38, 10)",
    3: "decimal(38, 10)",
    4: "int",
    5: "smallint",
    6: "float",
    7: "real",
    8: "float",
    9: "date",
    10: "time",
    11: "datetime2",
    91: "date",
    92: "time",
    93: "datetime2",
}
_TYPES = {
    DatabaseKind.OLE_DB: _OLE_DB_TYPES,
    DatabaseKind.ADO_NET: _DOT_NET_TYPES,
    DatabaseKind.ODBC: _ODBC_TYPES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlStatement:
    """A statement for ODBC.

    Args:
        batches: the texts to run one after the other; several only if the statement has GO, and then without inputs.
        inputs: the variable for each `?`, in order; a variable may occur more than once.
        outputs: the variable for each column of the last result set, in order: output parameters and return values.
    """

    batches: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def translate_statement(
    text: str,
    parameters: Sequence[SqlParameter],
    kind: DatabaseKind,
    *,
    is_sql_server: bool = True,
    is_stored_procedure: bool = False,
) -> SqlStatement:
    """Translate the statement of an Execute SQL task.

    Args:
        text: the statement, or the name of a procedure if `is_stored_procedure`.
        kind: of the connection manager, which decides what parameters look like.
        is_sql_server: whether the database understands T-SQL.

    Raises:
        NotTranslatable: the statement needs T-SQL and the database is another one, or its parameters are not those
            that the task binds.
    """
    outputs = [parameter for parameter in parameters if parameter.direction != "Input"]
    if (outputs or is_stored_procedure) and not is_sql_server:
        raise NotTranslatable(
            "Output parameters, return values and the names of procedures are translated for SQL Server only.",
            remedy="Write a statement that returns the values as a row.",
        )
    if is_stored_procedure:
        return _call_procedure(text.strip(), parameters, kind)
    # Some drivers, such as SQLite's, take a question mark in a comment for a parameter.
    text = _TOKEN.sub(lambda token: token[0].replace("?", "") if token[0][:2] in {"--", "/*"} else token[0], text)
    batches = split_batches(text)
    if len(batches) > 1:
        if parameters:
            raise NotTranslatable(
                "The statement has parameters, and GO divides it into several.",
                remedy="Remove GO, or make a task of each part.",
            )
        return SqlStatement(batches=batches)
    text = batches[0] if batches else text
    if not parameters:
        return SqlStatement(batches=(text,))
    markers = [token for token in _TOKEN.finditer(text) if token["marker"]]
    if kind is DatabaseKind.ADO_NET and not markers:
        return _declare_names(text, parameters) if is_sql_server else _replace_names(text, parameters)
    return _replace_markers(text, markers, order_parameters(parameters), kind)


def split_batches(text: str) -> tuple[str, ...]:
    """Return the parts of a script between lines that are GO; `GO 3` runs the part before it three times."""
    batches: list[str] = []
    start = 0
    hidden = [match.span() for match in _TOKEN.finditer(text) if match[0][0] in "'\"[-/"]
    for separator in _BATCH_SEPARATOR.finditer(text):
        if not any(begin <= separator.start() < end for begin, end in hidden):
            batches += [text[start : separator.start()]] * int(separator["count"] or 1)
            start = separator.end()
    return tuple(batch.strip() for batch in (*batches, text[start:]) if batch.strip())


def order_parameters(parameters: Iterable[SqlParameter]) -> list[SqlParameter]:
    """Return parameters in the order of their `?`: by number; those with names in the order of the task."""
    return sorted(parameters, key=lambda each: int(each.name) if each.name.isdecimal() else 0)


def _replace_markers(
    text: str, markers: Sequence[re.Match[str]], parameters: Sequence[SqlParameter], kind: DatabaseKind
) -> SqlStatement:
    """Replace each `?` of an output parameter by a variable of the batch."""
    surplus = parameters[len(markers) :]
    if len(markers) > len(parameters) or any(parameter.direction != "Input" for parameter in surplus):
        raise NotTranslatable(
            f"The statement has {len(markers)} parameter markers (?), and the task binds {len(parameters)} parameters.",
            remedy="Complete the task.",
        )
    # Packages in production bind inputs that their statement has lost: OLE DB ignores them.
    parameters = parameters[: len(markers)]
    outputs = [parameter for parameter in parameters if parameter.direction != "Input"]
    if outputs and _CALL_ESCAPE.fullmatch(text):
        raise NotTranslatable(
            "ODBC's {call …} with output parameters is not translated.",
            remedy="Write it as EXEC procedure ?, ? OUTPUT.",
        )
    declarations: list[str] = []
    pieces: list[str] = []
    end = 0
    taken = {token["name"].lower() for token in _TOKEN.finditer(text) if token["name"]}
    names: list[str] = []
    for marker, parameter in zip(markers, parameters, strict=True):
        if parameter.direction == "Input":
            continue
        name = next(name for number in range(1, len(text) + 2) if (name := f"@out_{number}") not in taken)
        taken.add(name)
        names.append(name)
        declarations.append(f"DECLARE {name} {_get_type(parameter, kind)};")
        pieces += [text[end : marker.start()], name]
        end = marker.end()
    return SqlStatement(
        batches=(_make_batch(declarations, "".join((*pieces, text[end:])), names),),
        inputs=tuple(parameter.variable for parameter in parameters if parameter.direction == "Input"),
        outputs=tuple(parameter.variable for parameter in outputs),
    )


def _declare_names(text: str, parameters: Sequence[SqlParameter]) -> SqlStatement:
    """Declare the named parameters as variables of the batch, as ADO.NET does; the statement stays as it is."""
    declarations = []
    for parameter in parameters:
        value = " = ?" if parameter.direction == "Input" else ""
        type_ = _get_type(parameter, DatabaseKind.ADO_NET)
        declarations.append(f"DECLARE {_get_name(parameter)} {type_}{value};")
    outputs = [parameter for parameter in parameters if parameter.direction != "Input"]
    return SqlStatement(
        batches=(_make_batch(declarations, text, list(map(_get_name, outputs))),),
        inputs=tuple(parameter.variable for parameter in parameters if parameter.direction == "Input"),
        outputs=tuple(parameter.variable for parameter in outputs),
    )


def _replace_names(text: str, parameters: Sequence[SqlParameter]) -> SqlStatement:
    """Replace each named parameter by `?`; a name that occurs twice needs its value twice."""
    variables = {_get_name(parameter).lower(): parameter.variable for parameter in parameters}
    inputs: list[str] = []

    def replace(token: re.Match[str]) -> str:
        variable = variables.get((token["name"] or "").lower())
        if variable is None:
            return token[0]
        inputs.append(variable)
        return "?"

    return SqlStatement(batches=(_TOKEN.sub(replace, text),), inputs=tuple(inputs))


def _call_procedure(name: str, parameters: Sequence[SqlParameter], kind: DatabaseKind) -> SqlStatement:
    """Return an EXEC with named arguments."""
    declarations: list[str] = []
    arguments: list[str] = []
    names: list[str] = []
    result = ""
    for parameter in parameters:
        argument = _get_name(parameter)
        if parameter.direction == "Input":
            arguments.append(f"{argument} = ?")
            continue
        variable = f"@out_{len(names) + 1}"
        names.append(variable)
        declarations.append(f"DECLARE {variable} {_get_type(parameter, kind)};")
        if parameter.direction == "ReturnValue":
            result = f"{variable} = "
        else:
            arguments.append(f"{argument} = {variable} OUTPUT")
    text = f"EXEC {result}{name} {', '.join(arguments)}".rstrip() + ";"
    return SqlStatement(
        batches=(_make_batch(declarations, text, names),),
        inputs=tuple(parameter.variable for parameter in parameters if parameter.direction == "Input"),
        outputs=tuple(parameter.variable for parameter in parameters if parameter.direction != "Input"),
    )


def _make_batch(declarations: Sequence[str], text: str, outputs: Sequence[str]) -> str:
    text = text.strip("\r\n")
    lines = [*declarations, text]
    if outputs:
        # The semicolon on a line of its own, since the statement may end in a comment.
        lines += [] if text.rstrip().endswith(";") else [";"]
        lines.append(f"SELECT {', '.join(outputs)};")
    return "\n".join(lines)


def _get_name(parameter: SqlParameter) -> str:
    return parameter.name if parameter.name.startswith("@") else f"@{parameter.name}"


def _get_type(parameter: SqlParameter, kind: DatabaseKind) -> str:
    return _TYPES[kind].get(parameter.data_type, _TEXT)
