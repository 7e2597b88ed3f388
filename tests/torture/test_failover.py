"""A server goes down and comes back in the middle of a merge: nothing is lost, nothing is doubled."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp import Delivery, failover
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.failover import Failover
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import letter
from tests.smtp.server import Server, Stored

# Rows between two events.
_ROWS = 60


class _Flapping:
    """A server on one port that can be taken down, with whatever is in flight, and brought up again."""

    def __init__(self) -> None:
        self._server = Server()
        self.port = self._server.port
        self._server.__enter__()
        self._is_up = True
        self._earlier: list[Stored] = []

    def toggle(self) -> None:
        """Take it down, or bring it up."""
        if self._is_up:
            self.take_down()
        else:
            self._server = Server(port=self.port)
            self._server.__enter__()
            self._is_up = True

    def take_down(self) -> None:
        """Close its port and all connections."""
        if self._is_up:
            self._is_up = False
            self._server.__exit__(None, None, None)
            self._earlier += self._server.stored

    @property
    def stored(self) -> list[Stored]:
        """All that it ever took."""
        return [*self._earlier, *(self._server.stored if self._is_up else ())]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_goes_down_and_up_loses_and_doubles_nothing(
    seed: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mail is at the server that its delivery names, once; only one without a final reply may be there as well."""
    monkeypatch.setattr(failover, "DOWN_SECONDS", 0.1)
    failover._outages.clear()
    chance = random.Random(seed)  # noqa: S311 - no secret
    primary = _Flapping()
    with contextlib.ExitStack() as stack:
        stack.callback(primary.take_down)
        second = stack.enter_context(Server())
        manager = SmtpConnectionManager(
            host="127.0.0.1",
            port=primary.port,
            ssl_mode="none",  # type: ignore[arg-type]
            fallback_hosts=f"127.0.0.1:{second.port}",
        )
        peers = {f"127.0.0.1:{primary.port}": primary, f"127.0.0.1:{second.port}": second}

        def rows() -> Iterator[SendRequest | float]:
            numbers = itertools.count()
            for event in range(8):
                for number in itertools.islice(numbers, _ROWS):
                    yield SendRequest(number, letter(number, size=chance.choice((0, 0, 0, 30_000))))
                primary.toggle()
                stored = len(primary.stored)
                while event % 2 and len(primary.stored) == stored:  # until it is in use again
                    number = next(numbers)
                    yield SendRequest(number, letter(number))

        servers = Failover(manager)
        retries = RetryQueue(rows(), 60.0)
        sender = BatchSender(
            retries.admit_requests(),
            manager,
            lambda: Session(manager, failover=servers),
            connections=connections,
            retry_connect_for=60.0,
            failover=servers,
        )
        deliveries: list[Delivery] = list(retries.deliveries(sender))
        indexes = sorted(delivery.index for delivery in deliveries)
        assert indexes == list(range(len(indexes)))
        copies = {
            peer: Counter(stored.message_id for stored in server.stored for _ in stored.recipients)
            for peer, server in peers.items()
        }
        used = set()
        for delivery in deliveries:
            found = {peer: counts[delivery.message_id] for peer, counts in copies.items()}
            if delivery.outcome == "unknown":
                assert sum(found.values()) in (0, 2), (delivery, found)
                continue
            assert delivery.outcome == "accepted", delivery
            used.add(delivery.server)
            assert found == {peer: 2 if peer == delivery.server else 0 for peer in peers}, (delivery, found)
        assert used == set(peers)
    failover._outages.clear()
