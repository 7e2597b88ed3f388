"""An Airflow connection outside of a task: by its id, from each place where Airflow keeps some, or from text."""

from __future__ import annotations

import os

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError, Phase


class NoConnectionError(MailError):
    """Airflow knows no connection of that id."""

    default_phase = Phase.SETTINGS


def connection_by_id(conn_id: str) -> object:
    """The connection, as a task would find it, else from Airflow's database.

    Outside of a task the SDK asks the environment and the secrets backends and never the database; for that there is
    what Airflow's own `connections test` calls.

    Raises:
        NoConnectionError: there is none of that id.
        ConnectionSettingsError: it is there, and Airflow cannot read it.
    """
    from airflow.sdk import BaseHook

    try:
        from airflow.sdk.exceptions import AirflowNotFoundException
    except ImportError:  # Airflow 3.1 has it elsewhere
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        pass
    if f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ:  # Airflow passes over what it cannot read
        raise _unreadable(f"The environment variable AIRFLOW_CONN_{conn_id.upper()}")
    from airflow.models import Connection

    try:
        return Connection.get_connection_from_secrets(conn_id)  # noqa: AIR311 - the SDK's knows no database
    except AirflowNotFoundException:
        raise NoConnectionError(
            f"There is no connection '{conn_id}', neither in the environment (AIRFLOW_CONN_{conn_id.upper()}) nor in a "
            "secrets backend nor in Airflow's database, as this machine is configured to reach them.",
            remedy="Look for it with 'airflow connections list'; if it is there, this machine lacks the [core] "
            "fernet_key that it was stored with. On a machine that may not ask the database, give the connection "
            "itself, by --uri - or --uri-env NAME.",
        ) from None


def connection_from_text(text: str, where: str) -> object:
    """A connection written as a URI or as Airflow's JSON.

    Args:
        text: it may hold a password, so no error repeats it.
        where: where it was found, for an error.

    Raises:
        ConnectionSettingsError: Airflow cannot read it.
    """
    from airflow.models import Connection

    try:
        if text.startswith("{"):
            return Connection.from_json(text)  # noqa: AIR311 - as above, and the SDK's differs between versions
        if "://" not in text:
            raise _unreadable(where)
        return Connection(uri=text)  # noqa: AIR311 - as above
    except ConnectionSettingsError:
        raise
    except Exception:  # noqa: BLE001 - Airflow's errors for this have no common family, and repeat the text
        raise _unreadable(where) from None


def _unreadable(where: str) -> ConnectionSettingsError:
    fault = (
        f"{where} holds neither a connection URI nor a connection's JSON that Airflow can read; write "
        "smtpcm://user:password@host:port/?auth_mode=windows with each part percent-encoded, or "
        '{"conn_type": "smtpcm", "host": ...}.'
    )
    return ConnectionSettingsError([fault])
