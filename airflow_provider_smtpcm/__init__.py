"""The SSIS SMTP connection manager for Apache Airflow. This module imports nothing: every Airflow process loads it."""

__version__ = "0.1.0"
