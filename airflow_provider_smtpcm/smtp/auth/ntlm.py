"""NTLM: finds the account of the connection or of the worker, and creates its security context."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.manager import LOCAL_DOMAIN
from airflow_provider_smtpcm.errors import AuthenticationError, is_callers_timeout
from airflow_provider_smtpcm.smtp.auth.sasl import create_context

if TYPE_CHECKING:
    from spnego import ContextProxy, NTLMHash
    from spnego.channel_bindings import GssChannelBindings

# gss-ntlmssp and pyspnego read the worker's own account from the file that this environment variable names.
USER_FILE_VARIABLE = "NTLM_USER_FILE"
_NT_HASH = re.compile(r"[0-9A-Fa-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NtlmIdentity:
    """An account, and either its password or the NT hash of the password in hexadecimal digits."""

    account: str
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)

    def to_credential(self) -> NTLMHash:
        r"""Return pyspnego's credential object.

        It is always the NT hash. pyspnego would read a password such as `hash:hash` as hashes, and for a password in
        SPNEGO it would ask a KDC first and let the server choose Kerberos.

        A local account of the server (`.\alice`) is sent without a domain, for which Windows looks in the server's own
        accounts before those of its domain.
        """
        import spnego

        password_hash = self.password_hash or compute_nt_hash(self.password or "")
        return spnego.NTLMHash(_AccountName(self.account.removeprefix(f"{LOCAL_DOMAIN}\\")), nt_hash=password_hash)


def find_ntlm_identity(manager: SmtpConnectionManager) -> NtlmIdentity:
    """Return the connection's account; without one, the worker's own from the file in NTLM_USER_FILE.

    Raises:
        AuthenticationError: the worker has no identity, or the file cannot be read.
    """
    if manager.account is not None and manager.password is not None:
        return NtlmIdentity(account=manager.account, password=manager.password)
    path = os.environ.get(USER_FILE_VARIABLE)
    if not path:
        raise AuthenticationError(
            "Windows Authentication without a user name uses the worker's own identity, and this worker has none for "
            "NTLM.",
            remedy="Enter 'User name' and 'Password' of a Windows account, or set "
            f"{USER_FILE_VARIABLE} for the worker.",
        )
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        if is_callers_timeout(error):
            raise
        why = getattr(error, "strerror", None) or type(error).__name__
        raise AuthenticationError(
            f"NTLM: the worker's own identity cannot be read from {path}, which {USER_FILE_VARIABLE} names ({why}).",
            remedy="Make it a UTF-8 file that the worker's user can read.",
        ) from None
    for line in lines:
        if not line.startswith("#") and (identity := _parse_identity(line.split(":"))):
            return identity
    raise AuthenticationError(
        f"NTLM: {path}, which {USER_FILE_VARIABLE} names, has no line that can be used.",
        remedy="Write DOMAIN:user:password; the password cannot contain a colon.",
    )


def _parse_identity(parts: list[str]) -> NtlmIdentity | None:
    """Parse `DOMAIN:user:password`, or a line of smbpasswd (`user:uid:LM hash:NT hash:...`); None: neither."""
    first, second = parts[0].strip(), parts[1].strip() if len(parts) > 1 else ""
    if len(parts) == 3 and second and parts[2]:
        return NtlmIdentity(account=f"{first}\\{second}" if first else second, password=parts[2])
    if len(parts) >= 6 and first and _NT_HASH.fullmatch(parts[3].strip()):
        return NtlmIdentity(account=first, password_hash=parts[3].strip().lower())
    return None


def create_ntlm_context(
    manager: SmtpConnectionManager,
    identity: NtlmIdentity,
    bindings: GssChannelBindings | None,
    *,
    mechanism: str,
) -> tuple[ContextProxy, bytes]:
    """Create a security context and take its first step; return the context and the token.

    Args:
        manager: the server.
        identity: the account.
        bindings: the channel binding; None: the sign-in is not bound to TLS.
        mechanism: the SASL mechanism that carries the tokens; in GSS-SPNEGO they are wrapped in SPNEGO.

    Raises:
        AuthenticationError: the worker's environment allows NTLMv1, or the account cannot be used.
    """
    import spnego
    from spnego.exceptions import SpnegoError

    _require_ntlm_v2()
    in_spnego = mechanism == "GSS-SPNEGO"
    # Without integrity pyspnego's session key has one octet, which Samba and gss-ntlmssp refuse. In GSSAPI the security
    # layer's messages are sealed, for which the key has to be negotiated.
    requirements = spnego.ContextReq.integrity
    if mechanism == "GSSAPI":
        requirements |= spnego.ContextReq.confidentiality
    try:
        context = create_context(
            identity.to_credential(),
            protocol="negotiate" if in_spnego else "ntlm",
            service="smtp",
            host=manager.server_name,
            requirements=requirements,
            bindings=bindings,
        )
        token = context.step()
    except (SpnegoError, ValueError, ImportError) as error:
        raise AuthenticationError(
            f"NTLM: the sign-in could not be prepared ({type(error).__name__}).",
            remedy=r"Write the user name as CORP\user or user@corp.example.",
        ) from None
    return context, token or b""


def _require_ntlm_v2() -> None:
    """Reject a worker whose environment lets pyspnego use NTLMv1, which can be cracked and carries no binding."""
    level = os.environ.get("LM_COMPAT_LEVEL", "3")
    if level not in ("3", "4", "5"):
        raise AuthenticationError(
            f"NTLM: this worker's LM_COMPAT_LEVEL is {level!r:.20}, which would allow NTLMv1.",
            remedy="Remove LM_COMPAT_LEVEL from the worker's environment, or set it to 3 (NTLMv2).",
        )


# --- The user name in capitals, which NTLMv2 hashes with the NT hash and the domain (MS-NLMP 3.3.2, NTOWFv2).

# Capitals newer than Unicode 5.1, the version of Windows' table (MS-UCODEREF 3.1.5.3): it has no letter for them.
_CAPITALS_UNKNOWN_TO_WINDOWS = re.compile(
    "[\u037f\u0524-\u052e\u10c7\u10cd\u13a0-\u13f5\u1c89-\u1cbf\u2c2f\u2c70\u2c7e\u2c7f\u2ceb-\u2cf2"
    "\ua660\ua698\ua69a\ua78d-\uabff]"
)


class _AccountName(str):
    r"""An account whose user name is put into capitals as Windows does it. pyspnego calls `upper` for the hash.

    Python has SS for `ß`, and Windows leaves it as it is, like every letter without a capital of its own.
    """

    __slots__ = ()

    def upper(self) -> str:
        return convert_to_upper_case(self)

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return [_AccountName(part) for part in super().split(sep, maxsplit)]


def convert_to_upper_case(name: str) -> str:
    """Return a name in capitals as Windows writes it: each UTF-16 code unit by itself, and only if that is reversible.

    So letters beyond the BMP stay as they are, and so does a letter that shares its capital with another (`ı`, `ſ`).
    """
    return "".join(map(_convert_letter, name))


def _convert_letter(letter: str) -> str:
    # In Python, the capital in one letter of Greek letters with an iota subscript is that of `title`.
    for capital in (letter.upper(), letter.title()):
        if len(capital) == 1 and capital <= "\uffff" and capital.lower() == letter:
            return letter if _CAPITALS_UNKNOWN_TO_WINDOWS.match(capital) else capital
    return letter


# --- The NT hash of a password (MS-NLMP 3.3.1, NTOWFv1). It is an MD4 hash, which OpenSSL 3 has disabled by default.

_MASK = 0xFFFFFFFF
_INITIAL_STATE = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
# For each round: the added constant, the rotations, and the order of the sixteen words (RFC 1320 3.4).
_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), tuple(range(16))),
    (0x5A827999, (3, 5, 9, 13), (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
    (0x6ED9EBA1, (3, 9, 11, 15), (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)),
)


def compute_nt_hash(password: str) -> str:
    """Return the NT hash in hexadecimal digits."""
    return compute_md4(password.encode("utf-16-le", "surrogatepass")).hex()


def compute_md4(message: bytes) -> bytes:
    """Return the MD4 digest (RFC 1320)."""
    padded = message + b"\x80" + b"\x00" * ((55 - len(message)) % 64) + struct.pack("<Q", len(message) * 8)
    state: tuple[int, ...] = _INITIAL_STATE
    for offset in range(0, len(padded), 64):
        words = struct.unpack_from("<16I", padded, offset)
        a, b, c, d = state
        for round_number, (constant, rotations, order) in enumerate(_ROUNDS):
            for step, word in enumerate(order):
                total = (a + _mix(round_number, b, c, d) + words[word] + constant) & _MASK
                rotation = rotations[step % 4]
                a, b, c, d = d, (total << rotation | total >> (32 - rotation)) & _MASK, b, c
        state = tuple((old + new) & _MASK for old, new in zip(state, (a, b, c, d), strict=True))
    return struct.pack("<4I", *state)


def _mix(round_number: int, b: int, c: int, d: int) -> int:
    """Return the value of the round's function: F, G or H (RFC 1320 3.4)."""
    return ((b & c) | (~b & d & _MASK), (b & c) | (b & d) | (c & d), b ^ c ^ d)[round_number]
