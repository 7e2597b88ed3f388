"""Nothing is sent that the ledger does not know as about to be sent; it hears what became of it. Knows no server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MessageError, Reply
from airflow_provider_smtpcm.mail.errand import Errand
from airflow_provider_smtpcm.operators.ledger.ledger import Known, Ledger, Reservation
from airflow_provider_smtpcm.operators.ledger.record import Rest, State

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery


class LedgerJournal:
    """A gate between those who make mails and those who send them; see `smtp.batch.Journal`.

    Args:
        ledger: open.
        mark: tells a row, by its index, from all others.
    """

    def __init__(self, ledger: Ledger, mark: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._mark = mark
        self._gathered: list[Errand] = []
        self._reserved: tuple[Reservation, list[Errand]] | None = None
        self._open: deque[Errand] = deque()
        #: The rows that were passed on, and of which nothing was heard.
        self.in_doubt: set[int] = set()

    def admit(self, errands: Iterator[Errand | None]) -> Iterator[Errand | None]:
        """Pass errands on once they are written down; None stands for nothing just now.

        The next ones are gathered and written down while those before them are sent.

        Raises:
            LedgerError: they cannot be written.
        """
        exhausted = False
        while True:
            self._ledger.check()
            idle = exhausted or len(self._gathered) >= self._ledger.at_once
            if not idle:
                item = next(errands, self)
                exhausted, idle = item is self, not isinstance(item, Errand)
                if isinstance(item, Errand):
                    self._gathered.append(item)
            self._reserve(idle=idle)
            if self._open:
                errand = self._open.popleft()
                self.in_doubt.add(errand.index)
                yield errand
            elif exhausted and not self._gathered and self._reserved is None:
                return
            elif idle:
                yield None

    def _reserve(self, *, idle: bool) -> None:
        if self._reserved is not None and self._reserved[0].done:
            self._open.extend(self._reserved[1])
            self._reserved = None
        if self._reserved is None and self._gathered and idle:
            rows = [(errand.index, self._mark(errand.index)) for errand in self._gathered]
            self._reserved = self._ledger.reserve(rows), self._gathered
            self._gathered = []

    def heard(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """Write down what became of an errand, and who of its recipients may be asked again."""
        self.in_doubt.discard(delivery.index)
        lost = {address: str(reply) for address, reply in delivery.refused.items() if address not in left}
        somebody_has_it = bool(delivery.accepted)
        self._ledger.record(
            delivery.index, _state(delivery, left), Rest(left, lost) if somebody_has_it or lost else Rest()
        )

    def close(self) -> None:
        """Nothing more is sent: what was written down and not passed on is not on its way."""
        if self._reserved is not None and self._reserved[0].done:
            self._open.extend(self._reserved[1])
        for errand in self._open:
            lost = {address: str(reply) for address, reply in errand.refused.items()}
            rest = Rest(errand.recipients or (), lost) if errand.recipients else Rest()
            self._ledger.record(errand.index, State.AGAIN, rest)
        self._open.clear()


def _state(delivery: Delivery, left: tuple[str, ...]) -> State:
    outcome = str(delivery.outcome)
    if outcome in ("accepted", "unknown"):
        return State.ACCEPTED if outcome == "accepted" else State.UNKNOWN
    if left:
        return State.AGAIN
    if outcome in ("partial", "refused"):
        return State.PARTIAL if outcome == "partial" else State.REFUSED
    return State.FAILED if isinstance(delivery.error, MessageError) else State.AGAIN


def errand_of(index: int, mail: Mail, known: Known) -> Errand:
    """The mail for those who lack it."""
    if not known.rest:
        return Errand(index, mail)
    everybody = (address.address for address in mail.recipients)
    lost = {address: Reply(code=int(said[:3]), text=said[4:]) for address, said in known.rest.lost.items()}
    accepted = tuple(address for address in everybody if address not in lost and address not in known.rest.left)
    return Errand(index, mail, known.rest.left, accepted, lost)
