"""Accounts in expressions, which may be put together of several texts: `"User ID=" + "svc" + ";Password=" + ...`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_provider_smtpcm.ssis.clean import clean, holds_account
from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    Expression,
    ExpressionError,
    NotTranslatable,
    TypeSpec,
    parse,
    to_text,
)
from airflow_provider_smtpcm.ssis.expressions.nodes import Cast, Conditional, Literal, Name, Operation, children, walk
from airflow_provider_smtpcm.ssis.writing.trees import replace_texts

# In the place of what is worked out when it runs: it ends a value, and is none.
_UNKNOWN = ";"
_BEFORE = 200
_KEY = re.compile(r"(?:password|passwd|pwd)\s*[=:]\s*[\"']?\Z", re.IGNORECASE)


def texts_in(node: Expression) -> list[str]:
    """The texts that an expression is put together of, those that are joined by `+` as one; a choice gives several."""
    found: list[str] = []
    todo = [node]
    while todo:
        one = todo.pop()
        if isinstance(one, Literal | Cast | Operation):
            text = _joined(one)
            found += [text] if text.strip(_UNKNOWN) else []
            # A choice within it is looked at by itself, behind what comes before it.
            before = ""
            for part in _chain(one):
                if isinstance(part, Conditional):
                    todo += [each for test, chosen in part.arms for each in (test, _after(before, chosen))]
                    todo.append(_after(before, part.otherwise))
                before += part.value if isinstance(part, Literal) and isinstance(part.value, str) else _UNKNOWN
            todo += [inner for part in _chain(one) if not isinstance(part, Conditional) for inner in children(part)]
        else:
            todo += children(one)
    return found


def without_account(node: Expression) -> Expression:
    """The tree as it is.

    Raises:
        NotTranslatable: a text in it holds an account.
    """
    if any(holds_account(text) for text in texts_in(node)):
        raise NotTranslatable(
            "It holds an account, which is not repeated.", remedy="Take it from where secrets are kept."
        )
    return node


def behind_a_password(node: Expression) -> Iterator[str]:
    """The names in an expression that stand where a password does: `"Password=" + @[User::Text]`."""
    for one in walk(node):
        if not isinstance(one, Operation):
            continue
        before = ""
        for part in _chain(one):
            if isinstance(part, Name) and _KEY.search(before[-_BEFORE:]):
                yield part.name
            before += part.value if isinstance(part, Literal) and isinstance(part.value, str) else _UNKNOWN


def shown(text: str) -> str:
    """An expression for a report or a comment. Where an account is put together of pieces, without its texts."""
    try:
        tree = parse(text)
    except (ExpressionError, RecursionError):
        return clean(text)
    single = {str(one.value).strip(_UNKNOWN) for one in walk(tree) if isinstance(one, Literal)}
    if any(holds_account(joined) and joined.strip(_UNKNOWN) not in single for joined in texts_in(tree)):
        return to_text(replace_texts(tree, lambda _: "(removed)"))
    return clean(text)


def reason(error: Exception) -> str:
    """Why an expression comes to nothing, without the line that points at the place."""
    return clean(str(error)).partition("\n    ")[0]


def _chain(node: Expression) -> list[Expression]:
    """What `+` joins, in order."""
    if isinstance(node, Cast):
        return _chain(node.operand)
    if isinstance(node, Operation) and all(sign == "+" for sign, _, _ in node.rest):
        return [part for each in (node.first, *(right for _, right, _ in node.rest)) for part in _chain(each)]
    return [node]


def _joined(node: Expression) -> str:
    parts = _chain(node)
    return "".join(one.value if isinstance(one, Literal) and isinstance(one.value, str) else _UNKNOWN for one in parts)


def _after(before: str, chosen: Expression) -> Expression:
    """What is chosen, with the end of what comes before it."""
    if not before.strip(_UNKNOWN):
        return chosen
    lead = Literal(type=TypeSpec(DataType.WSTR), value=before[-_BEFORE:])
    return Operation(first=lead, rest=(("+", chosen, 0),))
