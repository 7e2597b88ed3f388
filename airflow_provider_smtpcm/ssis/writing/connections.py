"""The Airflow connections that SSIS's connection managers become: one for each server and its settings.

An id is made of the settings alone (`smtp_mail_corp_example_windows`), so that the same server in 400 packages is one
connection, whatever each of them calls it, and in whatever order they come.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.connection_manager.ssis_properties import describe_key, parse_ssis_properties
from airflow_provider_smtpcm.errors import ConnectionSettingsError
from airflow_provider_smtpcm.ssis.expressions import ExpressionError
from airflow_provider_smtpcm.ssis.model import SmtpConnection
from airflow_provider_smtpcm.ssis.output import clean
from airflow_provider_smtpcm.ssis.writing.outcome import Findings, Options, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.secrets import shown
from airflow_provider_smtpcm.ssis.writing.source import Unique, listed, slug
from airflow_provider_smtpcm.ssis.writing.symbols import Names, Scope

# folded: What an SMTP connection manager says: its connection string, its expressions, and what its project sets.
#   An expression wins over what is set; where its value is not known, the value beside it, which is the developer's,
#   is not
#   taken.

UNKNOWN_HOST = "to-be-completed.invalid"
_KNOWN = {"smtpserver": "SmtpServer", "usewindowsauthentication": "UseWindowsAuthentication", "enablessl": "EnableSsl"}
_KNOWN["timeout"] = "Timeout"
_SECRET = re.compile(r"user|uid|login|pass|pwd|secret|token", re.IGNORECASE)
_PORT = re.compile(r"([^:\s]+):(\d{1,5})(?::.*)?")


def values_of(
    connection: SmtpConnection, names: Names, scope: Scope, findings: Findings, where: str
) -> tuple[dict[str, str], str]:
    """The properties by name, and the expression of a server that is not known; an expression wins over what is set."""
    unknown = ""
    expressions = dict(connection.expressions)
    text, secret = connection.connection_string, False
    if (whole := expressions.pop("ConnectionString", None)) is not None:
        found = _evaluated("ConnectionString", whole, names, scope, findings=findings, where=where)
        text, unknown = found or "", "" if found is not None else whole
    values, secret, others = _pairs(text)
    for name in ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout"):
        if (one := expressions.get(name)) is None:
            continue
        found = _evaluated(name, one, names, scope, findings=findings, where=where)
        if found is not None:
            # SSIS takes what an expression gives as a value; it cannot bring further pairs.
            values[name] = found.strip().partition(";")[0]
            unknown = "" if name == "SmtpServer" else unknown
        else:
            values.pop(name, None)
            unknown = one if name == "SmtpServer" else unknown
    if secret:
        findings.decision(
            "account-in-connection-manager",
            where,
            "The connection string holds an account. SSIS's connection manager has none, and neither has the Airflow "
            "connection: it was left out, and is not repeated here.",
            "Change the password, which lay open in the package. If the server wants a sign-in, use auth_mode windows.",
        )
    if others:
        keys = ", ".join(sorted(others))
        findings.note("unknown-connection-property", where, f"SSIS does not know {keys}; it was left out.")
    return values, unknown


def _evaluated(name: str, expression: str, names: Names, scope: Scope, *, findings: Findings, where: str) -> str | None:
    said = shown(expression)
    try:
        value = names.known(expression, scope)
    except (ExpressionError, RecursionError) as error:
        findings.decision(
            "connection-expression",
            where,
            f"{name} comes from the expression {said}, whose value is not in the files "
            f"({clean(str(error)).splitlines()[0]}) The value that is written beside it is the developer's, and was "
            "not taken.",
            "Set it in the Airflow connection.",
        )
        return None
    findings.note(
        "connection-expression",
        where,
        f"{name} comes from the expression {said}; its value is that of the files. What an environment of the SSIS "
        "catalog sets is not in them.",
    )
    for one in names.configured(expression, scope):
        findings.decision(
            "project-configuration",
            where,
            f"{name} comes from {one.qualified_name}, which has another value than the one that is used in "
            f"{listed(one.configured_in)}, which the project has among its configurations.",
            "Look up which configuration is deployed, and whether the Airflow connection has its value.",
        )
    return value


def _pairs(text: str) -> tuple[dict[str, str], bool, set[str]]:
    """The properties that SSIS knows, whether there is an account among the rest, and the names of the others."""
    values: dict[str, str] = {}
    others: set[str] = set()
    secret = False
    for position, part in enumerate(piece.strip() for piece in text.split(";")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not part:
            continue
        if not equals:
            # Behind an account it may be the rest of a password.
            if position == 0:
                values["SmtpServer"] = key
        elif key.lower() in _KNOWN:
            values.setdefault(_KNOWN[key.lower()], value)
        elif _SECRET.search(key):
            secret = True
        elif not secret:
            others.add(describe_key(key, position + 1))
    return values, secret, others


def host_of(server: str | None, unknown: str, findings: Findings, where: str) -> tuple[str, int]:
    if unknown:
        return UNKNOWN_HOST, 25
    if not server:
        findings.decision(
            "no-smtp-server",
            where,
            f"SmtpServer is empty, and SSIS fails here. The connection has {UNKNOWN_HOST!r} in its place.",
            "Enter the mail server in the Airflow connection.",
        )
        return UNKNOWN_HOST, 25
    match = _PORT.fullmatch(server)
    if match is None or not 0 < int(match[2]) < 65536:
        return server.lower(), 25
    findings.decision(
        "port-in-smtp-server",
        where,
        f"SmtpServer has a port behind the name. SSIS knows no port there, and always takes 25; the connection has "
        f"port {match[2]}.",
        "Look at whether that port is meant; with 465, ssl_mode has to be implicit.",
    )
    return match[1].lower(), int(match[2])


def tell_project(connection: SmtpConnection, where: str, findings: Findings) -> None:
    """What the project sets, where no expression wins over it."""
    if "ConnectionString" in connection.expressions:
        return
    for one in connection.set_by:
        if one.property in connection.expressions:
            continue
        said = f"{one.property} of {connection.name!r} is set by the parameter {one.by} in {one.source}"
        if one.contradicted:
            said = f"{said}, and otherwise by the parameter of its ConnectionString; the former is used."
            findings.decision("connection-parameter", where, said, "Look up which of them holds where it is deployed.")
        else:
            said = f"{said}; that value is used, not the one in the connection manager itself."
            findings.note("connection-parameter", where, said)
    for one in connection.configured:
        if one.property not in connection.expressions:
            findings.decision(
                "project-configuration",
                where,
                f"{one.property} of {connection.name!r} has another value than the one that is used in {one.by}, which "
                f"{one.source} has among its configurations.",
                "Look up which configuration is deployed, and whether the Airflow connection has its value.",
            )


# folded: here began the module itself


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
        found = parse_ssis_properties(text)
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
