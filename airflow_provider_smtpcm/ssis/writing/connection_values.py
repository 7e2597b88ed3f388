"""What an SMTP connection manager says: its connection string, its expressions, and what its project sets.

An expression wins over what is set; where its value is not known, the value beside it, which is the developer's, is not
taken.
"""

from __future__ import annotations

import re

from airflow_provider_smtpcm.connection_manager.ssis_properties import named_key
from airflow_provider_smtpcm.ssis.clean import clean
from airflow_provider_smtpcm.ssis.expressions import ExpressionError
from airflow_provider_smtpcm.ssis.package import SmtpConnection
from airflow_provider_smtpcm.ssis.writing.accounts import shown
from airflow_provider_smtpcm.ssis.writing.declared import Scope
from airflow_provider_smtpcm.ssis.writing.names import listed
from airflow_provider_smtpcm.ssis.writing.outcome import Findings
from airflow_provider_smtpcm.ssis.writing.visible import Names

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
            others.add(named_key(key, position + 1))
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
