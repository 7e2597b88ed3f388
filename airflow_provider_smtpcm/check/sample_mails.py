"""What `check --send-to` sends: a test mail, and a sample of an alert."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.headers import new_message_id

if TYPE_CHECKING:
    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.mail.mime_message import AnyMail

_TEXT = """\
This is a test mail of airflow-provider-smtpcm. It shows that mail from this connection arrives.

Connection: {subject}
Server:     {server}
Sent by:    {host}
Sent at:    {now:%Y-%m-%d %H:%M:%S} UTC

The command 'check --send-to' sent it. No DAG ran, and nothing has to be done.
"""


def build_test_mail(manager: SmtpConnectionManager, to: str, *, subject: str, server: str) -> AnyMail:
    """Return the test mail.

    Args:
        manager: the connection, for its From and Reply-To.
        to: the recipient, who is also the sender if the connection has no From address.
        subject: the name of the connection.
        server: the server's name and port.
    """
    from airflow_provider_smtpcm.smtp.queue import complete_mail

    host = socket.gethostname()
    text = _TEXT.format(subject=subject, server=server, host=host, now=datetime.now(UTC))
    mail = Mail(from_address=manager.from_address or to, to=to, subject=f"Test mail from Airflow on {host}", text=text)
    return complete_mail(mail, manager, make_message_id=new_message_id)


def build_sample_alert(manager: SmtpConnectionManager, to: str) -> Mail:
    """Return the alert that `SendMailNotifier(to=...)` sends about a failed task, here about one that does not exist.

    Args:
        manager: the connection, for its From and Reply-To.
        to: the recipient, who is also the sender if the connection has no From address.
    """
    from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier

    notifier = SendMailNotifier(to=to, from_address=manager.from_address or to)
    return notifier.preview(make_sample_context(), manager=manager)


def make_sample_context() -> dict[str, Any]:
    """Return the context of a failed task that does not exist."""
    now = datetime.now(UTC)
    # The run's id is new each time: Exchange drops a second mail with the same Message-ID, which depends on it.
    run_id = f"sample__{now.isoformat()}"
    ti = SimpleNamespace(
        dag_id="sample_dag",
        task_id="sample_task",
        run_id=run_id,
        map_index=-1,
        state="failed",
        try_number=1,
        max_tries=0,
        start_date=now - timedelta(seconds=12),
        end_date=now,
        hostname=socket.gethostname(),
    )
    run = SimpleNamespace(run_id=run_id, dag_id="sample_dag", logical_date=now, run_after=now)
    error = RuntimeError("this is a sample of an alert, sent by 'check --send-to': no task has failed")
    return {"ti": ti, "dag_run": run, "run_id": run_id, "exception": error}
