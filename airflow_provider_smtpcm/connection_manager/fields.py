"""The table of settings: what each is called, what it may be, and what it means. Form, parser and documents read it.

A setting stands here only if it takes effect. The ones that an SSIS connection string can fill carry no default in
the form (`in_ssis_properties`): Airflow's form saves every default that it shows, which would contradict the string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

# folded: The words in which a connection chooses: SSIS's where there are some, the RFCs' for the protocol.


class AuthMode(StrEnum):
    """How to sign in; SSIS: *Use Windows Authentication*. There is no third way."""

    ANONYMOUS = "anonymous"
    WINDOWS = "windows"


class SslMode(StrEnum):
    """How the line is encrypted; SSIS: *Enable SSL*."""

    STARTTLS = "starttls"
    NONE = "none"
    IMPLICIT = "implicit"


class WindowsProtocol(StrEnum):
    """What proves the Windows identity."""

    NEGOTIATE = "negotiate"
    KERBEROS = "kerberos"
    NTLM = "ntlm"


class ChannelBinding(StrEnum):
    """What ties the sign-in to the TLS line (RFC 5929)."""

    TLS_SERVER_END_POINT = "tls-server-end-point"
    NONE = "none"
    TLS_UNIQUE = "tls-unique"


# folded: here began the module itself


class Kind(StrEnum):
    """The shape of a value, which is also the widget that the form shows."""

    CHOICE = "choice"
    FLAG = "flag"
    NUMBER = "number"
    TEXT = "text"
    MULTILINE = "multiline"
    SECRET = "secret"  # noqa: S105 - the name of a kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting of the connection.

    Args:
        name: its key, in the connection's extra and on `SmtpConnectionManager`.
        label: what the form and every error call it.
        help: one or two sentences for the form and the documents.
        default: what holds where nobody said anything.
        choices: value to label, for a choice.
        minimum: the smallest number; seconds where the label says so.
        maximum: the largest number.
        ssis: the SSIS property that it stands for.
        in_ssis_properties: whether an SSIS connection string can fill it.
        advanced: whether the form puts it into its *Advanced* section.
        placeholder: what the empty box of a standard field shows.
    """

    name: str
    label: str
    kind: Kind
    help: str
    default: str | float | bool | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    ssis: str = ""
    in_ssis_properties: bool = False
    advanced: bool = False
    placeholder: str = ""

    @property
    def title(self) -> str:
        """The label with the key behind it: a person reads the form or the JSON, and both must be found."""
        return f"{self.label} ({self.name})"


# Airflow's own fields of a connection.
STANDARD_FIELDS: tuple[Field, ...] = (
    Field(
        name="host",
        label="SMTP server",
        kind=Kind.TEXT,
        help="The server's name, as it stands in its certificate; no port and no `smtp://`.",
        ssis="SmtpServer",
        in_ssis_properties=True,
        placeholder="mail.corp.example",
    ),
    Field(
        name="port",
        label="Port",
        kind=Kind.NUMBER,
        help="Empty: 25, or 465 where SSL is implicit.",
        minimum=1,
        maximum=65535,
        placeholder="25, or 465 where SSL is implicit",
    ),
    Field(
        name="login",
        label="User name",
        kind=Kind.TEXT,
        help="`CORP\\user`, `user@corp.example`, or `user` with a domain. Empty with Windows Authentication: the "
        "worker's own identity. Must be empty for an anonymous server.",
        placeholder=r"CORP\user (empty: anonymous, or the worker's own identity)",
    ),
    Field(
        name="password",
        label="Password",
        kind=Kind.SECRET,
        help="The password of that Windows account. It is never sent, only proved.",
        placeholder="the password of that Windows account",
    ),
)

