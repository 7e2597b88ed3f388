"""A batch: errands in, one delivery for each out; what may pass is tried again, a journal is kept. Knows no socket."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Protocol

from airflow_provider_smtpcm.mail.errand import Errand
from airflow_provider_smtpcm.smtp.delivery import Delivery
from airflow_provider_smtpcm.smtp.interruption import remaining
from airflow_provider_smtpcm.smtp.patience import Patience

Send = Callable[[Iterator[Errand | None]], Generator[Delivery, None, None]]


class Journal(Protocol):
    """Where somebody writes down what is about to be sent, and what became of it."""

    @property
    def in_doubt(self) -> Container[int]:
        """The errands that were passed on, and of which nothing was heard."""

    def admit(self, errands: Iterator[Errand | None]) -> Iterator[Errand | None]:
        """Pass errands on once they are written down; None stands for nothing just now."""

    def heard(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """This is what became of an errand; `left` are the recipients whom another try may reach."""

    def told(self, delivery: Delivery) -> Delivery:
        """As somebody is to be told of it who knows of no earlier try, which may have delivered it."""


def deliveries(
    errands: Iterator[Errand | None], send: Send, *, retry_for: float, journal: Journal | None
) -> Generator[Delivery, None, None]:
    """One delivery for each errand, once it is settled.

    Args:
        errands: by index, each once; None stands for nothing just now.
        send: sends errands, each as often as it comes.
        retry_for: seconds for which a mail that was refused for now, or not sent, is tried again.
        journal: is asked before anything is sent, and told afterwards.
    """
    patience = Patience(errands, retry_for)
    sending = send(iter(patience) if journal is None else journal.admit(iter(patience)))

    def on_their_way() -> Container[int]:
        return patience.out if journal is None else journal.in_doubt

    def told(delivery: Delivery) -> Delivery:
        return delivery if journal is None else journal.told(delivery)

    unsettled: Delivery | None = None
    with closing(sending):
        try:
            for delivery in sending:
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
            # Of the mails that were begun it is known how they stand, or that it is not known.
            known = [] if unsettled is None else [unsettled]
            for delivery in chain(known, remaining(sending, interruption), patience.lost(on_their_way, interruption)):
                if journal is not None and delivery.index in journal.in_doubt:
                    journal.heard(delivery, patience.left(delivery))
                patience.forget(delivery)
                yield told(delivery)
            yield from map(told, patience.give_up(on_their_way()))
            raise
    yield from map(told, patience.give_up(on_their_way()))
