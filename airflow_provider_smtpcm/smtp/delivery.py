"""What became of one mail. Knows no socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_provider_smtpcm.errors import MailError, RefusedError, Reply
from airflow_provider_smtpcm.mail import Mail


class Outcome(StrEnum):
    """The five things that can become of a mail."""

    #: The server took responsibility for every recipient.
    ACCEPTED = "accepted"
    #: It did so for some recipients and refused the others.
    PARTIAL = "partial"
    #: It answered, and took responsibility for nobody.
    REFUSED = "refused"
    #: The whole message was handed over and no answer came: it may have been delivered.
    UNKNOWN = "unknown"
    #: The message was never handed over in full, so nobody received it.
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one mail.

    Args:
        index: its place in the batch, from 0.
        message_id: the Message-ID that it bears.
        outcome: one of the five.
        accepted: the addresses for which the server took responsibility.
        refused: each refused address with the reply that refused it.
        reply: the server's last word on this mail.
        error: why it is not `accepted`; it knows its phase, whether to retry, and the remedy.
    """

    index: int = 0
    message_id: str
    outcome: Outcome
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, Reply] = field(default_factory=dict)
    reply: Reply | None = None
    error: MailError | None = None

    @property
    def replies(self) -> list[Reply]:
        """All that the server said about it, each once."""
        said = [reply for reply in (self.reply, *self.refused.values()) if reply is not None]
        return list(dict.fromkeys(said))

    @property
    def may_have_arrived(self) -> bool:
        """Whether a recipient has it, or may have it: to send it again as a whole could deliver it twice."""
        return self.outcome in (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN)

    def never_asked(self, recipients: Iterable[str]) -> tuple[str, ...]:
        """Those of them who do not have it, and whom nobody refused."""
        settled = {*self.accepted, *self.refused}
        return tuple(address for address in recipients if address not in settled)

    def to_dict(self) -> dict[str, object]:
        """As JSON: what the operator returns, and so the XCom."""
        return {
            "index": self.index,
            "message_id": self.message_id,
            "outcome": str(self.outcome),
            "accepted": list(self.accepted),
            "refused": {address: _reply_dict(reply) for address, reply in self.refused.items()},
            "reply": _reply_dict(self.reply) if self.reply else None,
            "error": str(self.error) if self.error else None,
        }

    def without_addresses(self) -> dict[str, object]:
        """The same, without what names a recipient; a server's words may."""
        return {**self.to_dict(), "accepted": [], "refused": {}, "reply": None, "error": None}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Delivery:
        """What `to_dict` has made; of its error only the words are left."""
        return cls(
            index=value["index"],
            message_id=value["message_id"],
            outcome=Outcome(value["outcome"]),
            accepted=tuple(value["accepted"]),
            refused={address: Reply(**reply) for address, reply in value["refused"].items()},
            reply=Reply(**value["reply"]) if value["reply"] else None,
            error=RefusedError(value["error"]) if value["error"] else None,
        )


def _reply_dict(reply: Reply) -> dict[str, object]:
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}


# folded: A mail with its place in a batch, and who of its recipients is still to be asked. Knows no socket.


@dataclass(slots=True)  # nobody changes one; to freeze it would double what it takes to make one
class SendRequest:
    """What is to be done about one mail.

    Args:
        index: its number in the batch, which its delivery bears.
        mail: what is said; its header names all recipients, whoever is still to be asked.
        recipients: the addresses that are still to be asked; None: all.
        accepted: who has it already.
        refused: who was refused for good.
    """

    index: int
    mail: Mail
    recipients: tuple[str, ...] | None = None
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, Reply] = field(default_factory=dict)


def in_order(mails: Iterable[Mail]) -> Iterator[SendRequest]:
    """An errand for each mail, by its place."""
    return (SendRequest(index, mail) for index, mail in enumerate(mails))
