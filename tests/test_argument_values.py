"""Numbers in arguments: invalid ones, and those beyond a clock's range, are refused when the DAG is parsed."""

from __future__ import annotations

import math

import pytest

from airflow_provider_smtpcm.arguments.values import above_zero_or_none, zero_or_more


@pytest.mark.parametrize("value", [math.nan, -1, -math.inf, True, "60", None, 10**400])
def test_a_number_below_0_is_refused(value: object) -> None:
    """The error has the argument's name and value."""
    with pytest.raises(ValueError, match=r"retry_for is .*; give a number from 0\."):
        zero_or_more("retry_for", value)


@pytest.mark.parametrize("value", [math.nan, 0, -1, True, "60", 10**400])
def test_a_number_that_is_not_above_0_is_refused(value: object) -> None:
    """None means no limit."""
    with pytest.raises(ValueError, match=r"rate_limit is .*; give a number above 0, or None\."):
        above_zero_or_none("rate_limit", value)


@pytest.mark.parametrize("value", [1e-320, 0.5, 1, 10**300, math.inf])
def test_any_other_number_is_accepted(value: float) -> None:
    """However large."""
    zero_or_more("retry_for", value)
    above_zero_or_none("rate_limit", value)
    zero_or_more("retry_for", 0)
    above_zero_or_none("rate_limit", None)
