"""Operators of imported SSIS packages: an Expression task, and a task in place of one that was not translated."""

from __future__ import annotations

import datetime as dt
import logging
from decimal import Decimal
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.ssis import ExpressionOperator, ListFilesOperator, PlaceholderOperator


def test_a_null_is_no_value_of_a_variable(mocker: MockerFixture) -> None:
    """Readers would take the value that the variable had before; so nothing is pushed, and the task fails."""
    instance = mocker.Mock()
    task = ExpressionOperator(task_id="set", variables={"User::Rows": 3, "User::Text": None})
    with pytest.raises(AirflowFailException, match="User::Text is NULL"):
        task.execute({"ti": instance})  # type: ignore[typeddict-item]
    instance.xcom_push.assert_not_called()


def test_each_variable_is_an_xcom_with_its_name(mocker: MockerFixture) -> None:
    """As JSON: what it has no type for is text."""
    instance = mocker.Mock()
    variables = {"User::Rows": 3, "User::Owed": Decimal("1.50"), "User::Day": dt.date(2026, 11, 29), "User::On": False}
    ExpressionOperator(task_id="set", variables=variables).execute({"ti": instance})  # type: ignore[typeddict-item]
    pushed = {call.kwargs["key"]: call.kwargs["value"] for call in instance.xcom_push.call_args_list}
    assert pushed == {"User::Rows": 3, "User::Owed": "1.50", "User::Day": "2026-11-29", "User::On": False}


@pytest.mark.parametrize(
    ("windows_folder", "expected"),
    [
        ("C:\\in", ["C:\\in\\a.csv", "C:\\in\\old\\b.csv"]),
        ("C:\\", ["C:\\a.csv", "C:\\old\\b.csv"]),
        (" //srv/in/ ", ["//srv/in\\a.csv", "//srv/in\\old\\b.csv"]),
        ("in", None),
        ("", None),
    ],
)
def test_a_listed_file_has_its_windows_path(tmp_path: Path, windows_folder: str, expected: list[str] | None) -> None:
    """If the folder is a Windows path; else the path on the worker."""
    (tmp_path / "old").mkdir()
    files = [tmp_path / "a.csv", tmp_path / "old" / "b.csv"]
    for file in files:
        file.touch()
    task = ListFilesOperator(task_id="list", folder=str(tmp_path), recurse=True, windows_folder=windows_folder)
    assert [row["path"] for row in task.execute({})] == (expected or list(map(str, files)))


def test_a_placeholder_fails_and_says_what_has_to_take_its_place() -> None:
    """With the XComs that later tasks wait for; and is not tried again."""
    task = PlaceholderOperator(
        task_id="load_orders",
        ssis_kind="Microsoft.Pipeline",
        sets=["User::Rows", "User::Errors"],
        read_by=["Send Mail"],
    )
    with pytest.raises(AirflowFailException) as raised:
        task.execute({})
    assert str(raised.value) == (
        "'load_orders' stands for an SSIS task (Microsoft.Pipeline), which the import could not translate. Replace it "
        "with a task that does the same work. The SSIS task sets 'User::Rows' and 'User::Errors', which 'Send Mail' "
        "reads: push an XCom with these keys. To let it succeed although it does nothing, set passes=True."
    )


def test_without_variables_it_speaks_of_none() -> None:
    """Nor of a kind that the package does not name."""
    with pytest.raises(AirflowFailException) as raised:
        PlaceholderOperator(task_id="copy").execute({})
    assert str(raised.value) == (
        "'copy' stands for an SSIS task, which the import could not translate. Replace it with a task that does the "
        "same work. To let it succeed although it does nothing, set passes=True."
    )


def test_in_a_walk_through_it_passes_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """So that the run is not mistaken for a real one."""
    task = PlaceholderOperator(task_id="copy", ssis_kind="Microsoft.FileSystemTask", sets=["User::File"], passes=True)
    with caplog.at_level(logging.WARNING):
        task.execute({})
    assert "It does nothing, and succeeds because of passes=True." in caplog.text
    assert "sets 'User::File', which other tasks may read: push an XCom with that key." in caplog.text
