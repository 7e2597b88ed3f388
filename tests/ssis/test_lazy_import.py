"""Importing the room costs next to nothing: expressions are also for those who read no package."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_smtpcm import ssis


def test_xml_is_loaded_on_use() -> None:
    """So are zips."""
    code = "import sys, airflow_provider_smtpcm.ssis; print({'defusedxml', 'xml', 'zipfile'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_what_is_not_public_is_not_found() -> None:
    """As in any module; what is public is found."""
    with pytest.raises(AttributeError, match="no attribute 'read_pakage'"):
        _ = ssis.read_pakage
    assert all(getattr(ssis, name) for name in ssis.__all__)
