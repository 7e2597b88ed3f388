"""`Exchange`: what a receive connector of an on-premises Exchange does to its clients, and its words. Pure: no sockets.

The words are those of Microsoft's documents and of conversations that users have published. Where the two differ, or
the versions of Exchange do, the reply says whose it is.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Version = Literal[2010, 2019]
ExtendedProtectionPolicy = Literal["none", "allow", "require"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    r"""The personality of a `Relay` that behaves as a receive connector of an on-premises Exchange does.

    Without arguments, it is a connector as it is installed, without a message rate limit.

    Args:
        version: 2019 for Exchange 2016 and newer; 2010 for the words of older ones.
        message_rate_limit: the number of messages that a user, or an address that has not signed in, may begin within
            `rate_interval` (*MessageRateLimit*; 5 on the connector *Client Frontend*). The next `MAIL` is answered by
            `421 4.4.2`, and the connection is closed. None: no limit.
        rate_interval: in seconds. Exchange counts per minute; a shorter interval makes tests shorter.
        connection_limit: the number of simultaneous connections from an address (*MaxInboundConnectionPerSource*). The
            next is greeted with `421 4.3.2`. None: no limit.
        back_pressure: how many `MAIL` commands are refused with `452 4.3.1` before the server has recovered.
        tarpit: the delay before each negative reply 5yz to a client that has not signed in, in seconds
            (*TarpitInterval*, *AuthTarpitInterval*).
        extended_protection: `allow` refuses wrong channel bindings, `require` also a sign-in without any
            (*ExtendedProtectionPolicy*). Bindings are those of type `tls-server-end-point`.
        keytab: the path of a keytab with the key of `smtp/localhost`, or of another service principal; with it the
            relay also offers `AUTH GSSAPI`. Every account of the realm may sign in. Needs the `kerberos` extra.
        accepted_domains: the domains of the organization (*Get-AcceptedDomain*). A client that has not signed in may
            send to these alone: `550 5.7.54`. None: to every domain.
        mailboxes: all mailboxes of the organization, by address. For a client that has not signed in, another address
            in the organization's domains has the message refused with `550 5.1.10` at its end, **for all recipients**
            (Exchange 2010: that recipient alone, with `550 5.1.1`). Who has signed in gets a non-delivery report
            later, which the relay does not send. None: every address exists.
        senders: for each of these users, the addresses that it may send as; other addresses are refused with
            `550 5.7.60` at the end of the message. Who is not listed may send as anybody.
    """

    version: Version = 2019
    message_rate_limit: int | None = None
    rate_interval: float = 60.0
    connection_limit: int | None = 20
    back_pressure: int = 0
    tarpit: float = 5.0
    extended_protection: ExtendedProtectionPolicy = "none"
    keytab: str | None = None
    accepted_domains: Collection[str] | None = None
    mailboxes: Collection[str] | None = None
    senders: Mapping[str, Collection[str]] = field(default_factory=dict)

    def find_faults(self) -> list[str]:
        """Return a sentence for each argument that cannot be used."""
        choices = {"version": get_args(Version), "extended_protection": get_args(ExtendedProtectionPolicy)}
        lists = {"accepted_domains": self.accepted_domains, "mailboxes": self.mailboxes}
        # By number: a user name may contain a password by mistake.
        senders = enumerate(self.senders.values(), start=1)
        lists |= {f"senders: the value for user {number}": addresses for number, addresses in senders}
        return [
            *(
                f"{name}: it must be one of {', '.join(map(str, allowed))}"
                for name, allowed in choices.items()
                if getattr(self, name) not in allowed
            ),
            *(
                f"{name}: no mail could be sent; pass None for no limit"
                for name in ("message_rate_limit", "connection_limit")
                if (limit := getattr(self, name)) is not None and limit < 1
            ),
            *(f"{name}: it is negative" for name in ("back_pressure", "tarpit") if getattr(self, name) < 0),
            *(["rate_interval: it must be positive"] if self.rate_interval <= 0 else []),
            *(["keytab: it cannot be read"] if self.keytab and not os.access(self.keytab, os.R_OK) else []),
            *(f"{name}: it is one string; pass a list" for name, values in lists.items() if isinstance(values, str)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON has them."""
        return asdict(self) | {
            "accepted_domains": None if self.accepted_domains is None else list(self.accepted_domains),
            "mailboxes": None if self.mailboxes is None else list(self.mailboxes),
            "senders": {user: list(addresses) for user, addresses in self.senders.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """The replies that differ between the versions of Exchange."""

    extensions: tuple[str, ...]
    not_authenticated: str
    cannot_relay: str
    cannot_send_as: str
    unknown_recipient: str
    too_many_connections: str
    unrecognized_command: str


REPLIES = {
    2019: Replies(
        # learn.microsoft.com/exchange/mail-flow/test-smtp-telnet; github.com/marlam/msmtp/issues/11 (Exchange 2019,
        # before and after STARTTLS). XSHADOWREQUEST and XPROXY are for other servers of the organization: no published
        # conversation with a client has them.
        extensions=("XRDST",),
        # github.com/renevanosnabrugge/SendEmail-BuildTask/issues/49. Exchange Online says "Client not authenticated to
        # send mail" by now: github.com/MicrosoftDocs/OfficeDocs-Exchange/pull/2707.
        not_authenticated="530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM",
        # kb.itsystemlab.com/help/microsoft/exchange, "Exchange Server error 550 5.7.54".
        cannot_relay="550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
        # github.com/dgtlmoon/changedetection.io/issues/3282. At the end of the message, since the front end hands it
        # on: github.com/WWBN/AVideo/issues/1017, geekswithblogs.net, "Authenticated SMTP relaying in Exchange 2013".
        cannot_send_as="550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        # anavem.com/tutorials/how-to-fix-550-5110-resolveradrrecipientnotfound-error-in-exchange-server. That one
        # unknown recipient has the whole message rejected, and who has signed in is not filtered:
        # learn.microsoft.com, "Recipient filtering procedures on Edge Transport servers".
        unknown_recipient="550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
        # learn.microsoft.com/answers/questions/407670; exchangeitup.blogspot.com/2017/08, also for the default of 20.
        too_many_connections=(
            "421 4.3.2 The maximum number of concurrent server connections has exceeded a per-source limit, "
            "closing transmission channel"
        ),
        # github.com/muquit/mailsend/issues/152.
        unrecognized_command="500 5.3.3 Unrecognized command '{command}'",
    ),
    2010: Replies(
        # github.com/splitbrain/dokuwiki-plugin-smtp/issues/24.
        extensions=("XEXCH50", "XRDST", "XSHADOW"),
        # github.com/namshi/docker-smtp/issues/37.
        not_authenticated="530 5.7.1 Client was not authenticated",
        # github.com/jstedfast/MailKit/issues/873.
        cannot_relay="550 5.7.1 Unable to relay",
        # github.com/nodemailer/nodemailer/issues/145.
        cannot_send_as="550 5.7.1 Client does not have permissions to send as this sender",
        # itgeeknotes.blogspot.com/2017/03, in reply to RCPT.
        unknown_recipient="550 5.1.1 User unknown",
        # onprem.wtf/post/exchange-2010-and-maxinboundconnectionpersource.
        too_many_connections=(
            "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"
        ),
        # github.com/splitbrain/dokuwiki-plugin-smtp/issues/24.
        unrecognized_command="500 5.3.3 Unrecognized command",
    ),
}

# serverfault.com/questions/833887 and many others; the same in all versions.
TOO_MANY_MESSAGES = "421 4.4.2 Message submission rate for this client has exceeded the configured limit"
# In reply to MAIL: tannyahmad.wordpress.com/2015/02/28.
BACK_PRESSURE = "452 4.3.1 Insufficient system resources"
# bobcares.com/blog/error-552.
TOO_LARGE = "552 5.3.4 Message size exceeds fixed maximum message size"
# github.com/jstedfast/MailKit/issues/151: DATA after BODY=BINARYMIME.
BAD_SEQUENCE = "503 5.5.1 Bad sequence of commands"


class Connector:
    """What all sessions of the server share: its settings, and how much of its limits is used.

    Args:
        settings: the settings.
        bindings: the right channel bindings over TLS (RFC 5929 4.1); None without TLS.
    """

    def __init__(self, settings: Exchange, bindings: bytes | None) -> None:
        self.settings = settings
        self.bindings = bindings
        self.replies = REPLIES[settings.version]
        self._refusals_left = settings.back_pressure
        self._connections: defaultdict[str, int] = defaultdict(int)
        self._accepted: defaultdict[str, deque[float]] = defaultdict(deque)
        self._domains = _lower(settings.accepted_domains)
        self._mailboxes = _lower(settings.mailboxes)
        self._senders = {user.upper(): _lower(addresses) or set() for user, addresses in settings.senders.items()}

    def open_connection(self, address: str) -> bool:
        """Count a connection, and return whether it is within the limit. If not, it is not counted."""
        limit = self.settings.connection_limit
        if limit is not None and self._connections[address] >= limit:
            return False
        self._connections[address] += 1
        return True

    def close_connection(self, address: str) -> None:
        """Count the end of a connection."""
        self._connections[address] -= 1

    def refuse_message(self, source: str, now: float) -> str | None:
        """Return the refusal of a new message, or None and count it.

        Args:
            source: the user, or the address of a client that has not signed in (*MessageRateSource*).
            now: seconds on a monotonic clock.
        """
        if self._refusals_left:
            self._refusals_left -= 1
            return BACK_PRESSURE
        limit = self.settings.message_rate_limit
        if limit is None:
            return None
        accepted = self._accepted[source]
        while accepted and accepted[0] <= now - self.settings.rate_interval:
            accepted.popleft()
        if len(accepted) >= limit:
            return TOO_MANY_MESSAGES
        accepted.append(now)
        return None

    def refuse_recipient(self, address: str, *, is_anonymous: bool) -> str | None:
        """Return the refusal of a recipient in reply to RCPT, or None."""
        if not is_anonymous:
            return None
        if self._domains is not None and _get_domain(address) not in self._domains:
            return self.replies.cannot_relay
        if self.settings.version == 2010 and not self._exists(address):
            return self.replies.unknown_recipient
        return None

    def refuse_content(self, user: str | None, senders: Collection[str], recipients: Collection[str]) -> str | None:
        """Return the refusal of a message at its end, or None.

        Args:
            user: None for a client that has not signed in, which may send as anybody.
            senders: the addresses in the envelope and in the header From.
            recipients: the accepted recipients.
        """
        if user is None:
            return None if all(map(self._exists, recipients)) else self.replies.unknown_recipient
        allowed = self._senders.get(user.upper())
        if allowed is not None and not allowed.issuperset(map(str.lower, senders)):
            return self.replies.cannot_send_as
        return None

    def _exists(self, address: str) -> bool:
        """Return whether an address is a mailbox, or in a domain of somebody else."""
        if self._mailboxes is None or address.lower() in self._mailboxes:
            return True
        domains = self._domains if self._domains is not None else set(map(_get_domain, self._mailboxes))
        return _get_domain(address) not in domains


def _lower(texts: Collection[str] | None) -> set[str] | None:
    return None if texts is None else {text.lower() for text in texts}


def _get_domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
