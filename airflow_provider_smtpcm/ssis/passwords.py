"""Whether a text tells somebody a password, as `Password: Hunter2!` does and `Password: see the vault` does not.

Such a text is the author's own and is kept; a person should know of it. What looks like the account of a connection
string (`Password=...`) is left out elsewhere.
"""

from __future__ import annotations

import re

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
