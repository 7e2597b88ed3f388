"""What an Expression task assigns, and a script that only sets variables: each variable with the value it gets."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_smtpcm.ssis.expressions import (
    Call,
    Cast,
    DataType,
    Expression,
    Literal,
    Name,
    NotTranslatable,
    Operation,
    TypeSpec,
    Unary,
    find_system_type,
    parse,
    parse_assignment,
)
from airflow_provider_smtpcm.ssis.model import Executable, ExpressionTask, OtherTask, Variable
from airflow_provider_smtpcm.ssis.writing.symbols import TYPES, Scope, SymbolTable

# How the value of each type reads as text: what .NET writes and SSIS's cast are the same, for these types only.
_TEXT_LENGTHS = {
    **dict.fromkeys((DataType.I1, DataType.I2, DataType.I4, DataType.I8), 20),
    **dict.fromkeys((DataType.UI1, DataType.UI2, DataType.UI4, DataType.UI8), 20),
    DataType.BOOL: 5,
}
_DATE_LENGTH = 30
# A number in SSIS, a text in a callback.
_ERROR_CODE = {"System::ErrorCode", "ErrorCode"}


def find_assignments(symbols: SymbolTable, task: Executable, scope: Scope) -> list[tuple[Variable, Expression]] | None:
    """Return the variables that a task sets, each with the expression of its value before the task; None if unknown.

    Args:
        symbols: the symbols of the package.
        task: an Expression task, or a task with assignments; None is returned for any other executable.
        scope: resolves the names.

    Raises:
        ExpressionError: the expression cannot be parsed.
        NotTranslatable: a value does not have the type of its variable.
    """
    if isinstance(task, ExpressionTask):
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
            NotTranslatable: the script would fail, or writes a value as SSIS does not.
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
                f"How {name.name} reads as text is not known.", remedy="Write what computes the value in the DAG."
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
