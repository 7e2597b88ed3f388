"""Trees of expressions with something else in the place of their names or of their texts. Knows no package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeGuard

from airflow_provider_smtpcm.ssis.expressions import (
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Operation,
    Unary,
)


def replace_names(node: Expression, change: Callable[[Name], Expression]) -> Expression:
    """The tree with other nodes in place of its names."""
    match node:
        case Name():
            return change(node)
        case Cast() | Unary():
            return replace(node, operand=replace_names(node.operand, change))
        case Operation():
            rest = tuple((sign, replace_names(right, change), position) for sign, right, position in node.rest)
            return replace(node, first=replace_names(node.first, change), rest=rest)
        case Conditional():
            arms = tuple((replace_names(test, change), replace_names(chosen, change)) for test, chosen in node.arms)
            return replace(node, arms=arms, otherwise=replace_names(node.otherwise, change))
        case Call():
            return replace(node, arguments=tuple(replace_names(one, change) for one in node.arguments))
        case _:
            return node


def replace_texts(node: Expression, change: Callable[[str], str]) -> Expression:
    """The tree with other texts in place of its literals."""
    match node:
        case Literal(value=str() as value):
            return replace(node, value=change(value))
        case Cast() | Unary():
            return replace(node, operand=replace_texts(node.operand, change))
        case Operation():
            rest = tuple((sign, replace_texts(right, change), position) for sign, right, position in node.rest)
            return replace(node, first=replace_texts(node.first, change), rest=rest)
        case Conditional():
            arms = tuple((test, replace_texts(chosen, change)) for test, chosen in node.arms)
            return replace(node, arms=arms, otherwise=replace_texts(node.otherwise, change))
        case Call():
            return replace(node, arguments=tuple(replace_texts(one, change) for one in node.arguments))
        case _:
            return node


def joined_texts(node: Expression) -> Expression:
    """The tree with literals that are joined to each other as one."""
    match node:
        case Cast() | Unary():
            return replace(node, operand=joined_texts(node.operand))
        case Operation() if all(sign == "+" for sign, _, _ in node.rest):
            parts = [(position, joined_texts(one)) for position, one in _parts(node)]
            kept = parts[:1]
            for position, one in parts[1:]:
                last = kept[-1][1]
                if _is_text(last) and _is_text(one):
                    kept[-1] = (kept[-1][0], replace(last, value=f"{last.value}{one.value}"))
                else:
                    kept.append((position, one))
            rest = tuple(("+", one, position) for position, one in kept[1:])
            return replace(node, first=kept[0][1], rest=rest) if rest else kept[0][1]
        case Conditional():
            arms = tuple((test, joined_texts(chosen)) for test, chosen in node.arms)
            return replace(node, arms=arms, otherwise=joined_texts(node.otherwise))
        case _:
            return node


def first_texts(node: Expression) -> list[str]:
    """The literals that an expression may begin with; nothing where it begins with what is worked out."""
    match node:
        case Literal(value=str() as value):
            return [value] if value else []
        case Cast():
            return first_texts(node.operand)
        case Operation():
            return first_texts(node.first)
        case Conditional():
            return [text for one in (*(chosen for _, chosen in node.arms), node.otherwise) for text in first_texts(one)]
        case _:
            return []


def _is_text(node: Expression) -> TypeGuard[Literal]:
    return isinstance(node, Literal) and isinstance(node.value, str)


def _parts(node: Operation) -> list[tuple[int, Expression]]:
    return [(node.position, node.first), *((position, right) for _, right, position in node.rest)]
