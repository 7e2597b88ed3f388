"""Delivery reports: the outcome of one mail, the errors that describe it, and their remedies. Pure: no sockets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError, Phase, RefusedError, Reply
from airflow_provider_smtpcm.frozen_dataclasses import Record

# Maximum number of addresses in an error message or a log line; the delivery has all of them.
_MAX_NAMED = 10


class Outcome(StrEnum):
    """The possible outcomes of a mail."""

    #: The server accepted the mail for every recipient.
    ACCEPTED = "accepted"
    #: The server accepted it for some recipients; the others were refused or not attempted.
    PARTIAL = "partial"
    #: The server refused it for every recipient.
    REFUSED = "refused"
    #: The whole message was sent, and no final reply came: it may have been delivered.
    UNKNOWN = "unknown"
    #: The message was not sent, or not in full: it was not delivered.
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Delivery(Record):
    """The delivery report of one mail.

    Args:
        index: the mail's number in the batch, from 0.
        message_id: the mail's Message-ID.
        outcome: see `Outcome`.
        accepted: the addresses for which the server accepted the mail.
        refused: each refused address with the server's reply.
        reply: the server's last reply about the mail; None: there was none.
        error: why the outcome is not `accepted`, in which phase, and what to do; None if it is `accepted`.
        server: the server (`host:port`) that accepted or refused the mail, or that may have it; None: there is none. If
            several transactions were needed, the server of the last.
    """

    index: int = 0
    message_id: str
    outcome: Outcome
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, Reply] = field(default_factory=dict)
    reply: Reply | None = None
    error: MailError | None = None
    server: str | None = None

    @property
    def replies(self) -> list[Reply]:
        """The server's distinct replies about this mail."""
        replies = [reply for reply in (self.reply, *self.refused.values()) if reply is not None]
        return list(dict.fromkeys(replies))

    @property
    def was_accepted(self) -> bool:
        """Whether the server accepted the message in this attempt, for at least one recipient."""
        return self.outcome in ("accepted", "partial") and self.reply is not None and self.reply.positive

    @property
    def may_have_arrived(self) -> bool:
        """Whether a recipient has the mail or may have it, so that sending it again could deliver it twice."""
        return self.outcome in (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN)

    def never_asked(self, recipients: Iterable[str]) -> tuple[str, ...]:
        """Return the given recipients that were neither accepted nor refused."""
        settled = {*self.accepted, *self.refused}
        return tuple(address for address in recipients if address not in settled)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, which is the operator's XCom."""
        return {
            "index": self.index,
            "message_id": self.message_id,
            "outcome": str(self.outcome),
            "accepted": list(self.accepted),
            "refused": {address: _reply_to_dict(reply) for address, reply in self.refused.items()},
            "reply": _reply_to_dict(self.reply) if self.reply else None,
            "error": str(self.error) if self.error else None,
            "server": self.server,
        }

    def without_addresses(self) -> dict[str, object]:
        """Return `to_dict` without recipients; the server's replies are left out too, since they may name them."""
        return {**self.to_dict(), "accepted": [], "refused": {}, "reply": None, "error": None}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Delivery:
        """Build a delivery from `to_dict`. Only the error's text is restored."""
        return cls(
            index=value["index"],
            message_id=value["message_id"],
            outcome=Outcome(value["outcome"]),
            accepted=tuple(value["accepted"]),
            refused={address: Reply(**reply) for address, reply in value["refused"].items()},
            reply=Reply(**value["reply"]) if value["reply"] else None,
            error=RefusedError(value["error"]) if value["error"] else None,
            server=value.get("server"),  # absent from ledgers of earlier versions
        )


def _reply_to_dict(reply: Reply) -> dict[str, object]:
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}


