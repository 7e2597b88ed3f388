"""Airflow's connection form in a real browser. A package, so that its tests share one Airflow and nobody else waits."""
