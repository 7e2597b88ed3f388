"""The tasks of a package that send no mail: their operators, or placeholders for what the import cannot translate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    Expression,
    ExpressionError,
    NotTranslatable,
    TemplateContext,
    unparse,
)
from airflow_provider_smtpcm.ssis.model import (
    Container,
    Executable,
    ExpressionTask,
    OtherTask,
    SqlTask,
    Variable,
    describe_kind,
)
from airflow_provider_smtpcm.ssis.writing.assignments import find_assignments
from airflow_provider_smtpcm.ssis.writing.live_variables import ReadPoint
from airflow_provider_smtpcm.ssis.writing.python_source import FunctionCall, KeywordArgument, quoted_list
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize, sanitize_line
from airflow_provider_smtpcm.ssis.writing.sql_task import OPERATOR as SQL_OPERATOR
from airflow_provider_smtpcm.ssis.writing.sql_task import SqlTaskConverter
from airflow_provider_smtpcm.ssis.writing.symbols import TYPES, Scope
from airflow_provider_smtpcm.ssis.writing.templates import TemplateTranslator, WritingContext, error_summary

NoMail = SqlTask | ExpressionTask | OtherTask | Container
PLACEHOLDER = "PlaceholderOperator"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedTask:
    """The operator of a task, and its arguments."""

    operator: str
    arguments: list[KeywordArgument] = field(default_factory=list)
    comment: str = ""


def convert_task(context: WritingContext, executable: NoMail, scope: Scope) -> ConvertedTask:
    """Convert an executable that is neither a mail nor a task group."""
    try:
        assignments = find_assignments(context.symbols, executable, scope)
        if assignments is not None:
            return _convert_assignments(context, executable, assignments, scope)
        if isinstance(executable, SqlTask):
            arguments = SqlTaskConverter(context, executable, scope).convert()
            return ConvertedTask(operator=SQL_OPERATOR, arguments=arguments)
    except (ExpressionError, NotTranslatable) as error:
        return _make_placeholder(context, executable, error_summary(error))
    return _make_placeholder(context, executable)


def _convert_assignments(
    context: WritingContext, task: Executable, assignments: Sequence[tuple[Variable, Expression]], scope: Scope
) -> ConvertedTask:
    """Return the operator of an Expression task, or of a script that only sets variables."""
    if not assignments:
        return ConvertedTask(operator="EmptyOperator", comment=f"SSIS: {task.name!r} does nothing.")
    reader = ReadPoint(id=task.id, name=task.name, where=task.where)
    translator = TemplateTranslator(context=context, scope=scope, template_context=TemplateContext.TASK, reader=reader)
    values: dict[str, object] = {}
    comments = []
    for variable, tree in assignments:
        expression = unparse(tree)
        arguments = [KeywordArgument(name="template", value=translator.translate(expression).text)]
        data_type = TYPES.get(variable.data_type, DataType.WSTR)
        if data_type is not DataType.WSTR:
            arguments.append(KeywordArgument(name="data_type", value=str(data_type)))
        values[variable.qualified_name] = FunctionCall(name="TypedTemplate", arguments=arguments)
        comments.append(f"SSIS: @[{variable.qualified_name}] = {sanitize(expression)}")
    context.imports.add("TypedTemplate")
    if isinstance(task, OtherTask):
        context.findings.note(
            "script-became-expression",
            reader.where,
            f"{task.name!r} ({describe_kind(task.kind)}) only sets {', '.join(values)}: the DAG computes the same.",
        )
    if isinstance(task, ExpressionTask):
        comments = [f"SSIS: {sanitize(task.expression.strip())}"]
    arguments = [KeywordArgument(name="variables", value=values, comments=tuple(comments))]
    return ConvertedTask(operator="ExpressionOperator", arguments=arguments)


def _make_placeholder(context: WritingContext, executable: NoMail, reason: str = "") -> ConvertedTask:
    """Return a placeholder, with what the executable sets and who reads it.

    Args:
        reason: why the task cannot be translated, if it is of a kind that can.
    """
    kind = f"a {executable.kind}" if isinstance(executable, Container) else describe_kind(executable.kind)
    read = find_outputs(context, executable)
    arguments = [KeywordArgument(name="ssis_kind", value=sanitize_line(kind))]
    if read:
        readers = dict.fromkeys(name for names in read.values() for name in names)
        arguments.append(KeywordArgument(name="sets", value=list(read)))
        arguments.append(KeywordArgument(name="read_by", value=[sanitize_line(name) for name in readers]))
    text = f"{executable.name!r} ({kind}) is a placeholder in the DAG, which "
    if context.placeholders_pass:
        arguments.append(KeywordArgument(name="passes", value=True))
        text += "does nothing (--placeholders pass)."
    else:
        text += "fails until a task takes its place."
    text += f" {reason}" if reason else ""
    text += f" That task must set {', '.join(read)}." if read else ""
    if (fields := context.symbols.live.queries.get(executable.id)) is not None:
        rows = f"It must return the rows of a loop: a list of mappings with the keys {quoted_list(fields)}."
        text, reason = f"{text} {rows}", f"{reason} {rows}".strip()
    context.findings.note("placeholder-task", executable.where, text)
    comment = f"SSIS: {executable.name!r} ({kind}). {reason}".strip()
    return ConvertedTask(operator=PLACEHOLDER, arguments=arguments, comment=comment)


def find_outputs(context: WritingContext, executable: Executable) -> dict[str, list[str]]:
    """Return the names of the variables that an executable sets for others, each with the names of its readers."""
    setters = context.symbols.live.setters
    inside = list(_walk(executable))
    ids = {one.id for one in inside}
    outputs: dict[str, list[str]] = {}
    for variable in dict.fromkeys(variable for one in inside for variable in setters.set_by(one)):
        readers = [reader.name for reader in setters.reads(variable) if reader.executable_id not in ids]
        if readers:
            outputs.setdefault(variable.qualified_name, []).extend(dict.fromkeys(readers))
    return outputs


def _walk(executable: Executable) -> Iterator[Executable]:
    """Yield an executable, and those in it that are not disabled."""
    yield executable
    if isinstance(executable, Container):
        for child in executable.executables:
            if not child.disabled:
                yield from _walk(child)