def format_addresses(addresses: Sequence[str]) -> str:
    """Format the first ten addresses, and the number of the others."""
    more = len(addresses) - _MAX_NAMED
    return ", ".join(addresses[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _format_refusals(refused: Mapping[str, Reply]) -> str:
    """Format refused recipients and replies, grouped by code: the texts often contain a unique id."""
    groups: dict[tuple[int, str | None], tuple[Reply, list[str]]] = {}
    for address, reply in refused.items():
        groups.setdefault((reply.code, reply.enhanced), (reply, []))[1].append(address)
    return "; ".join(f"{format_addresses(addresses)}: '{reply}'" for reply, addresses in groups.values())


def refused_error(
    peer: str,
    what: str,
    reply: Reply,
    refused: Mapping[str, Reply],
    *,
    is_anonymous: bool,
    has_client_certificate: bool,
    phase: Phase,
    retryable: bool,
) -> RefusedError:
    """Return the error for a mail that the server refused for every recipient.

    Args:
        peer: the server's name in messages (`host:port`).
        what: what the server refused, such as `the message`.
        reply: the decisive reply.
        refused: the replies to the recipients; listed in the message if their codes differ.
        is_anonymous: whether the session had not signed in.
        has_client_certificate: whether the connection has a client certificate.
        phase: how far the mail had got.
        retryable: whether another attempt may succeed.
    """
    differ = len({(reply.code, reply.enhanced) for reply in refused.values()}) > 1
    return RefusedError(
        f"{peer} refused {what} with '{reply}'{f' ({_format_refusals(refused)})' if differ else ''}.",
        remedy=remedy_for(reply, is_anonymous=is_anonymous, has_client_certificate=has_client_certificate),
        phase=phase,
        reply=reply,
        retryable=retryable,
    )


def partial_error(peer: str, message_id: str, accepted: Sequence[str], refused: Mapping[str, Reply]) -> RefusedError:
    """Return the error for a mail that the server accepted for some recipients and refused for others."""
    return RefusedError(
        f"{peer} accepted {message_id} for {format_addresses(accepted)}, who will receive it, and refused "
        f"{_format_refusals(refused)}.",
        remedy="Once the server accepts the refused addresses, send the mail to them only.",
        phase=Phase.ENVELOPE,
        reply=next(iter(refused.values())),
        retryable=any(reply.transient for reply in refused.values()),
    )


def unknown_error(
    message_id: str, why: str, *, committed: Sequence[str], accepted: Sequence[str], unattempted: Sequence[str]
) -> OutcomeUnknownError:
    """Return the error for a mail that got no final reply (RFC 5321 4.5.3.2.6, 6.1).

    Args:
        message_id: the mail's Message-ID.
        why: why there is no reply, as a sentence.
        committed: the recipients of the transaction without a final reply.
        accepted: the recipients accepted by earlier transactions.
        unattempted: the recipients left for later transactions.
    """
    delivered = f" It was accepted for {format_addresses(accepted)} by an earlier transaction." if accepted else ""
    unsent = f" It was not sent to {format_addresses(unattempted)}." if unattempted else ""
    return OutcomeUnknownError(
        f"The whole message {message_id} was sent, and no final reply came: {why} "
        f"It may have been delivered to {format_addresses(committed)}.{delivered}{unsent}",
        remedy="Look for this Message-ID in the server's log or message tracking before sending it again.",
    )


def not_sent_error(
    message_id: str | None, accepted: Sequence[str], pending: Sequence[str], error: MailError
) -> MailError:
    """Return the error for a mail that was not sent to its pending recipients.

    If the mail was accepted for others before, the error names both groups, since sending it to all would be wrong.
    """
    if not accepted:
        return error
    partial = RefusedError(
        f"{message_id} was accepted for {format_addresses(accepted)}, who will receive it, and not sent to "
        f"{format_addresses(pending)}: {error.message}",
        remedy="Send it to these recipients only.",
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
    server: str | None = None,
) -> Delivery:
    """Return the delivery of a mail that is not sent to its pending recipients.

    Args:
        index: the mail's number in the batch.
        message_id: the mail's Message-ID.
        accepted: the recipients accepted before.
        refused: the recipients refused before, with the server's replies.
        pending: all other recipients.
        error: why the mail is not sent.
        server: the server that accepted it before; None: not known, or none did.
    """
    return Delivery(
        index=index,
        message_id=message_id,
        outcome=Outcome.PARTIAL if accepted else Outcome.NOT_SENT,
        accepted=accepted,
        refused=refused,
        reply=error.reply,
        error=not_sent_error(message_id, accepted, pending, error),
        server=server,
    )


# --- Remedies for refusals: what to change, by reply code, enhanced code and text.

#: For a reply that asks for TLS: to AUTH, or to a mail.
ENCRYPTION_FIRST = "The server wants encryption first: set SSL to 'STARTTLS' or 'Implicit TLS'."
_SEND_AS = "The account may not send as this From address: use its own, or have 'Send As' granted on the server."
_SEND_AS_ANONYMOUSLY = (
    "An anonymous session may not send as this From address: set Authentication to 'Windows Authentication' and have "
    "'Send As' granted to the account, or have the server's receive connector allow it."
)
_MAY_NOT_SUBMIT = (
    "The server accepted the sign-in, but accepts no mail from this account: have its receive connector let users "
    "submit (-PermissionGroups ExchangeUsers), or use the connector that does."
)
_THROTTLED = (
    "The server limits how much it accepts: let fewer tasks send at once, lower 'rate_limit' and 'connections' of a "
    "merge, or have the limit raised."
)
# A limit on the client, not on one mailbox or one message.
_THROTTLING = (
    r"(?i)throttl|(submission|message) rate|rate (over)?limit|concurrent"
    r"|too (fast|much mail|many (connections|messages|sessions|recipients from))"
)
# Exchange: the code is 5.7.1 in older versions and 5.2.252 in the newest.
_SENDING_AS = r"(?i)send as\b|SendAsDenied|send on behalf"
_SENDER_CODES = ("5.1.7", "5.1.8", "5.7.60")  # the first two: RFC 3463 3.2
# Remedies by the reply's text, for a reply whose enhanced code has no remedy of its own below.
_BY_TEXT = (
    (_SENDING_AS, _SEND_AS),
    (_THROTTLING, _THROTTLED),
)
_BY_ENHANCED_CODE = {
    "4.3.1": "The server is short of disk space or memory; try again later, or tell its administrator.",
    "5.1.1": "Check the recipient's address: the server has no such mailbox.",
    "5.1.2": "Check the domain after the @ of the recipient's address.",
    # An Exchange says so at the end of the message if one of its recipients is unknown, without naming it.
    "5.1.10": "Check each recipient's address: the server has no such mailbox, and may refuse the mail for all "
    "recipients because of one.",
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


# RFC 3207, section 4: `530 Must issue a STARTTLS command first`. The same code asks for a sign-in (RFC 4954).
_ENCRYPTION_WANTED = (
    r"(?i)issue (a |the )?starttls|(starttls|tls|ssl|encryption|encrypted connection) (is |session )?(required|needed)"
    r"|(must use|requires?|needs?) (an? )?(starttls|tls|ssl|encrypt)|starttls .*first"
)


def is_about_sender(reply: Reply) -> bool:
    """Whether a refusal names the sender as its reason: one that does not exist, or that the session may not use."""
    return (reply.enhanced or "") in _SENDER_CODES or re.search(_SENDING_AS, reply.text) is not None


def remedy_for(reply: Reply, *, is_anonymous: bool, has_client_certificate: bool = False) -> str:
    """Return the remedy for a refusal, as one sentence.

    Args:
        reply: the refusal.
        is_anonymous: whether the session had not signed in.
        has_client_certificate: whether the connection has a client certificate.
    """
    if remedy := get_certificate_remedy(reply, has_client_certificate=has_client_certificate):
        return remedy
    if re.search(_ENCRYPTION_WANTED, reply.text):
        return ENCRYPTION_FIRST
    return _get_usual_remedy(reply, is_anonymous=is_anonymous, has_client_certificate=has_client_certificate)


def _get_usual_remedy(reply: Reply, *, is_anonymous: bool, has_client_certificate: bool) -> str:
    wants_sign_in = reply.code == 530 or "not authenticated" in reply.text.lower()
    if wants_sign_in:
        anonymous = "The server accepts no anonymous mail: set Authentication to 'Windows Authentication'."
        return anonymous if is_anonymous else _MAY_NOT_SUBMIT
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
    return "Ask the server's administrator what this reply means."


def get_greeting_remedy(reply: Reply, *, has_client_certificate: bool) -> str:
    """Return the remedy for a greeting with which the server turns the client away.

    Args:
        reply: the greeting.
        has_client_certificate: whether the connection has a client certificate.
    """
    if remedy := get_certificate_remedy(reply, has_client_certificate=has_client_certificate):
        return remedy
    if re.search(_THROTTLING, reply.text):
        return _THROTTLED
    return "The server accepts no mail from this worker now; try again, or ask its administrator why."


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
