"""The notifier: alerts by mail for Airflow's callbacks and Deadline Alerts."""
