"""The command `from-smtp`: turns connections of Airflow's own SMTP provider into connections of type `smtpcm`.

It follows version 3.2.0 of that provider: what its hook does with a connection, not what its form says.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_smtpcm.check.connections import find_connection, find_connections_of_type
from airflow_provider_smtpcm.check.report import remove_control_characters
from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError
from airflow_provider_smtpcm.hooks.smtpcm import get_configuration

# The exit statuses of the command; 2 is argparse's.
EXIT_OK = 0
EXIT_NOT_ALL = 1
EXIT_NOT_FOUND = 3

_CONN_TYPE = "smtp"
_OAUTH_KEYS = ("access_token", "client_id", "client_secret", "tenant_id", "scope")
_KNOWN_KEYS = (
    *("disable_ssl", "disable_tls", "ssl_context", "from_email", "timeout", "retry_limit", "auth_type"),
    *("subject_template", "html_content_template"),
    *_OAUTH_KEYS,
)
_STARTTLS_PORTS = (25, 587)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What becomes of one connection.

    Args:
        conn_id: its id.
        new_id: the id of ours.
        connection: ours, as Airflow's JSON form, without its password; None: it cannot be converted.
        password: its password; None: ours has none.
        reason: why it cannot be converted, and what to do.
        notes: what differs, and what was left out.
    """

    conn_id: str
    new_id: str
    connection: Mapping[str, Any] | None = None
    password: str | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Conversion of {self.conn_id}>"  # the other fields may hold secrets


def convert(connection: object, *, basic_as: AuthMode | None) -> Conversion:
    """Convert one connection.

    Args:
        connection: any object with the attributes of an Airflow connection.
        basic_as: what a sign-in by a password becomes; None: such a connection is not converted.
    """
    conn_id = str(getattr(connection, "conn_id", None) or "")
    new_id = "smtpcm_default" if conn_id == "smtp_default" else f"{conn_id}_smtpcm"
    notes: list[str] = []
    try:
        settings, description = _convert_settings(connection, basic_as=basic_as, notes=notes)
        manager = SmtpConnectionManager(**settings)
    except _NotConvertibleError as error:
        return Conversion(conn_id=conn_id, new_id=new_id, reason=str(error))
    except ConnectionSettingsError as error:
        return Conversion(conn_id=conn_id, new_id=new_id, reason=" ".join(error.faults))
    made = manager.to_airflow()
    password = made.pop("password", None)
    if description:
        made = {"conn_type": made.pop("conn_type"), "description": description, **made}
    return Conversion(
        conn_id=conn_id,
        new_id=new_id,
        connection=made,
        password=None if password is None else str(password),
        notes=(*notes, *manager.warnings),
    )


class _NotConvertibleError(Exception):
    pass


def _convert_settings(
    connection: object, *, basic_as: AuthMode | None, notes: list[str]
) -> tuple[dict[str, Any], str | None]:
    """Return the settings of ours, and the description; add to the notes what differs.

    Raises:
        _NotConvertibleError: why not.
    """
    conn_type = getattr(connection, "conn_type", None)
    if conn_type != _CONN_TYPE:
        raise _NotConvertibleError(f"Its type is '{conn_type}', not '{_CONN_TYPE}'.")
    extra = _read_extra(connection)
    settings: dict[str, Any] = {
        "host": getattr(connection, "host", None),
        "port": getattr(connection, "port", None) or 0,
        "ssl_mode": _convert_tls(extra, getattr(connection, "port", None), notes),
        **_convert_account(connection, extra, basic_as, notes),
    }
    renamed = {"from_email": "from_address", "subject_template": "subject_file", "html_content_template": "html_file"}
    for name, new_name in {**renamed, "timeout": "timeout"}.items():
        if extra.get(name) not in (None, ""):
            settings[new_name] = extra[name]
    if settings["ssl_mode"] is SslMode.NONE or extra.get("ssl_context") in (None, "", "default"):
        pass
    elif extra["ssl_context"] == "none":
        settings["verify_certificate"] = False
    else:
        raise _NotConvertibleError("Its ssl_context is neither 'default' nor 'none', which the SMTP provider refuses.")
    if extra.get("retry_limit") not in (None, "", 5):
        notes.append("retry_limit has no equal: a mail is retried for the seconds of 'retry_for' of the operator.")
    if unknown := [key for key in extra if key not in _KNOWN_KEYS]:
        notes.append(f"{len(unknown)} more of its extras, which the SMTP provider does not use, were left out.")
    return settings, getattr(connection, "description", None)


