"""Airflow's email backend (`email_on_failure`, `email_on_retry`) through a connection of type `smtpcm`.

    [email]
    email_backend = airflow_provider_smtpcm.email_backend.send_email
    email_conn_id = smtpcm_default
    from_email = Airflow <airflow@corp.example>

Airflow 3.2.0 to 3.3.0 ignore this setting; `SendMailNotifier` works with every Airflow version.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook, get_configuration
from airflow_provider_smtpcm.notifications.alert_delivery import (
    ALERT_RETRY_FOR,
    get_hook,
    resolve_addresses,
    send_alert,
)
from airflow_provider_smtpcm.notifications.redaction import MAX_SUBJECT_LENGTH, to_single_line

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail

log = logging.getLogger(__name__)

# Airflow's defaults of `[email] email_conn_id` and `from_email`.
_AIRFLOW_CONN_ID, _AIRFLOW_FROM = "smtp_default", "airflow@airflow"

# Headers that are arguments of `Mail`.
_HEADER_ARGUMENTS = {"reply-to": "reply_to", "message-id": "message_id"}
_PRIORITIES = {
    "importance": {"high": "high", "low": "low"},
    "priority": {"urgent": "high", "non-urgent": "low"},
    "x-priority": {"1": "high", "2": "high", "4": "low", "5": "low"},
    "x-msmail-priority": {"high": "high", "low": "low"},
}
#: For this many seconds, a mail of unknown outcome is not sent again to the same recipients with the same subject. If
#: a backend raises, Airflow 3.1 immediately calls it again, in the same process and with another body.
UNKNOWN_OUTCOME_TTL = 300.0
# The mails whose outcome is unknown, by fingerprint: `time.monotonic()` of that outcome, and the text of the error; not
# the error itself, whose traceback would keep its frames alive. The oldest are dropped first.
_unknown_outcomes: dict[str, tuple[float, str]] = {}
_MAX_UNKNOWN_OUTCOMES = 256


def send_email(  # noqa: PLR0917 - the signature is Airflow's
    to: str | Iterable[str],
    subject: str,
    html_content: str,
    files: Sequence[str | os.PathLike[str]] | None = None,
    dryrun: bool = False,  # noqa: FBT001, FBT002 - as above
    cc: str | Iterable[str] | None = None,
    bcc: str | Iterable[str] | None = None,
    mime_subtype: str = "mixed",
    mime_charset: str = "utf-8",
    conn_id: str | None = None,
    from_email: str | None = None,
    custom_headers: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Send one mail, as Airflow's email backend.

    Args:
        to: the recipients, as for Airflow's own backend: a string of addresses separated by `,` or `;`, with any white
            space around them, or a list of such strings. An address that is invalid is left out, with a warning.
        subject: line breaks become spaces, and longer text is cut to 500 characters.
        html_content: the HTML body, sent without a plain-text body. NULs and lone surrogates, which no mail may
            contain, become U+FFFD.
        files: paths of attachments; None: no attachments.
        dryrun: log what would be sent, and send nothing.
        cc: further recipients, as in `to`.
        bcc: hidden recipients, as in `to`.
        mime_subtype: only `mixed` is supported; anything else is ignored with a warning.
        mime_charset: only `utf-8` is supported; anything else is ignored with a warning.
        conn_id: a connection of type `smtpcm`; None: `[email] email_conn_id`. `smtpcm_default` is used if that is
            empty, or if it is Airflow's default `smtp_default` and that connection is of another type.
        from_email: the sender. The connection's *From address* is used if this is None or Airflow's default
            `airflow@airflow`.
        custom_headers: further headers. Priority headers, Reply-To and Message-ID replace those of the mail. One that
            is invalid is left out, with a warning.
        kwargs: arguments that a later Airflow version may add; ignored with a warning.

    Raises:
        AirflowException: a retry may help.
        AirflowFailException: a retry will not help.
    """
    from airflow_provider_smtpcm.mail.tainted import replace_unsendable_characters
    from airflow_provider_smtpcm.operators._task import airflow_error

    if kwargs:
        log.warning("send_email does not support %s: the mail is sent without it.", ", ".join(sorted(kwargs)))
    if mime_subtype != "mixed":
        log.warning(
            "mime_subtype is %r and is ignored: the structure of the mail follows from its bodies and files.",
            mime_subtype,
        )
    if mime_charset.lower() not in ("utf-8", "utf8", "utf_8"):
        log.warning("mime_charset is %r and is ignored: the mail is sent in UTF-8.", mime_charset)
    try:
        _send(
            _resolve_conn_id(conn_id),
            dryrun=dryrun,
            from_address=None if from_email == _AIRFLOW_FROM else from_email,
            to=to,
            cc=cc,
            bcc=bcc,
            subject=to_single_line(subject or "", MAX_SUBJECT_LENGTH),
            # Airflow fills in the text of an exception, which may contain anything, and which it does not escape; the
            # alert is sent all the same. A reader sees no difference, but `Mail` no reference to a missing image.
            html=re.sub("(?i)(cid):", r"\1&#58;", replace_unsendable_characters(html_content or "")),
            attachments=[files] if isinstance(files, str | os.PathLike) else list(files or ()),
            **_parse_headers(custom_headers or {}),
        )
    except MailError as error:
        failure = airflow_error(error, retry_unknown=False)
        failure.__suppress_context__ = True  # the message already quotes the errors of lower layers
        raise failure from None


