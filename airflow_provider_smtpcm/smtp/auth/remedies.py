"""Remedies for refused sign-ins: by reply code (RFC 4954 6), by what servers mean by it, and by their challenge."""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import re
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.outcome import ENCRYPTION_FIRST

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication

# Some servers reject lines with more octets of base64 than this, although RFC 4954 4 requires 12288.
_MIN_LONG_LINE = 1000
_NEGOTIATE_TARGET_INFO = 0x00800000  # MS-NLMP 2.2.2.5
#: What is wrong with an account of which the KDC has no entry (`kerberos_errors`).
UNKNOWN_ACCOUNT = "the KDC does not know the account"
# Kerberos accepts clocks that differ by five minutes; a greeting may be some seconds old.
_MAX_CLOCK_SKEW = 280.0

_REJECTED_SYNTAX = "The server offers {name}, but rejects its syntax; ask the server's administrator."
_BY_CODE = {
    421: "The server is closing; try again.",
    432: "The server limits how often an account signs in, or how many sessions it has at once; try again.",
    454: "The server cannot check accounts right now; try again.",
    500: _REJECTED_SYNTAX,
    501: _REJECTED_SYNTAX,
    502: _REJECTED_SYNTAX,
    503: _REJECTED_SYNTAX,
    504: "The server offers {name}, but does not accept it; choose another 'Windows protocol'.",
    523: ENCRYPTION_FIRST,
    530: ENCRYPTION_FIRST,
    534: "The server finds {name} too weak for this account; choose 'kerberos' as 'Windows protocol'.",
    538: ENCRYPTION_FIRST,
}


def get_authentication_remedy(
    reply: Reply, authentication: Authentication, *, token_lines: Sequence[str], greeting: str = ""
) -> str:
    """Return what to do about a refused sign-in.

    Args:
        reply: the refusal.
        authentication: the sign-in that was refused.
        token_lines: the lines with tokens, the client's and the server's by turns.
        greeting: the text of the server's greeting.
    """
    if reply.code == 535:
        # The reason for NTLM at a server that offers Kerberos; Kerberos would not help then.
        is_unknown = authentication.protocol == "NTLM" and UNKNOWN_ACCOUNT in authentication.reason
        if is_unknown and find_account_remedy(reply) is None:
            authentication = dataclasses.replace(authentication, offers_kerberos=False)
            remedy = _get_remedy_for_535(reply, authentication, token_lines, greeting)
            return f"The KDC does not know this account, so 'User name' is probably wrong. {remedy}"
        return _get_remedy_for_535(reply, authentication, token_lines, greeting)
    longest_line = max(map(len, token_lines), default=0)
    if reply.code in (500, 501, 552) and longest_line > _MIN_LONG_LINE:
        return (
            f"The token takes a line of {longest_line:,} octets, as for an account in hundreds of groups, and the "
            "server does not read lines of that length: have its limit raised, or remove the account from groups."
        )
    remedy = _BY_CODE.get(reply.code, "Ask the server's administrator what this reply means.")
    return remedy.format(name=authentication.mechanism)


# What a few servers add to their 535, in words or by Windows' name: no other password and no other protocol helps.
_UNUSABLE_ACCOUNTS = (
    (
        r"(?i)PASSWORD_(EXPIRED|MUST_CHANGE)|password\b.{0,40}\b(expired|must be changed|must change)",
        "Set a new password for the account, and enter it as 'Password'.",
    ),
    (
        r"(?i)logon.?hours|INVALID_WORKSTATION",
        "Look up the account's logon hours and permitted workstations in the directory.",
    ),
    (r"(?i)locked|account.*(disabled|expired)", "Have the account unlocked or renewed. No weaker protocol was tried."),
)


# Exchange says the same of a sign-in without a binding as of a wrong password.
_BINDING_OFF = (
    "'Channel binding' is 'none', and a server whose Extended Protection requires one refuses any sign-in without it: "
    "set it to 'tls-server-end-point'; or, if a proxy ends TLS in front of the server, have that policy changed to "
    "'Allow'."
)


