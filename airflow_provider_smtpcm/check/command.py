"""The command `check`: finds the connection, runs the check, prints it. Knows nothing of argparse."""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_smtpcm.check.checker import check, unusable
from airflow_provider_smtpcm.check.report import Page, Recorder, Report, StepReport
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError, Phase

INTERRUPTED = 130
NOBODY_READS = 141


def run_check(*, conn_id: str | None, from_stdin: bool, uri_env: str | None, as_json: bool, every_binding: bool) -> int:
    """Check a connection and print the result; the exit status.

    0: it works, whatever was warned about. 1: a step failed. 3: the connection does not exist or is written wrong.
    Beside these, as a shell has it: 130 for Ctrl-C, 141 where nobody reads the page to its end.

    Args:
        conn_id: an Airflow connection; or else one of the next two.
        from_stdin: the connection is on standard input, as a URI or as Airflow's JSON.
        uri_env: the environment variable that has it.
        as_json: one JSON object instead of a page.
        every_binding: sign in with each channel binding.
    """
    page = Page()
    subject, where = f"the Airflow connection '{conn_id}'", "where the connection is defined (Admin, Connections)"
    if conn_id is None and from_stdin:
        subject, where = "the connection on standard input", "in what is on standard input"
    elif conn_id is None:
        subject, where = f"the connection in ${uri_env}", f"in the environment variable {uri_env}"
    steps = _nobody if as_json else page.step
    try:
        if not as_json:
            page.title(subject)
        # The page is the log: it says the same in order, and a machine's JSON stays whole.
        with _without_log():
            try:
                manager = _manager(conn_id, from_stdin=from_stdin, uri_env=uri_env)
            except MailError as error:
                report = unusable(error, subject=subject, recorder=Recorder(steps), where=where)
            else:
                report = check(manager, subject=subject, listener=steps, every_binding=every_binding)
        _tell(report, page, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would write what is left once more on its way out.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        return NOBODY_READS
    return report.exit_status


def _tell(report: Report, page: Page, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(), indent=2))  # noqa: T201
    else:
        page.end(report)


def _nobody(_: StepReport) -> None:
    """Machines wait for the whole report."""


def _manager(conn_id: str | None, *, from_stdin: bool, uri_env: str | None) -> SmtpConnectionManager:
    # Airflow takes seconds to load, so nobody waits for it who only asks for help.
    if conn_id is not None:
        return SmtpConnectionManager.from_airflow(connection_by_id(conn_id))
    if from_stdin:
        text, where = _standard_input(), "Standard input"
    else:
        text, where = os.environ.get(uri_env or "", ""), f"The environment variable {uri_env}"
    if not text.strip():
        raise ConnectionSettingsError([f"{where} is empty; put a URI (smtpcm://...) or Airflow's JSON into it."])
    return SmtpConnectionManager.from_airflow(connection_from_text(text.strip(), where))


def _standard_input() -> str:
    try:
        if sys.stdin.isatty():
            return getpass.getpass("Connection URI or JSON (it is not shown): ")
        return sys.stdin.read().removeprefix("\ufeff")
    except EOFError:
        return ""
    except UnicodeDecodeError:
        fault = f"Standard input is not text in {sys.stdin.encoding}; percent-encode what is not ASCII."
        raise ConnectionSettingsError([fault]) from None


@contextmanager
def _without_log() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


# folded: An Airflow connection outside of a task: by its id, from each place where Airflow keeps some, or from text.


class NoConnectionError(MailError):
    """Airflow knows no connection of that id."""

    default_phase = Phase.SETTINGS


def connection_by_id(conn_id: str) -> object:
    """The connection, as a task would find it, else from Airflow's database.

    Outside of a task the SDK asks the environment and the secrets backends and never the database; for that there is
    what Airflow's own `connections test` calls.

    Raises:
        NoConnectionError: there is none of that id.
        ConnectionSettingsError: it is there, and Airflow cannot read it.
    """
    from airflow.sdk import BaseHook

    try:
        from airflow.sdk.exceptions import AirflowNotFoundException
    except ImportError:  # Airflow 3.1 has it elsewhere
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        pass
    if f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ:  # Airflow passes over what it cannot read
        raise _unreadable(f"The environment variable AIRFLOW_CONN_{conn_id.upper()}")
    from airflow.models import Connection

    try:
        return Connection.get_connection_from_secrets(conn_id)  # noqa: AIR311 - the SDK's knows no database
    except AirflowNotFoundException:
        raise NoConnectionError(
            f"There is no connection '{conn_id}', neither in the environment (AIRFLOW_CONN_{conn_id.upper()}) nor in a "
            "secrets backend nor in Airflow's database, as this machine is configured to reach them.",
            remedy="Look for it with 'airflow connections list'; if it is there, this machine lacks the [core] "
            "fernet_key that it was stored with. On a machine that may not ask the database, give the connection "
            "itself, by --uri - or --uri-env NAME.",
        ) from None


def connection_from_text(text: str, where: str) -> object:
    """A connection written as a URI or as Airflow's JSON.

    Args:
        text: it may hold a password, so no error repeats it.
        where: where it was found, for an error.

    Raises:
        ConnectionSettingsError: Airflow cannot read it.
    """
    from airflow.models import Connection

    try:
        if text.startswith("{"):
            return Connection.from_json(text)  # noqa: AIR311 - as above, and the SDK's differs between versions
        if "://" not in text:
            raise _unreadable(where)
        return Connection(uri=text)  # noqa: AIR311 - as above
    except ConnectionSettingsError:
        raise
    except Exception:  # noqa: BLE001 - Airflow's errors for this have no common family, and repeat the text
        raise _unreadable(where) from None


def _unreadable(where: str) -> ConnectionSettingsError:
    fault = (
        f"{where} holds neither a connection URI nor a connection's JSON that Airflow can read; write "
        "smtpcm://user:password@host:port/?auth_mode=windows with each part percent-encoded, or "
        '{"conn_type": "smtpcm", "host": ...}.'
    )
    return ConnectionSettingsError([fault])
