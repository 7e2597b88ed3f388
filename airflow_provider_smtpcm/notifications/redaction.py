"""Redaction of text for mails: secrets, control characters and excess length are removed; summaries of exceptions.

The text of an exception may contain anything: secrets, megabytes, line breaks, lone surrogates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: In characters, for a subject that may contain the text of an exception.
MAX_SUBJECT_LENGTH = 500
#: In characters, for an error in a log line or a notice.
MAX_QUOTE_LENGTH = 500
_MAX_MESSAGE_LENGTH = 1000
_MAX_LINES, _MAX_LINE_LENGTH, _MAX_TRACEBACK_LENGTH = 25, 300, 6000
# In characters. Longer text is cut before redaction, which takes time; what is shown is far shorter.
_MAX_REDACTED_LENGTH = 100_000
_MAX_SECRET_LENGTH = 5000
_WITHHELD = "(withheld: Airflow's secrets masker could not be used)"
# Terminal colors (CSI) and links (OSC): ECMA-48 5.4 and 8.3.89.
_TERMINAL_SEQUENCE = re.compile("\x1b\\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\\\)")
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionSummary:
    """An exception as text, redacted.

    Args:
        type: the name of its class, with the module unless that is `builtins` or `__main__`.
        message: at most 1000 characters.
        traceback: the last lines of it, of which the last one repeats type and message; empty if there is none.
    """

    type: str
    message: str
    traceback: str


def summarize_exception(exception: object) -> ExceptionSummary | None:
    """Summarize an exception as redacted text.

    Args:
        exception: an exception, or its text, which some callbacks have instead; None returns None.
    """
    if exception is None:
        return None
    message = _truncate(redact_text(_read_text(exception)), _MAX_MESSAGE_LENGTH)
    if not isinstance(exception, BaseException):
        return ExceptionSummary(type="", message=message, traceback="")
    cls = type(exception)
    module = "" if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}."
    return ExceptionSummary(
        type=to_single_line(f"{module}{cls.__qualname__}", _MAX_LINE_LENGTH),
        message=message,
        traceback=_format_traceback(exception),
    )


def redact_text(text: str, *, is_name: bool = False) -> str:
    """Redact the secrets that Airflow's masker knows in this process, and credentials of known forms.

    Control characters are removed as by `strip_control_characters`.

    Args:
        text: text of any length; everything after 100,000 characters is dropped.
        is_name: whether it is the name of a task or a run, which is shown even if Airflow's masker cannot be used. Any
            other text is then withheld.
    """
    from airflow_provider_smtpcm.notifications.credential_patterns import redact_credentials  # compiling takes 15 ms

    text = text[:_MAX_REDACTED_LENGTH]
    try:
        from airflow.sdk.log import redact  # type: ignore[attr-defined]

        text = str(redact(text))
    except Exception:  # noqa: BLE001 - withholding is safer than showing a secret
        if not is_name:
            return _WITHHELD
    return redact_credentials(strip_control_characters(text))


def find_masker_error() -> str | None:
    """Return why Airflow's masker cannot be used, so that `redact_text` withholds every text; None if it can."""
    try:
        from airflow.sdk.log import redact  # type: ignore[attr-defined]

        redact("")
    except Exception as error:  # noqa: BLE001 - as in `redact_text`
        return f"{type(error).__name__}: {error}"
    return None


def strip_control_characters(text: str) -> str:
    """Remove terminal sequences, and replace control characters and lone surrogates, which a mail cannot contain.

    Tabs are kept, and CRLF and CR become LF.
    """
    text = _TERMINAL_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL_CHARACTER.sub("\ufffd", text)


def to_single_line(text: str, max_length: int) -> str:
    """Return text on one line, for a header or a log line.

    Args:
        text: text of any length; consecutive whitespace becomes a single space.
        max_length: the maximum length in characters; longer text ends in an ellipsis.
    """
    line = " ".join(strip_control_characters(text[: max_length * 20]).split())
    return line if len(line) <= max_length else f"{line[: max_length - 1].rstrip()}…"


def quote_error(error: BaseException) -> str:
    """Return the redacted text of an error on one line, for a log line or a notice."""
    return to_single_line(redact_text(str(error)), MAX_QUOTE_LENGTH)


def _read_text(exception: object) -> str:
    try:
        return str(exception)[:_MAX_REDACTED_LENGTH]
    except Exception:  # noqa: BLE001 - a user's own __str__ may raise anything
        return "(its text cannot be read)"


def _format_traceback(exception: BaseException) -> str:
    import traceback

    if exception.__traceback__ is None and exception.__cause__ is None and exception.__context__ is None:
        return ""
    try:
        # A negative limit keeps the frames next to the error, for every exception of the chain.
        text = "".join(traceback.format_exception(exception, limit=-_MAX_LINES))
    except Exception:  # noqa: BLE001 - as in `_read_text`
        return ""
    # The end matters most. Cutting may leave a part of a secret, which the masker does not recognize, so the first
    # characters after the cut, as many as in the longest secret, are dropped as well.
    end = redact_text(text[-_MAX_REDACTED_LENGTH:])[_MAX_SECRET_LENGTH if len(text) > _MAX_REDACTED_LENGTH else 0 :]
    lines = end.rstrip("\n").split("\n")
    shown = [_truncate(line, _MAX_LINE_LENGTH) for line in lines[-_MAX_LINES:]]
    while len(shown) > 1 and sum(map(len, shown)) > _MAX_TRACEBACK_LENGTH:
        del shown[0]
    if len(shown) < len(lines):
        shown.insert(0, "…")
    return "\n".join(shown)


def _truncate(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
