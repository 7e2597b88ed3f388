"""Airflow operators: Send Mail, mail merge, and a condition between two tasks."""
