"""NTLM: a security context from an account and its password, or the worker's own. Knows no socket and no SMTP."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.windows.nt_hash import nt_hash
from airflow_provider_smtpcm.smtp.windows.spnego_client import spnego_client

if TYPE_CHECKING:
    from spnego import ContextProxy, NTLMHash, Password
    from spnego.channel_bindings import GssChannelBindings

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
