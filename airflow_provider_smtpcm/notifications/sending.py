"""Sending one mail within a time, whatever the connection's own deadlines are. Knows the hook and no context."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.stop import Stop

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery

#: Seconds for which an alert is tried again, unless somebody says otherwise: a task, or Airflow's DAG processor, waits.
RETRY_FOR = 30.0
#: Seconds that a last try may still take.
LAST_TRY = 30.0


def connected(conn_id: str) -> SmtpConnectionManagerHook:
    """The hook of a connection that Airflow has found and that can be used.

    Raises:
        ConnectionSettingsError: it is not there, or says what cannot be.
    """
    hook = SmtpConnectionManagerHook(conn_id)
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


def send_within(hook: SmtpConnectionManagerHook, mail: Mail, retry_for: float) -> Delivery:
    """Send a mail, try it again for so many seconds where it was refused for now, and be done half a minute later.

    Args:
        hook: of the connection.
        mail: with sender and Message-ID.
        retry_for: seconds for which it has further turns, and a server that cannot be reached is tried again.

    Raises:
        MailError: it was not even begun.
    """
    from airflow_provider_smtpcm.mail.errand import Errand

    stop = Stop()
    timer = threading.Timer(
        retry_for + LAST_TRY, stop.ask, (f"the {retry_for:g} seconds of 'retry_for' were over and the last try too",)
    )
    timer.daemon = True
    timer.start()
    try:
        deliveries = list(hook.send_errands(iter((Errand(0, mail),)), retry_for=retry_for, stop=stop))
    finally:
        timer.cancel()
    if not deliveries:
        raise stop.error()
    return deliveries[0]
