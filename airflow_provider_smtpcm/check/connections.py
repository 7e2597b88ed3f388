"""The connections of a command: of Airflow, or one on standard input or in an environment variable."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Any

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError, Phase


class NoConnectionError(MailError):
    """Airflow has no connection with that id."""

    default_phase = Phase.SETTINGS


def find_connection_manager(conn_id: str | None, *, from_stdin: bool, uri_env: str | None) -> SmtpConnectionManager:
    if conn_id is not None:
        return SmtpConnectionManager.from_airflow(find_connection(conn_id))
    if from_stdin:
        text, source = _read_standard_input(), "Standard input"
    else:
        text, source = os.environ.get(uri_env or "", ""), f"The environment variable {uri_env}"
    if not text.strip():
        raise ConnectionSettingsError([f"{source} is empty; put a URI (smtpcm://...) or Airflow's JSON into it."])
    return SmtpConnectionManager.from_airflow(parse_connection(text.strip(), source))


def _read_standard_input() -> str:
    try:
        if sys.stdin.isatty():
            return getpass.getpass("Connection URI or JSON (it is not shown): ")
        return sys.stdin.read().removeprefix("\ufeff")
    except EOFError:
        return ""
    except UnicodeDecodeError:
        fault = f"Standard input is not text in {sys.stdin.encoding}; percent-encode non-ASCII characters."
        raise ConnectionSettingsError([fault]) from None


def find_connection(conn_id: str) -> object:
    """Return an Airflow connection, found as a task would find it, or else in Airflow's database.

    Outside a task, the SDK searches the environment and the secrets backends, but not the database. This function reads
    the database in the same way as Airflow's own `connections test`.

    Raises:
        NoConnectionError: there is no connection with that id.
        ConnectionSettingsError: Airflow cannot read it.
    """
    # Airflow takes seconds to load, and `--help` does not need it.
    from airflow.sdk import BaseHook

    try:
        from airflow.sdk.exceptions import AirflowNotFoundException
    except ImportError:  # Airflow 3.1 has it elsewhere
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        pass
    if f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ:  # Airflow ignores a variable that it cannot read
        raise _unreadable_error(f"The environment variable AIRFLOW_CONN_{conn_id.upper()}")
    from airflow.models import Connection

    try:
        return Connection.get_connection_from_secrets(conn_id)  # noqa: AIR311 - the SDK's does not read the database
    except AirflowNotFoundException:
        raise NoConnectionError(
            f"Connection '{conn_id}' was not found: not in the environment (AIRFLOW_CONN_{conn_id.upper()}), not in a "
            "secrets backend, and not in the Airflow database that this machine is configured to use.",
            remedy="Look for it with 'airflow connections list'; if it is there, this machine lacks the [core] "
            "fernet_key that it was stored with. On a machine without access to the database, give the connection "
            "itself, with --uri - or --uri-env NAME.",
        ) from None


def find_connections_of_type(conn_type: str) -> list[object]:
    """Return the connections of a type in the environment and in Airflow's database, by id; not in secrets backends.

    Raises:
        ConnectionSettingsError: a variable `AIRFLOW_CONN_...` holds no connection, or Airflow cannot decrypt a stored
            one.
    """
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        stored = session.query(Connection.conn_id).filter_by(conn_type=conn_type)  # noqa: AIR311 - the SDK has no query
        found: dict[str, Any] = {}
        for (conn_id,) in stored.all():
            try:
                found[conn_id] = session.query(Connection).filter_by(conn_id=conn_id).one()  # noqa: AIR311 - as above
            except Exception:  # noqa: BLE001 - the errors of Airflow and of its encryption have no common base class
                fault = (
                    "Airflow cannot decrypt it with the [core] fernet_key of this machine; run the command where its "
                    "key is, or name the connections to convert."
                )
                raise ConnectionSettingsError([fault], conn_id=conn_id) from None
        session.expunge_all()
    for name, value in os.environ.items():
        if name.startswith("AIRFLOW_CONN_") and value.strip():
            connection: Any = parse_connection(value.strip(), f"The environment variable {name}")
            connection.conn_id = name.removeprefix("AIRFLOW_CONN_").lower()
            found.pop(connection.conn_id, None)  # the environment comes first
            if connection.conn_type == conn_type:
                found[connection.conn_id] = connection
    return [found[conn_id] for conn_id in sorted(found)]


def parse_connection(text: str, source: str) -> object:
    """Parse an Airflow connection.

    Args:
        text: a URI or Airflow's JSON; it may hold a password, so no error repeats it.
        source: the origin of the text, for an error.

    Raises:
        ConnectionSettingsError: Airflow cannot read it.
    """
    from airflow.models import Connection

    try:
        if text.startswith("{"):
            return Connection.from_json(text)  # noqa: AIR311 - the SDK's differs between versions
        if "://" not in text:
            raise _unreadable_error(source)
        return Connection(uri=text)  # noqa: AIR311 - as for JSON
    except ConnectionSettingsError:
        raise
    except Exception:  # noqa: BLE001 - Airflow's errors for this have no common base class, and repeat the text
        raise _unreadable_error(source) from None


def _unreadable_error(source: str) -> ConnectionSettingsError:
    fault = (
        f"{source} holds neither a connection URI nor a connection's JSON that Airflow can read; write "
        "smtpcm://user:password@host:port/?auth_mode=windows with each part percent-encoded, or "
        '{"conn_type": "smtpcm", "host": ...}.'
    )
    return ConnectionSettingsError([fault])
