"""The server's side of a sign-in, as tokens, by real GSSAPI acceptors that check channel bindings. No SMTP.

Kerberos is MIT's, NTLM is gss-ntlmssp's, SPNEGO is MIT's around both. An acceptor with bindings refuses a client with
wrong ones and accepts a client without any; in that case the context lacks `channel_bound`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import gssapi
from gssapi.raw import ChannelBindings, RequirementFlag

MECHANISMS = {"1.2.840.113554.1.2.2": "kerberos", "1.3.6.1.4.1.311.2.2.10": "ntlm"}
NTLM_SIGNATURE = b"NTLMSSP\0"
#: RFC 4752 3.1: no security layer and nothing else, so that no message needs room.
NO_LAYER = b"\x01\x00\x00\x00"


class Refused(Exception):  # noqa: N818  (what happened is no error of ours)
    """The sign-in failed; has the reason, and what is known of the client's bindings."""

    def __init__(self, why: str, *, bindings: str | None = None) -> None:
        super().__init__(why)
        self.bindings = bindings


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The client that signed in.

    Args:
        protocol: `kerberos` or `ntlm`, whichever mechanism carried it.
        bindings: `right`, `absent`, or `unchecked` if the acceptor has none.
        service: the service name that a Kerberos client asked for.
        flags: of the context, by GSSAPI's names.
    """

    user: str
    protocol: str
    bindings: str
    service: str | None
    flags: tuple[str, ...]


def accept(
    *, bindings: bytes | None, binding_required: bool, layer: bool, raw_ntlm: bool = False
) -> Generator[bytes, bytes, Identity]:
    """Yield challenges, the first one empty; receive the client's tokens; return the identity.

    Args:
        bindings: the application data of the channel's bindings; None checks nothing.
        binding_required: refuse a client without bindings too.
        layer: add the security layer round of RFC 4752 at the end.
        raw_ntlm: accept only NTLM messages without SPNEGO.

    Raises:
        Refused: for any reason.
    """
    context = gssapi.SecurityContext(
        usage="accept", channel_bindings=ChannelBindings(application_data=bindings) if bindings else None
    )
    # Raise at once: python-gssapi would return the token that tells a client of the error, and raise later.
    context.__DEFER_STEP_ERRORS__ = False
    answer = b""
    while True:
        token = yield answer
        if raw_ntlm and not token.startswith(NTLM_SIGNATURE):
            raise Refused("no NTLM message")
        answer = _step(context, token)
        if context.complete:
            break
    identity = _identify(context, bindings)
    if binding_required and identity.bindings != "right":
        raise Refused("no channel bindings", bindings=identity.bindings)
    if answer and (yield answer):  # the client has no token left, and has to send an empty one
        raise Refused("a token where none was due")
    if layer:
        yield from _negotiate_layer(context)
    return identity


def _step(context: gssapi.SecurityContext, token: bytes) -> bytes:
    try:
        return context.step(token) or b""
    except gssapi.exceptions.BadChannelBindingsError as error:
        raise Refused(str(error), bindings="wrong") from error
    except gssapi.exceptions.GSSError as error:
        raise Refused(str(error)) from error


def _identify(context: gssapi.SecurityContext, bindings: bytes | None) -> Identity:
    if bindings is None:
        checked = "unchecked"
    else:
        checked = "right" if RequirementFlag.channel_bound in context.actual_flags else "absent"
    protocol = MECHANISMS.get(context.mech.dotted_form, context.mech.dotted_form)
    return Identity(
        user=str(context.initiator_name).removesuffix("\0"),  # gss-ntlmssp includes the terminating NUL
        protocol=protocol,
        bindings=checked,
        service=str(context.target_name) if protocol == "kerberos" else None,
        flags=tuple(flag.name for flag in context.actual_flags),
    )


def _negotiate_layer(context: gssapi.SecurityContext) -> Generator[bytes, bytes, None]:
    """Offer no security layer, and require that choice, for the client's own identity (RFC 4752 3.1)."""
    answer = yield context.wrap(NO_LAYER, encrypt=False).message
    try:
        chosen = context.unwrap(answer).message
    except gssapi.exceptions.GSSError as error:
        raise Refused(f"the security layer's choice: {error}") from error
    if chosen != NO_LAYER:
        raise Refused(f"the security layer's choice is {chosen!r}")
