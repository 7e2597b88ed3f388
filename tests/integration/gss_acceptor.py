"""A login from the server's side, as tokens, by real GSSAPI acceptors that check channel bindings. Knows no SMTP.

Kerberos is MIT's, NTLM is gss-ntlmssp's, SPNEGO is MIT's around both. An acceptor that was given bindings refuses a
client with wrong ones and accepts a client without any; in that case the context lacks `channel_bound`.
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
    """The client is not let in; says why, and what is known of its bindings."""

    def __init__(self, why: str, *, bindings: str | None = None) -> None:
        super().__init__(why)
        self.bindings = bindings


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who logged in.

    Args:
        protocol: `kerberos` or `ntlm`, whatever carried it.
        bindings: `right`, `absent`, or `unchecked` where the acceptor was not given any.
        service: the name under which the client sought this server, as Kerberos knows it.
        flags: what the context can do, by GSSAPI's names.
    """

    user: str
    protocol: str
    bindings: str
    service: str | None
    flags: tuple[str, ...]


def accept(
    *, bindings: bytes | None, binding_required: bool, layer: bool, raw_ntlm: bool = False
) -> Generator[bytes, bytes, Identity]:
    """Yields challenges, the first one empty; is sent the client's tokens; returns who it was.

    Args:
        bindings: the application data of the channel's bindings; None checks nothing.
        binding_required: refuse a client without bindings too.
        layer: the security layer round of RFC 4752 at the end.
        raw_ntlm: take bare NTLM messages and nothing else.

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
    if answer and (yield answer):  # the client has nothing left to say, and has to say that
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
        user=str(context.initiator_name).removesuffix("\0"),  # gss-ntlmssp counts C's end of a string in
        protocol=protocol,
        bindings=checked,
        service=str(context.target_name) if protocol == "kerberos" else None,
        flags=tuple(flag.name for flag in context.actual_flags),
    )


def _negotiate_layer(context: gssapi.SecurityContext) -> Generator[bytes, bytes, None]:
    """RFC 4752 3.1: offer no layer, and want exactly that chosen, for the client's own identity."""
    answer = yield context.wrap(NO_LAYER, encrypt=False).message
    try:
        chosen = context.unwrap(answer).message
    except gssapi.exceptions.GSSError as error:
        raise Refused(f"the security layer's choice: {error}") from error
    if chosen != NO_LAYER:
        raise Refused(f"the security layer's choice is {chosen!r}")
