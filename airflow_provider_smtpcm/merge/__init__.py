"""Mail merge: rows, the templates over them, the mails made of them, and the result.

Pure of Airflow and of sockets: the operator passes in what they need of either.
"""
