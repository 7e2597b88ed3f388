"""Credentials that Airflow's masker does not know, recognized by how they are written.

A mail goes further than a log. What is withheld here is what drivers, clients, shells and configuration files show in
errors: addresses with a password in them, headers, `name=value` and `name: value` in every notation, command lines, and
keys and tokens of well-known forms. Where a name is followed by words, not by a value (`password: authentication
failed`, `the token expired`), they stay: the reason is what an alert is for. So does the shell's `PWD=/home/etl`.

Every pattern has a bounded repetition or one way to match, and every value is read once: the text may be megabytes of
anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_smtpcm.notifications.credential_patterns import (
    ENDING,
    HIDDEN,
    PHRASES,
    TOKEN_WORDS,
    without_known_forms,
)

_IS_HIDDEN = re.compile(r"\*{3}(?!\w)")

_NAME = re.compile(
    rf"(?:(?P<password>{PHRASES})|(?P<token>{TOKEN_WORDS})|(?P<signature>(?<![A-Za-z])sig|signature))"
    rf"{ENDING}(?![\w-])",
    re.IGNORECASE,
)
_FLAG = re.compile(r"(?:^|[\s'\"=\[(,])--?[A-Za-z0-9][\w-]{0,60}\Z")

# --- What stands between a name and its value.

# The end of a quoted or subscripted name, then the sign.
_SIGN = re.compile(
    r"(?P<quoted>(?:\\{0,15}['\"]|&quot;|&#3[49];|%2[27])?\]?)\s{0,4}(?P<sign>=>|->|:=|==|!=|=|::?|%3[AaDd])[ \t]{0,8}"
)
_PAIR = re.compile(r"\\{0,15}['\"][ \t]{0,4},[ \t]{0,4}(?=\\{0,15}['\"])")
_BLANK = re.compile(r"[ \t]{1,8}")
_IS = re.compile(r"[ \t]{1,4}(?:is|was)[ \t]{1,4}", re.IGNORECASE)

# --- How a value is written.

_OPENING = re.compile(r"(?:[bBrRuUfF]{1,2}(?=['\"]))?(\\{0,15})(\"\"\"|'''|\"|'|`)")
_ENTITY = re.compile(r"(&quot;|&#3[49];)[^\n]{0,2000}?(?:\1|$)|%2[27][^\s&%]*(?:%(?!2[267])[^\s&%]*)*", re.MULTILINE)
_ENCODED = re.compile(r"[^\s&'\"<>%]*(?:%(?!2[2367])[^\s&'\"<>%]*)*")
_BRACED = re.compile(r"\{(?:[^}\n]|\}\})*\}?")
# Up to a blank, a quote, or a sign behind which another name, or the end of what it is in, follows.
_ENDS = r"[\s'\"<>)\]},;|]|$|[\w.-]{1,60}\s?[=:]"
_BARE = re.compile(rf"(?:[^\s'\"<>&;,|)\]}}]|[&,|)\]}}](?!{_ENDS})|['\"](?=\w)|[<>](?![/A-Za-z!])(?=\S))+")
_TO_SEMICOLON = re.compile(r"[^;'\"\n]{1,200}(?=;)")
_BLOCK = re.compile(r"[|>][+-]?\d?[ \t]*\n")
_FOLDER = re.compile(r"/[\w.+-]+(?:/[\w.+-]+)*/?(?![^\s'\",;)\]}])|[A-Za-z]:\\")
_ANNOTATION = re.compile(r"[\w.\[\]| ]{1,40}=[ \t]{0,4}(?=b?['\"])")
_AFTER = re.compile(r"\s*[,;}#'\"]")
_IDENTIFIER = re.compile(r"[\w-]*\Z")
_COMPOUND = re.compile(r"\w[_-]\w|[a-z][A-Z]")
_WORD = re.compile(r"[^\s,;)\]}]+")

# Of login and user before it.
_NETRC = re.compile(r"\blogin\s{1,4}\S{1,100}\s{1,4}\Z")
# Characters of a value.
_LONGEST = 10_000

_NOTHING = {"none", "null", "nil", "undefined", "true", "false", "nan", "...", "…"}
# What follows a name and a colon, or an option, in a sentence.
_WORDS = _NOTHING | set(
    """
    accepted and are argument blank cannot changed denied disabled does empty enabled expected expired failed failure
    flag for given has hidden in incorrect instead invalid is leave locked may mismatch missing must needs no not of ok
    on option or rejected required requires reset revoked set should since so the to unchanged unknown unset unused
    valid was when which will with without wrong yes
    """.split()  # noqa: SIM905 - words, which nobody wants to see one below the other
)
_LETTERS, _DIGITS, _INNER_SIGN = re.compile(r"[^\W\d_]"), re.compile(r"\d"), re.compile(r"[!@#$%^&*+=?~|\\/].")


def without_credentials(text: str) -> str:
    """The text with `***` where a credential stood; servers, users and everything else stay."""
    return _named(without_known_forms(text))


def _named(text: str) -> str:
    """Without the values that stand behind a name."""
    parts: list[str] = []
    at = 0
    for name in _NAME.finditer(text):
        if name.start() < at:
            continue
        found = _value(text, name)
        if found is not None and found[0] < found[1] and not _IS_HIDDEN.match(text, found[0]):
            parts += (text[at : found[0]], HIDDEN)
            at = found[1]
    return "".join((*parts, text[at:]))


def _value(text: str, name: re.Match[str]) -> tuple[int, int] | None:
    """From where to where the value of a name stands; None where what follows is none."""
    if sign := _SIGN.match(text, name.end()):
        return _behind_sign(text, name, sign)
    between = _PAIR.match(text, name.end()) or _BLANK.match(text, name.end())
    if between and _FLAG.search(text, max(0, name.start() - 60), name.end()):
        return _of_option(text, between.end())
    return None if name["password"] is None else _behind_password(text, name)


def _behind_password(text: str, name: re.Match[str]) -> tuple[int, int] | None:
    """`PASSWORD 'x'` of SQL, `login etl password x` of .netrc, and `the password is X1`."""
    if (between := _BLANK.match(text, name.end())) is None:
        return None
    if _OPENING.match(text, between.end()):
        return _quoted(text, between.end())
    if _NETRC.search(text[max(0, name.start() - 120) : name.start()]):
        return _bare(text, between.end())
    if (between := _IS.match(text, name.end())) and (word := _WORD.match(text, between.end())):
        return word.span() if _looks_made_up(word[0].strip("'\"")) else None
    return None


def _behind_sign(text: str, name: re.Match[str], sign: re.Match[str]) -> tuple[int, int] | None:
    start, mark = sign.end(), sign["sign"]
    is_colon = mark == ":" and not sign["quoted"]
    if enclosed := _enclosed(text, start, sign, brackets=not is_colon):
        return enclosed
    if mark in ("==", "!=") and start > sign.end("sign"):  # a comparison, in a line of code
        return None
    if (is_colon and name["signature"]) or (name[0].lower() == "pwd" and _is_folder(text, name, start)):
        return None
    return _behind_colon(text, name, start) if is_colon else _assigned(text, name, start)


def _enclosed(text: str, start: int, sign: re.Match[str], *, brackets: bool) -> tuple[int, int] | None:
    """A value in quotes, in any of their forms; with brackets, in those too."""
    if sign["sign"].startswith("%"):
        encoded = _ENTITY.match(text, start) or _ENCODED.match(text, start)
        return encoded.span() if encoded else None
    if entity := _ENTITY.match(text, start):
        return entity.span()
    if _OPENING.match(text, start):
        return _quoted(text, start)
    if brackets and sign["quoted"] and text.startswith(("{", "["), start):
        return _bracketed(text, start)
    braced = _BRACED.match(text, start) if brackets else None
    return braced.span() if braced else None


def _assigned(text: str, name: re.Match[str], start: int) -> tuple[int, int] | None:
    found = _bare(text, start)
    if found is None:
        return None
    value = text[found[0] : found[1]].lower()
    is_count = name[0].lower() == "pass" and value.isdigit() and len(value) < 6
    return None if value in _NOTHING or is_count else found


def _behind_colon(text: str, name: re.Match[str], start: int) -> tuple[int, int] | None:
    """As YAML and headers have it: one word is a value, more of them are a sentence."""
    if _BLOCK.match(text, start):
        return _indented(text, name, start)
    end = text.find("\n", start, start + 2000)
    line = text[start : start + 2000 if end < 0 else end]
    word = re.match(r"[^\s,;'\"]+", line)
    if word is None or word[0].strip(".!?()[]{}").lower() in _WORDS or set(word[0]) <= set("().,!?[]{}"):
        return None
    if annotated := _ANNOTATION.match(line):  # password: str = 'x'
        return _quoted(text, start + annotated.end())
    rest = line[word.end() :]
    is_alone = not rest.strip(" \t\r,;})]") or _AFTER.match(rest) is not None or text[start - 1] == ":"
    is_plain = not _looks_made_up(word[0]) or (name["token"] is not None and len(word[0]) < 6)
    if is_plain and not (is_alone and (name["password"] is not None or _is_setting(text, name))):
        return None
    if name[0].lower() == "pass" and word[0].isdigit():
        return None
    return _bare(text, start)


def _is_setting(text: str, name: re.Match[str]) -> bool:
    """Whether a name is one of a header, an option or a file, and no word of a sentence."""
    before = text[max(0, name.start() - 60) : name.start()]
    line = before.rpartition("\n")[2]
    whole = (_IDENTIFIER.search(before) or [""])[0] + name[0]
    return not line.strip(" \t-") or before.endswith("/") or _COMPOUND.search(whole) is not None


def _of_option(text: str, start: int) -> tuple[int, int] | None:
    """`--password x`; another option, or a word of a sentence about it, is none."""
    if _OPENING.match(text, start):
        return _quoted(text, start)
    found = _bare(text, start)
    if found is None or text[start] == "-" or text[found[0] : found[1]].lower() in _WORDS:
        return None
    return found


def _quoted(text: str, start: int) -> tuple[int, int]:
    r"""A quoted value with its quotes, to their end, or to that of the line where the text was cut.

    Within it a quote is doubled, or has more backslashes before it than the first one: JSON in JSON has `\"` around
    its texts and `\\\"` in them.
    """
    opening = _OPENING.match(text, start)
    assert opening is not None
    escape, quote = opening[1], opening[2]
    most = min(len(text), opening.end() + _LONGEST)
    line_end = text.find("\n", opening.end(), most)
    line_end = most if line_end < 0 else line_end
    at = opening.end()
    while (at := text.find(quote, at, line_end)) >= 0:
        before = at
        while before > opening.end() and text[before - 1] == "\\":
            before -= 1
        backslashes, at = at - before, at + len(quote)
        ends = backslashes <= len(escape) if escape else backslashes % 2 == 0
        if ends and len(quote) == 1 and not escape and text.startswith(quote, at):
            at += 1  # doubled
        elif ends:
            return start, at
    return start, line_end


def _bare(text: str, start: int) -> tuple[int, int] | None:
    """A value without quotes; between semicolons, as ODBC has it, with the blanks in it."""
    found = _BARE.match(text, start)
    if found is None:
        return None
    end = start + len(found[0].rstrip(".,:")) or found.end()
    line = text.rfind("\n", max(0, start - 300), start) + 1
    if ";" in text[max(line, start - 300) : start] and (longer := _TO_SEMICOLON.match(text, start)):
        end = max(end, longer.end())
    return start, end


def _bracketed(text: str, start: int) -> tuple[int, int]:
    """A list or an object, to its last bracket, or to the end of the line."""
    depth = 0
    for bracket in re.compile(r"[\[\]{}\n]").finditer(text, start, start + _LONGEST):
        if bracket[0] == "\n":
            return start, bracket.start()
        depth += 1 if bracket[0] in "[{" else -1
        if not depth:
            return start, bracket.end()
    return start, min(len(text), start + _LONGEST)


def _indented(text: str, name: re.Match[str], start: int) -> tuple[int, int]:
    """A block of YAML: the lines below that are further to the right than the name's."""
    line = text.rfind("\n", max(0, name.start() - 300), name.start()) + 1
    own = len(text[line : name.start()]) - len(text[line : name.start()].lstrip(" -\t"))
    end = text.find("\n", start)
    while end >= 0:
        following = re.compile(rf"\n(?: {{{own + 1},200}}\S[^\n]*|[ \t]*(?=\n))").match(text, end)
        if following is None:
            return start, end
        end = following.end()
        if end == len(text):
            break
    return start, len(text)


