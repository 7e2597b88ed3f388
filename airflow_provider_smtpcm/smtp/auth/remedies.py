"""Remedies for a refused sign-in, by reply code (RFC 4954 6) and what Exchange means by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import Reply

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication

# Some servers do not read lines with more octets of base64 than this (RFC 4954 4 asks for 12288).
_LONG_LINE = 1000

_ENCRYPT = "The server wants encryption first: set SSL to 'STARTTLS' or 'Implicit TLS'."
_REJECTED_FORM = "The server offers {name} and then rejects its form; ask its administrator."
_BY_CODE = {
    421: "The server is closing; try again.",
    432: "The server limits how often or from how many places at once an account signs in; try again.",
    454: "The server cannot check accounts right now; try again.",
    500: _REJECTED_FORM,
    501: _REJECTED_FORM,
    502: _REJECTED_FORM,
    503: _REJECTED_FORM,
    504: "The server offers {name} and then does not know it; choose another 'Windows protocol'.",
    523: _ENCRYPT,
    530: _ENCRYPT,
    534: "The server finds {name} too weak for this account; choose 'kerberos' as 'Windows protocol'.",
    538: _ENCRYPT,
}


def authentication_remedy(reply: Reply, authentication: Authentication, *, longest_line: int) -> str:
    """Return what to do about a refused sign-in.

    Args:
        reply: the refusal.
        authentication: the sign-in that was refused.
        longest_line: octets of the longest line with a token.
    """
    if reply.code == 535:
        return _remedy_for_535(reply, authentication)
    if reply.code in (500, 501, 552) and longest_line > _LONG_LINE:
        return (
            f"The token has {longest_line:,} octets, as for an account in hundreds of groups, and the server does not "
            "read a line of that length: have its limit raised, or the account removed from groups."
        )
    remedy = _BY_CODE.get(reply.code, "Ask the server's administrator what this answer means.")
    return remedy.format(name=authentication.mechanism)


def _is_account_unusable(reply: Reply) -> bool:
    """Return whether a 535 says that the account is locked, disabled or expired, so that no password would help."""
    text = reply.text.lower()
    return "locked" in text or ("account" in text and ("disabled" in text or "expired" in text))


def _remedy_for_535(reply: Reply, authentication: Authentication) -> str:
    # The most likely causes only: an error is read in a log, in a hurry. The documents list the others.
    if _is_account_unusable(reply):
        return "Have the account unlocked or renewed. Nothing weaker was tried."
    if authentication.protocol == "Kerberos":
        remedy = (
            f"The KDC has vouched for {authentication.identity}, so the cause is on the server: its key in the keytab "
            "or directory may be older than the ticket, its clock may differ, or this account may not use it; its log "
            "says which."
        )
    else:
        remedy = (
            r"Check 'User name' (CORP\user or user@corp.example) and 'Password', and that the account is neither "
            "locked nor barred from this server; nothing weaker was tried, to spare the account a lockout."
        )
    if authentication.has_channel_binding:
        remedy += (
            " If all that is right and a proxy ends TLS in front of a server with Extended Protection, set 'Channel "
            "binding' to 'none'."
        )
    return remedy
