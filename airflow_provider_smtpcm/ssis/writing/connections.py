"""Converts connection managers to Airflow connections: one for equal settings, whatever its name in each package.

The id of a connection depends on its settings alone (`smtp_mail_corp_example_windows`). So the same server in 400
packages is one connection, in whatever order they are read.

An expression takes precedence over the connection string, which has what the developer's machine evaluated last. If the
files do not contain the value of the expression, the import asks for it; until `questions.csv` has the answer, the
connection has the value from the connection string. The literals of such an expression count in any case.
"""

from __future__ import annotations

import json
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.connection_manager.ssis_properties import describe_key, parse_ssis_properties
from airflow_provider_smtpcm.errors import ConnectionSettingsError
from airflow_provider_smtpcm.ssis.expressions import ExpressionError, Literal, Operation, merge_strings, parse
from airflow_provider_smtpcm.ssis.findings import CONNECTION_MANAGERS, KEEP, Findings, Question
from airflow_provider_smtpcm.ssis.model import DatabaseConnection, Finding, SmtpConnection
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.python_source import UniqueNames, quoted_list, slug
from airflow_provider_smtpcm.ssis.writing.secrets import display_expression, name_for_id, sanitize, sanitize_line
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, SymbolTable

UNKNOWN_HOST = "to-be-completed.invalid"
_SMTP_PORT, _DEFAULT_TIMEOUT, _MAX_TIMEOUT = 25, 30, 3600
CONNECTION_STRING = "ConnectionString"
_PROPERTIES = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_BY_LOWER_NAME = {name.lower(): name for name in _PROPERTIES}
_CREDENTIAL_KEY = re.compile(r"user|uid|login|pass|pwd|secret|token", re.IGNORECASE)
_HOST = re.compile(r"[\w.:-]+")
_HOST_AND_PORT = re.compile(r"([^:\s]+):(\d{1,5})(?::.*)?")
_UNKNOWN = "\0"
# Per connection: the connection managers of 400 packages cause the same findings over and over.
_MAX_FINDINGS_PER_CODE = 3


class ConnectionSettings(Protocol):
    """The settings of an Airflow connection."""

    def to_airflow(self) -> dict[str, object]:
        """Return the connection in Airflow's JSON form."""


ManagerT = TypeVar("ManagerT", SmtpConnection, DatabaseConnection)
SettingsT = TypeVar("SettingsT", bound=ConnectionSettings)


@dataclass(slots=True, kw_only=True)
class ConvertedConnection(Generic[SettingsT]):
    """An Airflow connection, with the connection managers that were converted to it.

    Args:
        sources: the file and the name of each connection manager.
        findings: at most three of each code, and at least one for each question; a dict as an ordered set.
    """

    conn_id: str
    settings: SettingsT
    sources: list[str] = field(default_factory=list)
    findings: dict[Finding, None] = field(default_factory=dict)


class ConnectionRegistry:
    """The connections of one import.

    Args:
        options: the options of the import.
    """

    def __init__(self, options: ConversionOptions) -> None:
        self._by_settings: dict[object, ConvertedConnection[Any]] = {}
        self._conn_ids = UniqueNames()
        #: The names in `--windows-auth` that no connection manager has had so far.
        self.unknown_names = {name.lower(): name for name in options.windows_auth_by_name}

    def register(self, converter: ManagerConverter[Any, SettingsT]) -> str:
        """Convert a connection manager; return the id of its Airflow connection."""
        if isinstance(converter, SmtpConverter):
            self.unknown_names.pop(converter.name.lower(), None)
        settings = converter.convert()
        # If the server is only known at run time, two managers with the same stored server may use different ones.
        key = (*converter.make_key(settings), *converter.open_questions)
        if key not in self._by_settings:
            conn_id = self._conn_ids.allocate(converter.make_conn_id(settings))
            self._by_settings[key] = ConvertedConnection(conn_id=conn_id, settings=settings)
        converted = self._by_settings[key]
        if converter.source not in converted.sources:
            converted.sources.append(converter.source)
        converter.report_became(converted)
        for finding in converter.findings.all():
            is_asked = finding.question in {existing.question for existing in converted.findings}
            if (finding.question is not None and not is_asked) or sum(
                existing.code == finding.code for existing in converted.findings
            ) < _MAX_FINDINGS_PER_CODE:
                converted.findings[finding] = None
        return converted.conn_id

    @property
    def connections(self) -> tuple[ConvertedConnection[Any], ...]:
        """The connections so far, sorted by id; those to mail servers come first."""

        def rank(connection: ConvertedConnection[Any]) -> tuple[bool, str]:
            return not isinstance(connection.settings, SmtpConnectionManager), connection.conn_id

        return tuple(sorted(self._by_settings.values(), key=rank))

    def to_json(self) -> str:
        """Return the text of the file for `airflow connections import`; empty if there is no connection."""
        by_id = {connection.conn_id: connection.settings.to_airflow() for connection in self.connections}
        return json.dumps(by_id, indent=2, ensure_ascii=False) + "\n" if by_id else ""


