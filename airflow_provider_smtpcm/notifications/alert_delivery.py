"""Alerts reach whom they can: the valid addresses, within a time limit, independent of the connection's timeouts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError, MessageError, Phase, StoppedError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.notifications.redaction import quote_error

if TYPE_CHECKING:
    import asyncio

    from airflow.sdk import Connection

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.mail.mime_message import AnyMail
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest

log = logging.getLogger(__name__)

#: The default of `retry_for` for an alert, in seconds. Meanwhile the task waits, or the DAG processor's process for
#: the DAG file, which Airflow kills after 50 seconds (`[dag_processor] dag_file_processor_timeout`).
ALERT_RETRY_FOR = 20.0
#: Seconds that the last attempt may take once `retry_for` has passed.
LAST_ATTEMPT_SECONDS = 15.0
#: Seconds for the single attempt to reach a server that recently could not be reached. Without this limit, several
#: alerts of one DAG file could together exceed that timeout of the DAG processor.
SHORT_ATTEMPT_SECONDS = 3.0
#: For this many seconds after a failure to reach a server, further alerts get a single short attempt.
UNREACHABLE_TTL = 60.0
_RECIPIENT_FIELDS = {"to": "To", "cc": "Cc", "bcc": "Bcc"}
# When this process last failed to reach a server, by host and port (`time.monotonic`).
_unreachable_since: dict[tuple[str, int], float] = {}


class _EventLoopHook(SmtpConnectionManagerHook):
    """A hook for a thread of the triggerer, which gets its connection through the triggerer's event loop.

    In Airflow 3.1, a thread that requests a connection may read responses to other requests, which ends all triggers.
    """

    def __init__(self, conn_id: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(conn_id)
        self._loop = loop

    def get_connection(self, conn_id: str) -> Connection:  # type: ignore[override]
        """Return the connection; block until the event loop has fetched it."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(self.aget_connection(conn_id), self._loop).result()


def get_hook(conn_id: str, loop: asyncio.AbstractEventLoop | None = None) -> SmtpConnectionManagerHook:
    """Return a hook whose connection has been fetched and parsed.

    Args:
        conn_id: the id of the Airflow connection.
        loop: the triggerer's event loop, if this is another thread of the triggerer; else None.

    Raises:
        ConnectionSettingsError: there is no such connection, or its settings are invalid.
    """
    hook = SmtpConnectionManagerHook(conn_id) if loop is None else _EventLoopHook(conn_id, loop)
    try:
        _ = hook.connection_manager
    except MailError:
        raise
    except Exception as error:  # Airflow's versions and components raise different errors
        fault = (
            f"Airflow does not provide the connection to this process ({type(error).__name__}: {quote_error(error)}). "
            "Define the connection wherever callbacks run: for the workers, the DAG processor and the triggerer. A "
            "SyncCallback of a deadline cannot read Airflow's database: use AsyncCallback, or define the connection "
            "in the environment."
        )
        raise ConnectionSettingsError([fault], conn_id=conn_id) from error
    return hook


