"""A task that sets variables, as an Expression task of SSIS does."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from pytest_mock import MockerFixture

from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.expression import ExpressionOperator


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
