"""An import that Airflow has deprecated is an error in a module of this package, in all tests."""

from __future__ import annotations

import pytest

# Deprecated in every Airflow that is tested; Airflow warns of it by a `FutureWarning` of its own.
DEPRECATED = "from airflow.hooks.base import BaseHook"


def test_a_deprecated_import_is_an_error_in_this_package() -> None:
    """The warning has the name of the importing module, which the filter in pyproject.toml matches."""
    with pytest.raises(Warning, match=r"airflow\.hooks\.base\.BaseHook"):
        exec(DEPRECATED, {"__name__": "airflow_provider_smtpcm.operators.imports"})  # noqa: S102 - a module that is not there


def test_a_deprecated_import_is_ignored_elsewhere() -> None:
    """Airflow and its providers may use it."""
    with pytest.warns(FutureWarning, match=r"airflow\.hooks\.base\.BaseHook"):
        exec(DEPRECATED, {"__name__": "somebody.elses.imports"})  # noqa: S102 - as above
