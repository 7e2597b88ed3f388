"""Remedies for a refused sign-in, by reply code (RFC 4954 6) and what Exchange means by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import Reply

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication

# Some servers reject lines with more octets of base64 than this, although RFC 4954 4 requires 12288.
_MIN_LONG_LINE = 1000

_ENCRYPT = "The server wants encryption first: set SSL to 'STARTTLS' or 'Implicit TLS'."
_REJECTED_SYNTAX = "The server offers {name}, but rejects its syntax; ask the server's administrator."
_BY_CODE = {
    421: "The server is closing; try again.",
    432: "The server limits how often an account signs in, or in how many sessions at once; try again.",
    454: "The server cannot check accounts right now; try again.",
    500: _REJECTED_SYNTAX,
    501: _REJECTED_SYNTAX,
    502: _REJECTED_SYNTAX,
    503: _REJECTED_SYNTAX,
    504: "The server offers {name}, but does not accept it; choose another 'Windows protocol'.",
    523: _ENCRYPT,
    530: _ENCRYPT,
    534: "The server finds {name} too weak for this account; choose 'kerberos' as 'Windows protocol'.",
    538: _ENCRYPT,
}


def get_authentication_remedy(reply: Reply, authentication: Authentication, *, longest_line: int) -> str:
    """Return what to do about a refused sign-in.

    Args:
        reply: the refusal.
        authentication: the sign-in that was refused.
        longest_line: octets of the longest line with a token.
    """
    if reply.code == 535:
        return _get_remedy_for_535(reply, authentication)
    if reply.code in (500, 501, 552) and longest_line > _MIN_LONG_LINE:
        return (
            f"The token has {longest_line:,} octets, as for an account in hundreds of groups, and the server does not "
            "read lines of that length: have its limit raised, or remove the account from groups."
        )
    remedy = _BY_CODE.get(reply.code, "Ask the server's administrator what this answer means.")
    return remedy.format(name=authentication.mechanism)


def _is_account_unusable(reply: Reply) -> bool:
    """Return whether a 535 says that the account is locked, disabled or expired, whatever the password."""
    text = reply.text.lower()
    return "locked" in text or ("account" in text and ("disabled" in text or "expired" in text))


def _get_remedy_for_535(reply: Reply, authentication: Authentication) -> str:
    # Only the most likely causes; docs/troubleshooting.md lists the others.
    if _is_account_unusable(reply):
        return "Have the account unlocked or renewed. No weaker protocol was tried."
    if authentication.protocol == "Kerberos":
        remedy = (
            f"The KDC accepted {authentication.identity}, so the cause is on the server: its key in the keytab "
            "or directory may be older than the ticket, its clock may differ, or this account may lack permission; its "
            "log says which."
        )
    else:
        remedy = (
            r"Check 'User name' (CORP\user or user@corp.example) and 'Password', and that the account is neither "
            "locked nor barred from this server; no weaker protocol was tried, to avoid locking the account."
        )
    if authentication.has_channel_binding:
        remedy += (
            " If all that is right and a proxy ends TLS in front of a server with Extended Protection, set 'Channel "
            "binding' to 'none'."
        )
    return remedy
