"""Property expressions that decide on the shape of a DAG: their values replace the stored ones before it is written.

The stored value of a property with an expression is what the developer's machine evaluated last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from airflow_provider_smtpcm.ssis.expressions import Call, ExpressionError, parse, walk
from airflow_provider_smtpcm.ssis.model import (
    FORCED_RESULTS,
    Container,
    ContainerKind,
    EventHandler,
    Executable,
    ExpressionTask,
    Package,
)
from airflow_provider_smtpcm.ssis.writing.handler_conditions import CLOCKS
from airflow_provider_smtpcm.ssis.writing.secrets import display_expression, sanitize
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable
from airflow_provider_smtpcm.ssis.writing.templates import error_summary

_Owner = TypeVar("_Owner", bound=Executable | EventHandler)


def settle_properties(package: Package, symbols: SymbolTable) -> Package:
    """Return a package without expressions for `ForceExecutionResult`, `MaximumErrorCount` and `Expression`.

    An expression that depends on what tasks set stays, and is a decision unless it is that of an Expression task.

    Args:
        symbols: the symbols of the package; the findings are added there.
    """
    root = _settle(package.root, symbols)
    return package if root is package.root else replace(package, root=root)


def _settle(owner: _Owner, symbols: SymbolTable) -> _Owner:
    changes: dict[str, Any] = {}
    if isinstance(owner, Container | EventHandler):
        executables = tuple(_settle(each, symbols) for each in owner.executables)
        if any(new is not old for new, old in zip(executables, owner.executables, strict=True)):
            changes["executables"] = executables
    handlers = tuple(_settle(each, symbols) for each in owner.event_handlers)
    if any(new is not old for new, old in zip(handlers, owner.event_handlers, strict=True)):
        changes["event_handlers"] = handlers
    if not isinstance(owner, EventHandler) and not owner.disabled and owner.kind != ContainerKind.PACKAGE:
        changes |= _evaluate_properties(owner, symbols)
    return replace(owner, **changes) if changes else owner


def _evaluate_properties(executable: Executable, symbols: SymbolTable) -> dict[str, Any]:
    """Return the fields of an executable that expressions of its properties set."""
    fields = {"ForceExecutionResult": "force_result"}
    if isinstance(executable, Container):
        fields["MaximumErrorCount"] = "maximum_errors"
    if isinstance(executable, ExpressionTask):
        fields["Expression"] = "expression"
    scope = symbols.scope_at(executable.path)
    changes: dict[str, Any] = {}
    for name in fields.keys() & executable.expressions.keys():
        expression = executable.expressions[name]
        display = display_expression(expression)
        try:
            if any(isinstance(part, Call) and part.function in CLOCKS for part in walk(parse(expression))):
                raise ExpressionError("It reads the clock.")
            changes[fields[name]] = _parse(name, symbols.evaluate(expression, scope))
        except (ExpressionError, RecursionError, ValueError) as error:
            reason = error_summary(error)
            if name != "Expression":  # the task becomes a placeholder
                symbols.findings.decision(
                    "forced-result",
                    executable.where,
                    f"{name} of {executable.name!r} comes from the expression {display}, whose value is not known: "
                    f"{reason} The DAG has the value in the package.",
                    f"Check what runs after {executable.name!r}, and after the containers around it.",
                )
            continue
        symbols.findings.note(
            "property-evaluated",
            executable.where,
            f"{name} of {executable.name!r} comes from the expression {display}; the DAG has its value from the files: "
            f"{sanitize(str(changes[fields[name]]))}.",
        )
    if changes:
        settled = {name for name, field in fields.items() if field in changes}
        kept = {name: text for name, text in executable.expressions.items() if name not in settled}
        changes["expressions"] = kept
    return changes


def _parse(name: str, value: str) -> object:
    """Return the value of a property.

    Raises:
        ValueError: the property cannot have this value.
    """
    if name == "ForceExecutionResult":
        value = value.strip().lower()
        if value not in FORCED_RESULTS:
            raise ValueError(f"it is {value!r}.")
        return FORCED_RESULTS[value]
    return int(value) if name == "MaximumErrorCount" else value
