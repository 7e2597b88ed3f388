"""The words in which a connection chooses: SSIS's where there are some, the RFCs' for the protocol."""

from __future__ import annotations

from enum import StrEnum


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
