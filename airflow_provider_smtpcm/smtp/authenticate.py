"""Drives a SASL mechanism over the wire (RFC 4954). Knows no mail, and not how a mechanism was chosen."""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import re

from airflow_provider_smtpcm.errors import AuthenticationError, MailError, Reply
from airflow_provider_smtpcm.smtp.sasl import Mechanism
from airflow_provider_smtpcm.smtp.sign_in_refusals import How, sign_in_remedy
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.wire import Wire

# Whoever knows so much of a token in a row was told it.
_TELLTALE = 16
_LIKE_A_TOKEN = re.compile(r"[A-Za-z0-9+/=]{40,}")


def exchange(wire: Wire, name: str, mechanism: Mechanism, *, how: How, trace: Trace = LOG) -> None:
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


def _challenge(wire: Wire, name: str, reply: Reply) -> bytes:
    try:
        return binascii.a2b_base64(reply.text.encode(), strict_mode=True) if reply.text else b""
    except ValueError:
        raise AuthenticationError(
            f"{name}: the challenge of {wire.peer} is not base64.",
            remedy="Ask the server's administrator whether it really offers this mechanism; a proxy may garble it.",
        ) from None


def _cancel(wire: Wire) -> None:
    """Tell the server that we give up (RFC 4954 4); its 501 says nothing new."""
    with contextlib.suppress(MailError):
        wire.command("*")
        wire.read_reply(secret=True)
