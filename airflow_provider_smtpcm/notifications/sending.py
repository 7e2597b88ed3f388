"""Sending one mail within a time, whatever the connection's own deadlines are. Knows the hook and no context."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.stop import Stop

if TYPE_CHECKING:
    import asyncio

    from airflow.sdk import Connection

    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery

#: Seconds for which an alert is tried again, unless somebody says otherwise. A task waits for it, or the DAG processor,
#: which Airflow kills after 50 seconds (`[dag_processor] dag_file_processor_timeout`).
RETRY_FOR = 20.0
#: Seconds that a last try may still take.
LAST_TRY = 15.0


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
        fault = (
            f"Airflow does not give it to this process ({type(error).__name__}: {error}). Define it wherever callbacks "
            "run: for the workers, the DAG processor and the triggerer. A deadline's SyncCallback gets none from "
            "Airflow's database: take AsyncCallback, or define the connection in the environment."
        )
        raise ConnectionSettingsError([fault], conn_id=conn_id) from error
    return hook


def send_within(hook: SmtpConnectionManagerHook, mail: Mail, retry_for: float, *, began: float) -> Delivery:
    """Send a mail, try it again for so many seconds where it was refused for now, and be done `LAST_TRY` later.

    Args:
        hook: of the connection.
        mail: with sender and Message-ID.
        retry_for: seconds for which it has further turns, and a server that cannot be reached is tried again.
        began: when they began (`time.monotonic`).

    Raises:
        MailError: it was not even begun.
    """
    from airflow_provider_smtpcm.mail.errand import Errand

    stop = Stop()
    stop.why = f"the {retry_for:g} seconds of 'retry_for' were over and the last try too"
    passed = time.monotonic() - began
    if passed >= retry_for + LAST_TRY:
        raise stop.error()
    timer = threading.Timer(retry_for + LAST_TRY - passed, stop.ask)
    timer.daemon = True
    timer.start()
    try:
        deliveries = list(
            hook.send_errands(iter((Errand(0, mail),)), retry_for=max(0.0, retry_for - passed), stop=stop)
        )
    finally:
        timer.cancel()
    if not deliveries:
        raise stop.error()
    return deliveries[0]
