"""`make demo` and `make ui`: the embedded relay and a private, real Airflow on loopback ports."""