def _is_folder(text: str, name: re.Match[str], start: int) -> bool:
    """Whether it is the shell's working directory, which is called as a password is."""
    return _FOLDER.match(text, start) is not None and text[name.start() - 1 : name.start()] in (
        "",
        " ",
        "\n",
        "\t",
        "'",
    )


def _looks_made_up(word: str) -> bool:
    """Whether it is written as no word is: with digits or signs between its letters."""
    word = word.rstrip(".,:!?")
    letters = _LETTERS.search(word)
    if letters is None or word.startswith(("http://", "https://")):
        return False
    return bool(_DIGITS.search(word) or _INNER_SIGN.search(word))


# folded: What a person has to see of an exception: its type, its message, the end of its traceback. Knows no context.
#   Text from an exception may be anything: secrets, megabytes, line breaks, half characters. What leaves here is
#   masked by
#   Airflow's secrets masker, holds nothing that is written like a credential, is bounded, and can be written into a
#   mail.

#: Characters of a subject that somebody else has made, which may hold the text of an exception.
LONGEST_SUBJECT = 500
_MESSAGE = 1000
_LINES, _LINE, _ALL = 25, 300, 6000
# Far enough below the excerpt to be cheap; the masker and the lines are of what is left.
_READ = 100_000
_SECRET = 5000  # the longest, in characters
_WITHHELD = "(withheld: Airflow's secrets masker could not be asked)"
# What a terminal takes for colours (CSI) and links (OSC); ECMA-48 5.4, 8.3.89.
_TERMINAL = re.compile("\x1b\\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\\\)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """An exception as text.

    Args:
        type: its name, with its module unless it is Python's own.
        message: at most 1000 characters.
        traceback: the last lines, of which the last holds type and message again; empty where there is none.
    """

    type: str
    message: str
    traceback: str


def excerpt_of(exception: object) -> Excerpt | None:
    """The excerpt of an exception; of text, which some callbacks have instead; None of None."""
    if exception is None:
        return None
    if not isinstance(exception, BaseException):
        return Excerpt(type="", message=_cut(masked(_said(exception)), _MESSAGE), traceback="")
    kind = type(exception)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return Excerpt(
        type=one_line(f"{module}{kind.__qualname__}", _LINE),
        message=_cut(masked(_said(exception)), _MESSAGE),
        traceback=_traceback(exception),
    )


def masked(text: str, *, is_name: bool = False) -> str:
    """Text without the secrets that Airflow knows in this process, and without credentials; fit for a mail.

    Args:
        text: anything.
        is_name: whether it only names a task or a run: where Airflow's masker cannot be used, it is not withheld.
    """
    text = text[:_READ]
    try:
        from airflow.sdk.log import redact  # type: ignore[attr-defined]

        text = str(redact(text))
    except Exception:  # noqa: BLE001 - rather say nothing than a secret
        if not is_name:
            return _WITHHELD
    return without_credentials(cleaned(text))


def masking_fault() -> str | None:
    """Return why Airflow's masker cannot be used, so that `masked` withholds every text; None where it can."""
    try:
        from airflow.sdk.log import redact  # type: ignore[attr-defined]

        redact("")
    except Exception as error:  # noqa: BLE001 - as in `masked`
        return f"{type(error).__name__}: {error}"
    return None


def cleaned(text: str) -> str:
    """Text without what no mail can carry: colours, control characters, half characters. Line breaks and tabs stay."""
    return _CONTROL.sub("\ufffd", _TERMINAL.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, most: int) -> str:
    """Text on one line, for a header, and no longer than so many characters."""
    line = " ".join(cleaned(text[: most * 20]).split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _said(exception: object) -> str:
    try:
        return str(exception)[:_READ]
    except Exception:  # noqa: BLE001 - somebody's own __str__
        return "(its text cannot be read)"


def _traceback(exception: BaseException) -> str:
    import traceback

    if exception.__traceback__ is None and exception.__cause__ is None and exception.__context__ is None:
        return ""
    try:
        # A negative limit: the frames next to the error, of every exception of the chain.
        text = "".join(traceback.format_exception(exception, limit=-_LINES))
    except Exception:  # noqa: BLE001 - as in `_said`
        return ""
    # The end is what counts. Where the text is cut, half a secret would not be recognised: that much is not shown.
    end = masked(text[-_READ:])[_SECRET if len(text) > _READ else 0 :]
    lines = end.rstrip("\n").split("\n")
    shown = [_cut(line, _LINE) for line in lines[-_LINES:]]
    while len(shown) > 1 and sum(map(len, shown)) > _ALL:
        del shown[0]
    if len(shown) < len(lines):
        shown.insert(0, "…")
    return "\n".join(shown)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
