"""What was learnt of a server by talking to it, kept from one batch to the next. Knows no server."""

from __future__ import annotations

from dataclasses import dataclass

#: Every server takes so many recipients in one transaction (RFC 5321 4.5.3.1.8).
RECIPIENTS_ASSUMED = 100


@dataclass(slots=True)
class Manners:
    """How a server behaves."""

    #: Whether it is taken at its word when it offers PIPELINING (RFC 2920).
    pipelining: bool = True
    #: Whether it has kept that word: an envelope on the heels of a message had its answers.
    pipelining_works: bool = False
    #: Recipients that it takes in one transaction, as it was found to have a limit; None: no limit was met.
    recipient_limit: int | None = None
    #: Recipients that are asked for in one group. At first two groups are a little more than what Postfix takes, so
    #: that few are too many; once it has taken more, as many.
    recipients_at_once: int = 550
    # A limit that was met once and is not believed yet.
    _doubtful_limit: int | None = None

    def found_limit(self, asked: int) -> bool:
        """It took so many recipients in a transaction, and said that the next one was too many; whether that is new.

        A number that every server has to take may also be what is left of a quota, so it is a limit once it is met
        twice in a row; else each mail of a long batch would go to one recipient at a time.
        """
        believed = asked >= RECIPIENTS_ASSUMED or asked == self._doubtful_limit
        self._doubtful_limit = asked
        if not believed or (self.recipient_limit is not None and self.recipient_limit <= asked):
            return False
        self.recipient_limit = asked
        return True

    def took(self, recipients: int) -> None:
        """It took a mail for so many."""
        self.recipients_at_once = max(self.recipients_at_once, recipients)