def _resolve_conn_id(conn_id: str | None) -> str:
    """Return the connection id: None means `[email] email_conn_id`, and Airflow's default of that `smtpcm_default`."""
    default = SmtpConnectionManagerHook.default_conn_name
    conn_id = conn_id or get_configuration("email", "email_conn_id")  # Airflow itself always passes it
    if conn_id and conn_id != _AIRFLOW_CONN_ID:
        return conn_id
    if conn_id:
        from airflow.sdk import BaseHook

        try:
            if BaseHook.get_connection(conn_id).conn_type == SmtpConnectionManagerHook.conn_type:
                return conn_id
        except Exception:  # noqa: BLE001 - each Airflow version has its own error for a missing connection
            log.debug("There is no connection '%s'.", conn_id)
        log.info(
            "Connection '%s' is not of type smtpcm: '%s' is used. Set [email] email_conn_id to choose another.",
            conn_id,
            default,
        )
    return default


def _send(conn_id: str, *, dryrun: bool, **arguments: Any) -> None:
    """Send the mail, or log it if `dryrun`.

    Args:
        arguments: those of `Mail`.

    Raises:
        MailError: no recipient was accepted, or the outcome is unknown.
    """
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.mail.headers import new_message_id
    from airflow_provider_smtpcm.smtp.outcome import format_addresses
    from airflow_provider_smtpcm.smtp.queue import SendRequest

    started_at = time.monotonic()
    hook = get_hook(conn_id)
    addresses, notices = resolve_addresses(hook.connection_manager, arguments)
    for notice in notices:
        log.warning("%r: %s", arguments["subject"], notice)
    mail = Mail(**(arguments | addresses))
    assert mail.from_address is not None
    if mail.message_id is None:
        mail = mail.with_identity(message_id=new_message_id(mail.from_address.domain))
    request = SendRequest(0, mail)
    request.render()
    recipients = format_addresses([address.address for address in mail.recipients])
    if dryrun:
        log.info(
            "Dry run: %r from %s to %s through '%s' was not sent.", mail.subject, mail.from_address, recipients, conn_id
        )
        return
    fingerprint = _compute_fingerprint(conn_id, mail)
    if (error_text := _find_unknown_outcome(fingerprint)) is not None:
        log.warning(
            "%r to %s was not sent again: the server did not confirm the first attempt, which may have delivered it. "
            "Airflow 3.1 calls the email backend a second time if it raises an error.",
            mail.subject,
            recipients,
        )
        raise OutcomeUnknownError(error_text)
    delivery = send_alert(hook, request, ALERT_RETRY_FOR, started_at=started_at)
    if delivery.error is not None:
        if delivery.outcome == "unknown":
            _add_unknown_outcome(fingerprint, str(delivery.error))
        if not delivery.accepted or delivery.outcome == "unknown":
            raise delivery.error
        log.warning("%s", delivery.error)
    log.info("%s was accepted for %s.", delivery.message_id, format_addresses(delivery.accepted))


def _compute_fingerprint(conn_id: str, mail: Mail) -> str:
    """Return a hash of the connection, the recipients and the subject."""
    parts = repr((conn_id, mail.to, mail.cc, mail.bcc, mail.subject))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def _find_unknown_outcome(fingerprint: str) -> str | None:
    """Return the text of the error if this mail has a recent unknown outcome, else None. Drops expired entries."""
    now = time.monotonic()
    for key, (since, _) in list(_unknown_outcomes.items()):
        if now - since >= UNKNOWN_OUTCOME_TTL:
            _unknown_outcomes.pop(key, None)
    entry = _unknown_outcomes.get(fingerprint)
    return None if entry is None else entry[1]


def _add_unknown_outcome(fingerprint: str, error_text: str) -> None:
    _unknown_outcomes[fingerprint] = time.monotonic(), error_text
    while len(_unknown_outcomes) > _MAX_UNKNOWN_OUTCOMES:
        _unknown_outcomes.pop(next(iter(_unknown_outcomes)), None)


def _parse_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `Mail` for the headers: `priority`, `reply_to`, `message_id` and `headers`.

    A faulty header must not lose an alert, so it is left out.
    """
    from airflow_provider_smtpcm.mail.structured_headers import is_message_id, is_reserved, parse_headers

    arguments: dict[str, Any] = {}
    other: list[tuple[str, str]] = []
    for name, value in headers.items():
        lowered, text = str(name).lower(), str(value).strip()
        if value is None:
            continue
        if lowered == "message-id" and text and not is_message_id(text):
            log.warning("%s: %.100r is not a message id: the mail gets another one.", name, text)
        elif lowered in _HEADER_ARGUMENTS:
            arguments[_HEADER_ARGUMENTS[lowered]] = text
        elif lowered in _PRIORITIES:
            # Outlook writes `1 (Highest)`.
            if priority := _PRIORITIES[lowered].get(text.lower().partition(" ")[0]):
                arguments["priority"] = priority
        elif is_reserved(lowered):
            log.warning(
                "custom_headers cannot set %s: the mail is sent without it. Use the argument for it, if there is one.",
                name,
            )
        else:
            try:
                parse_headers([*other, (name, text)])
            except MessageError as fault:
                log.warning("A header was left out of the mail: %s", fault)
            else:
                other.append((name, text))
    return arguments | {"headers": other}
