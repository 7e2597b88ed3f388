"""The SSIS SMTP connection manager for Apache Airflow. This module imports nothing: every Airflow process loads it."""
