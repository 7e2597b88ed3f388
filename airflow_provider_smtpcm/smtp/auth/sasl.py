"""SASL: the mechanisms as generators of bytes, and their exchange with the server (RFC 4954, MS-SMTPNTLM).

A mechanism yields the client's tokens and uses no socket. After each token, `send` the generator the server's decoded
challenge, or None if the server replied with success (235). The generator returns when the exchange is complete, and
raises if the success came before that. Its first token is an argument, since it is computed before AUTH is sent. `b""`
is a token too, sent as an empty line.
"""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import logging
import re
import struct
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import AuthenticationError, MailError, Reply
from airflow_provider_smtpcm.smtp.auth.remedies import get_authentication_remedy
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.transport import Transport

if TYPE_CHECKING:
    from spnego import ContextProxy, ContextReq
    from spnego.channel_bindings import GssChannelBindings

Mechanism = Generator[bytes, bytes | None, None]

_NO_LAYER = 1  # RFC 4752 3.3: this bit of the first octet stands for "no security layer"
_ASK_ADMINISTRATOR_REMEDY = "Ask the server's administrator whether it really offers this mechanism."
_UNTRUSTED_REMEDY = "Do not trust this server; ask its administrator what answers on this port."
# A reply repeats a token if it has at least this many consecutive characters of it; fewer may be a coincidence.
_MIN_REPEATED_LENGTH = 16
_TOKEN_LIKE = re.compile(r"[A-Za-z0-9+/=]{40,}")

