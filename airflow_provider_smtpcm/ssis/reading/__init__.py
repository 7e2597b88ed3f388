"""Reads SSIS's files into the model of `ssis.model`: packages, projects, connection managers, and whole folders."""

from airflow_provider_smtpcm.ssis.reading.discovery import ReadResult, read_paths
from airflow_provider_smtpcm.ssis.reading.packages import read_connection_manager, read_package, read_project

__all__ = ["ReadResult", "read_connection_manager", "read_package", "read_paths", "read_project"]
