"""NTLM: a security context from an account and its password, or the worker's own. Knows no socket and no SMTP."""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError

if TYPE_CHECKING:
    from spnego import ContextProxy, ContextReq, NTLMHash, Password
    from spnego.channel_bindings import GssChannelBindings


# folded: The NT hash of a password (MS-NLMP 3.3.1, NTOWFv1), for NTLM inside SPNEGO. Knows nothing else.
#   pyspnego keeps Kerberos out of SPNEGO only for a credential that is such a hash; and MD4 (RFC 1320), of which it is
#   made, is in no OpenSSL of today.

_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
# Each round: what it adds, by how much it rotates, and in which order it takes the sixteen words (RFC 1320 3.4).
_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), tuple(range(16))),
    (0x5A827999, (3, 5, 9, 13), (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
    (0x6ED9EBA1, (3, 9, 11, 15), (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)),
)


def nt_hash(password: str) -> str:
    """The hash in hexadecimal digits."""
    return md4(password.encode("utf-16-le", "surrogatepass")).hex()


def md4(message: bytes) -> bytes:
    """RFC 1320."""
    padded = message + b"\x80" + b"\x00" * ((55 - len(message)) % 64) + struct.pack("<Q", len(message) * 8)
    state: tuple[int, ...] = _START
    for at in range(0, len(padded), 64):
        words = struct.unpack("<16I", padded[at : at + 64])
        a, b, c, d = state
        for number, (constant, shifts, order) in enumerate(_ROUNDS):
            for step, word in enumerate(order):
                total = (a + _mix(number, b, c, d) + words[word] + constant) & _MASK
                shift = shifts[step % 4]
                a, b, c, d = d, (total << shift | total >> (32 - shift)) & _MASK, b, c
        state = tuple((old + new) & _MASK for old, new in zip(state, (a, b, c, d), strict=True))
    return struct.pack("<4I", *state)


def _mix(number: int, b: int, c: int, d: int) -> int:
    """The functions F, G and H of the three rounds."""
    return ((b & c) | (~b & d & _MASK), (b & c) | (b & d) | (c & d), b ^ c ^ d)[number]


# folded: The one place where pyspnego's security contexts are made, which keeps their tokens out of every log.

_deciding = threading.Lock()


def _keep_tokens_out_of_logs() -> None:
    """Raise pyspnego's loggers to INFO where they would log more, and lower none.

    At DEBUG it logs every token, and with an NTLM token the password can be guessed off-line. Each of its modules has a
    logger of its own, which may have been given a level of its own.
    """
    with _deciding:
        known = logging.Logger.manager.loggerDict
        below = [name for name in list(known) if name.startswith("spnego.")]
        for name in ("spnego", *below):
            logger = logging.getLogger(name)
            if logger.getEffectiveLevel() < logging.INFO:
                logger.setLevel(logging.INFO)


def spnego_client(
    credential: Any,
    *,
    protocol: str,
    service: str,
    host: str,
    wanted: ContextReq,
    bindings: GssChannelBindings | None,
) -> ContextProxy:
    """A client's context before its first step.

    Args:
        credential: one of pyspnego's credential objects; None for the worker's own identity.
        protocol: `kerberos`, `ntlm`, or `negotiate` for SPNEGO.
        service: the first half of the server's name in Kerberos.
        host: the second half.
        wanted: what the context must be able to do.
        bindings: what ties it to the TLS line.
    """
    import spnego

    _keep_tokens_out_of_logs()
    return spnego.client(
        credential,
        hostname=host,
        service=service,
        protocol=protocol,
        context_req=wanted,
        channel_bindings=bindings,
    )


# folded: here began the module itself

# Where gss-ntlmssp and pyspnego look for the worker's own account.
USER_FILE = "NTLM_USER_FILE"
_HASH = re.compile(r"[0-9A-Fa-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NtlmIdentity:
    """An account and what proves it: a password, or its hash."""

    account: str
    password: str | None = field(default=None, repr=False)
    hashed: str | None = field(default=None, repr=False)

    def credential(self, *, spnego_wrapped: bool) -> Password | NTLMHash:
        """What pyspnego takes.

        A credential object, because a bare password of the form hash:hash would be taken for hashes; and the hash in
        SPNEGO, because a password would have pyspnego ask a KDC first, and let the server choose Kerberos.
        """
        import spnego

        if self.password is not None and not spnego_wrapped:
            return spnego.Password(self.account, self.password)
        return spnego.NTLMHash(self.account, nt_hash=self.hashed or nt_hash(self.password or ""))


def ntlm_identity(manager: SmtpConnectionManager) -> NtlmIdentity:
    """The connection's account, else the worker's own from the file that NTLM_USER_FILE names.

    Raises:
        AuthenticationError: there is none, or its file cannot be read.
    """
    if manager.account is not None and manager.password is not None:
        return NtlmIdentity(account=manager.account, password=manager.password)
    path = os.environ.get(USER_FILE)
    if not path:
        raise AuthenticationError(
            "Windows Authentication without a user name means the worker's own identity, and this worker has none for "
            "NTLM.",
            remedy=f"Enter 'User name' and 'Password' of a Windows account, or set {USER_FILE} for the worker.",
        )
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise AuthenticationError(
            f"NTLM: the worker's own identity cannot be read from {path}, which {USER_FILE} names ({why}).",
            remedy="Make it a UTF-8 file that the worker's user may read.",
        ) from None
    for line in lines:
        if not line.startswith("#") and (identity := _identity_of(line.split(":"))):
            return identity
    raise AuthenticationError(
        f"NTLM: {path}, which {USER_FILE} names, has no line that can be used.",
        remedy="Write DOMAIN:user:password; there can be no colon in the password.",
    )


def _identity_of(parts: list[str]) -> NtlmIdentity | None:
    """`DOMAIN:user:password`, or a line of smbpasswd (`user:uid:LM hash:NT hash:...`)."""
    first, second = parts[0].strip(), parts[1].strip() if len(parts) > 1 else ""
    if len(parts) == 3 and second and parts[2]:
        return NtlmIdentity(account=f"{first}\\{second}" if first else second, password=parts[2])
    if len(parts) >= 6 and first and _HASH.fullmatch(parts[3].strip()):
        return NtlmIdentity(account=first, hashed=parts[3].strip().lower())
    return None


def ntlm_context(
    manager: SmtpConnectionManager,
    identity: NtlmIdentity,
    bindings: GssChannelBindings | None,
    *,
    mechanism: str,
) -> tuple[ContextProxy, bytes]:
    """A security context after its first step, and the token of that step.

    Args:
        manager: the server.
        identity: who we are.
        bindings: what ties it to the TLS line.
        mechanism: the SASL mechanism that carries its tokens: in GSS-SPNEGO they are SPNEGO's.

    Raises:
        AuthenticationError: this worker is set to an NTLM that can be cracked, or the account cannot be used.
    """
    import spnego
    from spnego.exceptions import SpnegoError

    _insist_on_ntlm_v2()
    spnego_wrapped = mechanism == "GSS-SPNEGO"
    # Without integrity pyspnego makes a session key of one octet, which Samba and gss-ntlmssp refuse; in GSSAPI the
    # security layer's round is sealed, for which the key has to be agreed on.
    wanted = spnego.ContextReq.integrity
    if mechanism == "GSSAPI":
        wanted |= spnego.ContextReq.confidentiality
    try:
        context = spnego_client(
            identity.credential(spnego_wrapped=spnego_wrapped),
            protocol="negotiate" if spnego_wrapped else "ntlm",
            service="smtp",
            host=manager.server_name,
            wanted=wanted,
            bindings=bindings,
        )
        token = context.step()
    except (SpnegoError, ValueError, ImportError) as error:
        raise AuthenticationError(
            f"NTLM: the sign-in could not be prepared ({type(error).__name__}).",
            remedy=r"Write the user name as CORP\user or user@corp.example.",
        ) from None
    return context, token or b""


def _insist_on_ntlm_v2() -> None:
    """Since pyspnego takes the version from the environment; NTLMv1 can be cracked and carries no binding."""
    level = os.environ.get("LM_COMPAT_LEVEL", "3")
    if level not in ("3", "4", "5"):
        raise AuthenticationError(
            f"NTLM: this worker's LM_COMPAT_LEVEL is {level!r:.20}, which would allow NTLMv1.",
            remedy="Remove LM_COMPAT_LEVEL from the worker's environment, or set it to 3 (NTLMv2).",
        )