_log_levels_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How a session is authenticated.

    Args:
        mechanism: the SASL mechanism.
        protocol: `Kerberos` or `NTLM`.
        identity: the account, as far as the client knows it.
        reason: why this protocol was chosen.
        has_channel_binding: whether the tokens carry a channel binding.
        is_binding_off: whether they carry none although there is TLS, since `channel_binding` is `none`.
        offers_kerberos: whether the server offers mechanisms that carry Kerberos.
        clock_offset: the seconds by which the KDC's clock is ahead of this worker's, as far as known.
    """

    mechanism: str
    protocol: str
    identity: str
    reason: str = ""
    has_channel_binding: bool = False
    is_binding_off: bool = False
    offers_kerberos: bool = False
    clock_offset: float = 0.0

    def __str__(self) -> str:
        protocol = "" if self.mechanism == self.protocol else f" ({self.protocol})"
        return f"{self.mechanism}{protocol} as {self.identity}"


class AccountRefusedError(AuthenticationError):
    """The KDC or the server refused the account, or may have. Another attempt would only bring a lockout closer."""


# --- The exchange.

# Lines with tokens, the client's and the server's by turns, from which on NTLM has sent its AUTHENTICATE_MESSAGE: the
# server can check the password, and the directory counts a wrong one.
_LINES_WITH_NTLM_RESPONSE = 3


def authenticate(
    transport: Transport, mechanism: Mechanism, authentication: Authentication, *, trace: Trace = LOG
) -> None:
    """Exchange a mechanism's tokens with the server until its 235.

    The first token is created before AUTH is sent, so that a missing identity does not leave an exchange half open. No
    initial response is sent, since one that does not fit the line is forbidden (RFC 4954 4); so the first 334 carries
    no token, and its text is for humans (MS-SMTPNTLM 2.2.1.2).

    Args:
        transport: a transport after EHLO.
        mechanism: a new generator.
        authentication: names the mechanism; if the server refuses, the remedy depends on the other fields.
        trace: receives each step, without tokens.

    Raises:
        AuthenticationError: the server refused the sign-in, sent an invalid token, or did not prove its identity.
            AccountRefusedError if that is final: once the server can check the password, every end is a refusal that
            counts toward a lockout, or may be one, except success and a temporary failure. If the connection broke
            instead, its error is the cause.
    """
    token_lines: list[str] = []
    try:
        _exchange_tokens(transport, mechanism, authentication, token_lines, trace)
    except MailError as error:
        is_checked = authentication.protocol == "NTLM" and len(token_lines) >= _LINES_WITH_NTLM_RESPONSE
        is_temporary = error.reply is not None and error.reply.transient and error.reply.code != 421
        if not is_checked or is_temporary or isinstance(error, AccountRefusedError):
            raise
        raise _unclear_refusal_error(transport, authentication, error) from error


def _exchange_tokens(
    transport: Transport, mechanism: Mechanism, authentication: Authentication, token_lines: list[str], trace: Trace
) -> None:
    """Do what `authenticate` does; append each line with a token to `token_lines`."""
    name = authentication.mechanism
    trace.begin(Step.SIGN_IN)
    token = next(mechanism)
    trace.info(Step.SIGN_IN, f"C: AUTH {name}")
    transport.send_command(f"AUTH {name}")
    reply = transport.read_reply(secret=True)
    while reply.code == 334:
        line = binascii.b2a_base64(token, newline=False).decode("ascii")
        token_lines.append(line)
        trace.info(Step.SIGN_IN, f"S: 334 ({len(reply.text)} octets, not shown)" if reply.text else "S: 334")
        trace.info(Step.SIGN_IN, f"C: a token of {len(token)} octets, not shown" if token else "C: an empty line")
        transport.send_command(line, secret=True)
        reply = transport.read_reply(secret=True)
        if reply.code != 334:
            break
        token_lines.append(reply.text)
        try:
            token = mechanism.send(_decode_challenge(transport, name, reply))
        except StopIteration:
            _cancel(transport)
            raise _unexpected_challenge_error(name, server=transport.peer) from None
        except MailError:
            _cancel(transport)
            raise
    # Some servers repeat what they did not understand; from an NTLM token the password can be guessed offline.
    if _repeats_token(reply.text, token_lines):
        reply = dataclasses.replace(reply, text="(text that repeats a token, not shown)")
    trace.info(Step.SIGN_IN, f"S: {reply}")
    if reply.code != 235:
        error_type = AuthenticationError if reply.transient else AccountRefusedError
        raise error_type(
            f"{transport.peer} refused the {name} sign-in with '{reply}'.",
            remedy=get_authentication_remedy(
                reply, authentication, token_lines=token_lines, greeting=transport.greeting
            ),
            reply=reply,
            retryable=reply.transient,
        )
    with contextlib.suppress(StopIteration):
        mechanism.send(None)


def _unclear_refusal_error(
    transport: Transport, authentication: Authentication, error: MailError
) -> AccountRefusedError:
    """Return the error for a sign-in that ended without a reply that says whether the account was accepted."""
    if not error.retryable:  # a reply or a token that makes no sense; its own remedy is about that
        return AccountRefusedError(error.message, remedy=error.remedy, reply=error.reply)
    what = f"it answered with '{error.reply}'." if error.reply else error.message
    return AccountRefusedError(
        f"{transport.peer} may have refused the {authentication.mechanism} sign-in of {authentication.identity}: "
        f"{what}",
        remedy=r"Check 'User name' (CORP\user or user@corp.example), 'Password', and the server's log; then run the "
        "task again. The password was not sent again, to avoid locking the account.",
        reply=error.reply,
    )


def _repeats_token(text: str, token_lines: list[str]) -> bool:
    """Return whether a text looks like a token, or contains a part of one, possibly broken into lines."""
    if _TOKEN_LIKE.search(text):
        return True
    base64 = re.sub(r"[^A-Za-z0-9+/=]", "", text)
    return any(
        base64[start : start + _MIN_REPEATED_LENGTH] in token
        for start in range(len(base64) - _MIN_REPEATED_LENGTH + 1)
        for token in token_lines
    )


def _decode_challenge(transport: Transport, name: str, reply: Reply) -> bytes:
    try:
        return binascii.a2b_base64(reply.text.encode(), strict_mode=True) if reply.text else b""
    except ValueError:
        raise AuthenticationError(
            f"{name}: the challenge of {transport.peer} is not base64.",
            remedy=f"{_ASK_ADMINISTRATOR_REMEDY} A proxy may have altered the challenge.",
        ) from None


def _cancel(transport: Transport) -> None:
    """Cancel the exchange (RFC 4954 4), and ignore the server's 501."""
    with contextlib.suppress(MailError):
        transport.send_command("*")
        transport.read_reply(secret=True)


