"""How the check words a moment and a connection's settings. Knows which settings are secret."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS, AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import shown_path

# Without these nobody understands the rest, whether or not somebody set them.
_ALWAYS = ("host", "port", "auth_mode", "ssl_mode")
_ALWAYS_WITH_WINDOWS = ("login", "windows_protocol", "channel_binding")
_SECRET = ("password",)
_PATHS = ("ca_certificate", "keytab", "ccache")


def moment(seconds: float) -> str:
    """A moment (seconds since 1970), and how far away it is."""
    left = seconds - time.time()
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC ({distance(left)})"


def distance(seconds: float) -> str:
    """Such as `41 days left` or `3 hours ago`."""
    size = abs(seconds)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if size >= 2 * length or unit == "minute":
            count = int(size // length)
            break
    return f"{count} {unit}{'' if count == 1 else 's'} {'left' if seconds >= 0 else 'ago'}"


def settings(manager: SmtpConnectionManager) -> str:
    """What the connection says, by the names of its fields; what stands at its default is left out."""
    windows = manager.auth_mode is AuthMode.WINDOWS
    told: list[str] = []
    for field in (*STANDARD_FIELDS, *FIELDS):
        value = getattr(manager, field.name, None)
        always = field.name in _ALWAYS or (windows and field.name in _ALWAYS_WITH_WINDOWS)
        if field.name == "login" and (manager.keytab or manager.ccache):
            always = False  # they say who it is
        if value in (None, field.default) and not always:
            continue
        told.append(f"{field.name}={_shown(field.name, value)}")
    return ", ".join(told)


def _shown(name: str, value: object) -> str:
    if name in _SECRET:
        return "(set)"
    if value is None:
        return "(empty: the worker's own identity)" if name == "login" else "(empty)"
    if name == "ca_certificate" and str(value).startswith("-----BEGIN"):
        return "(PEM text)"
    if name in _PATHS:
        return shown_path(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