class ManagerConverter(ABC, Generic[ManagerT, SettingsT]):
    """Converts one connection manager.

    Args:
        manager: the connection manager.
        symbols, scope: resolve the names in its expressions.
        options: the options of the import.

    Attributes:
        source: the file and the name of the connection manager.
        findings: the findings about the connection manager.
        asked: the properties with an expression whose value is not in the files.
        open_questions: the keys of the unanswered questions about these expressions.
    """

    def __init__(self, manager: ManagerT, symbols: SymbolTable, scope: Scope, options: ConversionOptions) -> None:
        self._manager: ManagerT = manager
        self._symbols, self._scope, self._options = symbols, scope, options
        self._where = f"{CONNECTION_MANAGERS}{manager.name}"
        self.name = manager.name
        self.source = f"{manager.source}: {manager.name}" if manager.source else manager.name
        self.findings = Findings(options.answers)
        self.asked: set[str] = set()
        self.open_questions: list[str] = []

    @abstractmethod
    def convert(self) -> SettingsT:
        """Return the settings of the connection."""

    @abstractmethod
    def make_key(self, settings: SettingsT) -> tuple[object, ...]:
        """Return a key; connection managers with equal keys share a connection."""

    @abstractmethod
    def make_conn_id(self, settings: SettingsT) -> str:
        """Return the preferred id of the connection; it gets a number appended if another connection has it."""

    @abstractmethod
    def report_became(self, converted: ConvertedConnection[SettingsT]) -> None:
        """Add the findings about the resulting connection."""

    @abstractmethod
    def _has_server(self, connection_string: str) -> bool:
        """Whether a connection string has a server."""

    def _evaluate(self, name: str, noun: str, stored: str, *, is_server: bool) -> str | None:
        """Return the value of a property's expression; None if it has none, or if the value in the package is used.

        Args:
            name: the property, such as `SmtpServer`.
            noun: what the property is, for the question.
            stored: the value in the package.
            is_server: whether the property is, or contains, the server.
        """
        if (expression := self._manager.expressions.get(name)) is None:
            return None
        display = display_expression(expression)
        reason = "something sets it in each run."
        try:
            value = self._symbols.evaluate(expression, self._scope)
        except (ExpressionError, RecursionError) as error:
            value, reason = "", sanitize(str(error)).splitlines()[0]
        if not (self._has_server(value) if name == CONNECTION_STRING else value.strip()):
            return self._ask(name, noun, display, reason, sanitize_line(stored), is_server=is_server)
        self._note(
            "connection-expression",
            f"{name} comes from the expression {display}; the connection has its value from the files. The "
            "environments of the SSIS catalog, which are not in the files, may set another one.",
        )
        for parameter in self._symbols.configured_parameters(expression, self._scope):
            self._decision(
                "project-configuration",
                f"{name} comes from {parameter.qualified_name}, for which these configurations of the project set a "
                f"value other than the one used here: {quoted_list(parameter.configured_in)}.",
                "Look up which configuration is deployed, and check that the Airflow connection has its value.",
            )
        return value

    def _ask(self, name: str, noun: str, display: str, reason: str, guess: str, *, is_server: bool) -> str | None:
        """Ask for the value of a property's expression; return the answer, or None for the value in the package."""
        question = Question(
            key=f"{'server' if is_server else name} of {display}" + (f", stored as {guess}" if guess else ""),
            text=f"Which {noun} does the expression {display} give in production? Answer with it, or {KEEP} "
            + ("for the guess." if guess else "to complete the connection in Airflow yourself."),
            guess=guess,
        )
        used = "The package stores none."
        if guess:
            used = f"The connection has {guess!r}, which the package stores: the last value on the developer's machine."
        self._decision(
            "connection-expression",
            f"{name} comes from the expression {display}, whose value is not in the files: {reason} {used}",
            "Answer the question, or set it in the Airflow connection.",
            question,
        )
        self.asked.add(name)
        answer = self.findings.answer(question.key)
        if answer is None:
            self.open_questions.append(question.key)
        return None if answer is None or answer.strip().lower() == KEEP else answer.strip()

    def _needs_literals(self, connection_string: str | None) -> bool:
        """Whether the result of `_evaluate` tells nothing but the server, since the files lack its value.

        In this case the other properties are what the expression says as literals, or else what is stored.
        """
        return CONNECTION_STRING in self.asked and (connection_string is None or "=" not in connection_string)

    def _read_literals(self) -> str:
        """Return the expression of the connection string, with `_UNKNOWN` for each operand that is no literal."""
        try:
            tree = parse(self._manager.expressions[CONNECTION_STRING])
            tree = merge_strings(self._symbols.inline(tree, self._scope))
        except (ExpressionError, RecursionError):
            return ""
        operands = tree.operands if isinstance(tree, Operation) and tree.is_sum else (tree,)
        return "".join(
            each.value if isinstance(each, Literal) and isinstance(each.value, str) else _UNKNOWN for each in operands
        )

    def _note(self, code: str, text: str, remedy: str = "") -> None:
        self.findings.note(code, self._where, text, remedy)

    def _decision(self, code: str, text: str, remedy: str, question: Question | None = None) -> None:
        self.findings.decision(code, self._where, text, remedy, question)


