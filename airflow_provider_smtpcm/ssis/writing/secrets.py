"""Finds secrets in the texts of SSIS packages, and removes them from reports and DAG files.

The account in a connection string (`Password=...`) is always removed. A password in the text of a mail
(`Password: Hunter2!`) is kept, since its author meant to send it, and is reported as a finding.
"""

from __future__ import annotations

import re

# An SMTP connection manager has no account in SSIS, but packages have one in its connection string or in an expression.
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


# Where a statement has a password without the word before it, or after another one than in a connection string.
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
    """Whether a statement contains a password, or may contain one: of a login, for OPENROWSET, sqlcmd, bcp, net use."""
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
