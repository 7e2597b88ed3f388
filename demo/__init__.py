"""What `make demo` and `make ui` run: the embedded relay and a private, real Airflow, on this machine only."""