def _read_extra(connection: object) -> dict[str, Any]:
    extra = getattr(connection, "extra", None)
    try:
        value = json.loads(extra) if isinstance(extra, str) and extra.strip() else extra or {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _NotConvertibleError("Its extra is not a JSON object.")
    return value


def _convert_tls(extra: Mapping[str, Any], port: object, notes: list[str]) -> SslMode:
    """Return the SSL mode. The SMTP provider takes any text for true, even 'false', so that a URI disables TLS."""
    has_ssl, has_starttls = not bool(extra.get("disable_ssl")), not bool(extra.get("disable_tls"))
    for name in ("disable_ssl", "disable_tls"):
        value = extra.get(name)
        if isinstance(value, str) and value.strip().lower() in ("false", "0", "no", "off"):
            notes.append(f"{name} is the text '{value.strip().lower()}', which the SMTP provider takes for true.")
    if has_ssl and has_starttls:
        hint = (
            f" A server on port {port} usually expects STARTTLS: change ssl_mode to 'starttls' if so."
            if port in _STARTTLS_PORTS
            else ""
        )
        notes.append(f"It has both SSL and TLS on, which no server accepts; ours has implicit TLS.{hint}")
    if has_ssl:
        return SslMode.IMPLICIT
    return SslMode.STARTTLS if has_starttls else SslMode.NONE


def _convert_account(
    connection: object, extra: Mapping[str, Any], basic_as: AuthMode | None, notes: list[str]
) -> dict[str, Any]:
    """Return the settings of the account.

    Raises:
        _NotConvertibleError: it signs in by OAuth, or by a password and `basic_as` is None.
    """
    login, password = getattr(connection, "login", None), getattr(connection, "password", None)
    if extra.get("auth_type") == "oauth2":
        raise _NotConvertibleError(
            "It signs in by OAuth, which this package does not support. Keep it with the SMTP provider, or use a relay "
            "that needs no sign-in, such as a connector of Exchange Online."
        )
    if any(extra.get(key) for key in _OAUTH_KEYS):
        notes.append("Its settings of OAuth, which it does not use, were left out.")
    if not (login and password):
        if login or password:
            given = "user name" if login else "password"
            notes.append(f"Its {given} was left out: the SMTP provider signs in only with both.")
        return {"auth_mode": AuthMode.ANONYMOUS}
    if basic_as is None:
        raise _NotConvertibleError(
            "It signs in with a password (basic authentication), which this package never sends. If it is a Windows "
            "account of a server that offers NTLM or Kerberos, convert it with --basic-as windows. If the server takes "
            "anonymous mail from this network, use --basic-as anonymous. Otherwise keep it with the SMTP provider."
        )
    if basic_as is AuthMode.ANONYMOUS:
        notes.append("Its user name and password were left out: --basic-as anonymous.")
        return {"auth_mode": AuthMode.ANONYMOUS}
    return {"auth_mode": AuthMode.WINDOWS, "login": login, "password": password}


# --- The command.


def run_from_smtp(*, conn_ids: Sequence[str], output: str, basic_as: str | None, show_passwords: bool) -> int:
    """Convert connections and print them.

    Args:
        conn_ids: their ids; empty: all connections of type `smtp` in Airflow's database and in the environment.
        output: `text`: a report; `json`: a file for `airflow connections import`; `env`: environment variables. With
            the latter two, the report is printed to standard error.
        basic_as: `windows` or `anonymous`: what a sign-in by a password becomes; None: such a connection is left out.
        show_passwords: whether to print passwords; otherwise they are left out.

    Returns:
        The exit status. 0: all were converted. 1: some were not. 3: a connection does not exist, or there is none.
    """
    try:
        connections = [find_connection(conn_id) for conn_id in conn_ids] or find_connections_of_type(_CONN_TYPE)
    except MailError as error:
        print(f"from-smtp: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_NOT_FOUND
    if not connections:
        print(  # noqa: T201
            "from-smtp: there is no connection of type smtp in Airflow's database or in the environment; name those of "
            "a secrets backend.",
            file=sys.stderr,
        )
        return EXIT_NOT_FOUND
    mode = None if basic_as is None else AuthMode(basic_as)
    conversions = [convert(connection, basic_as=mode) for connection in connections]
    if output == "env":
        conversions = list(map(_check_variable, conversions))
    report = sys.stdout if output == "text" else sys.stderr
    encoding = report.encoding or "utf-8"  # a terminal may lack characters
    text = format_report(conversions, show_passwords=show_passwords).encode(encoding, "replace").decode(encoding)
    print(text, file=report)
    made = {
        conversion.new_id: _with_password(conversion, show=show_passwords)
        for conversion in conversions
        if conversion.connection is not None
    }
    if output == "json":
        print(json.dumps(made, indent=2))  # noqa: T201
    elif output == "env":
        for new_id, connection in made.items():
            print(f"export {_name_variable(new_id)}={shlex.quote(json.dumps(connection))}")  # noqa: T201
    return EXIT_OK if len(made) == len(conversions) else EXIT_NOT_ALL


def _name_variable(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _check_variable(conversion: Conversion) -> Conversion:
    """Return the conversion, or one that is left out if a shell cannot set the variable."""
    variable = _name_variable(conversion.new_id)
    if conversion.connection is None or re.fullmatch(r"[A-Z0-9_]+", variable):
        return conversion
    reason = f"No shell can set a variable with the name {variable}. Use --output json."
    return replace(conversion, connection=None, password=None, reason=reason)


def _with_password(conversion: Conversion, *, show: bool) -> dict[str, Any]:
    password = {"password": conversion.password} if show and conversion.password is not None else {}
    return {**(conversion.connection or {}), **password}


def format_report(conversions: Iterable[Conversion], *, show_passwords: bool) -> str:
    """Return what becomes of each connection, without any password."""
    email_conn_id = get_configuration("email", "email_conn_id")
    lines: list[str] = []
    for conversion in conversions:
        if conversion.connection is None:
            lines.append(f"{conversion.conn_id}: cannot be converted. {conversion.reason}")
            continue
        extra = ", ".join(f"{name}={value}" for name, value in conversion.connection["extra"].items())
        where = f"{conversion.connection['host']}:{conversion.connection['port']}"
        lines.append(f"{conversion.conn_id} -> {conversion.new_id}: {where}, {extra}")
        notes = list(conversion.notes)
        if conversion.password is not None and not show_passwords:
            notes.append("Its password is left out: enter it in Airflow, or add --show-passwords.")
        if conversion.conn_id == email_conn_id and conversion.new_id != "smtpcm_default":
            notes.append(f"[email] email_conn_id names it: set that to {conversion.new_id}, with our email_backend.")
        lines += [f"  - {note}" for note in notes]
    return remove_control_characters("\n".join(lines))
