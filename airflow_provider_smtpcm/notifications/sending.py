"""Sending one mail within a time, whatever the connection's own deadlines are. Knows the hook and no context."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.notifications.redaction import masked, one_line

if TYPE_CHECKING:
    import asyncio

    from airflow.sdk import Connection

    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.mail.render import Rendering
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)

# Characters of an error of Airflow's.
_SAID = 500

#: Seconds for which an alert is tried again, unless somebody says otherwise. A task waits for it, or the DAG processor,
#: which Airflow kills after 50 seconds (`[dag_processor] dag_file_processor_timeout`).
RETRY_FOR = 20.0
#: Seconds that a last try may still take.
LAST_TRY = 15.0
#: Seconds that an alert is given where the one before waited for its server in vain, not so many seconds ago. Several
#: alerts of one DAG file would else exceed together what Airflow gives its DAG processor.
SHORT_TRY, A_MOMENT = 3.0, 60.0
# When a server, by host and port, was last waited for in vain by this process.
_in_vain: dict[tuple[str, int], float] = {}


class _AskedInTheLoop(SmtpConnectionManagerHook):
    """Has its connection looked up in the event loop of a triggerer, while it is used in a thread.

    In Airflow 3.1 a thread that asks takes the answers of the others, and all triggers end with that.
    """

    def __init__(self, conn_id: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(conn_id)
        self._loop = loop

    def get_connection(self, conn_id: str) -> Connection:  # type: ignore[override]
        """The connection; waits for the loop."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(self.aget_connection(conn_id), self._loop).result()


def connected(conn_id: str, loop: asyncio.AbstractEventLoop | None = None) -> SmtpConnectionManagerHook:
    """The hook of a connection that Airflow has found and that can be used.

    Args:
        conn_id: the connection.
        loop: in a triggerer, whose thread this is not.

    Raises:
        ConnectionSettingsError: it is not there, or says what cannot be.
    """
    hook = SmtpConnectionManagerHook(conn_id) if loop is None else _AskedInTheLoop(conn_id, loop)
    try:
        _ = hook.connection_manager
    except MailError:
        raise
    except Exception as error:  # Airflow's versions and components each have their own for this
        said = f"{type(error).__name__}: {one_line(masked(str(error)), _SAID)}"
        fault = (
            f"Airflow does not give it to this process ({said}). Define it wherever callbacks run: for the workers, "
            "the DAG processor and the triggerer. A deadline's SyncCallback gets none from Airflow's database: take "
            "AsyncCallback, or define the connection in the environment."
        )
        raise ConnectionSettingsError([fault], conn_id=conn_id) from error
    return hook


def send_within(
    hook: SmtpConnectionManagerHook, mail: Mail, retry_for: float, *, began: float, rendering: Rendering | None = None
) -> Delivery:
    """Send a mail, try it again for so many seconds where it was refused for now, and be done `LAST_TRY` later.

    A server that this process has just waited for in vain is tried once, and shortly.

    Args:
        hook: of the connection.
        mail: with sender and Message-ID.
        retry_for: seconds for which it has further turns, and a server that cannot be reached is tried again.
        began: when they began (`time.monotonic`).
        rendering: the mail's, where it was rendered already.

    Raises:
        MailError: it was not even begun.
    """
    from airflow_provider_smtpcm.smtp.cancellation import (
        CancellationToken,
        InterruptedDeliveryError,
        get_single_delivery,
    )
    from airflow_provider_smtpcm.smtp.queue import SendRequest

    passed = time.monotonic() - began
    left = retry_for + LAST_TRY - passed
    why = f"the {retry_for:.12g} seconds of 'retry_for' were over and the last try too"
    if left <= 0:
        raise CancellationToken(why=why).error()
    server = hook.connection_manager.host, hook.connection_manager.port
    shortly = time.monotonic() - _in_vain.get(server, -A_MOMENT) < A_MOMENT
    if shortly:
        log.warning(
            "%s:%d could not be reached a moment ago, or took nothing: this alert is tried once, for %g seconds at the "
            "most.",
            *server,
            SHORT_TRY,
        )
        why = f"the server could not be reached a moment ago, nor now within {SHORT_TRY:g} seconds"
        retry_for, left = 0.0, min(left, SHORT_TRY)
    stop = CancellationToken(at=time.monotonic() + left, why=why)
    try:
        delivery = get_single_delivery(
            hook.send_requests(
                iter((SendRequest(0, mail, rendering=rendering),)),
                retry_for=max(0.0, retry_for - passed),
                cancellation=stop,
            )
        )
    except InterruptedDeliveryError as interrupted:
        log.warning("%s", interrupted)
        known = interrupted.delivery
        delivery = known if known.error is None else replace(known, error=interrupted)
    error = stop.error() if delivery is None else delivery.error
    if error is None or not error.retryable or (delivery is not None and delivery.outcome != "not_sent"):
        _in_vain.pop(server, None)
    elif not shortly:  # what was tried shortly says too little: once the moment is over, an alert has its full time
        _in_vain[server] = time.monotonic()
    if delivery is None:
        raise stop.error()
    return delivery
