"""Writes each SSIS package as a Python module with one DAG, and SMTP connection managers as Airflow connections."""
