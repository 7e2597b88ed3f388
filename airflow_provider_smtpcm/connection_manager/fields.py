"""The settings of a connection, as one table for the form, the parser and the documents.

Only settings that take effect are listed, in the order of the form: first those that SSIS has. Airflow's form saves
every default that it shows. So a setting has none there if an SSIS connection string can fill it, which the default
would contradict, or if its default is less strict while it is not spelled out; a drop-down
shows it as the label of null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from airflow_provider_smtpcm.frozen_dataclasses import Record


class AuthMode(StrEnum):
    """How a session signs in. SSIS: *Use Windows Authentication*."""

    ANONYMOUS = "anonymous"
    WINDOWS = "windows"


class SslMode(StrEnum):
    """How the connection is encrypted. SSIS: *Enable SSL*."""

    STARTTLS = "starttls"
    NONE = "none"
    IMPLICIT = "implicit"


class WindowsProtocol(StrEnum):
    """The protocol that authenticates the Windows account."""

    NEGOTIATE = "negotiate"
    KERBEROS = "kerberos"
    NTLM = "ntlm"


class ChannelBinding(StrEnum):
    """The property of the TLS connection to which the sign-in is bound (RFC 5929)."""

    TLS_SERVER_END_POINT = "tls-server-end-point"
    NONE = "none"
    TLS_UNIQUE = "tls-unique"


class FieldType(StrEnum):
    """The type of a setting's value, which also selects the widget of the form."""

    CHOICE = "choice"
    BOOLEAN = "boolean"
    NUMBER = "number"
    TEXT = "text"
    MULTILINE = "multiline"
    SECRET = "secret"  # noqa: S105 - the name of a type


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Field(Record):
    """One setting of the connection.

    Args:
        name: its key, in the connection's extra and on `SmtpConnectionManager`.
        label: its name in the form and in every error.
        type: the type of its value.
        help: one to three sentences for the form and the documents, with code in backticks.
        default: the value of an empty setting.
        choices: value to label, for `FieldType.CHOICE`.
        minimum: the smallest number; in seconds if the label says so.
        maximum: the largest number.
        ssis: the SSIS property to which it corresponds.
        in_ssis_properties: whether an SSIS connection string can fill it.
        is_strict_if_set: whether its default, if it is spelled out, is an error where it cannot be had.
        advanced: whether the form shows it in the *Advanced* section.
        placeholder: what a standard field shows while it is empty.
    """

    name: str
    label: str
    type: FieldType
    help: str
    default: str | float | bool | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    ssis: str = ""
    in_ssis_properties: bool = False
    is_strict_if_set: bool = False
    advanced: bool = False
    placeholder: str = ""

    @property
    def form_default(self) -> str | float | bool | None:
        """The default that the form shows, and so saves; None: the form shows an empty setting."""
        return None if self.in_ssis_properties or self.is_strict_if_set else self.default

    @property
    def unset_label(self) -> str:
        """How a drop-down without `form_default` shows an empty setting, which is saved as nothing; else empty."""
        if self.type is not FieldType.CHOICE or self.form_default is not None:
            return ""
        unless = ", or as the SSIS connection string says" if self.in_ssis_properties else ""
        return f"Default: {self.choices[str(self.default)]}{unless}"

    @property
    def title(self) -> str:
        """The label and the key, since some people edit the form and others the JSON."""
        return f"{self.label} ({self.name})"


# Airflow's own fields of a connection.
STANDARD_FIELDS: tuple[Field, ...] = (
    Field(
        name="host",
        label="SMTP server",
        type=FieldType.TEXT,
        help="The server's name as in its certificate, without port and without `smtp://`.",
        ssis="SmtpServer",
        in_ssis_properties=True,
        placeholder="mail.corp.example",
    ),
    Field(
        name="port",
        label="Port",
        type=FieldType.NUMBER,
        help="Empty: 25, or 465 with implicit TLS.",
        minimum=1,
        maximum=65535,
        placeholder="25, or 465 with implicit TLS",
    ),
    Field(
        name="login",
        label="User name",
        type=FieldType.TEXT,
        help="`CORP\\user`, `user@corp.example`, or `user` with a domain. Empty with Windows Authentication: the "
        "worker's own identity. Must be empty for an anonymous server.",
        placeholder=r"CORP\user; then choose Windows Authentication under Extra Fields",
    ),
    Field(
        name="password",
        label="Password",
        type=FieldType.SECRET,
        help="The password of the Windows account. The password itself is never sent.",
        placeholder="only with Windows Authentication, under Extra Fields",
    ),
)

