"""Finds secrets in the texts and expressions of SSIS packages, and removes them from reports and DAG files.

The credentials in a connection string (`Password=...`) are always removed, even if an expression has them in several
literals: `"User ID=" + "svc" + ";Password=" + ...`. A password in the text of a mail (`Password: Hunter2!`) is kept,
since its author meant to send it, and is reported as a finding.
"""

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

# SSIS has no credentials for SMTP, but packages have some in the connection string of an SMTP connection manager, or in
# an expression.
# The value ends at a semicolon, a quotation mark or the end of the line, and may itself be quoted.
_CREDENTIALS = re.compile(
    r"""(?P<key>(?:password|passwd|pwd|secret|(?<!publickey)token|(?<![a-z0-9])(?:uid|login|user(?:\s?name|\s?id)?))
        \s*+=(?!=)\s*+)
        (?:["']\s*+\+\s*+(?:\([^()]*+\)\s*+)*+(?=["']))?
        (?:\\?["'](?=[^\s+;"']))?
        [^;"'\r\n]*[^;"'\r\n\s]""",
    re.IGNORECASE | re.VERBOSE,
)
# Stricter: a text that matches is left out of a mail as a whole, and an ordinary mail may say `user = the one who`.
_CONNECTION_STRING = re.compile(
    r"""(?:password|passwd|pwd)\s*+=(?!=)\s*+[^;]
        |(?:^|[;"'\n])[^\S\n]*+(?:uid|user\s?id|user\s?name)\s*+=(?!=)\s*+[^;]""",
    re.IGNORECASE | re.VERBOSE,
)
_REMOVED = "(removed)"
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_WHITESPACE_KEPT = "\n\t"
# Stands for a value that is computed at run time. In a connection string, a semicolon ends the value before it.
_COMPUTED = ";"
_MAX_PREFIX = 200  # characters before a value that are searched for `Password=`
_PASSWORD_KEY = re.compile(r"(?:password|passwd|pwd)\s*[=:]\s*N?[\"']?\Z", re.IGNORECASE)


def sanitize(text: str) -> str:
    """Return a text of a package for a report: without credentials, and with control characters replaced.

    Line endings become line feeds. Bidirectional formatting characters, which could disguise a text, count as control
    characters (`str.isprintable`).
    """
    text = _CREDENTIALS.sub(lambda match: match["key"] + _REMOVED, text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _WHITESPACE_KEPT else "\ufffd" for char in _SURROGATES.sub("\ufffd", text)
    )


def sanitize_line(text: str) -> str:
    """Return a sanitized text on one line, for a terminal or a name."""
    return " ".join(sanitize(text).split())


def has_credentials(text: str) -> bool:
    """Whether a text contains a user or a password in the form of a connection string."""
    return bool(_CONNECTION_STRING.search(text))


# What passwords in a statement follow, other than the keys of a connection string.
_IN_STATEMENT = re.compile(
    r"""\bsecret\s*+=\s*+N?'
        |by\s?passphrase\s*+\(\s*+N?'
        |\bidentified\s++by\s++(?!values\b|externally\b)["\w]
        |\bopenrowset\s*+\(\s*+N?'[^']*+'\s*+,\s*+N?'[^']*+'\s*+;
        |\bsp_(?:addlinkedsrvlogin|addlogin|password|setapprole|approlepassword)\b
        |(?<=\s)(?-i:-P)\s*+['"]?[^\s'"-]
        |(?<!\w)/(?:user|u):""",
    re.IGNORECASE | re.VERBOSE,
)


def has_credentials_in_statement(text: str) -> bool:
    """Whether a statement may contain a password, such as one of a login or for OPENROWSET, sqlcmd, bcp or net use."""
    return has_credentials(text) or bool(_IN_STATEMENT.search(text))


