"""A batch: errands in, one delivery for each out; what may pass is tried again, a journal is kept. Knows no socket."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import Protocol

from airflow_provider_smtpcm.mail.errand import Errand
from airflow_provider_smtpcm.smtp.delivery import Delivery
from airflow_provider_smtpcm.smtp.interruption import remaining
from airflow_provider_smtpcm.smtp.patience import Patience


class Sending(Protocol):
    """What sends errands; `Mailing` does."""

    def deliveries(self) -> Generator[Delivery, None, None]:
        """One delivery for each errand, each time that it comes."""

    def wake(self) -> None:
        """Ask for errands again, from any thread: there may be some now."""


Send = Callable[[Iterator[Errand | float]], Sending]


class Journal(Protocol):
    """Where somebody writes down what is about to be sent, and what became of it."""

    @property
    def in_doubt(self) -> Container[int]:
        """The errands that were passed on, and of which nothing was heard."""

    def admit(self, errands: Iterator[Errand | float]) -> Iterator[Errand | float]:
        """Pass errands on once they are written down.

        A number stands for nothing before that moment (`time.monotonic`), unless a delivery comes or `wake` is called.
        """

    def wakes(self, wake: Callable[[], None]) -> None:
        """What to call, from any thread, when there may be errands to pass on again."""

    def heard(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """This is what became of an errand; `left` are the recipients whom another try may reach."""

    def told(self, delivery: Delivery) -> Delivery:
        """As somebody is to be told of it who knows of no earlier try, which may have delivered it."""


def deliveries(
    errands: Iterator[Errand | float], send: Send, *, retry_for: float, journal: Journal | None
) -> Generator[Delivery, None, None]:
    """One delivery for each errand, once it is settled.

    Args:
        errands: by index, each once; a number stands for nothing before that moment (`time.monotonic`).
        send: sends errands, each as often as it comes.
        retry_for: seconds for which a mail that was refused for now, or not sent, is tried again.
        journal: is asked before anything is sent, and told afterwards.
    """
    patience = Patience(errands, retry_for)
    sending = send(iter(patience) if journal is None else journal.admit(iter(patience)))
    if journal is not None:
        journal.wakes(sending.wake)

    def told(delivery: Delivery) -> Delivery:
        return delivery if journal is None else journal.told(delivery)

    unsettled: Delivery | None = None
    with closing(sending.deliveries()) as found:
        try:
            for delivery in found:
                unsettled = delivery
                left = patience.left(delivery)
                if journal is not None:
                    journal.heard(delivery, left)
                final = patience.settle(delivery, left)
                ready = None if final is None else told(final)
                # Signal handlers run after calls: with none from here to the consumer, no exception comes between.
                unsettled = None
                if ready is not None:
                    yield ready
        except GeneratorExit:
            raise
        except BaseException as interruption:
            known = [] if unsettled is None else [unsettled]
            yield from map(
                told, _interrupted(chain(known, remaining(found, interruption)), patience, journal, interruption)
            )
            raise
    yield from map(told, patience.give_up(_on_their_way(patience, journal)))


def _interrupted(
    known: Iterable[Delivery], patience: Patience, journal: Journal | None, interruption: BaseException
) -> Iterator[Delivery]:
    """The deliveries of a batch that ends here: of mails that were begun, then of those that wait for another turn."""
    lost = patience.lost(lambda: _on_their_way(patience, journal), interruption)
    for delivery in chain(known, lost):
        if journal is not None and delivery.index in journal.in_doubt:
            journal.heard(delivery, patience.left(delivery))
        patience.forget(delivery)
        yield delivery
    yield from patience.give_up(_on_their_way(patience, journal))


def _on_their_way(patience: Patience, journal: Journal | None) -> Container[int]:
    return patience.out if journal is None else journal.in_doubt
