"""The SMTP connection manager: a frozen definition of a mail server, as SSIS has one. No network, no Airflow."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from airflow_provider_smtpcm.connection_manager.faults import Faults
from airflow_provider_smtpcm.connection_manager.fields import (
    FIELDS,
    AuthMode,
    ChannelBinding,
    SslMode,
    WindowsProtocol,
)
from airflow_provider_smtpcm.connection_manager.parse import Settings, parse_extra, parse_settings, split_host_and_port
from airflow_provider_smtpcm.errors import ConnectionSettingsError
from airflow_provider_smtpcm.frozen_dataclasses import Record

#: Windows' name for the accounts of a machine itself, here those of the mail server: `.\alice`.
LOCAL_DOMAIN = "."

# What was not given has its default after parsing.
_NOT_GIVEN: Any = None
_DEFAULTS = {setting.name: setting.default for setting in FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmtpConnectionManager(Record):
    """A named definition of a mail server.

    Every argument may also be text that can be read without ambiguity (`"true"`, `"30"`, `"starttls"`). The repr
    omits all free text except the host, since it may be a password in the wrong field.

    Args:
        host: like all arguments that are not listed here, see its entry in `STANDARD_FIELDS` or `FIELDS`.
        port: 0 becomes 25, or 465 with implicit TLS. `dataclasses.replace` keeps the port, so pass `port=0` with
            another `ssl_mode`.
        timeout: seconds, from 1 to 3600.
        final_reply_timeout: seconds, from 1 to 3600.
        unknown_properties: pairs of an SSIS connection string that SSIS does not define.
        notes: warnings from parsing; ignored in comparisons.
        is_binding_required: whether a sign-in fails if `channel_binding` is not defined for the server's certificate.
            By default it does if `channel_binding` is given. Ignored in comparisons.

    Raises:
        ConnectionSettingsError: lists all faults at once, by their form labels.
    """

    connection_manager_type: ClassVar[str] = "SMTP"

    host: str
    port: int = 0
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    auth_mode: AuthMode = AuthMode.ANONYMOUS
    ssl_mode: SslMode = SslMode.STARTTLS
    ca_certificate: str | None = field(default=None, repr=False)
    from_address: str | None = field(default=None, repr=False)
    reply_to: str | None = field(default=None, repr=False)
    windows_protocol: WindowsProtocol = WindowsProtocol.NEGOTIATE
    domain: str | None = field(default=None, repr=False)
    keytab: str | None = field(default=None, repr=False)
    ccache: str | None = field(default=None, repr=False)
    spn: str | None = field(default=None, repr=False)
    channel_binding: ChannelBinding = _NOT_GIVEN
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    verify_certificate: bool = True
    timeout: float = 30.0
    final_reply_timeout: float = 600.0
    binary_mime: bool = False
    envelope_from: str | None = field(default=None, repr=False)
    subject_file: str | None = field(default=None, repr=False)
    html_file: str | None = field(default=None, repr=False)
    fallback_hosts: str | None = field(default=None, repr=False)
    local_hostname: str | None = field(default=None, repr=False)
    unknown_properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)
    is_binding_required: bool = field(default=_NOT_GIVEN, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = Faults()
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        settings = parse_settings({**values, "port": self.port or None}, faults)
        if faults:
            del values, settings  # they hold the password, and error trackers record the variables of each frame
            raise ConnectionSettingsError([str(fault) for fault in faults])
        _set_fields(self, settings)

    @classmethod
    def from_connection_string(cls, connection_string: str) -> Self:
        """Parse an SSIS connection string, such as `SmtpServer=mail;UseWindowsAuthentication=True;EnableSsl=True;`.

        Args:
            connection_string: a missing key means the default of this package; Timeout is in milliseconds.

        Raises:
            ConnectionSettingsError: it is malformed, or holds `UserName` or `Password`, which SSIS's connection manager
                does not have. Their values are not repeated.
        """
        faults = Faults()
        settings = parse_settings({"ssis_properties": connection_string}, faults)
        del connection_string
        return cls._from_settings(settings, faults)

    @classmethod
    def from_airflow(cls, connection: object) -> Self:
        """Parse an Airflow connection.

        Args:
            connection: any object with the attributes `host`, `port`, `login`, `password` and `extra` (JSON text or a
                mapping); a missing attribute counts as empty.

        Raises:
            ConnectionSettingsError: lists all faults at once, by their form labels.
        """
        faults = Faults()
        conn_id = getattr(connection, "conn_id", None)
        values = parse_extra(getattr(connection, "extra", None), faults)
        for name in ("host", "port", "login", "password"):
            values[name] = getattr(connection, name, None)
        settings = parse_settings(values, faults)
        del connection, values  # as in `__post_init__`
        return cls._from_settings(settings, faults, conn_id)

    @classmethod
    def _from_settings(cls, settings: Settings, faults: Faults, conn_id: str | None = None) -> Self:
        """Create a manager from parsed settings; `__init__` would parse them again."""
        if faults:
            settings.clear()  # as in `__post_init__`: the caller has this dict too
            raise ConnectionSettingsError([str(fault) for fault in faults], conn_id=conn_id)
        if cls is not SmtpConnectionManager:
            values: dict[str, Any] = dict(settings)
            return cls(**values)  # a subclass may check more
        manager = object.__new__(cls)
        _set_fields(manager, settings)
        return manager

    def to_airflow(self) -> dict[str, object]:
        """Return the dict of Airflow's JSON form, for `airflow connections add --conn-json` and `connections import`.

        It includes the password.
        """
        extra: dict[str, object] = {"auth_mode": str(self.auth_mode), "ssl_mode": str(self.ssl_mode)}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, None)
            is_required_binding = name == "channel_binding" and self.is_binding_required
            if name not in extra and (value != default or is_required_binding):
                if isinstance(value, float) and value.is_integer():
                    value = int(value)  # seconds as a person writes them: 20, not 20.0
                extra[name] = str(value) if isinstance(value, str) else value
        if self.unknown_properties:
            extra["ssis_properties"] = "".join(f"{key}={value};" for key, value in self.unknown_properties)
        account = {"login": self.login, "password": self.password} if self.login else {}
        return {"conn_type": "smtpcm", "host": self.host, "port": self.port, **account, "extra": extra}

    @property
    def connection_string(self) -> str:
        """The SSIS connection string: SSIS's properties in SSIS's order, without account, port or certificates."""
        from airflow_provider_smtpcm.connection_manager.ssis_properties import SsisProperties, format_ssis_properties

        return format_ssis_properties(
            SsisProperties(
                server=self.host,
                windows_authentication=self.auth_mode is AuthMode.WINDOWS,
                enable_ssl=self.ssl_mode is not SslMode.NONE,
                timeout=self.timeout if self.timeout != _DEFAULTS["timeout"] else None,
                unknown=self.unknown_properties,
            )
        )

    @property
    def may_use_kerberos(self) -> bool:
        """Whether signing in may request a ticket from a KDC."""
        return self.auth_mode is AuthMode.WINDOWS and self.windows_protocol is not WindowsProtocol.NTLM

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each setting that is allowed, since it is explicit, but weak or without effect."""
        weak: list[str] = []
        if self.auth_mode is AuthMode.WINDOWS and self.ssl_mode is SslMode.NONE:
            weak.append(
                "Windows Authentication in clear text (ssl_mode 'none'): anyone on the network path can relay the "
                "sign-in and try passwords against it; set ssl_mode to 'starttls'."
            )
        if self.ssl_mode is not SslMode.NONE and not self.verify_certificate:
            weak.append(
                "The server's certificate is not verified (verify_certificate false), so anyone on the network path "
                "can impersonate the server; give its certificate authority as ca_certificate instead."
            )
        return (*self.notes, *weak)

    def list_servers(self) -> tuple[Self, ...]:
        """Return a manager for each server: this one, then one for each of `fallback_hosts`, which they lack.

        They differ in host and port. A spelled-out SPN names the host that it is for, so the others have none.
        """
        servers = [replace(self, fallback_hosts=None)]
        for entry in (self.fallback_hosts or "").split(";"):
            if entry:
                host, port = split_host_and_port(entry)
                changes: dict[str, Any] = {"host": host, "port": int(port) if port else self.port, "spn": None}
                servers.append(replace(servers[0], **changes, notes=()))
        return tuple(servers)

    @property
    def server_name(self) -> str:
        """The host as in certificates and Kerberos: without the dot that ends a fully qualified name."""
        return self.host.removesuffix(".")

    @property
    def account(self) -> str | None:
        r"""The Windows account for NTLM: the login, as `DOMAIN\login` if only `domain` names it; None: no login.

        As in Windows, a UPN (`user@corp.example`) is an account by itself, and a domain beside it is not sent.
        """
        if self.login and self.domain and "\\" not in self.login and "@" not in self.login:
            return f"{self.domain}\\{self.login}"
        return self.login


# Sets a field of the frozen class: ten times as fast as `object.__setattr__`.
_SETTERS = {item.name: getattr(SmtpConnectionManager, item.name).__set__ for item in fields(SmtpConnectionManager)}


def _set_fields(manager: SmtpConnectionManager, settings: Settings) -> None:
    for name, set_field in _SETTERS.items():
        set_field(manager, settings[name])
