"""Drives a SASL mechanism over the wire (RFC 4954), and says what a refused sign-in means. Knows no mail."""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import logging
import re
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, MailError, Reply
from airflow_provider_smtpcm.smtp.sasl import Mechanism, ntlm
from airflow_provider_smtpcm.smtp.wire import Wire

_TOKEN = re.compile(r"[A-Za-z0-9+/=]{40,}")

log = logging.getLogger(__name__)


def sign_in(wire: Wire, manager: SmtpConnectionManager, extensions: Mapping[str, str]) -> str:
    """Sign in with Windows Authentication and return the mechanism's name; nothing weaker is ever tried instead.

    Args:
        wire: after EHLO, and after TLS where TLS is wanted.
        manager: the account.
        extensions: what the server offered.

    Raises:
        AuthenticationError: with what the server offered or answered, and the remedy.
    """
    offered = extensions.get("AUTH", "").upper().split()
    if "NTLM" not in offered:
        raise _not_offered(wire, offered, extensions)
    log.debug("%s offers %s; taking NTLM.", wire.peer, " ".join(offered))
    exchange(wire, "NTLM", ntlm(manager.account, manager.password, manager.host))
    return "NTLM"


def exchange(wire: Wire, name: str, mechanism: Mechanism) -> None:
    """Carry a mechanism's tokens to the server and back until the server's 235.

    The first token is made before AUTH is sent, so that a missing identity leaves no half-open exchange. There is never
    an initial response (RFC 4954 4 forbids one that does not fit the line), so the first 334 carries no token: its text
    is for humans (MS-SMTPNTLM 2.2.1.2).
    """
    token = next(mechanism)
    wire.command(f"AUTH {name}")
    reply = wire.read_reply()
    while reply.code == 334:
        wire.command(binascii.b2a_base64(token, newline=False).decode("ascii"), secret=True)
        reply = wire.read_reply(secret=True)
        if reply.code != 334:
            break
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
    if reply.code != 235:
        raise _refused(wire, name, reply)
    with contextlib.suppress(StopIteration):
        mechanism.send(None)


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
        wire.read_reply()


def _not_offered(wire: Wire, offered: list[str], extensions: Mapping[str, str]) -> AuthenticationError:
    if offered:
        return AuthenticationError(
            f"{wire.peer} does not offer NTLM; it offers {', '.join(offered)}.",
            remedy="Have 'Integrated Windows authentication' enabled on the server's receive connector; this package "
            "sends no password by PLAIN or LOGIN.",
        )
    seen = ", ".join(extensions) or "no extension"
    clear = "" if wire.tls_version else " Many servers offer it after TLS only: set SSL to 'STARTTLS'."
    return AuthenticationError(
        f"{wire.peer} offers no authentication at all (it offers {seen}).",
        remedy="If it takes mail from this worker without signing in, set Authentication to 'Anonymous'; else have "
        f"Windows Authentication enabled on the server.{clear}",
    )


def _refused(wire: Wire, name: str, reply: Reply) -> AuthenticationError:
    """What a refused sign-in means (RFC 4954 6, Exchange's habits)."""
    retryable = reply.transient
    # Some servers repeat what they did not understand, and with a token a password can be guessed off-line.
    reply = dataclasses.replace(reply, text=_TOKEN.sub("(a token)", reply.text))
    match reply.code:
        case 535:
            remedy = (
                r"Check 'User name' (CORP\user or user@corp.example) and 'Password', and that the account is neither "
                "locked nor barred from this server. Nothing else was tried, to spare the account a lockout."
            )
        case 454 | 421 | 432:
            remedy = "The server cannot check accounts right now; try again."
        case 500 | 501 | 502 | 503 | 504:
            remedy = f"The server offers {name} and then rejects its form; ask its administrator."
        case 538 | 523 | 530:
            remedy = "The server wants encryption first: set SSL to 'STARTTLS' or 'Implicit TLS'."
        case _:
            remedy = "Ask the server's administrator what this answer means."
    return AuthenticationError(
        f"{wire.peer} refused the sign-in by {name} with '{reply}'.", remedy=remedy, reply=reply, retryable=retryable
    )
