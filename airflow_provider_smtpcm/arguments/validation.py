"""Mistakes in arguments, found when the DAG file is read: whatever contains no template is checked as in `execute`.

Pure: no Airflow. Nothing is imported for arguments that are obviously right, as nearly all are: each parse of a DAG is
a fresh process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec

from airflow_provider_smtpcm.arguments import MAIL_FIELDS, as_headers, as_text

_P = ParamSpec("_P")

#: Airflow's SMTP provider calls these arguments differently. None: not needed here.
_NAMES_ELSEWHERE = {
    "conn_id": "smtpcm_conn_id",
    "smtp_conn_id": "smtpcm_conn_id",
    "from_email": "from_address",
    "html_content": "html",
    "files": "attachments",
    "custom_headers": "headers",
    "template": "html_file",
    "mime_subtype": None,
    "mime_charset": None,
    "auth_type": None,
}
# Those of Jinja, and those that DAGs with a syntax of their own (`jinja_environment_kwargs`) usually choose.
_TEMPLATE_STARTS = ("{{", "{%", "{#", "[[", "[%", "<<", "<%", "${", "%%")
_SYNTAX_OPTIONS = (
    "variable_start_string",
    "block_start_string",
    "comment_start_string",
    "line_statement_prefix",
    "line_comment_prefix",
    "extensions",
)
_RECIPIENT_FIELDS = ("to", "cc", "bcc")
_ADDRESS_FIELDS = (*_RECIPIENT_FIELDS, "reply_to", "from_address")
_BODIES = ("text", "html")
# Right without further checks: `jane@corp.example`, or `Jane Doe <jane@corp.example>`.
_PLAIN_ADDRESS = r"(?a:\w+(?: \w+)* <)?(?a:[\w+-]+(?:\.[\w+-]+)*@\w+(?:-\w+)*(?:\.\w+(?:-\w+)*)*)>?"
_MAX_PLAIN_LENGTH = 64
_PLACEHOLDER = "nobody@corp.example"


def check_names(owner: str, arguments: Iterable[str]) -> None:
    """Check that no argument has the name that it has in Airflow's SMTP provider.

    Args:
        owner: the name of the class, for the error.
        arguments: the names of the arguments.

    Raises:
        TypeError: names all of them, with what they are called here.
    """
    wrong = [name for name in arguments if name in _NAMES_ELSEWHERE]
    if not wrong:
        return
    remedies = [
        f"'{name}' is called '{_NAMES_ELSEWHERE[name]}' here" if _NAMES_ELSEWHERE[name] else f"'{name}' is not needed"
        for name in wrong
    ]
    raise TypeError(f"{owner} has other names for its arguments: {'; '.join(remedies)}. Change the DAG.")


def with_checked_names(constructor: Callable[_P, None]) -> Callable[_P, None]:
    """Wrap a constructor without `**kwargs`: Python's own error would not say what the arguments are called here."""

    @wraps(constructor)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
        check_names(type(args[0]).__name__, kwargs)
        constructor(*args, **kwargs)

    return checked


def raise_faults(owner: str, checks: Iterable[Callable[[], None]], faults: Iterable[str] = ()) -> None:
    """Run checks, and raise one error with the faults of all.

    Args:
        owner: what has the arguments, for an error with several faults.
        checks: each raises a `ValueError` if an argument is wrong.
        faults: further faults, each with its remedy.

    Raises:
        ValueError: the only fault, or a list of all.
    """
    found: list[str] = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            found.append(str(error))
    found += faults
    if len(found) == 1:
        raise ValueError(found[0])
    if found:
        raise ValueError(
            "\n".join([f"{owner} has {len(found)} wrong arguments:", *(f"  - {fault}" for fault in found)])
        )


def has_own_syntax(environment_options: Mapping[str, Any] | None) -> bool:
    """Whether the templates of a DAG (`jinja_environment_kwargs`) may begin with anything but `{{` and `{%`."""
    return any(option in (environment_options or {}) for option in _SYNTAX_OPTIONS)


def is_static(value: object) -> bool:
    """Whether a value has no template, so that it is known already: text, None, octets, or a collection of these."""
    if isinstance(value, str):
        return not any(start in value for start in _TEMPLATE_STARTS)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_static, value))
    if isinstance(value, Mapping):
        return all(map(is_static, (*value, *value.values())))
    return value is None or isinstance(value, bool | int | float | bytes)