FIELDS: tuple[Field, ...] = (
    Field(
        name="auth_mode",
        label="Authentication",
        type=FieldType.CHOICE,
        help="Anonymous: no sign-in. Windows Authentication: sign in with a Windows account. Basic authentication is "
        "not supported. Empty: anonymous.",
        default=AuthMode.ANONYMOUS,
        choices={AuthMode.ANONYMOUS: "Anonymous", AuthMode.WINDOWS: "Windows Authentication"},
        ssis="UseWindowsAuthentication",
        in_ssis_properties=True,
    ),
    Field(
        name="ssl_mode",
        label="SSL",
        type=FieldType.CHOICE,
        help="Once chosen, STARTTLS is required: a server without it is an error. Empty: STARTTLS.",
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
        name="timeout",
        label="Timeout (seconds)",
        type=FieldType.NUMBER,
        help="Deadline for connecting and TLS together, for each whole reply, and for each block written. Empty: 30.",
        default=30.0,
        minimum=1,
        maximum=3600,
        ssis="Timeout (milliseconds)",
        in_ssis_properties=True,
    ),
    Field(
        name="ca_certificate",
        label="CA certificate",
        type=FieldType.MULTILINE,
        help="A private certificate authority: a path on the worker, or the PEM text itself. Empty: the certificate "
        "authorities of the system.",
    ),
    Field(
        name="from_address",
        label="From address",
        type=FieldType.TEXT,
        help="Default sender.",
    ),
    Field(
        name="reply_to",
        label="Reply-To address",
        type=FieldType.TEXT,
        help="Default Reply-To address. Separate several with semicolons.",
    ),
    Field(
        name="ssis_properties",
        label="SSIS connection string",
        type=FieldType.TEXT,
        help="`SmtpServer=…;UseWindowsAuthentication=…;EnableSsl=…;[Timeout=…;]`, as copied from SSIS. It fills the "
        "fields that are empty; a contradiction is an error.",
        ssis="ConnectionString",
    ),
    Field(
        name="windows_protocol",
        label="Windows protocol",
        type=FieldType.CHOICE,
        help="The protocol that authenticates the Windows account. Negotiate: Kerberos if the worker has a credential "
        "for it and the server offers it, else NTLM; the log has the choice and the reason.",
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
        type=FieldType.TEXT,
        help="The account's domain, if the user name does not include it.",
        advanced=True,
    ),
    Field(
        name="keytab",
        label="Keytab",
        type=FieldType.TEXT,
        help="Path of a Kerberos keytab on the worker, instead of a password. The user name selects the principal; "
        "empty: the first entry.",
        advanced=True,
    ),
    Field(
        name="ccache",
        label="Credential cache",
        type=FieldType.TEXT,
        help="Path of a Kerberos credential cache on the worker (or `KEYRING:...`, `KCM:...`), instead of a password.",
        advanced=True,
    ),
    Field(
        name="spn",
        label="SPN",
        type=FieldType.TEXT,
        help="The server's service principal name in Kerberos, as `service/host`. Empty: `smtp/` and the SMTP server; "
        "if the KDC does not know that name, `SMTPSVC/` and the SMTP server.",
        advanced=True,
    ),
    Field(
        name="channel_binding",
        label="Channel binding",
        type=FieldType.CHOICE,
        help="Binds the sign-in to the TLS connection, for servers with Extended Protection. Choose None if a proxy "
        "terminates TLS in front of the server. Empty: the server's certificate, if a binding to it is defined (for "
        "Ed25519 it is not).",
        default=ChannelBinding.TLS_SERVER_END_POINT,
        is_strict_if_set=True,
        choices={
            ChannelBinding.TLS_SERVER_END_POINT: "The server's certificate (tls-server-end-point)",
            ChannelBinding.NONE: "None",
            ChannelBinding.TLS_UNIQUE: "The handshake (tls-unique, up to TLS 1.2)",
        },
        advanced=True,
    ),
    Field(
        name="client_certificate",
        label="Client certificate",
        type=FieldType.TEXT,
        help="Path of a TLS client certificate on the worker (PEM), for a server that recognizes its clients by their "
        "certificates; with either authentication. Its issuers and its private key may follow in the same file.",
        advanced=True,
    ),
    Field(
        name="client_key",
        label="Client key",
        type=FieldType.TEXT,
        help="Path of the client certificate's private key on the worker (PEM, not encrypted). Empty: the key is in "
        "the certificate's file.",
        advanced=True,
    ),
    Field(
        name="verify_certificate",
        label="Verify certificate",
        type=FieldType.BOOLEAN,
        help="If off, anyone on the network path can impersonate the server.",
        default=True,
        advanced=True,
    ),
    Field(
        name="final_reply_timeout",
        label="Final reply timeout (seconds)",
        type=FieldType.NUMBER,
        help="How long to wait for the server's reply to the final dot (RFC 5321 4.5.3.2.6). After that the outcome is "
        "unknown.",
        default=600.0,
        minimum=1,
        maximum=3600,
        advanced=True,
    ),
    Field(
        name="binary_mime",
        label="Binary attachments (BINARYMIME)",
        type=FieldType.BOOLEAN,
        help="Send attachments without base64, a quarter smaller, if the server offers BINARYMIME (Exchange does); "
        "other servers get base64 as usual.",
        default=False,
        advanced=True,
    ),
    Field(
        name="envelope_from",
        label="Envelope sender",
        type=FieldType.TEXT,
        help="MAIL FROM where it is not the From address: servers return what they cannot deliver to it. `<>`: a null "
        "return path, so they return nothing.",
        advanced=True,
    ),
    Field(
        name="subject_file",
        label="Subject file",
        type=FieldType.TEXT,
        help="Path of a template file on the worker: the subject of mails and alerts that set none. A mail merge does "
        "not use it.",
        advanced=True,
    ),
    Field(
        name="html_file",
        label="HTML file",
        type=FieldType.TEXT,
        help="Path of a template file on the worker: the HTML body of mails and alerts that set no body. A mail merge "
        "does not use it.",
        advanced=True,
    ),
    Field(
        name="fallback_hosts",
        label="Fallback hosts",
        type=FieldType.TEXT,
        help="Servers to use, in this order, while the SMTP server cannot be reached: `host` or `host:port`, with "
        "semicolons between them, and IPv6 addresses in brackets. Without a port: that of the SMTP server. The other "
        "settings apply to them too, except the SPN.",
        advanced=True,
    ),
    Field(
        name="local_hostname",
        label="Local host name",
        type=FieldType.TEXT,
        help="The name of this client in EHLO. Empty: the worker's full host name, else its address in brackets.",
        advanced=True,
    ),
)

