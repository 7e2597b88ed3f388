"""From an Airflow connection to a live SMTP session."""
