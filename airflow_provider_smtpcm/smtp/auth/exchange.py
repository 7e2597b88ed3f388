"""Drives a SASL mechanism over the wire (RFC 4954). Knows no mail, and not how a mechanism was chosen."""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import re
import struct
from collections.abc import Generator
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import AuthenticationError, MailError, Reply
from airflow_provider_smtpcm.smtp.auth.remedies import How, sign_in_remedy
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.transport import Transport

if TYPE_CHECKING:
    from spnego import ContextProxy


# folded: SASL mechanisms as generators of bytes: each yields a token, receives the server's, and returns when done.
#   No socket.
#   What is sent into a mechanism is the server's decoded challenge, or `None` for the server's success (235). A
#   mechanism
#   that had something left to say or to hear then has not proved anything, or the server has not, and raises. The first
#   token is handed in, since it has to be made before AUTH is said; `b""` is a token too, and goes out as an empty
#   line.

Mechanism = Generator[bytes, bytes | None, None]

_NO_LAYER = 1  # RFC 4752 3.3: bit 1 of the first octet says that no security layer is wanted
_ASK = "Ask the server's administrator whether it really offers this mechanism."


def ntlm(context: ContextProxy, token: bytes) -> Mechanism:
    """AUTH NTLM (MS-SMTPNTLM 3.1.5; the three messages of MS-NLMP).

    Args:
        context: after its first step.
        token: what that step gave, the NEGOTIATE_MESSAGE.

    Raises:
        AuthenticationError: the server's tokens are not NTLM, or its success came too early.
    """
    challenge = yield token
    answer = _step("NTLM", context, challenge)
    if (yield answer) is not None:
        raise _more("NTLM")


def gssapi(context: ContextProxy, token: bytes) -> Mechanism:
    """AUTH GSSAPI (RFC 4752 3.1); Exchange takes SPNEGO and NTLM tokens in it too.

    It ends with the security layer: four octets from the server, of which we demand that no layer is acceptable, and
    four from us that choose it, without an authorization identity.

    Args:
        context: after its first step.
        token: what that step gave.

    Raises:
        AuthenticationError: the server's tokens cannot be read, it wants a layer, or its success came too early.
    """
    challenge = yield from _establish("GSSAPI", context, token)
    if challenge == b"":  # after a last token of ours that asked for no answer (RFC 4752 3.1)
        challenge = yield b""
    yield from _choose_no_layer("GSSAPI", context, challenge)


def gss_spnego(context: ContextProxy, token: bytes) -> Mechanism:
    """AUTH GSS-SPNEGO: SPNEGO tokens (RFC 4178), then either nothing (Cyrus) or the round of RFC 4752 (Dovecot).

    The protocol inside stays the one that it began with, whatever the server would rather have. With NTLM inside the
    server proves nothing, as in AUTH NTLM: verified TLS does that.

    Args:
        context: after its first step.
        token: what that step gave, a NegTokenInit.

    Raises:
        AuthenticationError: the server's tokens cannot be read, it wants a layer, or its success came too early.
    """
    challenge = yield from _establish("GSS-SPNEGO", context, token, may_succeed=True)
    if challenge == b"":
        challenge = yield b""
    if challenge is None:
        # A server may call SPNEGO complete while Kerberos inside never proved it: only keys that exist can wrap.
        _wrap("GSS-SPNEGO", context, b"")
        return
    yield from _choose_no_layer("GSS-SPNEGO", context, challenge)


def _establish(
    name: str, context: ContextProxy, token: bytes, *, may_succeed: bool = False
) -> Generator[bytes, bytes | None, bytes | None]:
    """Carry tokens until the context is complete; returns what the server said after that."""
    protocol = context.negotiated_protocol or "ntlm"
    proofs = 0
    while True:
        challenge = yield token
        if context.complete:
            # NTLM's proof is its third message: a server that completes SPNEGO before it has let nobody in.
            if (challenge is None and not may_succeed) or (protocol == "ntlm" and not proofs):
                raise _too_early(name)
            return challenge
        token = _step(name, context, challenge)
        proofs += bool(token)
        if (context.negotiated_protocol or protocol) != protocol:
            raise AuthenticationError(
                f"{name}: the server would go on with {context.negotiated_protocol}, where {protocol} was begun.",
                remedy="Set 'Windows protocol' to what the server takes, if that is what you want.",
            )


def _choose_no_layer(name: str, context: ContextProxy, offer: bytes | None) -> Mechanism:
    if offer is None:
        raise _too_early(name)
    try:
        layers = context.unwrap(offer).data
    except _stray_errors() as error:
        raise AuthenticationError(
            f"{name}: the server's offer of a security layer cannot be unwrapped ({type(error).__name__}).", remedy=_ASK
        ) from None
    if len(layers) != 4 or not layers[0] & _NO_LAYER:
        raise AuthenticationError(
            f"{name}: the server insists on a security layer (it offers {layers[:8].hex(' ')}), which SMTP over "
            "TLS has no use for.",
            remedy="Have the server accept 'no layer' (for Cyrus SASL: minssf 0).",
        )
    if (yield _wrap(name, context, b"\x01\x00\x00\x00")) is not None:
        raise _more(name)


