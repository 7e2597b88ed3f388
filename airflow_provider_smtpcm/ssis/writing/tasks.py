"""The tasks of a package that send no mail: their operators, or placeholders for what the import cannot translate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import (
    Call,
    Cast,
    DataType,
    Expression,
    ExpressionError,
    Literal,
    Name,
    NotTranslatable,
    Operation,
    TypeSpec,
    Unary,
    find_system_type,
    parse,
    parse_assignment,
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
    walk_executables,
)
from airflow_provider_smtpcm.ssis.writing.conversion import WritingContext
from airflow_provider_smtpcm.ssis.writing.python_source import KeywordArgument, keywords, quoted_list
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize, sanitize_line
from airflow_provider_smtpcm.ssis.writing.sql_task import OPERATOR as SQL_OPERATOR
from airflow_provider_smtpcm.ssis.writing.sql_task import SqlTaskConverter
from airflow_provider_smtpcm.ssis.writing.symbols import TYPES, Scope, SymbolTable
from airflow_provider_smtpcm.ssis.writing.templates import TemplateTranslator, error_summary

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
    translator = TemplateTranslator.inside(task, context, scope)
    values: dict[str, object] = {}
    comments = []
    for variable, tree in assignments:
        expression = unparse(tree)
        values[variable.qualified_name] = translator.typed(expression, TYPES.get(variable.data_type))
        comments.append(f"SSIS: @[{variable.qualified_name}] = {sanitize(expression)}")
    if isinstance(task, OtherTask):
        context.findings.note(
            "script-became-expression",
            task.where,
            f"{task.name!r} ({describe_kind(task.kind)}) only sets {', '.join(values)}; the DAG computes them, too.",
        )
    if isinstance(task, ExpressionTask):
        comments = [f"SSIS: {sanitize(task.expression.strip())}"]
    arguments = [KeywordArgument("variables", values, comments=tuple(comments))]
    return ConvertedTask(operator="ExpressionOperator", arguments=arguments)


def _make_placeholder(context: WritingContext, executable: NoMail, reason: str = "") -> ConvertedTask:
    """Return a placeholder, with what the executable sets and who reads it.

    Args:
        reason: why this task cannot be translated, if others of its kind can; otherwise empty.
    """
    kind = f"a {executable.kind}" if isinstance(executable, Container) else describe_kind(executable.kind)
    read = find_outputs(context, executable)
    arguments = keywords(ssis_kind=sanitize_line(kind))
    if read:
        readers = dict.fromkeys(name for names in read.values() for name in names)
        arguments += keywords(sets=list(read))
        arguments += keywords(read_by=[sanitize_line(name) for name in readers])
    text = f"{executable.name!r} ({kind}) is a placeholder in the DAG: it "
    if context.placeholders_pass:
        arguments += keywords(passes=True)
        text += "does nothing (--placeholders pass)."
    else:
        text += "fails until a task takes its place."
    text += f" {reason}" if reason else ""
    text += f" The replacement must set {', '.join(read)}." if read else ""
    if (fields := context.symbols.live.queries.get(executable.id)) is not None:
        rows = f"The replacement must return a loop's rows: a list of mappings with the keys {quoted_list(fields)}."
        text, reason = f"{text} {rows}", f"{reason} {rows}".strip()
    context.findings.note("placeholder-task", executable.where, text)
    comment = f"SSIS: {executable.name!r} ({kind}). {reason}".strip()
    return ConvertedTask(operator=PLACEHOLDER, arguments=arguments, comment=comment)


def find_outputs(context: WritingContext, executable: Executable) -> dict[str, list[str]]:
    """Return the names of the variables that an executable sets for others, each with the names of its readers."""
    setters = context.symbols.live.setters
    inside = [each for each in walk_executables([executable]) if each is executable or not each.disabled]
    ids = {one.id for one in inside}
    outputs: dict[str, list[str]] = {}
    for variable in dict.fromkeys(variable for one in inside for variable in setters.set_by(one)):
        readers = [reader.executable.name for reader in setters.reads(variable) if reader.executable.id not in ids]
        if readers:
            outputs.setdefault(variable.qualified_name, []).extend(dict.fromkeys(readers))
    return outputs


# The maximum length, in characters, of a value of each type as text. Only for these types, .NET writes the same text as
# a cast in SSIS.
_TEXT_LENGTHS = {
    **dict.fromkeys((DataType.I1, DataType.I2, DataType.I4, DataType.I8), 20),
    **dict.fromkeys((DataType.UI1, DataType.UI2, DataType.UI4, DataType.UI8), 20),
    DataType.BOOL: 5,
}
_DATE_LENGTH = 30
# ErrorCode is a number in SSIS, and a text in a callback.
_ERROR_CODE = {"System::ErrorCode", "ErrorCode"}


def find_assignments(symbols: SymbolTable, task: Executable, scope: Scope) -> list[tuple[Variable, Expression]] | None:
    """Return the variables that a task sets, each with the expression of its new value; None if they are unknown.

    The expressions read the variables as they are before the task.

    Args:
        symbols: the symbols of the package.
        task: an Expression task, or a task with assignments; None is returned for any other executable.
        scope: resolves the names.

    Raises:
        ExpressionError: the expression cannot be parsed.
        NotTranslatable: a value does not have the type of its variable, or a name is not that of a variable.
    """
    if isinstance(task, ExpressionTask):
        if "Expression" in task.expressions:
            raise NotTranslatable("An expression computes its assignment in each run.")
        names, tree = parse_assignment(task.expression)
        return [(_find_variable(symbols, name, scope), tree) for name in names]
    if not isinstance(task, OtherTask) or task.assignments is None:
        return None
    assignments = []
    for name, expression in task.assignments:
        variable, tree = _find_variable(symbols, name, scope), parse(expression)
        types = _Types(symbols, scope)
        if variable.expression is not None:  # SSIS evaluates it again for each reader
            continue
        if types.find_type(tree) != TYPES.get(variable.data_type):
            raise NotTranslatable(
                f"The value for {variable.qualified_name} is of another type.", remedy="Compute the value in the DAG."
            )
        assignments.append((variable, types.fit(tree)))
    return assignments


def _find_variable(symbols: SymbolTable, name: str, scope: Scope) -> Variable:
    symbol = symbols.lookup(name, scope)
    if not isinstance(symbol, Variable):
        raise NotTranslatable(f"{name} is not a variable of the package.", remedy="Write its name as it is declared.")
    return symbol


class _Types:
    """The types of the values in a script, which converts none of them silently."""

    def __init__(self, symbols: SymbolTable, scope: Scope) -> None:
        self._symbols, self._scope = symbols, scope

    def find_type(self, tree: Expression) -> DataType | None:
        """Return the type of a value; None if it is not known."""
        match tree:
            case Literal() | Cast():
                return tree.type.data_type
            case Name():
                return self._type_of(tree.name)
            case Operation():
                return self.find_type(tree.first)
            case Unary():
                return self.find_type(tree.operand)
            case Call():
                return DataType.DATE
            case _:
                return None

    def fit(self, tree: Expression, *, is_root: bool = True) -> Expression:
        """Return a value with the conversions that the types of its variables need.

        Raises:
            NotTranslatable: the script would fail, or its text for a value may differ from SSIS's.
        """
        if isinstance(tree, Cast) and isinstance(tree.operand, Name):
            return self._fit_cast(tree, tree.operand)
        if isinstance(tree, Name) and not is_root:
            self._require(tree.name, DataType.WSTR)
        if isinstance(tree, Cast | Unary):
            return replace(tree, operand=self.fit(tree.operand, is_root=False))
        if isinstance(tree, Operation):
            rest = tuple((sign, self.fit(operand, is_root=False), at) for sign, operand, at in tree.rest)
            return replace(tree, first=self.fit(tree.first, is_root=False), rest=rest)
        return tree

    def _fit_cast(self, tree: Cast, name: Name) -> Expression:
        if tree.type.data_type is not DataType.WSTR:
            self._require(name.name, tree.type.data_type)
            return name
        type_ = self._type_of(name.name)
        if type_ is DataType.WSTR or name.name in _ERROR_CODE:
            return name
        is_system = self._symbols.lookup(name.name, self._scope) is None
        length = _DATE_LENGTH if type_ is DataType.DATE and is_system else _TEXT_LENGTHS.get(type_) if type_ else None
        if length is None:
            raise NotTranslatable(
                f"The text form of {name.name} is not known.", remedy="Write what computes the value in the DAG."
            )
        return Cast(type=TypeSpec(DataType.WSTR, (length,)), operand=name)

    def _require(self, name: str, data_type: DataType) -> None:
        if self._type_of(name) is not data_type:
            raise NotTranslatable(f"{name} is not of the type {data_type}.", remedy="Compute the value in the DAG.")

    def _type_of(self, name: str) -> DataType | None:
        symbol = self._symbols.lookup(name, self._scope)
        if symbol is not None:
            return TYPES.get(symbol.data_type)
        return DataType.I4 if name in _ERROR_CODE else find_system_type(name)