# --- The mechanisms.


def create_context(
    credential: Any,
    *,
    protocol: str,
    service: str,
    host: str,
    requirements: ContextReq,
    bindings: GssChannelBindings | None,
) -> ContextProxy:
    """Create a client's security context, which has not taken a step yet; turn off pyspnego's logging of tokens.

    Args:
        credential: one of pyspnego's credential objects; None for the worker's own identity.
        protocol: `kerberos`, `ntlm`, or `negotiate` for SPNEGO.
        service: the server's SPN up to the slash.
        host: the rest of the SPN.
        requirements: the capabilities that the context must have.
        bindings: the channel binding; None: the sign-in is not bound to TLS.
    """
    import spnego

    _disable_token_logging()
    return spnego.client(
        credential,
        hostname=host,
        service=service,
        protocol=protocol,
        context_req=requirements,
        channel_bindings=bindings,
    )


def _disable_token_logging() -> None:
    """Raise pyspnego's loggers to level INFO if theirs is lower.

    At DEBUG pyspnego logs every token, and from an NTLM token the password can be guessed offline. Each of its modules
    has a logger, which may have a level of its own.
    """
    with _log_levels_lock:
        children = [name for name in list(logging.Logger.manager.loggerDict) if name.startswith("spnego.")]
        for name in ("spnego", *children):
            logger = logging.getLogger(name)
            if logger.getEffectiveLevel() < logging.INFO:
                logger.setLevel(logging.INFO)


def ntlm_mechanism(context: ContextProxy, token: bytes) -> Mechanism:
    """AUTH NTLM (MS-SMTPNTLM 3.1.5; the three messages of MS-NLMP).

    Args:
        context: a context that has taken its first step.
        token: the result of that step, the NEGOTIATE_MESSAGE.

    Raises:
        AuthenticationError: the server's challenge is not NTLM, or its success came too early.
    """
    challenge = yield token
    response = _step("NTLM", context, challenge)
    if (yield response) is not None:
        raise _unexpected_challenge_error("NTLM")


def gssapi_mechanism(context: ContextProxy, token: bytes) -> Mechanism:
    """AUTH GSSAPI (RFC 4752 3.1); Exchange accepts SPNEGO and NTLM tokens in it too.

    It ends with the security layer: four octets from the server, which must allow "no layer", and four from the client
    that choose it, without an authorization identity.

    Args:
        context: a context that has taken its first step.
        token: the result of that step.

    Raises:
        AuthenticationError: the server's tokens cannot be read, it requires a layer, or its success came too early.
    """
    challenge = yield from _establish("GSSAPI", context, token)
    if challenge == b"":  # the server has no token left; its layer offer follows (RFC 4752 3.1)
        challenge = yield b""
    yield from _choose_no_layer("GSSAPI", context, challenge)


def gss_spnego_mechanism(context: ContextProxy, token: bytes) -> Mechanism:
    """AUTH GSS-SPNEGO: SPNEGO tokens (RFC 4178), then either nothing (Cyrus) or the security layer (Dovecot).

    The protocol inside is that of the first token; if the server switches to another, the sign-in fails. With NTLM, as
    in AUTH NTLM, the server does not prove its identity: only verified TLS proves it.

    Args:
        context: a context that has taken its first step.
        token: the result of that step, a NegTokenInit.

    Raises:
        AuthenticationError: the server's tokens cannot be read, it requires a layer, or its success came too early.
    """
    challenge = yield from _establish("GSS-SPNEGO", context, token, may_succeed=True)
    if challenge == b"":
        challenge = yield b""
    if challenge is None:
        # A server may declare SPNEGO complete without proving itself in Kerberos. Then no key exists and this raises.
        _wrap("GSS-SPNEGO", context, b"")
        return
    yield from _choose_no_layer("GSS-SPNEGO", context, challenge)


