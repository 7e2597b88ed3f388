"""Writes what packages say about mail for Airflow: a DAG module for each, and the connections that they share."""
