"""XML becomes the model of `ssis.package`: packages, projects, connection managers, and whole trees of them."""

from airflow_provider_smtpcm.ssis.reading.packages import read_connection_manager, read_package, read_project
from airflow_provider_smtpcm.ssis.reading.tree import Found, read_everything

__all__ = ["Found", "read_connection_manager", "read_everything", "read_package", "read_project"]