FIELDS: tuple[Field, ...] = (
    Field(
        name="auth_mode",
        label="Authentication",
        kind=Kind.CHOICE,
        help="Anonymous signs in nowhere; Windows Authentication proves a Windows account. Basic authentication is not "
        "supported. Empty: anonymous.",
        default=AuthMode.ANONYMOUS,
        choices={AuthMode.ANONYMOUS: "Anonymous", AuthMode.WINDOWS: "Windows Authentication"},
        ssis="UseWindowsAuthentication",
        in_ssis_properties=True,
    ),
    Field(
        name="ssl_mode",
        label="SSL",
        kind=Kind.CHOICE,
        help="STARTTLS is required once chosen, never skipped. Empty: STARTTLS.",
        default=SslMode.STARTTLS,
        choices={
            SslMode.STARTTLS: "STARTTLS (SSIS: Enable SSL)",
            SslMode.NONE: "None (clear text)",
            SslMode.IMPLICIT: "Implicit TLS (port 465)",
        },
        ssis="EnableSsl",
        in_ssis_properties=True,
    ),
    Field(
        name="ca_certificate",
        label="CA certificate",
        kind=Kind.MULTILINE,
        help="A private certificate authority: a path on the worker, or the PEM text itself. Empty: the system's own.",
    ),
    Field(
        name="from_address",
        label="From address",
        kind=Kind.TEXT,
        help="The sender of every mail that names none.",
    ),
    Field(
        name="reply_to",
        label="Reply-To address",
        kind=Kind.TEXT,
        help="Where answers go for every mail that does not say; several are separated by `;`.",
    ),
    Field(
        name="ssis_properties",
        label="SSIS connection string",
        kind=Kind.TEXT,
        help="`SmtpServer=…;UseWindowsAuthentication=…;EnableSsl=…;[Timeout=…;]` as SSIS has it. Fills what the other "
        "fields leave empty; a contradiction is an error.",
        ssis="ConnectionString",
    ),
    Field(
        name="windows_protocol",
        label="Windows protocol",
        kind=Kind.CHOICE,
        help="What proves the Windows account. Negotiate takes Kerberos where a credential for it is at hand and the "
        "server offers it, else NTLM; it logs what it took and why.",
        default=WindowsProtocol.NEGOTIATE,
        choices={
            WindowsProtocol.NEGOTIATE: "Negotiate",
            WindowsProtocol.KERBEROS: "Kerberos",
            WindowsProtocol.NTLM: "NTLM",
        },
        advanced=True,
    ),
    Field(
        name="domain",
        label="Windows domain",
        kind=Kind.TEXT,
        help="The account's domain, where the user name does not carry it.",
        advanced=True,
    ),
    Field(
        name="keytab",
        label="Keytab",
        kind=Kind.TEXT,
        help="The path, on the worker, of a Kerberos keytab, instead of a password. The user name is its principal; "
        "empty: its first entry.",
        advanced=True,
    ),
    Field(
        name="ccache",
        label="Credential cache",
        kind=Kind.TEXT,
        help="The path, on the worker, of a Kerberos credential cache (or `KEYRING:...`, `KCM:...`), instead of a "
        "password.",
        advanced=True,
    ),
    Field(
        name="spn",
        label="SPN",
        kind=Kind.TEXT,
        help="The server's name in Kerberos, as `service/host`. Empty: `smtp/` and the SMTP server, then `SMTPSVC/` if "
        "the KDC does not know that.",
        advanced=True,
    ),
    Field(
        name="channel_binding",
        label="Channel binding",
        kind=Kind.CHOICE,
        help="What ties the sign-in to the TLS line, for servers with Extended Protection. None where a proxy "
        "terminates TLS in front of the server.",
        default=ChannelBinding.TLS_SERVER_END_POINT,
        choices={
            ChannelBinding.TLS_SERVER_END_POINT: "The server's certificate (tls-server-end-point)",
            ChannelBinding.NONE: "None",
            ChannelBinding.TLS_UNIQUE: "The handshake (tls-unique, up to TLS 1.2)",
        },
        advanced=True,
    ),
    Field(
        name="verify_certificate",
        label="Verify certificate",
        kind=Kind.FLAG,
        help="Off accepts any certificate, and with it anybody who stands in the line.",
        default=True,
        advanced=True,
    ),
    Field(
        name="timeout",
        label="Timeout (seconds)",
        kind=Kind.NUMBER,
        help="A deadline for connect and TLS together, for each whole reply, and for each block written. Empty: 30.",
        default=30.0,
        minimum=1,
        maximum=3600,
        ssis="Timeout (milliseconds)",
        in_ssis_properties=True,
        advanced=True,
    ),
    Field(
        name="final_reply_timeout",
        label="Final reply timeout (seconds)",
        kind=Kind.NUMBER,
        help="How long the server may think after the final dot before the outcome counts as unknown (RFC 5321 "
        "4.5.3.2.6).",
        default=600.0,
        minimum=1,
        maximum=3600,
        advanced=True,
    ),
    Field(
        name="binary_mime",
        label="Binary attachments (BINARYMIME)",
        kind=Kind.FLAG,
        help="Attachments travel without base64, a quarter smaller, where the server offers BINARYMIME (Exchange "
        "does); elsewhere they are encoded as ever.",
        default=False,
        advanced=True,
    ),
    Field(
        name="local_hostname",
        label="Local host name",
        kind=Kind.TEXT,
        help="The name that this client gives in EHLO. Empty: the worker's full name, else its address in brackets.",
        advanced=True,
    ),
)

ALL_FIELDS: Mapping[str, Field] = MappingProxyType({entry.name: entry for entry in (*STANDARD_FIELDS, *FIELDS)})


# folded: The table of settings as Airflow's connection form takes it: declarative fields, labels, placeholders.
#   Knows the shape of Airflow's provider info, and imports no Airflow.

ADVANCED = "Advanced"


def conn_fields() -> dict[str, dict[str, object]]:
    """`conn-fields`: one entry for each extra, in the order of the form."""
    return {
        field.name: {"label": field.label, "description": help_text(field), "schema": schema(field)} for field in FIELDS
    }


def ui_field_behaviour() -> dict[str, object]:
    """`ui-field-behaviour`: Airflow's own fields under this package's labels; its schema field means nothing here."""
    return {
        "hidden-fields": ["schema"],
        "relabeling": {field.name: field.label for field in STANDARD_FIELDS},
        "placeholders": {field.name: field.placeholder for field in STANDARD_FIELDS},
    }


def help_text(field: Field) -> str:
    """The help as plain text: the form shows no markup."""
    return field.help.replace("`", "")


def schema(field: Field) -> dict[str, object]:
    """What the form lets a person enter, as Airflow's own dialect of JSON schema."""
    types = {Kind.FLAG: "boolean", Kind.NUMBER: "number"}
    described: dict[str, object] = {"type": [types.get(field.kind, "string"), "null"]}
    # The form saves every default that it shows, and would so contradict an SSIS connection string.
    if field.default is not None and not field.in_ssis_properties:
        described["default"] = field.default if field.kind in types else str(field.default)
    match field.kind:
        case Kind.CHOICE:
            described["enum"] = [str(value) for value in field.choices]
            described["values_display"] = {str(value): label for value, label in field.choices.items()}
        case Kind.NUMBER:
            # No minimum: Airflow 3.1 and 3.2 write it into a box that a person empties, a timeout of one second.
            described["maximum"] = field.maximum
        case Kind.MULTILINE:
            described["format"] = "multiline"
        case Kind.SECRET:
            described["format"] = "password"
    if field.advanced:
        described["section"] = ADVANCED
    return described