def find_account_remedy(reply: Reply) -> str | None:
    """Return what to do about an account that a 535 calls unusable (locked, expired...); None if it does not."""
    return next((remedy for pattern, remedy in _UNUSABLE_ACCOUNTS if re.search(pattern, reply.text)), None)


def _get_remedy_for_535(reply: Reply, authentication: Authentication, token_lines: Sequence[str], greeting: str) -> str:
    # Only the most likely causes; docs/troubleshooting.md lists the others.
    if (account_remedy := find_account_remedy(reply)) is not None:
        return account_remedy
    if abs(authentication.clock_offset) >= _MAX_CLOCK_SKEW:
        return (
            f"The KDC accepted {authentication.identity}, and this worker's clock is "
            f"{_describe_offset(-authentication.clock_offset)} the KDC's (five minutes are the usual limit): "
            "synchronize it (NTP)."
        )
    if authentication.protocol == "Kerberos":
        remedy = (
            f"The KDC accepted {authentication.identity}, so the cause is on the server: its key in the keytab "
            f"or directory may be older than the ticket, {_describe_clock(greeting)}or this account may lack "
            "permission; its log says which."
        )
    else:
        is_local = authentication.identity.startswith(".\\")
        may_know_v1_only = authentication.mechanism == "NTLM" and not _has_target_info(token_lines)
        if may_know_v1_only and "exim" in greeting.lower():
            return (
                "This server takes NTLMv1 only, as Exim's own NTLM does, and NTLMv2 is all that is sent here: have "
                "Kerberos (GSSAPI) enabled on it, or have it accept this worker's mail without a sign-in."
            )
        forms = r"CORP\user or user@corp.example"
        if is_local:
            forms += r"; .\user is a local account of the server itself"
        remedy = (
            f"Check 'User name' ({forms}) and 'Password', and that the account "
            "is neither locked nor barred from this server; no weaker protocol was tried, to avoid locking the account."
        )
        if authentication.offers_kerberos and not is_local:
            remedy += (
                " If the password is right: this server may take Kerberos only for this account (where the domain "
                "restricts NTLM, or for a member of Protected Users); set 'Windows protocol' to 'kerberos': the "
                "sign-in then succeeds, or the error says what Kerberos lacks."
            )
        if may_know_v1_only:
            remedy += " A server that takes only NTLMv1 refuses right passwords too; this one does not announce NTLMv2."
    if authentication.is_binding_off:
        return f"{_BINDING_OFF} If it is refused with that, too: {remedy}"
    if authentication.has_channel_binding:
        remedy += (
            " If all that is right and a proxy ends TLS in front of a server with Extended Protection, set 'Channel "
            "binding' to 'none'."
        )
    return remedy


def _has_target_info(token_lines: Sequence[str]) -> bool:
    """Return whether the server's CHALLENGE_MESSAGE has the target information for NTLMv2 (MS-NLMP 2.2.1.2).

    Exim's has none, and so has that of Cyrus SASL, which takes NTLMv2 nevertheless.
    """
    with contextlib.suppress(ValueError, struct.error, IndexError):
        (flags,) = struct.unpack_from("<I", binascii.a2b_base64(token_lines[1]), 20)
        return bool(flags & _NEGOTIATE_TARGET_INFO)
    return True


def _describe_clock(greeting: str) -> str:
    """Describe the server's clock, compared with this worker's by the date in the greeting; "" if both agree."""
    from email.utils import parsedate_to_datetime

    match = re.search(r"\b\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", greeting)
    if match is None:
        return "its clock may differ, "
    with contextlib.suppress(ValueError):
        seconds = parsedate_to_datetime(match[0]).timestamp() - time.time()
        if abs(seconds) < _MAX_CLOCK_SKEW:
            return ""
        return f"its clock is {_describe_offset(seconds)} this worker's (five minutes are the usual limit), "
    return "its clock may differ, "


def _describe_offset(seconds: float) -> str:
    return f"{abs(seconds) / 60:,.0f} minutes {'ahead of' if seconds > 0 else 'behind'}"
