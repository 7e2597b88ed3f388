"""What Airflow is about to remove is an error where a module of this package uses it, whichever of the tests runs."""

from __future__ import annotations

import pytest

# Deprecated in every Airflow that is tested; Airflow warns of it by a `FutureWarning` of its own.
DEPRECATED = "from airflow.hooks.base import BaseHook"


def test_a_deprecated_import_is_an_error_in_a_module_of_ours() -> None:
    """The warning names the module that imports, and that is what the filter in pyproject.toml looks at."""
    with pytest.raises(Warning, match=r"airflow\.hooks\.base\.BaseHook"):
        exec(DEPRECATED, {"__name__": "airflow_provider_smtpcm.operators.imports"})  # noqa: S102 - a module that is not there


def test_it_is_none_in_a_module_of_somebody_else() -> None:
    """What Airflow and its providers say to each other is not for us to mend."""
    with pytest.warns(FutureWarning, match=r"airflow\.hooks\.base\.BaseHook"):
        exec(DEPRECATED, {"__name__": "somebody.elses.imports"})  # noqa: S102 - as above
