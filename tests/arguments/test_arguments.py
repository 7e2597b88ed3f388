"""Numbers that cannot be a duration or a rate are refused when the DAG is parsed."""

from __future__ import annotations

import math

import pytest

from airflow_provider_smtpcm.arguments import check_not_negative, check_positive_or_none


@pytest.mark.parametrize("value", [math.nan, -1, -math.inf, True, "60", None, 10**400])
def test_what_is_no_number_from_0_is_refused(value: object) -> None:
    """The error has the name and the value."""
    with pytest.raises(ValueError, match=r"retry_for is .*; give a number of at least 0\."):
        check_not_negative("retry_for", value)


@pytest.mark.parametrize("value", [math.nan, 0, -1, True, "60", 10**400])
def test_what_is_no_number_above_0_is_refused(value: object) -> None:
    """None means no limit."""
    with pytest.raises(ValueError, match=r"rate_limit is .*; give a number above 0, or None\."):
        check_positive_or_none("rate_limit", value)


@pytest.mark.parametrize("value", [1e-320, 0.5, 1, 10**300, math.inf])
def test_any_other_number_is_taken(value: float) -> None:
    """However large."""
    check_not_negative("retry_for", value)
    check_positive_or_none("rate_limit", value)
    check_not_negative("retry_for", 0)
    check_positive_or_none("rate_limit", None)
