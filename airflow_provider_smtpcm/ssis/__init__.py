"""Reader of SSIS packages and projects: `read_package`, `read_project`.

Needs neither SSIS nor Airflow nor a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_smtpcm.ssis.model import Finding, Package, Project
    from airflow_provider_smtpcm.ssis.reading import read_package, read_project

__all__ = ["Finding", "Package", "Project", "read_package", "read_project"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported on first use: a DAG that only uses the macros does not load the XML parser.
    if name in {"read_package", "read_project"}:
        from airflow_provider_smtpcm.ssis import reading

        return getattr(reading, name)
    from airflow_provider_smtpcm.ssis import model

    return getattr(model, name)
