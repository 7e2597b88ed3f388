"""Delivery reports: what became of one mail, and what its error says. Pure: no sockets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError, Phase, RefusedError, Reply
from airflow_provider_smtpcm.smtp.remedies import format_addresses, format_refusals, remedy_for


class Outcome(StrEnum):
    """The five outcomes of a mail."""

    #: The server took responsibility for every recipient.
    ACCEPTED = "accepted"
    #: It did so for some recipients and refused the others.
    PARTIAL = "partial"
    #: It answered, and took responsibility for no recipient.
    REFUSED = "refused"
    #: The whole message was sent and no final reply came: it may have been delivered.
    UNKNOWN = "unknown"
    #: The message was never sent in full, so no one received it.
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one mail.

    Args:
        index: its place in the batch, from 0.
        message_id: its Message-ID.
        outcome: one of the five.
        accepted: the addresses for which the server took responsibility.
        refused: each refused address with the reply that refused it.
        reply: the server's last reply about this mail.
        error: why it is not `accepted`, with its phase, whether to retry, and the remedy.
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
        """Every reply of the server about this mail, without repetitions."""
        replies = [reply for reply in (self.reply, *self.refused.values()) if reply is not None]
        return list(dict.fromkeys(replies))

    @property
    def was_accepted(self) -> bool:
        """Whether the server accepted the message this time, for some recipients at least."""
        return self.outcome in ("accepted", "partial") and self.reply is not None and self.reply.positive

    @property
    def may_have_arrived(self) -> bool:
        """Whether a recipient has it, or may have it: sending all of it again could deliver it twice."""
        return self.outcome in (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN)

    def never_asked(self, recipients: Iterable[str]) -> tuple[str, ...]:
        """Return those of the recipients that were neither accepted nor refused."""
        settled = {*self.accepted, *self.refused}
        return tuple(address for address in recipients if address not in settled)

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON: what the operator returns, and so the XCom."""
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
        """Return `to_dict` without anything that may name a recipient, which includes the server's replies."""
        return {**self.to_dict(), "accepted": [], "refused": {}, "reply": None, "error": None}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Delivery:
        """Read what `to_dict` returned; its error keeps only the text."""
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


def refused_error(
    peer: str,
    what: str,
    reply: Reply,
    refused: Mapping[str, Reply],
    *,
    is_anonymous: bool,
    phase: Phase,
    retryable: bool,
) -> RefusedError:
    """Return the error of a mail that the server accepted for no recipient.

    Args:
        peer: the server, as messages name it.
        what: what it refused, such as `the message`.
        reply: the reply that decided it.
        refused: each recipient with its own reply; named where these differ.
        is_anonymous: whether the session had not signed in.
        phase: how far the mail had come.
        retryable: whether another attempt may succeed.
    """
    differ = len({(reply.code, reply.enhanced) for reply in refused.values()}) > 1
    return RefusedError(
        f"{peer} refused {what} with '{reply}'{f' ({format_refusals(refused)})' if differ else ''}.",
        remedy=remedy_for(reply, anonymous=is_anonymous),
        phase=phase,
        reply=reply,
        retryable=retryable,
    )


def partial_error(peer: str, message_id: str, accepted: Sequence[str], refused: Mapping[str, Reply]) -> RefusedError:
    """Return the error of a mail that the server accepted for some recipients, and refused for the others."""
    return RefusedError(
        f"{peer} took {message_id} for {format_addresses(accepted)}, who do get it, and refused "
        f"{format_refusals(refused)}.",
        remedy="Send it to the refused addresses alone once they are corrected.",
        phase=Phase.ENVELOPE,
        reply=next(iter(refused.values())),
        retryable=any(reply.transient for reply in refused.values()),
    )


def unknown_error(
    message_id: str, why: str, *, committed: Sequence[str], accepted: Sequence[str], not_asked: Sequence[str]
) -> OutcomeUnknownError:
    """Return the error of a mail whose final reply never came (RFC 5321 4.5.3.2.6, 6.1).

    Args:
        message_id: the mail's.
        why: why there is no reply, as a sentence.
        committed: the recipients that the server had agreed to take it for.
        accepted: those that got it by an earlier transaction.
        not_asked: those that a further transaction would have asked for.
    """
    surely = f" {format_addresses(accepted)} did get it, by an earlier transaction." if accepted else ""
    unsent = f" It was not sent to {format_addresses(not_asked)}." if not_asked else ""
    return OutcomeUnknownError(
        f"The whole message {message_id} was handed to the server, and its answer never came: {why} "
        f"It may have been delivered to {format_addresses(committed)}.{surely}{unsent}",
        remedy="Look for this Message-ID in the server's log or message tracking before sending it again.",
    )


def not_sent_error(
    message_id: str | None, accepted: Sequence[str], pending: Sequence[str], error: MailError
) -> MailError:
    """Return the error of a mail that was not sent to the pending recipients.

    Where others have it already, retrying all of it is no remedy, so the error says who has it and who does not.
    """
    if not accepted:
        return error
    partial = RefusedError(
        f"{message_id} was taken for {format_addresses(accepted)}, who do get it, and not sent to "
        f"{format_addresses(pending)}: {error.message}",
        remedy="Send it to these alone.",
        phase=error.phase,
        reply=error.reply,
        retryable=error.retryable,
    )
    partial.__cause__ = error
    return partial


def not_sent_delivery(
    index: int,
    message_id: str,
    *,
    accepted: tuple[str, ...],
    refused: Mapping[str, Reply],
    pending: Sequence[str],
    error: MailError,
) -> Delivery:
    """Return the delivery of a mail that is not sent to its pending recipients.

    Args:
        index, message_id: the mail's.
        accepted, refused: the recipients that were settled before.
        pending: the others.
        error: why it is not sent.
    """
    return Delivery(
        index=index,
        message_id=message_id,
        outcome=Outcome.PARTIAL if accepted else Outcome.NOT_SENT,
        accepted=accepted,
        refused=refused,
        reply=error.reply,
        error=not_sent_error(message_id, accepted, pending, error),
    )
