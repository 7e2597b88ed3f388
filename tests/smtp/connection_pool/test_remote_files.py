"""Many mails: files that are read from a slow store delay no other mail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    ConnectError,
    MessageError,
)
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Outcome
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import letter, outcomes, send
from tests.smtp.dialogue import Dialogue
from tests.smtp.server import Server
from tests.smtp.test_pipelining import HELLO

ManagerFor = Callable[..., SmtpConnectionManager]


class Store:
    """A path in a slow store."""

    name = "report.csv"

    def __init__(self, *, stat: Callable[[], None] = lambda: None, read: Callable[[], None] = lambda: None) -> None:
        self._stat = stat
        self._read = read

    def stat(self) -> object:
        """What it takes to measure it."""
        self._stat()
        return SimpleNamespace(st_size=100_000)

    def open(self, mode: str) -> BinaryIO:
        """What it takes to read it."""
        self._read()
        path = Path("/dev/zero")
        return _Ending(path.open(mode))  # type: ignore[arg-type,return-value]


class _Ending:
    """Some zeros, and no more."""

    def __init__(self, zeros: BinaryIO) -> None:
        self._zeros = zeros
        self._left = 100_000

    def read(self, size: int) -> bytes:
        found = self._zeros.read(min(size, self._left))
        self._left -= len(found)
        return found

    def close(self) -> None:
        self._zeros.close()


def from_afar(number: int, store: object) -> Mail:
    """A mail with such a file."""
    return Mail(
        from_address="etl@corp.example",
        to="a@corp.example",
        attachments=[Attachment(store, name="report.csv")],  # type: ignore[arg-type]
        message_id=f"<{number}@corp.example>",
    )


@pytest.mark.parametrize("where", ["stat", "read"])
def test_a_slow_store_holds_up_nobody_elses_mail(where: str) -> None:
    """Measuring and reading happen in threads."""
    others = threading.Event()
    store = Store(**{where: lambda: others.wait() and None})  # type: ignore[arg-type]
    order: list[int] = []
    with Server() as server:
        for delivery in send(
            server.manager(timeout=3600), [from_afar(0, store), *map(letter, range(1, 6))], connections=2
        ):
            order.append(delivery.index)
            if len(order) == 5:
                others.set()
            assert delivery.outcome is Outcome.ACCEPTED
    assert sorted(order[:5]) == [1, 2, 3, 4, 5]
    assert order[5] == 0


@pytest.mark.parametrize("size", [2**70, "many"])
def test_a_store_that_measures_nonsense_costs_its_mail_alone(size: object) -> None:
    """It has its delivery like any other."""
    store = Store()
    store.stat = lambda: SimpleNamespace(st_size=size)  # type: ignore[method-assign]
    with Server() as server:
        found = list(send(server.manager(), [from_afar(0, store), letter(1)]))
    assert outcomes(found) == ["not_sent", "accepted"]
    assert isinstance(found[0].error if found[0].index == 0 else found[1].error, MessageError)


def test_a_session_that_is_lost_while_a_file_is_measured_leaves_its_mail_a_delivery(manager_for: ManagerFor) -> None:
    """A single mail through an open session; nothing waits forever."""
    with Dialogue(f"{HELLO}\nPAUSE") as dialogue, Session(manager_for(dialogue)) as session:
        hung_up = dialogue._thread.join
        delivery = session.send(from_afar(0, Store(stat=hung_up)))
    assert delivery.outcome is Outcome.NOT_SENT
    assert isinstance(delivery.error, ConnectError)
