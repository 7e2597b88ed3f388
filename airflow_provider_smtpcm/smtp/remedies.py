"""What a server's refusal usually means, and who has to change what. Knows no socket."""

from __future__ import annotations

from airflow_provider_smtpcm.errors import Reply

_BY_ENHANCED = {
    "5.1.1": "Check the recipient's address: the server knows no such mailbox.",
    "5.1.2": "Check the domain behind the recipient's @.",
    "5.1.3": "Check how the recipient's address is written.",
    "5.1.8": "Check the From address: the server does not accept its domain.",
    "5.2.2": "The recipient's mailbox is full; it must be emptied.",
    "5.2.3": "The message is larger than this recipient may receive; send a link instead of the file.",
    "5.3.4": "The message is larger than the server takes; send a link instead of the file.",
    "5.7.60": "The account may not send as this From address: use its own, or have 'Send As' granted on the server.",
}


def remedy_for(reply: Reply, *, anonymous: bool) -> str:
    """One sentence for the person who reads the log.

    Args:
        reply: the refusal.
        anonymous: whether the session had not signed in.
    """
    wants_sign_in = reply.code == 530 or "not authenticated" in reply.text.lower()
    if wants_sign_in and anonymous:
        return "The server takes no anonymous mail: set Authentication to 'Windows Authentication'."
    if reply.enhanced in _BY_ENHANCED:
        return _BY_ENHANCED[reply.enhanced]
    if reply.transient:
        return "The server says that this is temporary; try again later."
    if reply.code in (550, 551, 554) and (reply.enhanced or "").startswith("5.7"):
        hint = "set Authentication to 'Windows Authentication', or " if anonymous else ""
        return f"The server does not relay this for us: {hint}have its administrator allow this worker or account."
    if reply.code == 552:
        return "The server has no room for the message, or it is too large; send a link instead of the file."
    return "Ask the server's administrator what this answer means."
