"""A condition in a flow: it holds, it does not, or it is none."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.operators.only_if import AirflowSkipException, OnlyIfOperator


@pytest.mark.parametrize("answer", ["", "1", "None", "params['Rows'] > 0"])
def test_what_is_neither_true_nor_false_fails(answer: str) -> None:
    """A condition that was not worked out is no reason to go on, nor to skip."""
    with pytest.raises(ValueError, match="has to render to True or False"):
        OnlyIfOperator(task_id="rows", condition=answer).execute({})


@pytest.mark.parametrize("answer", ["False", " false\n", False])
def test_a_condition_that_does_not_hold_skips(answer: str | bool) -> None:
    """Whether a template or a DAG with native objects gave it."""
    with pytest.raises(AirflowSkipException):
        OnlyIfOperator(task_id="rows", condition=answer).execute({})


@pytest.mark.parametrize("answer", ["True", "true ", True])
def test_a_condition_that_holds_goes_on(answer: str | bool) -> None:
    """It does nothing else."""
    OnlyIfOperator(task_id="rows", condition=answer).execute({})
