"""Airflow's own alerts (`email_on_failure`, `email_on_retry`) through a connection of ours: `[email] email_backend`.

    [email]
    email_backend = airflow_provider_smtpcm.email_backend.send_email
    email_conn_id = smtpcm_default
    from_email = Airflow <airflow@corp.example>

Airflow 3.2.0 to 3.3.0 ignore the setting; `SendMailNotifier` works on every Airflow.
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
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.notifications.redaction import LONGEST_SUBJECT, one_line
from airflow_provider_smtpcm.notifications.sending import RETRY_FOR, connected, send_within

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Address, Mail

log = logging.getLogger(__name__)

# What Airflow passes where nobody has set `[email] email_conn_id` and `from_email`.
_UNSET_CONN_ID, _UNSET_FROM = "smtp_default", "airflow@airflow"

# Headers that Airflow's own backend writes as they come, and that a mail has arguments for.
_ARGUMENTS = {"reply-to": "reply_to", "message-id": "message_id"}
_PRIORITIES = {
    "importance": {"high": "high", "low": "low"},
    "priority": {"urgent": "high", "non-urgent": "low"},
    "x-priority": {"1": "high", "2": "high", "4": "low", "5": "low"},
    "x-msmail-priority": {"high": "high", "low": "low"},
}
# A comma, or a quoted name, which may hold some.
_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,')
# Airflow 3.1 calls a backend that raised once more, at once and in the same process, with another body. For so many
# seconds a mail whose outcome is unknown is not sent again to the same people under the same subject.
IN_DOUBT_FOR = 300.0
# When that was, and what was said of it: no error, whose frames would stay with it. At most so many, the oldest first.
_in_doubt: dict[str, tuple[float, str]] = {}
_MOST_IN_DOUBT = 256
_NOT_OURS = ("from", "to", "cc", "bcc", "subject", "date", "mime-version", "received", "return-path", "delivered-to")


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
    """Send one mail, as Airflow asks its e-mail backend to.

    Args:
        to, cc, bcc: a list, or one string with `,` or `;` between, or with both, as Airflow's own backend takes them.
        subject: one line of at most 500 characters; what else comes with an exception becomes blanks, or is cut off.
        html_content: the body, which goes as it is, without a plain one beside it.
        files: paths of attachments.
        dryrun: say what would be sent, and send nothing.
        mime_subtype, mime_charset: only `mixed` and `utf-8` exist here; anything else is told by a warning.
        conn_id: a connection of type `smtpcm`. None, and Airflow's own default `smtp_default` unless that is of this
            type, mean `smtpcm_default`.
        from_email: the sender; None, and what Airflow passes where nobody has set one (`airflow@airflow`), mean the
            connection's *From address*.
        custom_headers: further headers; those for the priority, Reply-To and Message-ID become that.
        kwargs: what Airflow may add one day; each is told by a warning, and not used.

    Raises:
        AirflowException: trying again may help.
        AirflowFailException: trying again would not help.
    """
    from airflow_provider_smtpcm.operators._task import airflow_error

    if kwargs:
        log.warning("send_email knows no %s: the mail goes without.", ", ".join(sorted(kwargs)))
    if mime_subtype != "mixed":
        log.warning("mime_subtype is %r: the mail is built by what is in it; leave it out.", mime_subtype)
    if mime_charset.lower() not in ("utf-8", "utf8", "utf_8"):
        log.warning("mime_charset is %r: the mail is written in UTF-8, which every program reads.", mime_charset)
    try:
        _send(
            _conn_id(conn_id),
            dryrun=dryrun,
            from_address=None if from_email == _UNSET_FROM else from_email,
            to=_people("To", to),
            cc=_people("Cc", cc),
            bcc=_people("Bcc", bcc),
            subject=one_line(subject or "", LONGEST_SUBJECT),
            html=html_content,
            attachments=[files] if isinstance(files, str | os.PathLike) else list(files or ()),
            **_arguments(custom_headers or {}),
        )
    except MailError as error:
        failure = airflow_error(error, retry_unknown=False)
        failure.__suppress_context__ = True  # what a library below said is in the message already
        raise failure from None


def _conn_id(conn_id: str | None) -> str:
    """Ours, where nobody has named one of our type."""
    default = SmtpConnectionManagerHook.default_conn_name
    if conn_id and conn_id != _UNSET_CONN_ID:
        return conn_id
    if conn_id:
        from airflow.sdk import BaseHook

        try:
            if BaseHook.get_connection(conn_id).conn_type == SmtpConnectionManagerHook.conn_type:
                return conn_id
        except Exception:  # noqa: BLE001 - there is none, which each Airflow says in its own way
            log.debug("There is no connection '%s'.", conn_id)
        log.info(
            "'%s' is no SMTP connection manager: '%s' is used. [email] email_conn_id says which.", conn_id, default
        )
    return default


def _people(field: str, people: str | Iterable[str] | None) -> list[Address]:
    """The addresses; a comma that cannot belong to a name separates them, wherever it stands."""
    from airflow_provider_smtpcm.mail.address import parse_addresses

    found: list[Address] = []
    for text in [people] if isinstance(people, str) else people or ():
        try:
            found += parse_addresses(text, field=field)
        except MessageError:
            found += parse_addresses(_COMMA.sub(lambda match: match[1] or ";", text), field=field)
    return found


def _send(conn_id: str, *, dryrun: bool, **parts: Any) -> None:
    """Send it, or tell of it; raise where nobody has it."""
    from airflow_provider_smtpcm.arguments.values import shorten_list
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.mail.headers import new_message_id

    began = time.monotonic()
    hook = connected(conn_id)
    mail = hook.apply_defaults(Mail(**parts))
    assert mail.from_address is not None
    if mail.message_id is None:
        mail = mail.with_identity(message_id=new_message_id(mail.from_address.domain))
    rendering = hook.render(mail)
    people = shorten_list([address.address for address in mail.recipients])
    if dryrun:
        log.info(
            "Dry run: %r from %s to %s through '%s' was not sent.", mail.subject, mail.from_address, people, conn_id
        )
        return
    this = _fingerprint(conn_id, mail)
    if (doubt := _doubt(this)) is not None:
        log.warning(
            "%r to %s was not sent again: a moment ago it was handed over without an answer, and may have been "
            "delivered. Airflow 3.1 asks twice where an alert failed.",
            mail.subject,
            people,
        )
        raise OutcomeUnknownError(doubt)
    delivery = send_within(hook, mail, RETRY_FOR, began=began, rendering=rendering)
    if delivery.error is not None:
        if delivery.outcome == "unknown":
            _remember(this, str(delivery.error))
        if not delivery.accepted or delivery.outcome == "unknown":
            raise delivery.error
        log.warning("%s", delivery.error)
    log.info("%s was accepted for %s.", delivery.message_id, shorten_list(delivery.accepted))


def _fingerprint(conn_id: str, mail: Mail) -> str:
    """The connection, the people and the subject, as a hash."""
    said = repr((conn_id, mail.to, mail.cc, mail.bcc, mail.subject))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def _doubt(this: str) -> str | None:
    """What was said of this mail, if it was handed over without an answer a moment ago; older ones are forgotten."""
    now = time.monotonic()
    for other, (since, _) in list(_in_doubt.items()):
        if now - since >= IN_DOUBT_FOR:
            _in_doubt.pop(other, None)
    found = _in_doubt.get(this)
    return None if found is None else found[1]


def _remember(this: str, said: str) -> None:
    _in_doubt[this] = time.monotonic(), said
    while len(_in_doubt) > _MOST_IN_DOUBT:
        _in_doubt.pop(next(iter(_in_doubt)), None)


def _arguments(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers, and the arguments of a mail that some of them stand for."""
    found: dict[str, Any] = {}
    further: dict[str, str] = {}
    for name, value in headers.items():
        lowered, text = name.lower(), str(value).strip()
        if value is None:
            continue
        if lowered in _ARGUMENTS:
            found[_ARGUMENTS[lowered]] = text
        elif lowered in _PRIORITIES:
            # `1 (Highest)`, as Outlook writes it.
            if priority := _PRIORITIES[lowered].get(text.lower().partition(" ")[0]):
                found["priority"] = priority
        elif lowered in _NOT_OURS or lowered.startswith("content-"):
            log.warning("The header %s cannot be among custom_headers: the mail goes without. Use the argument.", name)
        else:
            further[name] = text
    return found | {"headers": further}