def resolve_addresses(manager: SmtpConnectionManager, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the addresses of an alert that are valid, and notices about the others: they must not lose the alert.

    Args:
        manager: the connection, for its From, Reply-To and envelope sender.
        values: the fields of the mail; only those with addresses are read.

    Returns:
        These fields, as arguments of `Mail`, and one line for each fault. If neither the mail nor the connection has a
        valid From, it is the first recipient.

    Raises:
        MessageError: no recipient is valid.
    """
    from airflow_provider_smtpcm.mail.address_list import parse_address, parse_valid_addresses
    from airflow_provider_smtpcm.mail.message import combine_faults, parse_envelope_from

    faults: list[MessageError] = []
    notices: list[str] = []
    addresses: dict[str, Any] = {}

    def read(name: str, label: str, value: Any) -> None:
        addresses[name], found = parse_valid_addresses(value, field=label)
        faults.extend(found)

    for name, label in _RECIPIENT_FIELDS.items():
        read(name, label, values.get(name))
    recipients = [address for name in _RECIPIENT_FIELDS for address in addresses[name]]
    if not recipients:
        if faults:
            raise combine_faults(faults)
        raise MessageError("The alert has no recipient.", remedy="Fill in 'to'.")
    read("reply_to", "Reply-To", values.get("reply_to"))
    if not addresses["reply_to"]:
        read("reply_to", "Reply-To", manager.reply_to)
    from_address = _parse_first_valid(
        (values.get("from_address"), manager.from_address), partial(parse_address, field="From"), faults
    )
    if from_address is None:
        from_address = recipients[0]
        notices.append(
            f"There is no valid From address, so this mail is from {from_address.address}: set 'from_address', or "
            "'From address' on the connection."
        )
    addresses["from_address"] = from_address
    addresses["envelope_from"] = _parse_first_valid(
        (values.get("envelope_from"), manager.envelope_from), parse_envelope_from, faults
    )
    left_out = [f"An address was left out of this mail: {quote_error(fault)}" for fault in faults]
    return addresses, left_out + notices


def _parse_first_valid(candidates: Iterable[Any], parse: Callable[[Any], Any], faults: list[MessageError]) -> Any:
    """Return the first valid candidate, parsed; None if there is none. The faults of those before it are added."""
    for value in candidates:
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            return parse(value)
        except MessageError as fault:
            faults.append(fault)
    return None


def send_alert(
    hook: SmtpConnectionManagerHook, request: SendRequest, retry_for: float, *, started_at: float
) -> Delivery:
    """Send a mail, retry it while it is refused temporarily, and stop after `retry_for` + 15 seconds.

    If the server has no SMTPUTF8, the mail is sent without the addresses that need it, unless no recipient is left. If
    the server refuses the mail for good, it is sent with its From address as the envelope sender, if it had another,
    unless its files may be the reason.

    A server that this process failed to reach within the last minute gets a single attempt of 3 seconds. A mail that is
    in flight then gets up to 3 seconds more for its final reply; see `CancellationToken`.

    Args:
        hook: the hook of the connection.
        request: its mail must have a sender and a Message-ID.
        retry_for: how long (s) the mail is retried if the server cannot be reached or refuses it temporarily.
        started_at: the `time.monotonic()` from which these seconds count.

    Raises:
        StoppedError: the time ran out before the mail was sent.
    """
    from airflow_provider_smtpcm.smtp.cancellation import (
        CancellationToken,
        InterruptedDeliveryError,
        get_single_delivery,
    )
    from airflow_provider_smtpcm.smtp.queue import SendRequest

    elapsed = time.monotonic() - started_at
    time_left = retry_for + LAST_ATTEMPT_SECONDS - elapsed
    why = f"'retry_for' ({retry_for:.12g} seconds) and the time for a last attempt ran out"
    if time_left <= 0:
        raise CancellationToken(reason=why).error()
    server = hook.connection_manager.host, hook.connection_manager.port
    is_short = time.monotonic() - _unreachable_since.get(server, -UNREACHABLE_TTL) < UNREACHABLE_TTL
    if is_short:
        log.warning(
            "%s:%d recently could not be reached or did not answer: this alert gets a single attempt of at most %g "
            "seconds.",
            *server,
            SHORT_ATTEMPT_SECONDS,
        )
        why = (
            f"the time for a single attempt ran out ({SHORT_ATTEMPT_SECONDS:g} seconds, as the server recently could "
            "not be reached)"
        )
        retry_for, time_left = 0.0, min(time_left, SHORT_ATTEMPT_SECONDS)
    cancellation = CancellationToken(at=time.monotonic() + time_left, reason=why)
    try:
        delivery = get_single_delivery(
            hook.send_requests(
                iter((request,)),
                retry_for=max(0.0, retry_for - elapsed),
                cancellation=cancellation,
            )
        )
    except InterruptedDeliveryError as interrupted:
        log.warning("%s", interrupted)
        delivery = interrupted.delivery
        if delivery.error is not None:
            delivery = replace(delivery, error=interrupted)
    error = cancellation.error() if delivery is None else delivery.error
    if error is None or not error.retryable or (delivery is not None and delivery.outcome != "not_sent"):
        _unreachable_since.pop(server, None)
    elif not is_short:  # a short attempt proves little, so it does not extend the period
        _unreachable_since[server] = time.monotonic()
    if delivery is None:
        raise cancellation.error()
    reduced = _reduce(request.mail, delivery, hook.connection_manager)
    if reduced is None:
        return delivery
    reduced_request = SendRequest(0, reduced)
    reduced_request.render()
    try:
        return send_alert(hook, reduced_request, retry_for, started_at=started_at)
    except StoppedError as stopped:
        log.warning("%s", stopped)
        return delivery  # its error is the reason; the time ran out only afterward


def _reduce(mail: AnyMail, delivery: Delivery, manager: SmtpConnectionManager) -> Mail | None:
    """Return the mail without what the server may have refused it for; None if the mail has nothing of that kind."""
    reduced: Mail | None = None
    if isinstance(delivery.error, MessageError) and delivery.outcome == "not_sent":
        reduced, omitted = _remove_non_ascii_addresses(mail, manager), "the addresses with letters outside ASCII"
    elif is_refused_for_good(delivery) and not _is_due_to_files(mail, delivery):
        reduced, omitted = _remove_envelope_sender(mail), "its own envelope sender, as that may be the reason"
    if reduced is not None:
        log.warning("The alert is sent again without %s: %s", omitted, delivery.error)
    return reduced


def is_refused_for_good(delivery: Delivery) -> bool:
    """Whether no recipient got the mail, and the server's permanent reply was about the mail, not the session."""
    error = delivery.error
    if error is None or error.retryable or delivery.outcome not in ("refused", "not_sent"):
        return False
    return error.phase not in (Phase.SETTINGS, Phase.CONNECT, Phase.TLS, Phase.AUTH)


def _is_due_to_files(mail: AnyMail, delivery: Delivery) -> bool:
    """Whether the mail has files, and the server refused it after it had them, for no reason that lies in the sender.

    To send all files a second time would take the time that the alert without them needs.
    """
    from airflow_provider_smtpcm.smtp.outcome import is_about_sender

    if not (mail.attachments or mail.inline_images) or delivery.error is None:
        return False
    reply = delivery.error.reply
    return delivery.error.phase in (Phase.DATA, Phase.FINAL_DOT) and not (reply and is_about_sender(reply))


def _remove_envelope_sender(mail: AnyMail) -> Mail | None:
    """Return the mail with its From address as the envelope sender; None if it has no other one."""
    from airflow_provider_smtpcm.mail import Mail

    assert isinstance(mail, Mail)
    assert mail.from_address is not None
    if mail.envelope_from in (None, mail.from_address.address):
        return None
    return mail.with_identity(envelope_from=mail.from_address)


def _remove_non_ascii_addresses(mail: AnyMail, manager: SmtpConnectionManager) -> Mail | None:
    """Return the mail without the addresses and headers that need a server with SMTPUTF8 (RFC 6531).

    Args:
        mail: an alert.
        manager: the connection, for its From.

    Returns:
        None if there are none, or if no recipient is left.
    """
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.mail.structured_headers import render_header

    assert isinstance(mail, Mail)
    names = ("to", "cc", "bcc", "reply_to")
    changes: dict[str, Any] = {
        name: tuple(address for address in getattr(mail, name) if not address.needs_smtputf8) for name in names
    }
    changes["headers"] = tuple(header for header in mail.headers if render_header(*header).isascii())
    changes["envelope_from"] = mail.envelope_from if (mail.envelope_from or "").isascii() else None
    recipients = [address for name in _RECIPIENT_FIELDS for address in changes[name]]
    if not recipients:
        return None
    if mail.from_address is not None and mail.from_address.needs_smtputf8:
        default = manager.from_address
        changes["from_address"] = default if default and default.isascii() else recipients[0]
    return replace(mail, **changes) if any(getattr(mail, name) != value for name, value in changes.items()) else None