def find_mail_faults(
    fields: Mapping[str, Any], *, is_complete: bool, has_default_body: bool = True, is_alert: bool = False
) -> list[str]:
    """Return the faults of the fields of a mail that are known already, each with its remedy.

    Args:
        fields: the fields by name, as the author of the DAG wrote them; `MAIL_FIELDS` and `message_id`.
        is_complete: whether no function adds further fields later.
        has_default_body: whether a mail without a body may get one in HTML, such as the connection's *HTML file*.
        is_alert: whether the mail is an alert, whose subject may have several lines.
    """
    faults: list[str] = []
    if is_complete and not any(map(has_value, (fields.get(name) for name in _RECIPIENT_FIELDS))):
        faults.append("The mail has no recipient. Set 'to', 'cc' or 'bcc'.")
    for name in (*MAIL_FIELDS, "message_id"):
        value = fields.get(name)
        if not has_value(value):
            continue
        if name in _ADDRESS_FIELDS:
            faults += _find_address_faults(name, value)
        elif is_static(value) and not (is_alert and name == "subject"):
            faults += _find_fault(name, value)
    for body in _BODIES:
        names = (body, f"{body}_file")
        if all(has_value(fields.get(name)) and is_static(fields[name]) for name in names):
            faults.append(f"'{body}' and '{body}_file' are both set. Set only one of them.")
    has_images = has_value(fields.get("inline_images")) and is_static(fields["inline_images"])
    has_html = any(has_value(fields.get(name)) for name in ("html", "html_file"))
    texts = [fields.get(name) for name in ("text", "text_file")]
    may_get_html = has_default_body and not any(has_value(text) and is_static(text) for text in texts)
    if is_complete and has_images and not has_html and not may_get_html:
        faults.append("There are inline images but no HTML to show them. Set 'html' or 'html_file'.")
    return faults


def has_value(value: object) -> bool:
    """Whether a field is set. Not decided by truthiness: a data frame raises."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return False
    return not (isinstance(value, list | tuple | set | frozenset | Mapping) and not value)


def _find_address_faults(name: str, value: Any) -> list[str]:
    """Return the faults of those items of an address field that are known already."""
    items = [value]
    if isinstance(value, list | tuple | set | frozenset) and name != "from_address":
        items = [[item] for item in value if is_static(item) or _is_address(item)]
    elif not is_static(value) and not _is_address(value):
        return []
    separators = "" if name == "from_address" else ";,"
    return [fault for item in items if not _is_obviously_right(item, separators) for fault in _find_fault(name, item)]


def _is_address(value: object) -> bool:
    from sys import modules

    # An `Address` can only come from a module that is loaded.
    module = modules.get("airflow_provider_smtpcm.mail.address")
    return module is not None and isinstance(value, module.Address)


def _is_obviously_right(value: Any, separators: str) -> bool:
    text = value[0] if separators and isinstance(value, list) and len(value) == 1 else value
    if not isinstance(text, str):
        return False
    separator = next((separator for separator in separators if separator in text), None)
    parts = [part.strip(" ") for part in text.split(separator)] if separator else [text.strip(" ")]
    return all(
        len(part) <= _MAX_PLAIN_LENGTH and part.endswith(">") == ("<" in part) and re.fullmatch(_PLAIN_ADDRESS, part)
        for part in parts
    )


def _find_fault(name: str, value: Any) -> list[str]:
    """Return the fault that `Mail` finds in one field."""
    if name == "priority" and value in ("high", "normal", "low"):
        return []
    if name in ("subject", "message_id"):
        value = as_text(value)
        if name == "subject" and value.isprintable() and value.isascii():
            return []
    elif name == "headers":
        value = as_headers(value)
    elif name in _BODIES:
        if not isinstance(value, bytes):
            return []  # they take any text
    elif name not in ("priority", "envelope_from", *_ADDRESS_FIELDS):
        return []  # files are the worker's
    from airflow_provider_smtpcm.errors import MessageError
    from airflow_provider_smtpcm.mail import Mail

    try:
        Mail(**{"to" if name != "to" else "cc": _PLACEHOLDER, name: value})
    except MessageError as fault:
        return [str(fault)]
    return []
