"""Precedence constraints, in both dialects: by refId in attributes, or by GUID in two child elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from airflow_provider_smtpcm.ssis.package import ConstraintValue, EvalOp, PrecedenceConstraint, Severity
from airflow_provider_smtpcm.ssis.reading.dialect import flag, members, normal_id, text
from airflow_provider_smtpcm.ssis.reading.nodes import Node
from airflow_provider_smtpcm.ssis.reading.scope import Reading

_VALUES = {
    "0": ConstraintValue.SUCCESS,
    "success": ConstraintValue.SUCCESS,
    "1": ConstraintValue.FAILURE,
    "failure": ConstraintValue.FAILURE,
    "2": ConstraintValue.COMPLETION,
    "completion": ConstraintValue.COMPLETION,
}
_OPERATIONS = {
    "2": EvalOp.CONSTRAINT,
    "constraint": EvalOp.CONSTRAINT,
    "1": EvalOp.EXPRESSION,
    "expression": EvalOp.EXPRESSION,
    "3": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "expressionandconstraint": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "4": EvalOp.EXPRESSION_OR_CONSTRAINT,
    "expressionorconstraint": EvalOp.EXPRESSION_OR_CONSTRAINT,
}
_FIRST_WITH_ATTRIBUTES = 6

T = TypeVar("T", ConstraintValue, EvalOp)


def read_constraints(
    node: Node, path: tuple[str, ...], known: Mapping[str, str], reading: Reading
) -> tuple[PrecedenceConstraint, ...]:
    """The constraints of a container.

    Args:
        known: the ids of what runs in it, by all that a constraint may call it.
    """
    found = []
    for one in members(node, "PrecedenceConstraints", "PrecedenceConstraint"):
        before, after = (known.get(normal_id(reference)) for reference in _ends(one))
        name = text(one, "ObjectName")
        if before is None or after is None:
            reading.find(
                "dangling-precedence-constraint",
                Severity.DECISION,
                path,
                f"The precedence constraint {name!r} leads to or from something that is not there; left out.",
                "Look at the order of the tasks around it.",
            )
            continue
        expression = text(one, "Expression")
        # From 2012 on False is not written; before, everything is.
        lenient = reading.format_version < _FIRST_WITH_ATTRIBUTES
        found.append(
            PrecedenceConstraint(
                name=name,
                before=before,
                after=after,
                value=_word(one, "Value", _VALUES, path, reading),
                eval_op=_word(one, "EvalOp", _OPERATIONS, path, reading),
                expression=expression if expression.strip() else None,
                logical_and=flag(one, "LogicalAnd", default=lenient),
            )
        )
    return tuple(found)


def _ends(node: Node) -> tuple[str, str]:
    before, after = text(node, "From"), text(node, "To")
    for end in node.all("Executable"):
        if flag(end, "IsFrom"):
            before = end.attributes.get("IDREF", "")
        else:
            after = end.attributes.get("IDREF", "")
    return before, after


def _word(node: Node, name: str, words: Mapping[str, T], path: tuple[str, ...], reading: Reading) -> T:
    """A word or its number; the first of the words is the default."""
    value = text(node, name).strip().lower()
    if value and value not in words:
        reading.find(
            "unknown-precedence",
            Severity.DECISION,
            path,
            f"{name} of the precedence constraint {text(node, 'ObjectName')!r} is {value!r}, which SSIS does not know.",
            "Look at the order of the tasks around it.",
        )
    return words.get(value) or next(iter(words.values()))
