"""Reads and writes the connection string of an SSIS SMTP connection manager.

`key=value` pairs separated by semicolons, with the keys in any order and case, blanks ignored, and the last semicolon
optional; a bare host name is valid too. SSIS itself writes SmtpServer, UseWindowsAuthentication, EnableSsl and, since
2012, Timeout. No message repeats a value, since it may be part of a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_smtpcm.connection_manager.faults import Fault, FaultCode, describe_value

# A Timeout below this is read as seconds: SSIS means milliseconds, but packages contain 20, 22 and 30.
_MIN_MILLISECONDS = 1000
# A number with more digits may not fit into a float, and `int` refuses more than 4,300.
_MAX_DIGITS = 300

_SECRET_WORDS = ("user", "uid", "login", "pass", "pwd", "secret", "token")
# Keys that a message may name; any other may be part of a password with a semicolon and an equals sign.
_SSIS_KEYS = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_ACCOUNT_KEYS = ("User", "UserName", "User Name", "User ID", "UserId", "Uid", "Login", "Password", "Passwd", "Pwd")
_OTHER_KEYS = (
    "ConnectByProxy",
    "DeliveryMethod",
    "Domain",
    "Host",
    "Port",
    "TargetName",
    "UseDefaultCredentials",
    "UseSsl",
)
_QUOTED_KEYS = {key.lower(): f"'{key}'" for key in (*_SSIS_KEYS, *_ACCOUNT_KEYS, *_OTHER_KEYS)}


@dataclass(slots=True, kw_only=True)
class SsisProperties:
    """The properties in a connection string, and its faults. A property that the string does not have is None.

    Args:
        server: SmtpServer.
        windows_authentication: UseWindowsAuthentication.
        enable_ssl: EnableSsl.
        timeout: Timeout, in seconds.
        unknown: pairs that SSIS does not define, unchanged.
        warnings: sentences about properties without effect, or with a doubtful value.
        faults: what could not be read.
    """

    server: str | None = None
    windows_authentication: bool | None = None
    enable_ssl: bool | None = None
    timeout: float | None = None
    unknown: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    warnings: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add_fault(self, code: str, **details: object) -> None:
        """Add a fault."""
        self.faults.append(Fault(field="ssis_properties", code=code, details=details))


def parse_ssis_properties(connection_string: str) -> SsisProperties:
    """Parse an SSIS connection string. Never raises: errors are in `faults`."""
    properties = SsisProperties()
    seen: dict[str, str] = {}
    unknown: dict[str, str] = {}
    parts = [part.strip() for part in connection_string.split(";")]
    for position, part in enumerate(parts, start=1):
        if not part:
            continue
        key, equals, value = (text.strip() for text in part.partition("="))
        if not equals and position == 1:
            key, value = "SmtpServer", key
        elif not equals:
            # The part may be the end of a password with a semicolon, so the message gives only its position.
            properties.add_fault(FaultCode.NO_EQUALS, position=position)
            continue
        lower = key.lower()
        if any(word in lower for word in _SECRET_WORDS):
            properties.add_fault(FaultCode.ACCOUNT_IN_STRING, key=describe_key(key, position))
            break  # what follows may be the rest of a password
        if seen.setdefault(lower, value) != value:
            properties.add_fault(FaultCode.DUPLICATE_KEY, key=describe_key(key, position))
        elif not _set_property(properties, lower, value) and lower not in unknown:
            properties.unknown += ((key, value),)
            unknown[lower] = describe_key(key, position)
    if unknown:
        kept = "is kept, but has" if len(unknown) == 1 else "are kept, but have"
        properties.warnings.append(f"SSIS connection string: {', '.join(unknown.values())} {kept} no effect.")
    return properties


def describe_key(key: str, position: int) -> str:
    """Return a key for a message: the key itself if it is a known word, else its position in the string (from 1)."""
    return _QUOTED_KEYS.get(key.lower(), f"part {position}")


def _set_property(properties: SsisProperties, lower_key: str, value: str) -> bool:
    """Store a property; return False if SSIS does not define its key."""
    match lower_key:
        case "smtpserver":
            properties.server = value or None
        case "usewindowsauthentication":
            properties.windows_authentication = _parse_boolean("UseWindowsAuthentication", value, properties)
        case "enablessl":
            properties.enable_ssl = _parse_boolean("EnableSsl", value, properties)
        case "timeout":
            properties.timeout = _parse_timeout(value, properties)
        case _:
            return False
    return True


def _parse_boolean(key: str, value: str, properties: SsisProperties) -> bool | None:
    if value.lower() not in ("true", "false", ""):
        properties.add_fault(FaultCode.NOT_AN_SSIS_BOOLEAN, key=key, value=describe_value(value))
    return {"true": True, "false": False}.get(value.lower())


def _parse_timeout(value: str, properties: SsisProperties) -> float | None:
    """Return the timeout in seconds; None if it is empty, or cannot be read, which adds a fault."""
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS and int(value) > 0):
        properties.add_fault(FaultCode.NOT_MILLISECONDS, value=describe_value(value))
        return None
    number = int(value)
    if number >= _MIN_MILLISECONDS:
        return number / 1000
    properties.warnings.append(
        f"SSIS connection string: Timeout={number} would be {number} milliseconds in SSIS, but is read as "
        f"{number} seconds; write Timeout={number * 1000} if that is what you mean."
    )
    return float(number)


def format_ssis_properties(properties: SsisProperties) -> str:
    """Return the connection string as SSIS writes it: its order and case, with the trailing semicolon."""
    pairs = [
        ("SmtpServer", properties.server or ""),
        ("UseWindowsAuthentication", str(bool(properties.windows_authentication))),
        ("EnableSsl", str(bool(properties.enable_ssl))),
    ]
    if properties.timeout is not None:
        pairs.append(("Timeout", str(round(properties.timeout * 1000))))
    return "".join(f"{key}={value};" for key, value in (*pairs, *properties.unknown))
