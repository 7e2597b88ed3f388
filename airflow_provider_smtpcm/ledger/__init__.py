"""The ledger: what a later attempt of a task must know about the rows or mails of the attempts before it.

Pure of Airflow and of sockets: the operators pass in Airflow's task state store.
"""
