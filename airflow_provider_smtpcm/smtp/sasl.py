"""SASL mechanisms as generators of bytes: each yields a token, receives the server's, and returns when done. No socket.

What is sent into a mechanism is the server's decoded challenge, or `None` for the server's success (235): a mechanism
that still had something to say then has not proved anything, and raises.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Generator

from airflow_provider_smtpcm.errors import AuthenticationError

Mechanism = Generator[bytes, bytes | None, None]


def ntlm(account: str | None, password: str | None, host: str) -> Mechanism:
    r"""AUTH NTLM (MS-SMTPNTLM 3.1.5; the three messages of MS-NLMP).

    Args:
        account: `CORP\user`, `user@corp.example` or `user`; None for the worker's own identity (`NTLM_USER_FILE`).
        password: that account's.
        host: the server's name.

    Raises:
        AuthenticationError: no identity at hand, or the server's tokens are not NTLM.
    """
    import spnego
    from spnego.exceptions import SpnegoError

    # pyspnego logs every token at DEBUG, and with an NTLM token the password can be guessed off-line.
    logging.getLogger("spnego").setLevel(logging.INFO)
    # A credential object, because a bare password of the form hash:hash would be taken for hashes.
    credential = spnego.Password(account, password) if account is not None and password is not None else None
    try:
        # Without integrity pyspnego makes a session key of one octet, which Samba and gss-ntlmssp refuse.
        context = spnego.client(
            credential,
            hostname=host,
            service="smtp",
            protocol="ntlm",
            context_req=spnego.ContextReq.integrity,
        )
        negotiate = context.step()
    except (SpnegoError, ValueError, ImportError) as error:
        raise _no_identity(account, error) from None
    challenge = yield negotiate or b""
    if challenge is None:
        raise _too_early()
    try:
        authenticate = context.step(challenge)
    except (SpnegoError, ValueError, struct.error, IndexError, KeyError, TypeError, OverflowError) as error:
        raise AuthenticationError(
            f"NTLM: the server's challenge of {len(challenge)} octets is not an NTLM message ({type(error).__name__}).",
            remedy="Ask the server's administrator whether it really offers NTLM; a proxy in between may garble it.",
        ) from None
    if (yield authenticate or b"") is not None:
        raise AuthenticationError(
            "NTLM: the server asked for more after the last message of the exchange.",
            remedy="Ask the server's administrator whether it really offers NTLM.",
        )


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


def _too_early() -> AuthenticationError:
    return AuthenticationError(
        "NTLM: the server said that we are signed in before we had proved anything.",
        remedy="Do not trust this server; ask its administrator what answers on this port.",
    )
