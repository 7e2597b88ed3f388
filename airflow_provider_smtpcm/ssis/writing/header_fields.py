"""Constant header fields of a mail: from what SSIS accepts to what an operator or a notifier accepts.

An operator checks its constant arguments when the DAG is parsed, so a wrong one would be an import error of the whole
DAG. SSIS sends with .NET's MailMessage, which fails when the mail is sent, and accepts a little more.
"""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Address, Mail
from airflow_provider_smtpcm.mail.address_list import split_everywhere

_LINE_BREAK = re.compile(r"\s*[\r\n\t]\s*")
# .NET refuses a line break in a subject, and sends any other control character.
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
# What .NET's MailAddress accepts beyond the syntax of `Address`: a display name without angle brackets or quotation
# marks, a comment after the address, any dots in the local part, and a dot at the end of the domain.
_MAILBOX = re.compile(
    r"""(?: "(?P<quoted>[^"\\]+)" \s* | (?P<name>[^"\\<>@;]+?) \s+ | (?P<plain>[^"\\<>@;]+?) \s* (?=<) )?
        (?P<open><)? \s* (?P<local>[^\s"\\<>@()\[\],;:]+) @ (?P<domain>[^\s"\\<>@()\[\],;:]+?) \.? \s* (?(open)>)
        (?: \s* \([^()]*\) )?""",
    re.VERBOSE,
)
_MAX_LENGTH = 1000  # bounds the time of `_MAILBOX`, which is quadratic
_ANY_RECIPIENT = "to@corp.example"


def convert_header_field(argument: str, text: str, *, is_alert: bool) -> str:
    """Return a constant as an argument of the operator or the notifier can have it.

    Args:
        argument: `subject`, `from_address`, `to`, `cc` or `bcc`.
        text: what SSIS has; not blank, unless it is the subject.
        is_alert: whether it is an argument of the notifier, which replaces line breaks in the subject.

    Raises:
        MessageError: no mail can have it.
    """
    if argument == "subject":
        text = _CONTROL.sub(" ", text)
        if not is_alert:
            _check(argument, text)
        return text
    text = _LINE_BREAK.sub(" ", text).strip()
    try:
        _check(argument, text)
    except MessageError:
        parts = [text] if argument == "from_address" else split_everywhere(text)[0]
        mailboxes = [_read_mailbox(part) for part in parts]
        if None in mailboxes:
            raise
        text = "; ".join(map(str, mailboxes))
        _check(argument, text)
    return text


def _check(argument: str, text: str) -> None:
    fields: dict[str, Any] = {"to": _ANY_RECIPIENT, argument: text}
    Mail(**fields)


def _read_mailbox(text: str) -> Address | None:
    """Return the mailbox that .NET finds in a text; None if there is none, or it has a form that is not known here."""
    match = _MAILBOX.fullmatch(text.strip()) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    name = match["quoted"] or match["name"] or match["plain"] or ""
    try:
        return Address(display_name=name.strip(), local_part=match["local"], domain=match["domain"])
    except MessageError:
        return None
