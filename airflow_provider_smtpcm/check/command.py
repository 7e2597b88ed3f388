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
from airflow_provider_smtpcm.check.page import Page
from airflow_provider_smtpcm.check.recorder import Recorder
from airflow_provider_smtpcm.check.report import Report, StepReport
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError

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
    from airflow_provider_smtpcm.hooks.find_connection import connection_by_id, connection_from_text

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
