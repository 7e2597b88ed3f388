"""What a refused sign-in means (RFC 4954 6, Exchange's habits), and who has to change what. Knows no socket."""

from __future__ import annotations

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


def sign_in_remedy(reply: Reply, *, name: str, bound: bool, longest: int) -> str:
    """What to do about it.

    Args:
        reply: the refusal.
        name: the SASL mechanism.
        bound: whether the tokens carried a channel binding.
        longest: octets of the longest line that carried a token.
    """
    if reply.code == 535:
        return _remedy_for_535(reply, name=name, bound=bound)
    if reply.code in (500, 501, 552) and longest > _LONG_LINE:
        return (
            f"The token has {longest:,} octets, as that of an account in hundreds of groups has, and the server does "
            "not read so long a line: have its limit raised, or the account taken out of groups."
        )
    return _BY_CODE.get(reply.code, "Ask the server's administrator what this answer means.").format(name=name)


def _remedy_for_535(reply: Reply, *, name: str, bound: bool) -> str:
    if any(word in reply.text.lower() for word in ("locked", "disabled", "expired")):
        return "Have the account unlocked or renewed. Nothing else was tried."
    checks = (
        r"Check 'User name' (CORP\user or user@corp.example) and 'Password', and that the account is neither locked "
        "nor barred from this server. Nothing else was tried, to spare the account a lockout."
    )
    remedies = [checks]
    if bound:
        remedies.append(
            "If they are right, and a proxy terminates TLS in front of a server with Extended Protection, the binding "
            "cannot match: set 'Channel binding' to 'none'."
        )
    if name == "NTLM":
        remedies.append("A server that knows NTLMv1 only refuses NTLMv2, on which this package insists.")
    return " ".join(remedies)
