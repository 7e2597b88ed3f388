"""Converts an Execute SQL task to a `SQLExecuteQueryOperator` over ODBC."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    NotTranslatable,
    TemplateContext,
    escape_template,
    quote_string,
)
from airflow_provider_smtpcm.ssis.model import DatabaseKind, ResultSetType, SqlSourceType, SqlTask, Variable
from airflow_provider_smtpcm.ssis.writing.database_connections import is_sql_server
from airflow_provider_smtpcm.ssis.writing.live_variables import ReadPoint
from airflow_provider_smtpcm.ssis.writing.python_source import FunctionCall, KeywordArgument, Raw, slug
from airflow_provider_smtpcm.ssis.writing.secrets import has_credentials_in_statement, sanitize
from airflow_provider_smtpcm.ssis.writing.sql_statements import SqlStatement, translate_statement
from airflow_provider_smtpcm.ssis.writing.symbols import TYPES, Scope
from airflow_provider_smtpcm.ssis.writing.templates import TemplateTranslator, WritingContext

OPERATOR = "SQLExecuteQueryOperator"
_OBJECTS = {12, 13}  # the VARENUMs of Object
# Property expressions that are converted, or that change nothing in the DAG.
_CONVERTED = {"SqlStatementSource", "Disable", "Description", "Name"}


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
        self._translator = TemplateTranslator(
            context=context,
            scope=scope,
            template_context=TemplateContext.TASK,
            reader=ReadPoint(id=task.id, name=task.name, where=self._where),
        )

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
        sql, statement, comments = self._convert_statement()
        parameters = [self._convert_parameter(variable) for variable in statement.inputs]
        processor = self._make_processor(statement)
        arguments = [
            KeywordArgument(name="conn_id", value=self._find_connection()),
            KeywordArgument(name="sql", value=sql, comments=comments),
        ]
        if parameters:
            arguments.append(KeywordArgument(name="parameters", value=parameters))
        if task.timeout:
            self._context.imports.add("timedelta")
            arguments.append(KeywordArgument(name="execution_timeout", value=Raw(f"timedelta(seconds={task.timeout})")))
        self._context.imports |= {"fetch_results", processor.name}
        arguments += [
            KeywordArgument(name="autocommit", value=True),
            KeywordArgument(name="handler", value=Raw("fetch_results")),
            KeywordArgument(name="output_processor", value=processor),
        ]
        if processor.arguments and processor.name != "result_rows":
            arguments.append(KeywordArgument(name="multiple_outputs", value=True))
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
        inputs = tuple(
            parameter.variable
            for parameter in sorted(task.parameters, key=lambda one: int(one.name) if one.name.isdecimal() else 0)
        )
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
        if (expression := file.expressions.get("ConnectionString")) is None:
            path = quote_string(self._translator.map_path(file.connection_string))
        else:
            text = self._translator.translate(expression, is_path=True).text
            if not text.startswith("{{ ") or text.count("{{") != 1:
                raise NotTranslatable("The path of the file with its statement comes from an expression.")
            path = text[3:-3]
        self._context.macros.add("read_message_file")
        return f"{{{{ read_message_file({path}) }}}}"

    def _convert_parameter(self, name: str) -> FunctionCall:
        """Return the value of a parameter with the type of its variable."""
        symbol = self._context.symbols.lookup(name, self._scope)
        data_type = DataType.WSTR if symbol is None else TYPES.get(symbol.data_type, DataType.WSTR)
        template = self._translator.translate(f"@[{name}]").text
        self._context.imports.add("TypedTemplate")
        arguments = [KeywordArgument(name="template", value=template)]
        if data_type is not DataType.WSTR:
            arguments.append(KeywordArgument(name="data_type", value=str(data_type)))
        return FunctionCall(name="TypedTemplate", arguments=arguments)

    def _make_processor(self, statement: SqlStatement) -> FunctionCall:
        """Return the call that makes the variables from the result."""
        task = self._task
        outputs = [self._find_variable(name) for name in statement.outputs]
        bound = [(result.name.strip(), self._find_variable(result.variable)) for result in task.results]
        arguments: list[KeywordArgument] = []
        if task.result_set is ResultSetType.SINGLE_ROW and bound:
            name = "single_row"
            columns = {variable.qualified_name: int(key) if key.isdecimal() else key for key, variable in bound}
            arguments.append(KeywordArgument(name="columns", value=columns))
        elif task.result_set is ResultSetType.FULL and bound:
            if len(bound) > 1:
                raise NotTranslatable("It has several result sets.")
            if (fields := self._context.symbols.live.queries.get(task.id)) is not None:
                return FunctionCall(name="result_rows", arguments=[KeywordArgument(name="columns", value=dict(fields))])
            name = "full_result_set"
            arguments.append(KeywordArgument(name="variable", value=bound[0][1].qualified_name))
        else:
            name, bound = "no_result_set", []
        if outputs:
            arguments.append(KeywordArgument(name="outputs", value=[variable.qualified_name for variable in outputs]))
        nullable = [each.qualified_name for each in self._find_nullable(name, bound, outputs)]
        if nullable:
            arguments.append(KeywordArgument(name="nullable", value=nullable))
        return FunctionCall(name=name, arguments=arguments)

    def _find_nullable(
        self, processor: str, bound: list[tuple[str, Variable]], outputs: list[Variable]
    ) -> Iterator[Variable]:
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
            return self._context.get_database_id(connection)
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
