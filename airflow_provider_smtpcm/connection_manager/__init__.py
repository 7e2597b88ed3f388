"""The named definition of a mail server, and the one table from which it is read, shown and explained."""

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
