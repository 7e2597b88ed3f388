"""What a person has to see of an exception: its type, its message, the end of its traceback. Knows no context.

Text from an exception may be anything: secrets, megabytes, line breaks, half characters. What leaves here is masked by
Airflow's secrets masker, holds nothing that is written like a credential, is bounded, and can be written into a mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
    from airflow_provider_smtpcm.notifications.credentials import without_credentials  # its patterns cost 15 ms

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
