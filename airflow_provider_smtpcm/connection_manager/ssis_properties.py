"""The connection string of an SSIS SMTP connection manager, read and written. Knows nothing of the other settings.

`key=value` pairs between semicolons, keys in any order and case, blanks ignored, the last semicolon optional, and a
bare host name for the whole string; SSIS itself writes SmtpServer, UseWindowsAuthentication, EnableSsl and, since 2012,
Timeout. Nothing that could be part of a password is ever repeated in a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_smtpcm.connection_manager.faults import Fault, FaultKind, shape

# Under this, a Timeout is taken as seconds: SSIS means milliseconds, and people wrote 20, 22 and 30.
SMALLEST_PLAUSIBLE_MILLISECONDS = 1000

_SECRET_WORDS = ("user", "uid", "login", "pass", "pwd", "secret", "token")
# Keys that a message may name; any other may be a piece of a password that held a semicolon and an equals sign.
_OWN = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_ACCOUNT = ("User", "UserName", "User Name", "User ID", "UserId", "Uid", "Login", "Password", "Passwd", "Pwd")
_FOREIGN = (
    "ConnectByProxy",
    "DeliveryMethod",
    "Domain",
    "Host",
    "Port",
    "TargetName",
    "UseDefaultCredentials",
    "UseSsl",
)
_NAMED = {key.lower(): f"'{key}'" for key in (*_OWN, *_ACCOUNT, *_FOREIGN)}


@dataclass(slots=True, kw_only=True)
class SsisProperties:
    """What a connection string says, and what is wrong with it.

    Args:
        server: SmtpServer.
        windows_authentication: UseWindowsAuthentication.
        enable_ssl: EnableSsl.
        timeout: Timeout, in seconds.
        unknown: pairs that SSIS does not define, kept as they are.
        warnings: what was understood, but should be looked at.
        faults: what could not be understood.
    """

    server: str | None = None
    windows_authentication: bool | None = None
    enable_ssl: bool | None = None
    timeout: float | None = None
    unknown: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    warnings: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(self, kind: FaultKind, **details: object) -> None:
        """Add a fault."""
        self.faults.append(Fault(field="ssis_properties", kind=kind, details=details))


def parse_ssis_properties(connection_string: str) -> SsisProperties:
    """Read an SSIS connection string. Never raises: what is wrong stands in `faults`."""
    found = SsisProperties()
    seen: dict[str, str] = {}
    unknown: dict[str, str] = {}
    parts = [part.strip() for part in connection_string.split(";")]
    for position, part in enumerate(parts, start=1):
        if not part:
            continue
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and position == 1:
            key, value = "SmtpServer", key
        elif not equals:
            # What stands there may be the tail of a password that held a semicolon: it is not shown.
            found.add(FaultKind.NO_EQUALS, position=position)
            continue
        word = key.lower()
        if any(secret in word for secret in _SECRET_WORDS):
            found.add(FaultKind.ACCOUNT_IN_STRING, key=describe_key(key, position))
            break  # what follows may be the rest of a password
        if seen.setdefault(word, value) != value:
            found.add(FaultKind.KEY_TWICE, key=describe_key(key, position))
        elif not _take(found, word, value) and word not in unknown:
            found.unknown += ((key, value),)
            unknown[word] = describe_key(key, position)
    if unknown:
        found.warnings.append(f"SSIS connection string: {', '.join(unknown.values())} is kept, but has no effect.")
    return found


def describe_key(key: str, position: int) -> str:
    """A key for a message: by its name where that is a word of the field, else by its place in the string."""
    return _NAMED.get(key.lower(), f"part {position}")


def _take(found: SsisProperties, word: str, value: str) -> bool:
    """Store a pair that SSIS defines; False for any other."""
    match word:
        case "smtpserver":
            found.server = value or None
        case "usewindowsauthentication":
            found.windows_authentication = _boolean("UseWindowsAuthentication", value, found)
        case "enablessl":
            found.enable_ssl = _boolean("EnableSsl", value, found)
        case "timeout":
            found.timeout = _seconds(value, found)
        case _:
            return False
    return True


def _boolean(key: str, value: str, found: SsisProperties) -> bool | None:
    if value.lower() not in ("true", "false", ""):
        found.add(FaultKind.NOT_A_BOOLEAN, key=key, shape=shape(value))
    return {"true": True, "false": False}.get(value.lower())


def _seconds(value: str, found: SsisProperties) -> float | None:
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        found.add(FaultKind.NOT_MILLISECONDS, shape=shape(value))
        return None
    number = int(value)
    if number >= SMALLEST_PLAUSIBLE_MILLISECONDS:
        return number / 1000
    found.warnings.append(
        f"SSIS connection string: Timeout={number} would be {number} milliseconds in SSIS and was taken as "
        f"{number} seconds; write Timeout={number * 1000} if that is what you mean."
    )
    return float(number)


def format_ssis_properties(properties: SsisProperties) -> str:
    """The string in SSIS's own order and case, with the trailing semicolon that SSIS writes."""
    pairs = [
        ("SmtpServer", properties.server or ""),
        ("UseWindowsAuthentication", str(bool(properties.windows_authentication))),
        ("EnableSsl", str(bool(properties.enable_ssl))),
    ]
    if properties.timeout is not None:
        pairs.append(("Timeout", str(round(properties.timeout * 1000))))
    return "".join(f"{key}={value};" for key, value in (*pairs, *properties.unknown))
