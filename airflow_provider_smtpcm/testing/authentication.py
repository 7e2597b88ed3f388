"""The server's side of NTLM and Kerberos, as generators of tokens, with Extended Protection. No SMTP."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spnego import ContextProxy

#: Yields challenges (text where the client has to ignore it), receives the client's tokens, and returns the user.
Acceptor = Generator["bytes | str", bytes, str]

UNSUCCESSFUL = "535 5.7.3 Authentication unsuccessful"
NTLM_SIGNATURE = b"NTLMSSP\0"
#: RFC 4752 3.1: no security layer and nothing else, so that no message needs room.
NO_LAYER = b"\x01\x00\x00\x00"


class AuthError(Exception):
    """Ends an AUTH exchange. The text is the whole reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedProtection:
    """Which sign-ins are refused for their channel bindings.

    Args:
        policy: `none` looks at no bindings, `allow` refuses wrong ones, `require` also a sign-in without any.
        bindings: the right ones (RFC 5929); None without TLS, where none are right.
    """

    policy: Literal["none", "allow", "require"]
    bindings: bytes | None

    def check_ntlm(self, authenticate: bytes) -> None:
        """Check the channel bindings in an AUTHENTICATE_MESSAGE.

        Raises:
            AuthError: they are wrong, or missing although they are required.
        """
        found = find_channel_bindings(authenticate)
        if self.policy == "none" or (found is None and self.policy == "allow"):
            return
        if self.bindings is None or found != hash_channel_bindings(self.bindings):
            raise AuthError(UNSUCCESSFUL)


def hash_channel_bindings(application_data: bytes) -> bytes:
    """Return the hash of `gss_channel_bindings_struct` without addresses (MS-NLMP 3.1.5.1.2)."""
    from spnego.channel_bindings import GssChannelBindings

    return hashlib.md5(GssChannelBindings(application_data=application_data).pack(), usedforsecurity=False).digest()


def find_channel_bindings(authenticate: bytes) -> bytes | None:
    """Return MsvAvChannelBindings of an AUTHENTICATE_MESSAGE, or None if there are none.

    The message must have been verified: the client's proof covers its AV pairs. All zeros mean no bindings (MS-NLMP
    2.2.2.1).
    """
    length, _, start = struct.unpack_from("<HHI", authenticate, 20)  # NtChallengeResponseFields: MS-NLMP 2.2.1.3
    pairs = authenticate[start : start + length][16 + 28 :]  # behind the proof and the fixed fields: MS-NLMP 2.2.2.7
    while len(pairs) >= 4:
        kind, size = struct.unpack_from("<HH", pairs)
        value, pairs = pairs[4 : 4 + size], pairs[4 + size :]
        if kind == 0x0A:  # MsvAvChannelBindings
            return value if any(value) else None
        if kind == 0:  # MsvAvEOL
            break
    return None


NO_PROTECTION = ExtendedProtection(policy="none", bindings=None)


def accept_ntlm(
    users: Mapping[str, str], *, hint: str = "ntlm supported", protection: ExtendedProtection = NO_PROTECTION
) -> Acceptor:
    """Authenticate a client with NTLM, using the passwords in the file that `NTLM_USER_FILE` names.

    Args:
        users: the users that may sign in, by name in upper case.
        hint: the first challenge: any text, which a client must ignore (MS-SMTPNTLM 2.2.1.2).
        protection: what is refused for its channel bindings.

    Raises:
        AuthError: wrong password, unknown user, or not an NTLM token.
    """
    negotiate = yield hint
    user, _ = yield from _exchange_ntlm(negotiate, users, protection)
    return user


def accept_gssapi(users: Mapping[str, str], *, protection: ExtendedProtection = NO_PROTECTION) -> Acceptor:
    """Authenticate a client by GSSAPI (RFC 4752), with the keytab that `KRB5_KTNAME` names.

    As Exchange, it takes Kerberos, SPNEGO around Kerberos, and NTLM.

    Args:
        users: the users that may log in by NTLM, by name in upper case.
        protection: what is refused for its channel bindings.

    Raises:
        AuthError: no ticket for this server, or what `accept_ntlm` refuses.
    """
    token = yield b""
    if not token:  # MIT's acceptor would list its mechanisms
        raise AuthError(UNSUCCESSFUL)
    if token.startswith(NTLM_SIGNATURE):
        user, ntlm = yield from _exchange_ntlm(token, users, protection)
        choice = yield ntlm.wrap(NO_LAYER, encrypt=False).data
        try:
            chosen = ntlm.unwrap(choice).data
        except Exception:  # noqa: BLE001  (any error of the parser for a malformed token)
            raise AuthError(UNSUCCESSFUL) from None
    else:
        user, chosen = yield from _exchange_kerberos(token, protection)
    if chosen[:1] != NO_LAYER[:1]:
        raise AuthError(UNSUCCESSFUL)
    return user


def _exchange_ntlm(
    negotiate: bytes, users: Mapping[str, str], protection: ExtendedProtection
) -> Generator[bytes, bytes, tuple[str, ContextProxy]]:
    import spnego

    acceptor = spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    authenticate = yield _step(acceptor, negotiate)
    _step(acceptor, authenticate)
    user = users.get((acceptor.client_principal or "").upper())
    if not acceptor.complete or user is None:
        raise AuthError(UNSUCCESSFUL)
    protection.check_ntlm(authenticate)
    return user, acceptor


def _step(acceptor: ContextProxy, token: bytes) -> bytes:
    """Pass a token to the acceptor and return its answer."""
    try:
        return acceptor.step(token) or b""
    except Exception:  # noqa: BLE001  (wrong password, unknown user, or any error of the parser for a malformed token)
        raise AuthError(UNSUCCESSFUL) from None


def _exchange_kerberos(token: bytes, protection: ExtendedProtection) -> Generator[bytes, bytes, tuple[str, bytes]]:
    """Return the client's principal and its choice of a security layer."""
    from gssapi import SecurityContext
    from gssapi.raw import ChannelBindings, RequirementFlag
    from gssapi.raw.misc import GSSError

    bindings = None
    if protection.policy != "none":
        bindings = ChannelBindings(application_data=protection.bindings or b"no TLS, so that none are right")
    try:
        context = SecurityContext(usage="accept", channel_bindings=bindings)
        # Raise at once, as Exchange refuses at once: else the client would get a KRB-ERROR first.
        context.__DEFER_STEP_ERRORS__ = False  # type: ignore[attr-defined]
        answer = context.step(token) or b""
        while not context.complete:
            token = yield answer
            answer = context.step(token) or b""
        if protection.policy == "require" and RequirementFlag.channel_bound not in context.actual_flags:
            raise AuthError(UNSUCCESSFUL)
        if answer:
            yield answer  # the client has no token left, and sends an empty one
        choice = yield context.wrap(NO_LAYER, encrypt=False).message
        return str(context.initiator_name), context.unwrap(choice).message
    except GSSError:
        raise AuthError(UNSUCCESSFUL) from None
