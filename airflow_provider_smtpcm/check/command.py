"""The command `check`: finds the connection, checks it and prints the report."""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_smtpcm.check.checker import check, report_unusable
from airflow_provider_smtpcm.check.report import CheckPrinter, StepRecorder, StepReport
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError, Phase

# The exit statuses of a shell for SIGINT and SIGPIPE: 128 plus the signal.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def run_check(*, conn_id: str | None, from_stdin: bool, uri_env: str | None, as_json: bool, every_binding: bool) -> int:
    """Check a connection and print the report.

    Args:
        conn_id: the id of an Airflow connection; None to use `from_stdin` or `uri_env`.
        from_stdin: whether to read the connection from standard input, as a URI or as Airflow's JSON.
        uri_env: the environment variable that holds the connection; None: another argument gives the connection.
        as_json: whether to print one JSON object instead of text.
        every_binding: whether to sign in with each channel binding.

    Returns:
        The exit status. 0: the connection works, with or without warnings. 1: a step failed. 3: the connection does
        not exist or cannot be used. 130: interrupted. 141: standard output was closed.
    """
    printer = CheckPrinter()
    subject, where = f"the Airflow connection '{conn_id}'", "where the connection is defined (Admin, Connections)"
    if conn_id is None and from_stdin:
        subject, where = "the connection on standard input", "in the text on standard input"
    elif conn_id is None:
        subject, where = f"the connection in ${uri_env}", f"in the environment variable {uri_env}"
    on_step = _ignore_step if as_json else printer.print_step
    try:
        if not as_json:
            printer.print_title(subject)
        # The report has what the log would have, and log lines on standard output would break the JSON.
        with _logging_disabled():
            try:
                manager = _find_connection_manager(conn_id, from_stdin=from_stdin, uri_env=uri_env)
            except MailError as error:
                recorder = StepRecorder(on_step)
                report = report_unusable(error, subject=subject, recorder=recorder, where=where)
            else:
                report = check(manager, subject=subject, on_step=on_step, every_binding=every_binding)
        if as_json:
            print(json.dumps(report.to_dict(), indent=2))  # noqa: T201
        else:
            printer.print_verdict(report)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more when it exits, which would fail again.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        return EXIT_BROKEN_PIPE
    return report.exit_status


def _ignore_step(_: StepReport) -> None:
    """Print nothing, since the JSON is printed at the end."""


@contextmanager
def _logging_disabled() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


# --- The connection.


class NoConnectionError(MailError):
    """Airflow has no connection with that id."""

    default_phase = Phase.SETTINGS


def _find_connection_manager(conn_id: str | None, *, from_stdin: bool, uri_env: str | None) -> SmtpConnectionManager:
    if conn_id is not None:
        return SmtpConnectionManager.from_airflow(find_connection(conn_id))
    if from_stdin:
        text, source = _read_standard_input(), "Standard input"
    else:
        text, source = os.environ.get(uri_env or "", ""), f"The environment variable {uri_env}"
    if not text.strip():
        raise ConnectionSettingsError([f"{source} is empty; put a URI (smtpcm://...) or Airflow's JSON into it."])
    return SmtpConnectionManager.from_airflow(parse_connection(text.strip(), source))


def _read_standard_input() -> str:
    try:
        if sys.stdin.isatty():
            return getpass.getpass("Connection URI or JSON (it is not shown): ")
        return sys.stdin.read().removeprefix("\ufeff")
    except EOFError:
        return ""
    except UnicodeDecodeError:
        fault = f"Standard input is not text in {sys.stdin.encoding}; percent-encode non-ASCII characters."
        raise ConnectionSettingsError([fault]) from None


def find_connection(conn_id: str) -> object:
    """Return an Airflow connection, found as a task would find it, or else in Airflow's database.

    Outside a task, the SDK searches the environment and the secrets backends, but not the database. This function reads
    the database in the same way as Airflow's own `connections test`.

    Raises:
        NoConnectionError: there is no connection with that id.
        ConnectionSettingsError: Airflow cannot read it.
    """
    # Airflow takes seconds to load, and `--help` does not need it.
    from airflow.sdk import BaseHook

    try:
        from airflow.sdk.exceptions import AirflowNotFoundException
    except ImportError:  # Airflow 3.1 has it elsewhere
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        pass
    if f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ:  # Airflow ignores a variable that it cannot read
        raise _unreadable_error(f"The environment variable AIRFLOW_CONN_{conn_id.upper()}")
    from airflow.models import Connection

    try:
        return Connection.get_connection_from_secrets(conn_id)  # noqa: AIR311 - the SDK's does not read the database
    except AirflowNotFoundException:
        raise NoConnectionError(
            f"Connection '{conn_id}' was not found: not in the environment (AIRFLOW_CONN_{conn_id.upper()}), not in a "
            "secrets backend, and not in the Airflow database that this machine is configured to use.",
            remedy="Look for it with 'airflow connections list'; if it is there, this machine lacks the [core] "
            "fernet_key that it was stored with. On a machine without access to the database, give the connection "
            "itself, with --uri - or --uri-env NAME.",
        ) from None


def parse_connection(text: str, source: str) -> object:
    """Parse an Airflow connection.

    Args:
        text: a URI or Airflow's JSON; it may hold a password, so no error repeats it.
        source: the origin of the text, for an error.

    Raises:
        ConnectionSettingsError: Airflow cannot read it.
    """
    from airflow.models import Connection

    try:
        if text.startswith("{"):
            return Connection.from_json(text)  # noqa: AIR311 - the SDK's differs between versions
        if "://" not in text:
            raise _unreadable_error(source)
        return Connection(uri=text)  # noqa: AIR311 - as for JSON
    except ConnectionSettingsError:
        raise
    except Exception:  # noqa: BLE001 - Airflow's errors for this have no common base class, and repeat the text
        raise _unreadable_error(source) from None


def _unreadable_error(source: str) -> ConnectionSettingsError:
    fault = (
        f"{source} holds neither a connection URI nor a connection's JSON that Airflow can read; write "
        "smtpcm://user:password@host:port/?auth_mode=windows with each part percent-encoded, or "
        '{"conn_type": "smtpcm", "host": ...}.'
    )
    return ConnectionSettingsError([fault])
