"""The Airflow hook, and its connection form for Airflow 3.1."""
