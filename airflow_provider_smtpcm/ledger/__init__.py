"""The ledger: a durable record of what a task has sent, so that its next attempt sends nothing twice.

Pure: no Airflow, no sockets. The operators pass in Airflow's task state store.
"""
