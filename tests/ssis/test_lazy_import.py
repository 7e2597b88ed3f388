"""`import airflow_provider_smtpcm.ssis` loads no XML parser: the DAGs that use only the macros do not need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_smtpcm import ssis


def test_xml_is_loaded_on_use() -> None:
    """So is `zipfile`."""
    code = "import sys, airflow_provider_smtpcm.ssis; print({'defusedxml', 'xml', 'zipfile'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """All public names are found."""
    with pytest.raises(AttributeError, match="no attribute 'read_pakage'"):
        _ = ssis.read_pakage
    assert all(getattr(ssis, name) for name in ssis.__all__)
