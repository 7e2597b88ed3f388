"""Reads SSIS files (packages, projects, connection managers, folders of them) into the model of `ssis.model`."""

from airflow_provider_smtpcm.ssis.reading.discovery import ReadResult, check_paths, read_paths
from airflow_provider_smtpcm.ssis.reading.packages import read_connection_manager, read_package, read_project

__all__ = ["ReadResult", "check_paths", "read_connection_manager", "read_package", "read_paths", "read_project"]
