"""The Airflow connections that SSIS's connection managers become: one for each server and its settings.

An id is made of the settings alone (`smtp_mail_corp_example_windows`), so that the same server in 400 packages is one
connection, whatever each of them calls it, and in whatever order they come.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.connection_manager.ssis_properties import read_properties
from airflow_provider_smtpcm.errors import ConnectionSettingsError
from airflow_provider_smtpcm.ssis.clean import clean
from airflow_provider_smtpcm.ssis.package import SmtpConnection
from airflow_provider_smtpcm.ssis.writing.connection_values import UNKNOWN_HOST, host_of, tell_project, values_of
from airflow_provider_smtpcm.ssis.writing.declared import Scope
from airflow_provider_smtpcm.ssis.writing.names import Unique, slug
from airflow_provider_smtpcm.ssis.writing.options import Options, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.outcome import Findings
from airflow_provider_smtpcm.ssis.writing.visible import Names


@dataclass(slots=True, kw_only=True)
class Written:
    """An Airflow connection, and the connection managers that it comes from."""

    conn_id: str
    manager: SmtpConnectionManager
    sources: list[str] = field(default_factory=list)


class Connections:
    """All connections so far.

    Args:
        options: what a person decided.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._written: dict[object, Written] = {}
        self._ids = Unique()
        self._per_name = {name.lower(): choice for name, choice in options.windows_auth_of.items()}

    def take(self, connection: SmtpConnection, names: Names, scope: Scope, findings: Findings) -> str:
        """The id of the connection that a connection manager becomes.

        Args:
            names, scope: for its expressions.
            findings: gets what is to be known of it.
        """
        where = f"Connection managers\\{connection.name}"
        values, unknown = values_of(connection, names, scope, findings, where)
        tell_project(connection, where, findings)
        manager = self._manager(connection, values, unknown, findings, where)
        key: object = unknown if manager.host == UNKNOWN_HOST and unknown else None
        key = (manager.host, manager.port, manager.auth_mode, manager.ssl_mode, manager.timeout, key)
        if manager.host == UNKNOWN_HOST:
            key = (*key, connection.name.lower())
        if key not in self._written:
            name = self._ids.give(_id_of(manager, connection.name))
            self._written[key] = Written(conn_id=name, manager=manager)
        written = self._written[key]
        source = f"{connection.source}: {connection.name}" if connection.source else connection.name
        if source not in written.sources:
            written.sources.append(source)
        findings.note(
            "connection-manager-became",
            where,
            f"The SMTP connection manager {connection.name!r} is the Airflow connection {written.conn_id!r}.",
        )
        if manager.auth_mode is AuthMode.WINDOWS:
            _tell_windows(written.conn_id, connection.name, where, findings)
        return written.conn_id

    @property
    def written(self) -> tuple[Written, ...]:
        """By their ids."""
        return tuple(sorted(self._written.values(), key=lambda one: one.conn_id))

    def to_json(self) -> str:
        """For `airflow connections import`; empty where there is none."""
        found = {one.conn_id: one.manager.to_airflow() for one in self.written}
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n" if found else ""

    def _manager(
        self, connection: SmtpConnection, values: Mapping[str, str], unknown: str, findings: Findings, where: str
    ) -> SmtpConnectionManager:
        text = "".join(f"{name}={value};" for name, value in values.items())
        found = read_properties(text)
        for fault in found.faults:
            findings.decision("connection-manager-property", where, str(fault), "Set it in the Airflow connection.")
        for warning in found.warnings:
            findings.note("connection-manager-property", where, warning)
        windows = bool(found.windows_authentication)
        choice = self._per_name.get(connection.name.lower(), self._options.windows_auth)
        if windows and choice is WindowsAuth.ANONYMOUS:
            windows = False
            findings.note(
                "windows-auth-dropped",
                where,
                f"{connection.name!r} says UseWindowsAuthentication=True; it became anonymous, as was asked for.",
            )
        host, port = host_of(found.server, unknown, findings, where)
        settings: dict[str, object] = {
            "port": port,
            "auth_mode": AuthMode.WINDOWS if windows else AuthMode.ANONYMOUS,
            "ssl_mode": SslMode.STARTTLS if found.enable_ssl else SslMode.NONE,
        }
        if found.timeout is not None:
            settings["timeout"] = found.timeout
        for attempt in ({"host": host, **settings}, {"host": UNKNOWN_HOST, **settings, "port": 25}):
            try:
                return SmtpConnectionManager(**attempt)  # type: ignore[arg-type]
            except ConnectionSettingsError as error:
                settings.pop("timeout", None)
                findings.decision(
                    "connection-manager-invalid",
                    where,
                    f"It cannot be a connection as it is: {clean(str(error))}",
                    "Complete the Airflow connection.",
                )
        return SmtpConnectionManager(host=UNKNOWN_HOST, ssl_mode=SslMode.NONE)


def _id_of(manager: SmtpConnectionManager, name: str) -> str:
    if manager.host == UNKNOWN_HOST:
        words = slug(name, "mail")
        return words if words.startswith("smtp") else f"smtp_{words}"
    parts = [f"smtp_{slug(manager.host, 'server')}"]
    parts += [f"port_{manager.port}"] if manager.port != 25 else []
    parts += ["windows"] if manager.auth_mode is AuthMode.WINDOWS else []
    parts += ["ssl"] if manager.ssl_mode is not SslMode.NONE else []
    parts += [f"timeout_{manager.timeout:g}".replace(".", "_")] if manager.timeout != 30 else []
    return "_".join(parts)


def _tell_windows(conn_id: str, name: str, where: str, findings: Findings) -> None:
    findings.decision(
        "windows-auth-kept",
        where,
        f"{name!r} says UseWindowsAuthentication=True, so {conn_id!r} signs in with Windows Authentication, or fails. "
        "SSIS itself went on anonymously, without a word, where the server offered no such sign-in; many of the "
        "relays in such packages take mail without any sign-in.",
        f"python -m airflow_provider_smtpcm check {conn_id} tells what the server offers. If it is anonymous, import "
        f"again with --windows-auth {shlex.quote(f'anonymous={name}')}, or set auth_mode to anonymous.",
    )
