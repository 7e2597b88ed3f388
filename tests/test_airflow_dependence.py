"""Which tests a run with an older Airflow may leave out: those from which no import leads to Airflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow_dependence import ROOT, depends_on_airflow

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.fixture(scope="module")
def without() -> list[Path]:
    """The tests that do not depend on Airflow."""
    return [path for path in TESTS if not depends_on_airflow(path)]


@pytest.mark.parametrize(
    ("text", "depends"),
    [
        ("from tests.smtp.server import Server\n", False),
        ("def test_it() -> None:\n    import airflow.sdk\n", True),
        ("from airflow_provider_smtpcm.mail import Mail\n", False),
        ("from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook\n", True),
        ("from airflow_provider_smtpcm import Mail\n", True),  # or the operator: the root knows them all
        ("from tests.operators import tasks\n", True),
        ("def test_it(run_dag: RunDag) -> None:\n    ...\n", True),
        ("PROGRAM = 'import airflow'\n", True),
        ("SENDER = 'airflow@corp.example'\n", False),
        ("import pandas as pd\n", True),  # of which an Airflow takes some versions only
    ],
)
def test_a_test_depends_on_airflow_if_it_or_what_it_imports_names_it(text: str, depends: bool, tmp_path: Path) -> None:
    """However deep, and in a program that it starts."""
    file = tmp_path / "test_it.py"
    file.write_text(text)
    assert depends_on_airflow(file) is depends


def test_what_an_operator_does_is_tested_with_every_airflow(without: list[Path]) -> None:
    """And the conversation with a server with one."""
    left_out = {path.relative_to(ROOT / "tests").parts[0] for path in without}
    whole = {path.relative_to(ROOT / "tests").parts[0] for path in TESTS if path not in without}
    assert {"mail", "ledger"} <= left_out - whole
    assert {"operators", "hooks", "decorators", "test_email_backend.py"} <= whole - left_out


def test_tests_that_are_left_out_do_not_need_airflow(without: list[Path]) -> None:
    """Where it cannot be imported they are collected, and those of one folder pass."""
    program = """
import sys
import pytest
sys.modules |= {"airflow": None, "pandas": None}
files = sys.argv[1:]
options = ["-p", "no:cacheprovider", "-q"]
assert pytest.main([*options, "--collect-only", *files]) == 0
assert pytest.main([*options, *(file for file in files if "/ledger/test_record" in file)]) == 0
"""
    command = [sys.executable, "-c", program, *map(str, without)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
