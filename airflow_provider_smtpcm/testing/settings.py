"""The settings of a relay: validation, and their JSON form for its process."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, Self, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

SslMode = Literal["starttls", "none", "implicit"]

HIGHEST_PORT = 65535
#: A line with a negative reply (RFC 5321 4.2): 4yz or 5yz, a space, printable ASCII.
REFUSAL = re.compile(r"[45][0-5]\d [\x20-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """The settings of a relay, which are the arguments of `Relay`.

    Raises:
        ValueError: lists every fault.
    """

    ssl_mode: SslMode
    users: Mapping[str, str] | None = field(repr=False)
    host: str
    port: int
    size_limit: int
    refuse: Mapping[str, str]
    smtputf8: bool
    certificate_names: tuple[str, ...]
    certificate_expired: bool

    def __post_init__(self) -> None:
        faults = [*self._find_network_faults(), *self._find_user_faults()]
        faults += [
            f"refuse: the reply for recipient {number} is not a refusal; write a complete line such as "
            "'550 5.1.1 No such user'"
            for number, reply in enumerate(self.refuse.values(), start=1)
            if not REFUSAL.fullmatch(reply)
        ]
        if faults:
            lines = ["The relay cannot be set up like this:", *(f"  - {fault}" for fault in faults)]
            raise ValueError("\n".join(lines))

    def _find_network_faults(self) -> list[str]:
        faults = []
        if self.ssl_mode not in get_args(SslMode):
            faults.append(f"ssl_mode: it must be one of {', '.join(get_args(SslMode))}")
        if not is_loopback(self.host):
            faults.append(
                "host: other machines can reach it; a relay for tests listens on the loopback interface only, "
                "such as '127.0.0.1'"
            )
        if not 0 <= self.port <= HIGHEST_PORT:
            faults.append(f"port: it must be between 0 (any free one) and {HIGHEST_PORT}")
        if self.size_limit < 1:
            faults.append(f"size_limit: {self.size_limit} octets are too few for a message")
        if not self.certificate_names:
            faults.append("certificate_names: a certificate needs at least one name")
        return faults

    def _find_user_faults(self) -> list[str]:
        if self.users is None:
            return []
        if not self.users:
            return ["users: it is empty, so no client could log in; add a user, or pass None for an anonymous relay"]
        faults = []
        # By number: a user name may contain a password by mistake, such as `user:password`.
        for number, (user, password) in enumerate(self.users.items(), start=1):
            if user.count("\\") > 1 or not user.rpartition("\\")[2]:
                faults.append(f"users: name {number} is neither a user name nor a domain, a backslash and a user name")
            # The lines of pyspnego's user file are columns separated by colons, without escapes.
            if not is_storable(user):
                faults.append(f"users: name {number} contains a colon or a line break, which the relay cannot store")
            if not is_storable(password):
                faults.append(f"users: password {number} contains a colon or a line break; choose another one")
        if len({user.upper() for user in self.users}) < len(self.users):
            faults.append("users: names that differ only in upper and lower case are the same user on Windows")
        return faults

    def to_json(self) -> str:
        """Return the settings as one line of ASCII."""
        return json.dumps(asdict(self) | {"users": self.users and dict(self.users), "refuse": dict(self.refuse)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Make settings from the result of `to_json`."""
        values = json.loads(text)
        return cls(**values | {"certificate_names": tuple(values["certificate_names"])})


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback IP address. A host name is not, since it could resolve to any address."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_storable(text: str) -> bool:
    """Whether text can be a column of the user file, which is read as UTF-8 with `str.splitlines`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return ":" not in text and text.splitlines() in ([], [text])
