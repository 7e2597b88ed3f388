"""Mail merge: each row is rendered by templates to a mail, and its outcome is counted in the result.

Pure: no Airflow, no sockets. The operator passes in the templates' context, the ledger and the function that sends.
"""