_PASSWORD_LABEL = re.compile(
    r"""(?:pass\s?word|passwd|pass\s?phrase|passcode|pwd|passwort|kennwort|mot\sde\spasse|contraseña|wachtwoord)
        (?:[\s"'*_]*+(?P<sign>:|->|=>)|\s+is\s)[ \t]*+(?P<value>[^\r\n;]*)""",
    re.IGNORECASE | re.VERBOSE,
)
# Single words after the colon that are not a password.
_STATUS_WORDS = {
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
# A mask, or a placeholder that is filled in later.
_PLACEHOLDER = re.compile(r"(.)\1{2,}|[$@%]?[<\[({].*|%\w+%|[*•.#xX_-]+")
# A date, a time or a number of days is not a password if more words follow.
_NUMBER = re.compile(r"\d+(?:[-./:]\d+)*|\d+%")
_ADDRESS_OR_PATH = re.compile(r"/|\w+://|[^@\s]+@[^@\s]+\.\w|[A-Za-z]:\\|\\\\")
_PUNCTUATION = "\"'`“”‘’«»,."


def find_password_line(text: str) -> int | None:
    """Return the number, from 1, of the first line that seems to contain a password; None if there is none.

    `Password: Hunter2!` does, `Password: see the vault` does not.
    """
    for match in _PASSWORD_LABEL.finditer(text):
        if _starts_with_password(match["value"].split(), after_colon=match["sign"] is not None):
            return text.count("\n", 0, match.start("value")) + 1
    return None


def name_for_id(name: str) -> str:
    """Return the part of a name that ids are made from: without credentials, and only up to a password in it."""
    name = sanitize(name)
    for match in _PASSWORD_LABEL.finditer(name):
        if _starts_with_password(match["value"].split(), after_colon=match["sign"] is not None):
            return name[: match.start("value")]
    return name


def _starts_with_password(words: list[str], *, after_colon: bool) -> bool:
    """Whether the first word looks like a password, or is the only word after a colon."""
    first = words[0].strip(_PUNCTUATION) if words else ""
    if not first or (_PLACEHOLDER.fullmatch(first) and len(first) > 1) or _ADDRESS_OR_PATH.match(first):
        return False
    if _looks_like_password(first):
        return True
    return after_colon and len(words) == 1 and first.lower() not in _STATUS_WORDS


def _looks_like_password(word: str) -> bool:
    if _NUMBER.fullmatch(word):
        return False
    has_letter = any(char.isalpha() for char in word)
    has_digit = any(char.isdigit() for char in word)
    has_sign = any(char in "!@#$%^&*+=?_~|" for char in word.rstrip("!?"))
    has_inner_capital = any(char.isupper() for char in word[1:]) and any(char.islower() for char in word)
    return (has_letter and (has_digit or has_sign)) or has_inner_capital


def display_expression(expression: str) -> str:
    """Return an expression without credentials, for a report or a comment.

    If credentials are spread over several literals, all literals are removed.
    """
    try:
        tree = parse(expression)
    except (ExpressionError, RecursionError):
        return sanitize(expression)
    literals = {str(node.value).strip(_COMPUTED) for node in walk(tree) if isinstance(node, Literal)}
    if any(has_credentials(text) and text.strip(_COMPUTED) not in literals for text in joined_literals(tree)):
        return unparse(replace_strings(tree, lambda _: "(removed)"))
    return sanitize(expression)


def reject_credentials(tree: Expression) -> Expression:
    """Return the tree unchanged.

    Raises:
        NotTranslatable: it contains credentials.
    """
    if any(has_credentials(text) for text in joined_literals(tree)):
        raise NotTranslatable(
            "It contains credentials, which were not copied.", remedy="Read them from a secrets backend."
        )
    return tree


def find_password_names(tree: Expression) -> Iterator[str]:
    """Yield the names whose value is used as a password, as in `"Password=" + @[User::Text]`."""
    for node in walk(tree):
        if not isinstance(node, Operation):
            continue
        before = ""
        for operand in _get_operands(node):
            if isinstance(operand, Name) and _PASSWORD_KEY.search(before[-_MAX_PREFIX:]):
                yield operand.name
            before += _get_text(operand)


def joined_literals(tree: Expression) -> list[str]:
    """Return the texts in an expression: what `+` joins is one text, and each branch of a conditional gives one."""
    texts: list[str] = []
    remaining = [tree]
    while remaining:
        node = remaining.pop()
        if isinstance(node, Literal | Cast | Operation):
            operands = _get_operands(node)
            text = "".join(map(_get_text, operands))
            texts += [text] if text.strip(_COMPUTED) else []
            # Each branch of a conditional is a text of its own, which begins with the text before the conditional.
            before = ""
            for operand in operands:
                if isinstance(operand, Conditional):
                    remaining += [branch for test, arm in operand.arms for branch in (test, _prepend(before, arm))]
                    remaining.append(_prepend(before, operand.otherwise))
                before += _get_text(operand)
            remaining += [
                inner for operand in operands if not isinstance(operand, Conditional) for inner in children(operand)
            ]
        else:
            remaining += children(node)
    return texts


def _get_operands(node: Expression) -> list[Expression]:
    """Return the operands of a `+` in order, also those inside casts; for any other node, the node itself."""
    if isinstance(node, Cast):
        return _get_operands(node.operand)
    if isinstance(node, Operation) and node.is_sum:
        return [inner for operand in node.operands for inner in _get_operands(operand)]
    return [node]


def _get_text(node: Expression) -> str:
    return node.value if isinstance(node, Literal) and isinstance(node.value, str) else _COMPUTED


def _prepend(before: str, branch: Expression) -> Expression:
    """Return a branch of a conditional with the end of the preceding text before it."""
    if not before.strip(_COMPUTED):
        return branch
    prefix = Literal(type=TypeSpec(DataType.WSTR), value=before[-_MAX_PREFIX:])
    return Operation(first=prefix, rest=(("+", branch, 0),))
