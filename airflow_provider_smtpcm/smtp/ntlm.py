"""NTLM: a security context from an account and its password. Knows no socket and no SMTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.nt_hash import nt_hash
from airflow_provider_smtpcm.smtp.spnego_client import spnego_client

if TYPE_CHECKING:
    from spnego import ContextProxy
    from spnego.channel_bindings import GssChannelBindings


def ntlm_context(
    manager: SmtpConnectionManager, bindings: GssChannelBindings | None, *, mechanism: str
) -> tuple[ContextProxy, bytes]:
    """A security context after its first step, and the token of that step.

    Args:
        manager: the account; without one it is the worker's own, from NTLM_USER_FILE.
        bindings: what ties it to the TLS line.
        mechanism: the SASL mechanism that carries its tokens: in GSS-SPNEGO they are SPNEGO's.

    Raises:
        AuthenticationError: there is no identity at hand.
    """
    import spnego
    from spnego.exceptions import SpnegoError

    account, password = manager.account, manager.password
    spnego_wrapped = mechanism == "GSS-SPNEGO"
    credential: spnego.Password | spnego.NTLMHash | None = None
    if account is not None and password is not None:
        # Credential objects, because a bare password of the form hash:hash would be taken for hashes; and the hash in
        # SPNEGO, because a password would have pyspnego ask a KDC first.
        if spnego_wrapped:
            credential = spnego.NTLMHash(account, nt_hash=nt_hash(password))
        else:
            credential = spnego.Password(account, password)
    # Without integrity pyspnego makes a session key of one octet, which Samba and gss-ntlmssp refuse; in GSSAPI the
    # security layer's round is sealed, for which the key has to be agreed on.
    wanted = spnego.ContextReq.integrity
    if mechanism == "GSSAPI":
        wanted |= spnego.ContextReq.confidentiality
    try:
        context = spnego_client(
            credential,
            protocol="negotiate" if spnego_wrapped else "ntlm",
            service="smtp",
            host=manager.host,
            wanted=wanted,
            bindings=bindings,
        )
        token = context.step()
    except (SpnegoError, ValueError, ImportError) as error:
        raise _no_identity(account, error) from None
    return context, token or b""


def _no_identity(account: str | None, error: Exception) -> AuthenticationError:
    if account is None:
        return AuthenticationError(
            "Windows Authentication without a user name means the worker's own identity, and this worker has none for "
            "NTLM.",
            remedy="Enter 'User name' and 'Password' of a Windows account, or set NTLM_USER_FILE for the worker.",
        )
    return AuthenticationError(
        f"NTLM: the sign-in of {account!r} could not be prepared ({type(error).__name__}).",
        remedy=r"Write the user name as CORP\user or user@corp.example.",
    )
