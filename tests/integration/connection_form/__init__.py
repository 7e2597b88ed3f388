"""Airflow's connection form in a real browser. A package, so that only its tests wait for their shared Airflow."""
