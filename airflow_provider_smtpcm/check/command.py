"""The command `check`: its connection, its output and its exit status."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_smtpcm.check.checker import check, report_unusable
from airflow_provider_smtpcm.check.connections import find_connection_manager
from airflow_provider_smtpcm.check.report import CheckPrinter, StepRecorder, StepReport
from airflow_provider_smtpcm.errors import MailError

# The exit statuses of a shell for SIGINT and SIGPIPE: 128 plus the signal.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def run_check(
    *,
    conn_id: str | None,
    from_stdin: bool,
    uri_env: str | None,
    as_json: bool,
    every_binding: bool,
    send_to: str | None,
) -> int:
    """Check a connection and print the report.

    Args:
        conn_id: the id of an Airflow connection; None to use `from_stdin` or `uri_env`.
        from_stdin: whether to read the connection from standard input, as a URI or as Airflow's JSON.
        uri_env: the environment variable that holds the connection; None: another argument gives the connection.
        as_json: whether to print one JSON object instead of text.
        every_binding: whether to sign in with each channel binding.
        send_to: the address that receives a test mail and a sample alert; None: no mail is sent.

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
            printer.print_title(subject, send_to=send_to)
        # The report has what the log would have, and log lines on standard output would break the JSON.
        with _logging_disabled():
            try:
                manager = find_connection_manager(conn_id, from_stdin=from_stdin, uri_env=uri_env)
            except MailError as error:
                recorder = StepRecorder(on_step)
                report = report_unusable(error, subject=subject, recorder=recorder, where=where)
            else:
                report = check(manager, subject=subject, on_step=on_step, every_binding=every_binding, send_to=send_to)
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
