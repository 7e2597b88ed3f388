"""A connection check with its printed page, and assertions that no secret is in it; for scripted and real servers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_smtpcm.check.checker import check
from airflow_provider_smtpcm.check.report import CheckPrinter, Report
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp.auth.ntlm import compute_nt_hash

#: A token is sent as long base64; NTLM's begins like this in any encoding.
TOKEN = re.compile(r"[A-Za-z0-9+/=]{40,}|TlRMTVNTUA|NTLMSSP")


class Checked:
    """A check: its report, the printed page, and the page without line breaks."""

    def __init__(self, report: Report, page: str) -> None:
        self.report = report
        self.page = page
        self.text = " ".join(page.split())
        self.details = {step.name: step.detail for step in report.steps}
        self.statuses = {step.name: str(step.status) for step in report.steps}

    def assert_failed_at(self, step: str, remedy: str) -> None:
        """Assert that the check stopped at this step, printed the error, and ends with the remedy."""
        assert self.report.failed_step == step, self.page
        assert self.report.exit_status == (3 if step == "settings" else 1)
        assert f"FAILED at this step: {step}. What to do: " in self.text
        assert remedy in self.report.remedy
        assert self.text.endswith(" ".join(self.report.remedy.split()))


CheckIt = Callable[..., Checked]


def make_check(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> CheckIt:
    """Check a connection manager, and assert that neither its password nor a token is in the output."""
    caplog.set_level("DEBUG")

    def run(manager: SmtpConnectionManager, *, every_binding: bool = False, send_to: str | None = None) -> Checked:
        capsys.readouterr()
        printer = CheckPrinter()
        printer.print_title("the Airflow connection 'mail'", send_to=send_to)
        report = check(
            manager, subject="mail", on_step=printer.print_step, every_binding=every_binding, send_to=send_to
        )
        printer.print_verdict(report)
        printed = capsys.readouterr()
        machine = json.dumps(report.to_dict(), ensure_ascii=False)
        for shown in (printed.out, printed.err, machine, repr(report), caplog.text):
            assert_nothing_secret(shown, manager.password)
        return Checked(report, printed.out)

    return run


def assert_nothing_secret(shown: str, password: str | None) -> None:
    """Assert that there is no token, and no password, neither as text nor as base64 nor as hash."""
    assert not TOKEN.search(shown), shown
    if password:
        derived: list[Any] = [password, base64.b64encode(password.encode()).decode(), compute_nt_hash(password)]
        assert not any(str(secret).lower() in shown.lower() for secret in derived), shown
