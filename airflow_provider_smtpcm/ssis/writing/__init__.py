"""Writes SSIS packages as modules of Python, each with one DAG, and their connection managers as connections."""
