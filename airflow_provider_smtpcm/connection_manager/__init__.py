"""The SMTP connection manager: the named definition of a mail server, and the table of its settings."""

from airflow_provider_smtpcm.connection_manager.fields import (
    FIELDS,
    STANDARD_FIELDS,
    AuthMode,
    ChannelBinding,
    Field,
    SslMode,
    WindowsProtocol,
)
from airflow_provider_smtpcm.connection_manager.manager import SmtpConnectionManager

__all__ = [
    "FIELDS",
    "STANDARD_FIELDS",
    "AuthMode",
    "ChannelBinding",
    "Field",
    "SmtpConnectionManager",
    "SslMode",
    "WindowsProtocol",
]
