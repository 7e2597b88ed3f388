"""Redaction of text for mails: secrets, control characters and excess length are removed.

The text of an exception may contain anything: secrets, megabytes, line breaks, lone surrogates.
"""

from __future__ import annotations

import re

#: In characters, for a subject that may contain the text of an exception.
MAX_SUBJECT_LENGTH = 500
#: In characters, for an error in a log line or a notice.
MAX_QUOTE_LENGTH = 500
#: In characters. Longer text is cut before redaction, which takes time; what is shown is far shorter.
MAX_REDACTED_LENGTH = 100_000
_WITHHELD = "(withheld: Airflow's secrets masker could not be used)"
# Terminal colors (CSI) and links (OSC): ECMA-48 5.4 and 8.3.89.
_TERMINAL_SEQUENCE = re.compile("\x1b\\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\\\)")
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def redact_text(text: str, *, is_name: bool = False) -> str:
    """Redact the secrets that Airflow's masker knows in this process, and credentials of known forms.

    Control characters are removed as by `strip_control_characters`.

    Args:
        text: text of any length; everything after 100,000 characters is dropped.
        is_name: whether it is the name of a task or a run, which is shown even if Airflow's masker cannot be used. Any
            other text is then withheld.
    """
    from airflow_provider_smtpcm.notifications.credential_patterns import redact_credentials  # compiling takes 15 ms

    text = text[:MAX_REDACTED_LENGTH]
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


def truncate(text: str, max_length: int) -> str:
    """Return text of at most this length (characters); longer text ends in an ellipsis."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
