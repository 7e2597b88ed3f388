"""A DAG that logs everything that it can read of a connection; the form's tests look for secrets in its log."""

from __future__ import annotations

import logging

from airflow.sdk import DAG, BaseHook, task

from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook

log = logging.getLogger(__name__)
NAMES = ("conn_id", "conn_type", "host", "port", "login", "password", "extra")

with DAG("tell_the_connection", schedule=None) as dag:

    @task(retries=0)
    def tell() -> None:
        """Log the connection by the logger and by print, whole and in parts."""
        connection = BaseHook.get_connection("smtpcm_default")
        log.warning("The connection: %s", {name: getattr(connection, name) for name in NAMES})
        print(connection.password, connection.extra_dejson)  # noqa: T201 - people do
        print(SmtpConnectionManagerHook("smtpcm_default").connection_manager)  # noqa: T201

    tell()
