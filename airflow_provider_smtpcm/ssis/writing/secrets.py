"""Accounts in expressions, which may be put together of several texts: `"User ID=" + "svc" + ";Password=" + ...`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_provider_smtpcm.ssis.expressions import (
    Cast,
    Conditional,
    DataType,
    Expression,
    ExpressionError,
    Literal,
    Name,
    NotTranslatable,
    Operation,
    TypeSpec,
    children,
    parse,
    replace_strings,
    unparse,
    walk,
)
from airflow_provider_smtpcm.ssis.output import clean, holds_account

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
        return unparse(replace_strings(tree, lambda _: "(removed)"))
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


# folded: Whether a text tells somebody a password, as `Password: Hunter2!` does and `Password: see the vault` does not.
#   Such a text is the author's own and is kept; a person should know of it. What looks like the account of a connection
#   string (`Password=...`) is left out elsewhere.

_TOLD = re.compile(
    r"""(?:pass\s?word|passwd|pass\s?phrase|passcode|pwd|passwort|kennwort|mot\sde\spasse|contraseña|wachtwoord)
        (?:[\s"'*_]*+(?P<sign>:|->|=>)|\s+is\s)[ \t]*+(?P<rest>[^\r\n;]*)""",
    re.IGNORECASE | re.VERBOSE,
)
# What stands alone behind the colon where no password is told.
_WORDS = {
    "attached",
    "blank",
    "changed",
    "completed",
    "disabled",
    "done",
    "empty",
    "enabled",
    "encrypted",
    "expired",
    "failed",
    "false",
    "hidden",
    "invalid",
    "locked",
    "masked",
    "missing",
    "n/a",
    "never",
    "no",
    "none",
    "null",
    "ok",
    "optional",
    "protected",
    "removed",
    "required",
    "reset",
    "same",
    "secret",
    "set",
    "success",
    "successful",
    "tba",
    "true",
    "unchanged",
    "unknown",
    "updated",
    "wrong",
    "yes",
}
# A mask, or the place of something that is put in later.
_MASKED = re.compile(r"(.)\1{2,}|[$@%]?[<\[({].*|%\w+%|[*•.#xX_-]+")
# A date, a time, a number of days, a share or a page: no password, if more words follow.
_NUMBER = re.compile(r"\d+(?:[-./:]\d+)*|\d+%")
_ELSEWHERE = re.compile(r"/|\w+://|[^@\s]+@[^@\s]+\.\w|[A-Za-z]:\\|\\\\")
_AROUND = "\"'`“”‘’«»,."


def password_line(text: str) -> int | None:
    """The number of the first line that seems to tell a password; None where there is none."""
    for found in _TOLD.finditer(text):
        if _is_password(found["rest"].split(), by_colon=found["sign"] is not None):
            return text.count("\n", 0, found.start("rest")) + 1
    return None


def _is_password(words: list[str], *, by_colon: bool) -> bool:
    """Whether the first of the words is one: it is written as no word is, or it stands alone."""
    first = words[0].strip(_AROUND) if words else ""
    if not first or (_MASKED.fullmatch(first) and len(first) > 1) or _ELSEWHERE.match(first):
        return False
    if _looks_made_up(first):
        return True
    alone = by_colon and len(words) == 1
    return alone and first.lower() not in _WORDS


def _looks_made_up(word: str) -> bool:
    if _NUMBER.fullmatch(word):
        return False
    letters = any(one.isalpha() for one in word)
    digits = any(one.isdigit() for one in word)
    signs = any(one in "!@#$%^&*+=?_~|" for one in word.rstrip("!?"))
    inner_capital = any(one.isupper() for one in word[1:]) and any(one.islower() for one in word)
    return (letters and (digits or signs)) or inner_capital
