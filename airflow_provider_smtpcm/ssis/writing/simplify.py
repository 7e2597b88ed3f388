"""Simplifies a package before its DAG is written.

Executables that never run are left out. Where a property expression decides on the shape of a DAG, its value replaces
the stored one, which is what the developer's machine evaluated last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    evaluate,
    find_variables,
    parse,
    reads_clock,
)
from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import (
    FORCED_RESULTS,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    ExpressionTask,
    Package,
    PrecedenceConstraint,
)
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


def leave_out_unreachable(package: Package, findings: Findings) -> Package:
    """Return a package without the executables that never run because an expression such as `1 == 2` is false.

    Event handlers are not changed: the conditions of their mails are simplified where the alerts are written.
    """
    root = _leave_out_inside(package.root, findings)
    return package if root is package.root else replace(package, root=root)


def _leave_out_inside(container: Container, findings: Findings) -> Container:
    if container.disabled:
        return container
    unreachable: dict[str, PrecedenceConstraint] = {}
    for _ in container.executables:
        found = _find_unreachable(container, unreachable)
        if found.keys() == unreachable.keys():
            break
        unreachable = found
    kept = tuple(
        _leave_out_inside(child, findings) if isinstance(child, Container) else child
        for child in container.executables
        if child.id not in unreachable
    )
    constraints = tuple(
        each for each in container.constraints if each.before not in unreachable and not _is_never_met(each)
    )
    if kept == container.executables:
        return container
    for child in container.executables:
        if child.id in unreachable and not child.disabled:
            text = f"SSIS never runs {child.name!r}, so it is not in the DAG: "
            expression = unreachable[child.id].expression
            text += f"{display_expression(expression)} is false." if expression else "what it follows never runs."
            findings.note("condition-on-variables", child.where, text)
    return replace(container, executables=kept, constraints=constraints)


def _find_unreachable(
    container: Container, unreachable: Mapping[str, PrecedenceConstraint]
) -> dict[str, PrecedenceConstraint]:
    """Return a constraint that is never met for each executable that never runs, by the id of the executable.

    Args:
        unreachable: those that are known so far.
    """
    found: dict[str, PrecedenceConstraint] = {}
    for child in container.executables:
        incoming = [each for each in container.constraints if each.after == child.id]
        never = [each for each in incoming if each.before in unreachable or _is_never_met(each)]
        if never and (len(never) == len(incoming) or all(each.logical_and for each in incoming)):
            found[child.id] = next((each for each in never if _is_never_met(each)), never[0])
    return found


def _is_never_met(constraint: PrecedenceConstraint) -> bool:
    """Whether the expression of a constraint is false in each run, since it reads neither variables nor the clock."""
    if constraint.eval_op not in {EvalOp.EXPRESSION, EvalOp.EXPRESSION_AND_CONSTRAINT} or not constraint.expression:
        return False
    try:
        tree = parse(constraint.expression)
        return not find_variables(tree) and not reads_clock(tree) and evaluate(tree).data is False
    except (ExpressionError, RecursionError):
        return False
