"""What a refused sign-in means (RFC 4954 6, Exchange's habits), and who has to change what. Knows no socket."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_smtpcm.errors import Reply

# Above this many octets of base64 a line is longer than some servers read (RFC 4954 4 asks for 12288).
_LONG_LINE = 1000

_ENCRYPT = "The server wants encryption first: set SSL to 'STARTTLS' or 'Implicit TLS'."
_FORM = "The server offers {name} and then rejects its form; ask its administrator."
_BY_CODE = {
    421: "The server is closing; try again.",
    432: "The server limits how often or from how many places at once an account signs in; try again.",
    454: "The server cannot check accounts right now; try again.",
    500: _FORM,
    501: _FORM,
    502: _FORM,
    503: _FORM,
    504: "The server offers {name} and then does not know it; choose another 'Windows protocol'.",
    523: _ENCRYPT,
    530: _ENCRYPT,
    534: "The server finds {name} too weak for this account; choose 'kerberos' as 'Windows protocol'.",
    538: _ENCRYPT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How it was tried.

    Args:
        protocol: `Kerberos` or `NTLM`.
        identity: who we said that we are.
        bound: whether the tokens carried a channel binding.
    """

    protocol: str = "NTLM"
    identity: str = ""
    bound: bool = False


def sign_in_remedy(reply: Reply, *, name: str, how: How, longest: int) -> str:
    """What to do about it.

    Args:
        reply: the refusal.
        name: the SASL mechanism.
        how: how it was tried.
        longest: octets of the longest line that carried a token.
    """
    if reply.code == 535:
        return _remedy_for_535(reply, how)
    if reply.code in (500, 501, 552) and longest > _LONG_LINE:
        return (
            f"The token has {longest:,} octets, as that of an account in hundreds of groups has, and the server does "
            "not read so long a line: have its limit raised, or the account taken out of groups."
        )
    return _BY_CODE.get(reply.code, "Ask the server's administrator what this answer means.").format(name=name)


def _remedy_for_535(reply: Reply, how: How) -> str:
    text = reply.text.lower()
    if "locked" in text or ("account" in text and ("disabled" in text or "expired" in text)):
        return "Have the account unlocked or renewed. Nothing weaker was tried."
    # What else it can be is in the documents: an error is read in a log, by somebody in a hurry.
    binding = (
        " If all that is right and a proxy ends TLS in front of a server with Extended Protection, set 'Channel "
        "binding' to 'none'."
    )
    if how.protocol == "Kerberos":
        remedy = (
            f"The KDC has vouched for {how.identity}, so it is the server: its key in the keytab or directory may be "
            "older than the ticket, its clock may differ, or this account may not use it; its log says which."
        )
    else:
        remedy = (
            r"Check 'User name' (CORP\user or user@corp.example) and 'Password', and that the account is neither "
            "locked nor barred from this server; nothing weaker was tried, to spare the account a lockout."
        )
    return remedy + binding if how.bound else remedy
