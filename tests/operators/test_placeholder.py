"""A task that stands for one that the import of SSIS packages could not translate."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.placeholder import PlaceholderOperator


def test_it_fails_and_says_what_has_to_take_its_place() -> None:
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
        "'load_orders' stands for an SSIS task (Microsoft.Pipeline), which the import could not translate. Put a task "
        "in its place that does the same work. The SSIS task sets 'User::Rows' and 'User::Errors', which 'Send Mail' "
        "reads: push an XCom with these keys. To let it succeed although it does nothing, set passes=True."
    )


def test_without_variables_it_speaks_of_none() -> None:
    """Nor of a kind that the package does not name."""
    with pytest.raises(AirflowFailException) as raised:
        PlaceholderOperator(task_id="copy").execute({})
    assert str(raised.value) == (
        "'copy' stands for an SSIS task, which the import could not translate. Put a task in its place that does the "
        "same work. To let it succeed although it does nothing, set passes=True."
    )


def test_in_a_walk_through_it_passes_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """So that nobody takes the run for a real one."""
    task = PlaceholderOperator(task_id="copy", ssis_kind="Microsoft.FileSystemTask", sets=["User::File"], passes=True)
    with caplog.at_level(logging.WARNING):
        task.execute({})
    assert "It does nothing, and succeeds because of passes=True." in caplog.text
    assert "sets 'User::File', which other tasks may read: push an XCom with that key." in caplog.text