class SmtpConverter(ManagerConverter[SmtpConnection, SmtpConnectionManager]):
    """Converts an SMTP connection manager."""

    @property
    def _windows_auth(self) -> WindowsAuth | None:
        """What to do with UseWindowsAuthentication=True; None if the user has not decided."""
        by_name = {name.lower(): mode for name, mode in self._options.windows_auth_by_name.items()}
        return by_name.get(self.name.lower(), self._options.windows_auth)

    def convert(self) -> SmtpConnectionManager:
        values = self._read_values()
        self._report_project_settings()
        properties = parse_ssis_properties("".join(f"{name}={value};" for name, value in values.items()))
        for fault in properties.faults:
            self._decision("connection-manager-property", str(fault), "Set it in the Airflow connection.")
        for warning in properties.warnings:
            self._note("connection-manager-property", warning)
        host, port = self._read_host(properties.server)
        is_windows = bool(properties.windows_authentication) and self._keeps_windows_auth(host)
        settings: dict[str, object] = {
            "port": port,
            "auth_mode": AuthMode.WINDOWS if is_windows else AuthMode.ANONYMOUS,
            "ssl_mode": SslMode.STARTTLS if properties.enable_ssl else SslMode.NONE,
        }
        if properties.timeout is not None:
            settings["timeout"] = properties.timeout
        # A setting that is not valid is replaced, and the others are kept.
        first_error: ConnectionSettingsError | None = None
        for replaced in ({}, {"timeout": _MAX_TIMEOUT}, {"host": UNKNOWN_HOST, "port": _SMTP_PORT}):
            try:
                manager = SmtpConnectionManager(**{"host": host, **settings, **replaced})  # type: ignore[arg-type]
            except ConnectionSettingsError as error:
                first_error = first_error or error
                continue
            if first_error is not None:
                self._decision(
                    "connection-manager-invalid",
                    f"The settings of the connection manager are not valid: {sanitize(str(first_error))}",
                    "Complete the Airflow connection.",
                )
            return manager
        return SmtpConnectionManager(host=UNKNOWN_HOST, ssl_mode=SslMode.NONE)

    def _keeps_windows_auth(self, host: str) -> bool:
        """Whether a connection with UseWindowsAuthentication=True signs in; report it if not."""
        text = f"{self.name!r} has UseWindowsAuthentication=True; "
        if self._windows_auth is WindowsAuth.ANONYMOUS:
            self._note("windows-auth-dropped", f"{text}because of --windows-auth, the connection is anonymous.")
        elif self._windows_auth is None and self.findings.value(self._ask_for_windows_auth(host).key) is not None:
            text += "the connection is anonymous."
            self._decision("windows-auth-dropped", text, "", self._ask_for_windows_auth(host))
        else:
            return True
        return False

    def _ask_for_windows_auth(self, host: str) -> Question:
        # The question shows only what looks like a host: anything else may be a password in the wrong place.
        server = host if _HOST.fullmatch(host) and host != UNKNOWN_HOST else self.name
        how = (
            "If a server does not offer it, SSIS sends without a sign-in and without a warning. "
            f"Answer {KEEP} to sign in with Windows Authentication, or anonymous to send without a sign-in. "
            "To find out, import the connections into Airflow, and run airflow smtpcm check CONN_ID."
        )
        return Question(
            key=f"windows authentication of {server}",
            text=f"Does the mail server {server} accept Windows Authentication from the accounts that run the "
            f"packages? {how}",
            guess=KEEP,
            subject=server,
            shared_text="Does each of these mail servers accept Windows Authentication from the accounts that run the "
            f"packages? {how}",
        )

    def make_key(self, settings: SmtpConnectionManager) -> tuple[object, ...]:
        key = (settings.host, settings.port, settings.auth_mode, settings.ssl_mode, settings.timeout)
        return (*key, self.name.lower()) if settings.host == UNKNOWN_HOST else key

    def make_conn_id(self, settings: SmtpConnectionManager) -> str:
        if settings.host == UNKNOWN_HOST:
            words = slug(name_for_id(self.name), "mail")
            return words if words.startswith("smtp") else f"smtp_{words}"
        parts = [f"smtp_{slug(settings.host, 'server')}"]
        parts += [f"port_{settings.port}"] if settings.port != _SMTP_PORT else []
        parts += ["windows"] if settings.auth_mode is AuthMode.WINDOWS else []
        parts += ["ssl"] if settings.ssl_mode is not SslMode.NONE else []
        parts += [f"timeout_{settings.timeout:g}".replace(".", "_")] if settings.timeout != _DEFAULT_TIMEOUT else []
        return "_".join(parts)

    def report_became(self, converted: ConvertedConnection[SmtpConnectionManager]) -> None:
        name, conn_id = self.name, converted.conn_id
        self._note(
            "connection-manager-became",
            f"The SMTP connection manager {name!r} became the Airflow connection {conn_id!r}.",
        )
        if converted.settings.auth_mode is not AuthMode.WINDOWS:
            return
        text = (
            f"{name!r} has UseWindowsAuthentication=True, so {conn_id!r} signs in with Windows Authentication, or "
            "fails. If the server does not offer it, SSIS sends without a sign-in and without a warning; many relays "
            "accept such mail."
        )
        remedy = (
            f"Run airflow smtpcm check {conn_id} to see what the server offers. If it offers no "
            f"Windows Authentication, import again with --windows-auth {shlex.quote(f'anonymous={name}')}, or set "
            "auth_mode to anonymous."
        )
        if self._windows_auth is None:
            self._decision("windows-auth-kept", text, remedy, self._ask_for_windows_auth(converted.settings.host))
        else:
            self._note("windows-auth-kept", text, remedy)

    def _read_values(self) -> Mapping[str, str]:
        """Return the properties by name; an expression takes precedence over the connection string."""
        text = self._manager.connection_string
        stored, _, _ = _split_properties(text)
        server = stored.get("SmtpServer", "")
        value = self._evaluate(CONNECTION_STRING, "mail server", server, is_server=True)
        values, has_credentials, others = _split_properties(text if value is None else value)
        if self._needs_literals(value):
            written, in_expression, _ = _split_properties(self._read_literals())
            values = {**stored, **only_known(written), **({} if value is None else values)}
            has_credentials = has_credentials or in_expression
        for name in _PROPERTIES:
            is_server = name == "SmtpServer"
            noun = "mail server" if is_server else name
            if (value := self._evaluate(name, noun, stored.get(name, ""), is_server=is_server)) is not None:
                # SSIS takes the value of the expression as it is; it cannot add further properties.
                values[name] = value.strip().partition(";")[0]
        if has_credentials:
            self._decision(
                "account-in-connection-manager",
                "The connection string contains credentials, for which SSIS has no property. They were not copied to "
                "the Airflow connection, and are not shown here.",
                "Change the password: everyone who has the package can read it. If the server requires a sign-in, use "
                "auth_mode windows.",
            )
        if others:
            keys = ", ".join(sorted(others))
            self._note("unknown-connection-property", f"Properties that SSIS does not define were left out: {keys}.")
        return values

    def _has_server(self, connection_string: str) -> bool:
        return bool(_split_properties(connection_string)[0].get("SmtpServer", "").strip())

    def _read_host(self, server: str | None) -> tuple[str, int]:
        """Return the host and the port from the SmtpServer property; an unknown server becomes `UNKNOWN_HOST`."""
        if not server:
            question = Question(
                key=f"server of {self.name}",
                text=f"Which mail server does the connection manager {self.name!r} use? The packages have "
                f"none, and SSIS fails there. Answer with it, or {KEEP} to complete the connection in Airflow "
                "yourself.",
            )
            if any(key.startswith("server of ") for key in self.open_questions):
                return UNKNOWN_HOST, _SMTP_PORT
            self._decision(
                "no-smtp-server",
                f"SmtpServer is empty; SSIS fails here. The connection has the placeholder {UNKNOWN_HOST!r}.",
                "Answer the question, or enter the mail server in the Airflow connection.",
                question,
            )
            server = self.findings.value(question.key)
            if server is None:
                return UNKNOWN_HOST, _SMTP_PORT
        match = _HOST_AND_PORT.fullmatch(server)
        if match is None or not 0 < int(match[2]) < 65536:
            return server.lower(), _SMTP_PORT
        self._decision(
            "port-in-smtp-server",
            f"SmtpServer has a port after the name. SSIS accepts no port there and always uses 25; the connection has "
            f"port {match[2]}.",
            "Check whether that port is meant; for 465, set ssl_mode to implicit.",
            Question(
                key=f"port {match[2]} in SmtpServer",
                text=f"SmtpServer has the port {match[2]} after the name, but SSIS accepts no port there and uses 25. "
                f"The connection has that port. Answer {KEEP} if it is meant; for 465, set ssl_mode to implicit there.",
                guess=KEEP,
            ),
        )
        return match[1].lower(), int(match[2])

    def _report_project_settings(self) -> None:
        """Report the properties that the project overrides, unless an expression takes precedence."""
        manager = self._manager
        if CONNECTION_STRING in manager.expressions:
            return
        for setting in manager.set_by:
            if setting.property in manager.expressions:
                continue
            text = f"The parameter {setting.by} in {setting.source} sets {setting.property} of {manager.name!r}"
            if setting.contradicted:
                self._decision(
                    "connection-parameter",
                    f"{text}, and the parameter for its ConnectionString sets another value; the value of {setting.by} "
                    "was used.",
                    "Look up which of the two applies where the project is deployed.",
                )
            else:
                text += "; the connection has that value, not the one in the connection manager itself."
                self._note("connection-parameter", text)
        for setting in manager.configured:
            if setting.property not in manager.expressions:
                self._decision(
                    "project-configuration",
                    f"For {setting.property} of {manager.name!r}, these configurations in {setting.source} set a "
                    f"value other than the one used here: {setting.by}.",
                    "Look up which configuration is deployed, and check that the Airflow connection has its value.",
                )


def only_known(values: Mapping[str, str]) -> dict[str, str]:
    """Return the properties of a connection string from `_read_literals` that have no unknown part."""
    return {name: value for name, value in values.items() if _UNKNOWN not in value}


def known_properties(connection_string: str) -> str:
    """Return a connection string with only the properties that SSIS defines, so without credentials."""
    return "".join(f"{name}={value};" for name, value in _split_properties(connection_string)[0].items())


def _split_properties(text: str) -> tuple[dict[str, str], bool, set[str]]:
    """Return the properties that SSIS defines, whether others contain credentials, and the names of the others."""
    values: dict[str, str] = {}
    others: set[str] = set()
    has_credentials = False
    for position, part in enumerate(text.split(";")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not part.strip():
            continue
        if not equals:
            # Elsewhere it may be the rest of a password that contains a semicolon.
            if position == 0:
                values["SmtpServer"] = key
        elif key.lower() in _BY_LOWER_NAME:
            values.setdefault(_BY_LOWER_NAME[key.lower()], value)
        elif _CREDENTIAL_KEY.search(key):
            has_credentials = True
        elif not has_credentials:
            others.add(describe_key(key, position + 1))
    return values, has_credentials, others
