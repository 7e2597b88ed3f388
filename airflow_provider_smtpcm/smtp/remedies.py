"""Remedies for refusals: what to change, by reply code, enhanced code and text. Pure: no sockets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import Reply

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication


_SEND_AS = "The account may not send as this From address: use its own, or have 'Send As' granted on the server."
_SEND_AS_ANONYMOUSLY = (
    "An anonymous session may not send as this From address: set Authentication to 'Windows Authentication' and have "
    "'Send As' granted to the account, or have the server's receive connector allow it."
)
_THROTTLED = (
    "The server limits how much it accepts: lower 'rate_limit' and 'connections' of the merge, let fewer tasks send at "
    "once, or have the limit raised."
)
# Remedies by the reply's text, for a reply whose enhanced code has no remedy of its own below.
_BY_TEXT = (
    # Exchange: the code is 5.7.1 in older versions and 5.2.252 in the newest.
    (r"(?i)send as\b|SendAsDenied|send on behalf", _SEND_AS),
    # A limit on the client, not on one mailbox or one message.
    (
        r"(?i)throttl|(submission|message) rate|rate limit|concurrent|too (fast|many (connections|messages|sessions))",
        _THROTTLED,
    ),
)
_BY_ENHANCED_CODE = {
    "5.1.1": "Check the recipient's address: the server knows no such mailbox.",
    "5.1.2": "Check the domain behind the recipient's @.",
    "5.1.3": "Check how the recipient's address is written.",
    "5.1.8": "Check the From address: the server does not accept its domain.",
    "5.2.2": "The recipient's mailbox is full; it must be emptied.",
    "5.2.3": "The message is larger than this recipient may receive; send a link instead of the file.",
    "5.3.4": "The message is larger than the server accepts; send a link instead of the file.",
    "5.7.60": _SEND_AS,
    # `550 5.7.64 TenantAttribution; Relay Access Denied`
    "5.7.64": "Exchange Online found no inbound connector for this session: the connector's TlsSenderCertificateName "
    "must be a name in the client certificate, with a domain that the tenant accepts; 'check' shows what was sent.",
}


# By the text, whatever the code: Postfix says `454 4.7.1` where it defers what it does not relay, Exim `550` alone.
_RELAYING_REFUSED = (
    r"(?i)relay access denied|relaying (denied|not allowed)|relay not permitted|unable to relay|client host rejected"
)


def remedy_for(reply: Reply, *, is_anonymous: bool, has_client_certificate: bool = False) -> str:
    """Return the remedy for a refusal, as one sentence.

    Args:
        reply: the refusal.
        is_anonymous: whether the session had not signed in.
        has_client_certificate: whether the connection has a client certificate.
    """
    remedy = get_certificate_remedy(reply, has_client_certificate=has_client_certificate)
    return remedy or _get_usual_remedy(reply, is_anonymous=is_anonymous, has_client_certificate=has_client_certificate)


def _get_usual_remedy(reply: Reply, *, is_anonymous: bool, has_client_certificate: bool) -> str:
    wants_sign_in = reply.code == 530 or "not authenticated" in reply.text.lower()
    if wants_sign_in and is_anonymous:
        return "The server accepts no anonymous mail: set Authentication to 'Windows Authentication'."
    by_text = next((remedy for pattern, remedy in _BY_TEXT if re.search(pattern, reply.text)), "")
    if known := _BY_ENHANCED_CODE.get(reply.enhanced or "", by_text):
        return _SEND_AS_ANONYMOUSLY if is_anonymous and known == _SEND_AS else known
    is_policy = reply.code in (550, 551, 554) and (reply.enhanced or "").startswith("5.7")
    if is_policy or re.search(_RELAYING_REFUSED, reply.text):
        return _get_remedy_for_relaying(is_anonymous=is_anonymous, has_client_certificate=has_client_certificate)
    if reply.transient:
        return "The server says that this is temporary; try again later."
    if reply.code == 552:
        return "The server has no room for the message, or it is too large; send a link instead of the file."
    return "Ask the server's administrator what this answer means."


# Postfix with smtpd_tls_req_ccert lets every handshake pass, and then says `421 4.7.1 Error: No client certificate
# presented` or `Error: Client certificate not trusted`.
_CLIENT_CERTIFICATE = r"(?i)client certificate"


def get_certificate_remedy(reply: Reply, *, has_client_certificate: bool) -> str:
    """Return the remedy for a refusal that names the client certificate as its reason; empty for any other.

    Args:
        reply: the refusal.
        has_client_certificate: whether the connection has a client certificate.
    """
    if not re.search(_CLIENT_CERTIFICATE, reply.text):
        return ""
    if has_client_certificate:
        return (
            "The server does not accept this worker's client certificate: it must be valid and of an authority that "
            "the server trusts, and its issuers must follow it in the file; 'check' shows its dates and issuer."
        )
    return "The server demands a client certificate: give the path of one that it accepts as 'Client certificate'."


def _get_remedy_for_relaying(*, is_anonymous: bool, has_client_certificate: bool) -> str:
    if has_client_certificate:
        return (
            "The server does not relay this mail: have its administrator allow this worker's client certificate; "
            "'check' shows its fingerprint, and whether the server asked for it."
        )
    hint = "set Authentication to 'Windows Authentication', or " if is_anonymous else ""
    return (
        f"The server does not relay this mail: {hint}have its administrator allow this worker or account; if the "
        "server recognizes its clients by certificates, give one as 'Client certificate'."
    )


# --- Refused sign-ins, by reply code (RFC 4954 6) and what Exchange means by it.

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
            f"The token takes a line of {longest_line:,} octets, as for an account in hundreds of groups, and the "
            "server does not read lines of that length: have its limit raised, or remove the account from groups."
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