def _establish(
    name: str, context: ContextProxy, token: bytes, *, may_succeed: bool = False
) -> Generator[bytes, bytes | None, bytes | None]:
    """Exchange tokens until the context is complete.

    Args:
        name: the SASL mechanism.
        context: a context that has taken its first step.
        token: the result of that step.
        may_succeed: whether the server may reply with success instead of offering a security layer.

    Returns:
        The first challenge after the context was complete; None if the server replied with success instead.
    """
    protocol = context.negotiated_protocol or "ntlm"
    responses_sent = 0
    while True:
        challenge = yield token
        if context.complete:
            # In NTLM the client's second token authenticates it; SPNEGO must not be complete before that.
            if (challenge is None and not may_succeed) or (protocol == "ntlm" and not responses_sent):
                raise _premature_success_error(name)
            return challenge
        token = _step(name, context, challenge)
        responses_sent += bool(token)
        if (context.negotiated_protocol or protocol) != protocol:
            raise AuthenticationError(
                f"{name}: the server switched to {context.negotiated_protocol} after {protocol} had begun.",
                remedy="Set 'Windows protocol' to the server's protocol if you accept it.",
            )


def _choose_no_layer(name: str, context: ContextProxy, offer: bytes | None) -> Mechanism:
    if offer is None:
        raise _premature_success_error(name)
    try:
        layers = context.unwrap(offer).data
    except _token_errors() as error:
        raise AuthenticationError(
            f"{name}: the server's offer of a security layer cannot be unwrapped ({type(error).__name__}).",
            remedy=_ASK_ADMINISTRATOR_REMEDY,
        ) from None
    if len(layers) != 4 or not layers[0] & _NO_LAYER:
        raise AuthenticationError(
            f"{name}: the server insists on a security layer (it offers {layers[:8].hex(' ')}), which SMTP over "
            "TLS does not need.",
            remedy="Have the server accept 'no layer' (for Cyrus SASL: minssf 0).",
        )
    if (yield _wrap(name, context, b"\x01\x00\x00\x00")) is not None:
        raise _unexpected_challenge_error(name)


def _step(name: str, context: ContextProxy, challenge: bytes | None) -> bytes:
    if challenge is None:
        raise _premature_success_error(name)
    try:
        return context.step(challenge) or b""
    except _token_errors() as error:
        raise AuthenticationError(
            f"{name}: the server's challenge of {len(challenge)} octets cannot be used "
            f"({describe_library_error(error)}).",
            remedy="Check that no proxy in between alters the exchange; otherwise ask the server's administrator: the "
            "reason is in its log.",
        ) from None


def _wrap(name: str, context: ContextProxy, data: bytes) -> bytes:
    try:
        return context.wrap(data, encrypt=False).data
    except _token_errors():
        raise AuthenticationError(
            f"{name}: the server accepted the sign-in, but never proved its own identity.",
            remedy=_UNTRUSTED_REMEDY,
        ) from None


def _token_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that pyspnego, python-gssapi and python-krb5 raise for octets that they cannot read."""
    from spnego.exceptions import SpnegoError

    return (
        SpnegoError, ValueError, struct.error, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
        AttributeError, StopIteration,
    )  # fmt: skip


def describe_library_error(error: Exception) -> str:
    """Describe an error by its type and the underlying library's message: pyspnego's own may contain a token."""
    if isinstance(error, struct.error | IndexError):
        return "it ends too early"
    text = str(getattr(error, "base_error", None) or "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _premature_success_error(name: str) -> AuthenticationError:
    return AuthenticationError(
        f"{name}: the server accepted the sign-in before the exchange was complete.", remedy=_UNTRUSTED_REMEDY
    )


def _unexpected_challenge_error(name: str, *, server: str = "the server") -> AuthenticationError:
    return AuthenticationError(
        f"{name}: {server} asked for more after the exchange was complete.", remedy=_ASK_ADMINISTRATOR_REMEDY
    )