def _step(name: str, context: ContextProxy, challenge: bytes | None) -> bytes:
    if challenge is None:
        raise _too_early(name)
    try:
        return context.step(challenge) or b""
    except _stray_errors() as error:
        raise AuthenticationError(
            f"{name}: the server's challenge of {len(challenge)} octets cannot be used ({describe(error)}).",
            remedy="The server, or a proxy in between, sent something that is not of this mechanism; if it is, its "
            "administrator finds the reason in the server's log.",
        ) from None


def _wrap(name: str, context: ContextProxy, data: bytes) -> bytes:
    try:
        return context.wrap(data, encrypt=False).data
    except _stray_errors():
        raise AuthenticationError(
            f"{name}: the server says that we are signed in, but never proved that it is the server.",
            remedy="Do not trust this server; ask its administrator what answers on this port.",
        ) from None


def describe(error: Exception) -> str:
    """An error of the libraries below in their own words, without their prefix and without a token."""
    if isinstance(error, struct.error | IndexError):
        return "it ends too early"
    text = str(getattr(error, "base_error", None) or "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _stray_errors() -> tuple[type[Exception], ...]:
    """What the libraries below raise for octets that they cannot read."""
    from spnego.exceptions import SpnegoError

    return (
        SpnegoError, ValueError, struct.error, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
        AttributeError, StopIteration,
    )  # fmt: skip


def _too_early(name: str) -> AuthenticationError:
    return AuthenticationError(
        f"{name}: the server said that we are signed in before anything was proved.",
        remedy="Do not trust this server; ask its administrator what answers on this port.",
    )


def _more(name: str) -> AuthenticationError:
    return AuthenticationError(f"{name}: the server asked for more after the exchange was complete.", remedy=_ASK)


# folded: here began the module itself

# Whoever knows so much of a token in a row was told it.
_TELLTALE = 16
_LIKE_A_TOKEN = re.compile(r"[A-Za-z0-9+/=]{40,}")


def exchange(wire: Transport, name: str, mechanism: Mechanism, *, how: How, trace: Trace = LOG) -> None:
    """Carry a mechanism's tokens to the server and back until the server's 235.

    The first token is made before AUTH is sent, so that a missing identity leaves no half-open exchange. There is never
    an initial response (RFC 4954 4 forbids one that does not fit the line), so the first 334 carries no token: its text
    is for humans (MS-SMTPNTLM 2.2.1.2).

    Args:
        wire: after EHLO.
        name: the SASL mechanism.
        mechanism: its tokens.
        how: what a refusal means depends on it.
        trace: told of each leg, in words that show no token.

    Raises:
        AuthenticationError: the server refused, or one of the two sides has not proved itself.
    """
    trace.begin(Step.SIGN_IN)
    token = next(mechanism)
    said: list[str] = []
    trace.tell(Step.SIGN_IN, f"C: AUTH {name}")
    wire.command(f"AUTH {name}")
    reply = wire.read_reply(secret=True)
    while reply.code == 334:
        line = binascii.b2a_base64(token, newline=False).decode("ascii")
        said.append(line)
        trace.tell(Step.SIGN_IN, f"S: 334 ({len(reply.text)} octets, not shown)" if reply.text else "S: 334")
        trace.tell(Step.SIGN_IN, f"C: a token of {len(token)} octets, not shown" if token else "C: an empty line")
        wire.command(line, secret=True)
        reply = wire.read_reply(secret=True)
        if reply.code != 334:
            break
        said.append(reply.text)
        try:
            token = mechanism.send(_challenge(wire, name, reply))
        except StopIteration:
            _cancel(wire)
            raise AuthenticationError(
                f"{name}: {wire.peer} asked for more after the exchange was complete.",
                remedy="Ask the server's administrator whether it really offers this mechanism.",
            ) from None
        except MailError:
            _cancel(wire)
            raise
    # Some servers repeat what they did not understand, and with a token a password can be guessed off-line.
    if _repeats(reply.text, said):
        reply = dataclasses.replace(reply, text="(text that repeats a token, not shown)")
    trace.tell(Step.SIGN_IN, f"S: {reply}")
    if reply.code != 235:
        raise AuthenticationError(
            f"{wire.peer} refused the sign-in by {name} with '{reply}'.",
            remedy=sign_in_remedy(reply, name=name, how=how, longest=max(map(len, said), default=0)),
            reply=reply,
            retryable=reply.transient,
        )
    with contextlib.suppress(StopIteration):
        mechanism.send(None)


def _repeats(text: str, said: list[str]) -> bool:
    """Whether a text holds a part of a token that was said, line ends or not, or looks like one."""
    if _LIKE_A_TOKEN.search(text):
        return True
    run = re.sub(r"[^A-Za-z0-9+/=]", "", text)
    return any(run[at : at + _TELLTALE] in token for at in range(len(run) - _TELLTALE + 1) for token in said)


def _challenge(wire: Transport, name: str, reply: Reply) -> bytes:
    try:
        return binascii.a2b_base64(reply.text.encode(), strict_mode=True) if reply.text else b""
    except ValueError:
        raise AuthenticationError(
            f"{name}: the challenge of {wire.peer} is not base64.",
            remedy="Ask the server's administrator whether it really offers this mechanism; a proxy may garble it.",
        ) from None


def _cancel(wire: Transport) -> None:
    """Tell the server that we give up (RFC 4954 4); its 501 says nothing new."""
    with contextlib.suppress(MailError):
        wire.command("*")
        wire.read_reply(secret=True)
