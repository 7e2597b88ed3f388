"""What stands on both sides of a lane: the line that it speaks on, and the traffic that it takes its mails from."""

from __future__ import annotations

from typing import Protocol

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp.delivery import Delivery
from airflow_provider_smtpcm.smtp.manners import Manners
from airflow_provider_smtpcm.smtp.outgoing import Outgoing
from airflow_provider_smtpcm.smtp.wire import Wire


class Line(Protocol):
    """What a lane needs of an open session; `Session` is one."""

    manager: SmtpConnectionManager
    extensions: dict[str, str]
    has_carried_mail: bool
    needs_reset: bool
    half_begun: bool

    @property
    def wire(self) -> Wire:
        """The octets to and from the server."""

    @property
    def usable(self) -> bool:
        """Whether it is open."""

    @property
    def size_limit(self) -> int | None:
        """The largest message that the server takes, in octets."""

    @property
    def recipient_limit(self) -> int | None:
        """How many recipients of one transaction the server takes."""

    def say_quit(self) -> None:
        """Say good-bye without waiting for the answer."""

    def close(self) -> None:
        """Say good-bye, if that was not done, and hear the answer."""

    def abandon(self) -> None:
        """Close the socket without a word."""


class Traffic(Protocol):
    """What a lane needs of the place where mails come from and deliveries go to."""

    #: What was learnt of the server.
    manners: Manners
    #: Whether nothing more is begun.
    closing: bool

    @property
    def quick(self) -> bool:
        """Whether nobody has to wait long for the next mail."""

    def next_outgoing(self, *, on_heels: bool) -> Outgoing | None:
        """A mail that is ready to be sent, if there is one.

        Args:
            on_heels: whether it would go right behind another one, before that one's answer.
        """

    def again(self, outgoing: Outgoing, *, taken: bool = False) -> None:
        """Nobody has this one, or (`taken`) some have it by now: it goes first into whatever lane is free."""

    def delivered(self, delivery: Delivery) -> None:
        """This is what became of a mail."""

    def wake(self) -> None:
        """Called from another thread: a lane has something to say that it was waiting for."""
