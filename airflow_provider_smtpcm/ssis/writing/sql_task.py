"""Converts an Execute SQL task to a `SQLExecuteQueryOperator` over ODBC.

An ODBC statement has `?` for each input. T-SQL does the rest: named parameters become variables of the batch (`DECLARE
@day datetime2 = ?`), and so do output parameters and return values, which a SELECT at the end of the batch returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    NotTranslatable,
    escape_template,
    quote_string,
)
from airflow_provider_smtpcm.ssis.model import (
    DatabaseKind,
    ResultSetType,
    SqlParameter,
    SqlSourceType,
    SqlTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.conversion import WritingContext
from airflow_provider_smtpcm.ssis.writing.database_connections import is_sql_server
from airflow_provider_smtpcm.ssis.writing.python_source import FunctionCall, KeywordArgument, Raw, keywords, slug
from airflow_provider_smtpcm.ssis.writing.secrets import has_credentials_in_statement, sanitize
from airflow_provider_smtpcm.ssis.writing.symbols import TYPES, Scope
from airflow_provider_smtpcm.ssis.writing.templates import TemplateTranslator

OPERATOR = "SQLExecuteQueryOperator"
_OBJECTS = {12, 13}  # the VARENUMs of Object
# Property expressions that are converted, or that change nothing in the DAG.
_CONVERTED = {"SqlStatementSource", "Disable", "Description", "Name"}
# What may contain a `?` or an `@` that is not a parameter: strings, quoted names and comments; then the parameters.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \[(?:[^\]]|\]\])*\] | --[^\r\n]* | /\*.*?\*/
        | (?P<marker>\?) | @@\w+ | (?P<name>@[\w@$\#]+)""",
    re.VERBOSE | re.DOTALL,
)
# SQL Server's tools, and so SSIS, split a script at these lines; a server rejects them.
_BATCH_SEPARATOR = re.compile(r"^[ \t]*GO(?:[ \t]+(?P<count>\d+))?[ \t]*;?[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CALL_ESCAPE = re.compile(r"\s*\{.*\}\s*", re.DOTALL)
_TEXT = "nvarchar(max)"
# The numbers of each T-SQL type in packages: OLE DB's DBTYPE, .NET's DbType, ODBC's SQL data types.
_TYPE_NUMBERS = {
    "bigint": ((19, 20), (12, 19), (-5,)),
    "bit": ((11,), (3,), (-7,)),
    "date": ((133,), (5,), (9, 91)),
    "datetime2": ((7, 64, 135), (6, 26), (11, 93)),
    "datetimeoffset": ((146,), (27,), ()),
    "decimal(20, 0)": ((21,), (20,), ()),
    "decimal(38, 10)": ((14, 131, 139), (7, 21), (2, 3)),
    "float": ((5,), (8,), (6, 8)),
    "int": ((3, 18), (11, 18), (4,)),
    "money": ((6,), (4,), ()),
    "real": ((4,), (15,), (7,)),
    "smallint": ((2, 16), (10, 14), (5,)),
    "sql_variant": ((), (13,), ()),
    "time": ((134, 145), (17,), (10, 92)),
    "tinyint": ((17,), (2,), (-6,)),
    "uniqueidentifier": ((72,), (9,), (-11,)),
    "varbinary(max)": ((128,), (1,), (-4, -3, -2)),
    "xml": ((), (25,), ()),
}
_TYPES = {
    kind: {number: type_ for type_, numbers in _TYPE_NUMBERS.items() for number in numbers[column]}
    for column, kind in enumerate((DatabaseKind.OLE_DB, DatabaseKind.ADO_NET, DatabaseKind.ODBC))
}

# The SSIS type of a parameter that is a number.
_NUMBERS = {
    "bigint": DataType.I8,
    "decimal(20, 0)": DataType.UI8,
    "decimal(38, 10)": DataType.NUMERIC,
    "float": DataType.R8,
    "int": DataType.I4,
    "money": DataType.CY,
    "real": DataType.R4,
    "smallint": DataType.I2,
    "tinyint": DataType.UI1,
}
# A variable of the batch has all these digits after the point; the zeros among them are not the database's.
_PADDED = {"decimal(38, 10)", "money"}


class SqlTaskConverter:
    """Converts one Execute SQL task.

    Args:
        context: the package's context.
        task: the task.
        scope: resolves the names of variables.
    """

    def __init__(self, context: WritingContext, task: SqlTask, scope: Scope) -> None:
        self._context, self._task, self._scope = context, task, scope
        self._where = task.where
        self._translator = TemplateTranslator.inside(task, context, scope)

    def convert(self) -> list[KeywordArgument]:
        """Return the arguments of the operator.

        Raises:
            ExpressionError: an expression cannot be parsed.
            NotTranslatable: the task does something that the operator cannot.
        """
        task = self._task
        if unknown := [name for name in task.expressions if name not in _CONVERTED]:
            raise NotTranslatable(f"Its property {unknown[0]} comes from an expression.")
        if task.result_set is ResultSetType.XML:
            raise NotTranslatable("Its result is an XML document.")
        if task.row_count:
            raise NotTranslatable(
                f"{task.row_count} gets the number of rows that its statement changes (ExecValueVariable).",
                remedy="Write a statement that returns the number, such as SELECT @@ROWCOUNT.",
            )
        sql, statement, comments = self._convert_statement()
        parameters = [self._convert_parameter(variable) for variable in statement.inputs]
        processor = self._make_processor(statement)
        arguments = keywords(conn_id=self._find_connection())
        arguments.append(KeywordArgument("sql", sql, comments))
        if parameters:
            arguments += keywords(parameters=parameters)
        if task.timeout:
            self._context.imports.add("timedelta")
            arguments += keywords(execution_timeout=Raw(f"timedelta(seconds={task.timeout})"))
        self._context.imports |= {"fetch_results", processor.name}
        arguments += keywords(autocommit=True, handler=Raw("fetch_results"), output_processor=processor)
        if processor.arguments and processor.name != "result_rows":
            arguments += keywords(multiple_outputs=True)
        return arguments

    def _convert_statement(self) -> tuple[str | list[str], SqlStatement, tuple[str, ...]]:
        """Return the statement as templates, what it needs, and the comments for it."""
        task = self._task
        expression = task.expressions.get("SqlStatementSource")
        if expression is None and task.source_type is SqlSourceType.DIRECT_INPUT:
            self._reject_credentials(task.statement)
            statement = translate_statement(
                task.statement,
                task.parameters,
                self._kind,
                is_sql_server=is_sql_server(task.connection),
                is_stored_procedure=task.is_stored_procedure,
            )
            batches = [_as_template(text) for text in statement.batches]
            return batches[0] if len(batches) == 1 else batches, statement, ()
        if any(parameter.direction != "Input" for parameter in task.parameters):
            raise NotTranslatable("Its statement is only known at run time, and has output parameters.")
        if task.parameters and self._kind is DatabaseKind.ADO_NET:
            raise NotTranslatable("Its statement is only known at run time, and has named parameters.")
        inputs = tuple(parameter.variable for parameter in _order_parameters(task.parameters))
        if task.source_type is SqlSourceType.FILE_CONNECTION:
            return self._read_file(), SqlStatement(batches=(), inputs=inputs), ()
        original = expression if expression is not None else f"@[{task.statement.strip()}]"
        if expression is not None and task.source_type is SqlSourceType.VARIABLE:
            raise NotTranslatable("An expression gives the name of the variable with its statement.")
        symbol = self._context.symbols.lookup(task.statement.strip(), self._scope) if expression is None else None
        self._reject_credentials((symbol.value or "") if symbol is not None else "")
        template = self._translator.translate(original)
        self._reject_credentials(*template.literals)
        text = template.text
        comments = (f"SSIS: {sanitize(original)}",)
        return _without_suffix(text), SqlStatement(batches=(), inputs=inputs), comments

    @staticmethod
    def _reject_credentials(*texts: str) -> None:
        if any(map(has_credentials_in_statement, texts)):
            raise NotTranslatable("Its statement contains credentials, which were not copied.")

    def _read_file(self) -> str:
        file = self._task.statement_file
        if file is None:
            raise NotTranslatable("The file with its statement is not known.")
        expression = file.expressions.get("ConnectionString")
        if expression is not None:
            return self._translator.read_file(self._translator.translate(expression, is_path=True).text)
        self._context.macros.add("read_message_file")
        return f"{{{{ read_message_file({quote_string(self._translator.map_path(file.connection_string))}) }}}}"

    def _convert_parameter(self, name: str) -> FunctionCall:
        """Return the value of a parameter with the type of its variable, or that of its binding if SSIS converts it.

        SSIS binds a text as a number if the parameter is one: a database other than SQL Server may not compare a text
        with a number.
        """
        symbol = self._context.symbols.lookup(name, self._scope)
        type_ = None if symbol is None else TYPES.get(symbol.data_type)
        bound = {_get_type(each, self._kind) for each in self._task.parameters if each.variable == name}
        number = _NUMBERS.get(bound.pop()) if len(bound) == 1 else None
        is_text, is_exact = type_ is DataType.WSTR, number in {DataType.NUMERIC, DataType.CY}
        if number is not None and (is_text or (is_exact and type_ in _NUMBERS.values())):
            type_ = number
        return self._translator.typed(f"@[{name}]", type_)

    def _make_processor(self, statement: SqlStatement) -> FunctionCall:
        """Return the call that makes the variables from the result."""
        task = self._task
        outputs = [self._find_variable(name) for name in statement.outputs]
        bound = [(result.name.strip(), self._find_variable(result.variable)) for result in task.results]
        arguments: list[KeywordArgument] = []
        if task.result_set is ResultSetType.SINGLE_ROW and bound:
            name = "single_row"
            columns = {variable.qualified_name: int(key) if key.isdecimal() else key for key, variable in bound}
            arguments += keywords(columns=columns)
        elif task.result_set is ResultSetType.FULL and bound:
            if len(bound) > 1:
                raise NotTranslatable("It has several result sets.")
            if (fields := self._context.symbols.live.queries.get(task.id)) is not None:
                return FunctionCall("result_rows", keywords(columns=dict(fields)))
            name = "full_result_set"
            arguments += keywords(variable=bound[0][1].qualified_name)
        else:
            name, bound = "no_result_set", []
        if outputs:
            arguments += keywords(outputs=[variable.qualified_name for variable in outputs])
        padded = [
            self._find_variable(each.variable).qualified_name
            for each in task.parameters
            if each.direction != "Input" and _get_type(each, self._kind) in _PADDED
        ]
        if padded:
            arguments += keywords(padded=padded)
        nullable = [each.qualified_name for each in self._find_nullable(name, bound, outputs)]
        if nullable:
            arguments += keywords(nullable=nullable)
        return FunctionCall(name, arguments)

    def _find_nullable(
        self, processor: str, bound: list[tuple[str, Variable]], outputs: list[Variable]
    ) -> Iterator[Variable]:
        """Yield the variables that can hold a NULL: those of type Object."""
        variables = [*(variable for _, variable in bound if processor == "single_row"), *outputs]
        yield from (variable for variable in variables if variable.data_type in _OBJECTS)

    def _find_variable(self, name: str) -> Variable:
        symbol = self._context.symbols.lookup(name, self._scope)
        if not isinstance(symbol, Variable):
            raise NotTranslatable(f"It sets {name}, which is not a variable of the package.")
        return symbol

    def _find_connection(self) -> str:
        connection = self._task.connection
        if connection is not None:
            return self._context.get_conn_id(connection)
        reference = self._task.connection_reference
        conn_id = f"db_{slug(reference, 'unknown')[:12].strip('_')}"
        self._context.findings.note(
            "database-connection-missing",
            self._where,
            f"Neither the package nor its project has a connection manager {sanitize(reference) or '(none)'} of type "
            f"OLE DB, ADO.NET or ODBC. The task uses the Airflow connection {conn_id!r}; until you define it, the task "
            "fails.",
            "Import the package together with its project, or define the connection.",
        )
        return conn_id

    @property
    def _kind(self) -> DatabaseKind:
        return DatabaseKind.OLE_DB if self._task.connection is None else self._task.connection.kind


def _as_template(text: str) -> str:
    return _without_suffix(escape_template(text))


def _without_suffix(template: str) -> str:
    """Return a template that Airflow does not take for the name of a file: it reads those that end in .sql or .json."""
    return f"{template}\n" if template.rstrip().lower().endswith((".sql", ".json")) else template


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
        NotTranslatable: the statement needs T-SQL and the database is another one, its parameters are not those that
            the task binds, GO divides a statement with parameters, or `{call ...}` has output parameters.
    """
    has_outputs = any(parameter.direction != "Input" for parameter in parameters)
    if (has_outputs or is_stored_procedure) and not is_sql_server:
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
                remedy="Remove GO, or make each part a task of its own.",
            )
        return SqlStatement(batches=batches)
    text = batches[0] if batches else text
    if not parameters:
        return SqlStatement(batches=(text,))
    markers = [token for token in _TOKEN.finditer(text) if token["marker"]]
    if kind is DatabaseKind.ADO_NET and not markers:
        return _declare_names(text, parameters) if is_sql_server else _replace_names(text, parameters)
    return _replace_markers(text, markers, _order_parameters(parameters), kind)


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


def _order_parameters(parameters: Iterable[SqlParameter]) -> list[SqlParameter]:
    """Return parameters in the order of their `?`: by number; those with names in the order of the task."""
    return sorted(parameters, key=lambda each: int(each.name) if each.name.isdecimal() else 0)


def _replace_markers(
    text: str, markers: Sequence[re.Match[str]], parameters: Sequence[SqlParameter], kind: DatabaseKind
) -> SqlStatement:
    """Replace each `?` of an output parameter by a variable of the batch."""
    surplus = parameters[len(markers) :]
    if len(markers) > len(parameters) or any(parameter.direction != "Input" for parameter in surplus):
        raise NotTranslatable(
            f"The statement has {len(markers)} parameter markers (?), but the task binds {len(parameters)} parameters.",
            remedy="Bind a parameter to each marker.",
        )
    # Packages in production bind inputs for which the statement no longer has a `?`: OLE DB ignores them.
    parameters = parameters[: len(markers)]
    has_outputs = any(parameter.direction != "Input" for parameter in parameters)
    if has_outputs and _CALL_ESCAPE.fullmatch(text):
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
    return _make_statement(declarations, "".join((*pieces, text[end:])), names, parameters)


def _declare_names(text: str, parameters: Sequence[SqlParameter]) -> SqlStatement:
    """Declare the named parameters as variables of the batch, as ADO.NET does; the statement stays as it is."""
    declarations = []
    for parameter in parameters:
        value = " = ?" if parameter.direction == "Input" else ""
        type_ = _get_type(parameter, DatabaseKind.ADO_NET)
        declarations.append(f"DECLARE {_get_name(parameter)} {type_}{value};")
    outputs = [_get_name(parameter) for parameter in parameters if parameter.direction != "Input"]
    return _make_statement(declarations, text, outputs, parameters)


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
    return _make_statement(declarations, text, names, parameters)


def _make_statement(
    declarations: Sequence[str], text: str, outputs: Sequence[str], parameters: Sequence[SqlParameter]
) -> SqlStatement:
    """Return a statement of one batch, whose last result set has a column for each output."""
    text = text.strip("\r\n")
    lines = [*declarations, text]
    if outputs:
        # The semicolon on a line of its own, since the statement may end in a comment.
        lines += [] if text.rstrip().endswith(";") else [";"]
        lines.append(f"SELECT {', '.join(outputs)};")
    return SqlStatement(
        batches=("\n".join(lines),),
        inputs=tuple(parameter.variable for parameter in parameters if parameter.direction == "Input"),
        outputs=tuple(parameter.variable for parameter in parameters if parameter.direction != "Input"),
    )


def _get_name(parameter: SqlParameter) -> str:
    return parameter.name if parameter.name.startswith("@") else f"@{parameter.name}"


def _get_type(parameter: SqlParameter, kind: DatabaseKind) -> str:
    return _TYPES[kind].get(parameter.data_type, _TEXT)
