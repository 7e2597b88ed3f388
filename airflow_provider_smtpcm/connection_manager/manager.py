"""The SMTP connection manager itself: a frozen definition of a mail server. Knows no network and no Airflow."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

from airflow_provider_smtpcm.connection_manager.faults import Faults
from airflow_provider_smtpcm.connection_manager.fields import FIELDS, AuthMode, ChannelBinding, SslMode, WindowsProtocol
from airflow_provider_smtpcm.connection_manager.parse import read_extra, settle
from airflow_provider_smtpcm.connection_manager.ssis_properties import SsisProperties, format_ssis_properties
from airflow_provider_smtpcm.errors import ConnectionSettingsError

_DEFAULTS = {setting.name: setting.default for setting in FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpConnectionManager:
    """A named definition of a mail server, as SSIS's SMTP connection manager is one.

    Each argument is explained by its entry in `FIELDS` and `STANDARD_FIELDS`; text is accepted wherever it can be read
    without doubt. `unknown_properties` come from an SSIS connection string, `notes` from there and from unknown extras.
    A port of 0 becomes 25, or 465 where SSL is implicit; `dataclasses.replace` keeps the port, so give `port=0` beside
    another `ssl_mode`. The repr leaves out all free text but the host: it may be a password in the wrong field.

    Raises:
        ConnectionSettingsError: names all faults at once, by their form labels.
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
    channel_binding: ChannelBinding = ChannelBinding.TLS_SERVER_END_POINT
    verify_certificate: bool = True
    timeout: float = 30.0
    final_reply_timeout: float = 600.0
    binary_mime: bool = False
    local_hostname: str | None = field(default=None, repr=False)
    unknown_properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = Faults()
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        settled = settle({**values, "port": self.port or None}, faults)
        if faults:
            del values, settled  # error collectors record the variables of each frame, and there is a password in them
            raise ConnectionSettingsError([str(fault) for fault in faults])
        for item in fields(self):
            object.__setattr__(self, item.name, settled[item.name])

    @classmethod
    def from_connection_string(cls, connection_string: str) -> Self:
        """From SSIS's own string, such as `SmtpServer=mail.corp.example;UseWindowsAuthentication=True;EnableSsl=True;`.

        A key that the string lacks means this package's default; Timeout is in milliseconds. `UserName` and `Password`
        are refused without being repeated: SSIS's connection manager has none.
        """
        faults = Faults()
        settled = settle({"ssis_properties": connection_string}, faults)
        del connection_string
        return cls._made(settled, faults)

    @classmethod
    def from_airflow(cls, connection: object) -> Self:
        """From anything that has `host`, `port`, `login`, `password` and `extra`, such as an Airflow connection.

        Args:
            connection: `extra` may be JSON text or a mapping; an attribute that is missing counts as empty.
        """
        faults = Faults()
        conn_id = getattr(connection, "conn_id", None)
        values = read_extra(getattr(connection, "extra", None), faults)
        for name in ("host", "port", "login", "password"):
            values[name] = getattr(connection, name, None)
        settled = settle(values, faults)
        del connection, values  # as above: an Airflow connection shows its password
        return cls._made(settled, faults, conn_id)

    @classmethod
    def _made(cls, settled: dict[str, object], faults: Faults, conn_id: str | None = None) -> Self:
        """The manager of these settings; takes them out of the caller's hands."""
        if faults:
            settled.clear()
            raise ConnectionSettingsError([str(fault) for fault in faults], conn_id=conn_id)
        del settled["ssis_properties"]
        return cls(**settled)  # type: ignore[arg-type]

    def to_airflow(self) -> dict[str, object]:
        """The dict of Airflow's JSON form, for `airflow connections add --conn-json` and `airflow connections import`.

        It holds the password, as Airflow needs it.
        """
        extra: dict[str, object] = {"auth_mode": str(self.auth_mode), "ssl_mode": str(self.ssl_mode)}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, None)
            if name not in extra and value != default:
                extra[name] = str(value) if isinstance(value, str) else value
        if self.unknown_properties:
            extra["ssis_properties"] = "".join(f"{key}={value};" for key, value in self.unknown_properties)
        account = {"login": self.login, "password": self.password} if self.login else {}
        return {"conn_type": "smtpcm", "host": self.host, "port": self.port, **account, "extra": extra}

    @property
    def connection_string(self) -> str:
        """SSIS's own string: its properties only, in its own order; it has no account, no port and no certificates."""
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
    def warnings(self) -> tuple[str, ...]:
        """What is allowed because it was spelled out, but weak or without effect; one sentence each."""
        weak: list[str] = []
        if self.auth_mode is AuthMode.WINDOWS and self.ssl_mode is SslMode.NONE:
            weak.append(
                "Windows Authentication in clear text (ssl_mode 'none'): who can read the line can relay the sign-in "
                "and try passwords against it; set ssl_mode to 'starttls'."
            )
        if self.ssl_mode is not SslMode.NONE and not self.verify_certificate:
            weak.append(
                "The server's certificate is not verified (verify_certificate false), so anybody in the line can "
                "pretend to be the server; give its authority as ca_certificate instead."
            )
        return (*self.notes, *weak)

    @property
    def server_name(self) -> str:
        """The host as certificates and Kerberos have it: without the dot by which a name says that it is complete."""
        return self.host.removesuffix(".")

    @property
    def account(self) -> str | None:
        """The Windows account as NTLM takes it: the login, with the domain before it where the login carries none."""
        if self.login and self.domain and "\\" not in self.login and "@" not in self.login:
            return f"{self.domain}\\{self.login}"
        return self.login
