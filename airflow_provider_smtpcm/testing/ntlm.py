"""AUTH NTLM (MS-SMTPNTLM) from the server's side, as tokens. Knows no socket; reads `NTLM_USER_FILE` by pyspnego."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from spnego import ContextProxy


class AuthError(Exception):
    """Ends an AUTH exchange; the text is the whole reply."""


def accept_ntlm(users: Mapping[str, str]) -> Generator[bytes | None, bytes, str]:
    """Yields None, then the challenge; is sent the client's tokens; returns the user as `users` spells the name.

    Args:
        users: the names that may log in, upper-cased, each with its own spelling.

    Raises:
        AuthError: wrong password, unknown user, or no NTLM.
    """
    import spnego

    acceptor = spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    negotiate = yield None
    authenticate = yield step(acceptor, negotiate)
    step(acceptor, authenticate)
    user = users.get((acceptor.client_principal or "").upper())
    if not acceptor.complete or user is None:
        raise AuthError("535 5.7.3 Authentication unsuccessful")
    return user


def step(acceptor: ContextProxy, token: bytes) -> bytes:
    """The acceptor's answer to a token."""
    try:
        return acceptor.step(token) or b""
    except Exception:  # noqa: BLE001  (wrong password, unknown user, or whatever its parser makes of broken octets)
        raise AuthError("535 5.7.3 Authentication unsuccessful") from None


def decode_token(text: bytes) -> bytes:
    """One base64 line; a single `=` stands for an empty initial response (RFC 4954 4)."""
    try:
        return b"" if text == b"=" else b64decode(text, validate=True)
    except Base64Error:
        raise AuthError("501 5.5.2 Cannot decode the base64") from None