ALL_FIELDS: Mapping[str, Field] = MappingProxyType({entry.name: entry for entry in (*STANDARD_FIELDS, *FIELDS)})

# --- The table in the shape of Airflow's provider info.


def build_conn_fields() -> dict[str, dict[str, object]]:
    """Return `conn-fields`: one entry for each extra, in the order of the form."""
    return {
        setting.name: {
            "label": setting.label,
            "description": get_plain_help(setting),
            "schema": build_form_schema(setting),
        }
        for setting in FIELDS
    }


def build_ui_field_behaviour() -> dict[str, object]:
    """Return `ui-field-behaviour`: the labels of Airflow's own fields. `schema` is not used, so it is hidden."""
    return {
        "hidden-fields": ["schema"],
        "relabeling": {setting.name: setting.label for setting in STANDARD_FIELDS},
        "placeholders": {setting.name: setting.placeholder for setting in STANDARD_FIELDS},
    }


def get_plain_help(setting: Field) -> str:
    """Return the help without backticks, since the form shows no markup."""
    return setting.help.replace("`", "")


def build_form_schema(setting: Field) -> dict[str, object]:
    """Return the values that the form accepts, in Airflow's dialect of JSON schema."""
    json_types = {FieldType.BOOLEAN: "boolean", FieldType.NUMBER: "number"}
    schema: dict[str, Any] = {"type": [json_types.get(setting.type, "string"), "null"]}
    if setting.form_default is not None:
        schema["default"] = setting.form_default if setting.type in json_types else str(setting.form_default)
    match setting.type:
        case FieldType.CHOICE:
            schema["enum"] = [str(value) for value in setting.choices]
            schema["values_display"] = {str(value): label for value, label in setting.choices.items()}
            if setting.unset_label:  # Airflow's form looks up the label of null under this text
                schema["enum"] = [None, *schema["enum"]]
                schema["values_display"] |= {"null": setting.unset_label}
        case FieldType.NUMBER:
            # No minimum: Airflow 3.1 and 3.2 fill it into an emptied box, which would make the timeout one second.
            schema["maximum"] = setting.maximum
        case FieldType.MULTILINE:
            schema["format"] = "multiline"
        case FieldType.SECRET:
            schema["format"] = "password"
    if setting.advanced:
        schema["section"] = "Advanced"
    return schema
