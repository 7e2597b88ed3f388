"""Work on the recipients of a mail takes a few comparisons for each, however many there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_smtpcm.errors import RefusedError, Reply
from airflow_provider_smtpcm.ledger.journal import pending_request
from airflow_provider_smtpcm.ledger.ledger import PriorRow
from airflow_provider_smtpcm.ledger.record import Progress, RowState
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue, pending_recipients

NUMBER = 3000


class Address(str):
    """One that counts what it is compared with."""

    __slots__ = ()
    compared = 0

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Address.compared += 1
        return str.__eq__(self, other)


EVERYBODY = tuple(Address(f"r{at}@corp.example") for at in range(NUMBER))
HAVE_IT, REFUSED = EVERYBODY[: NUMBER // 3], EVERYBODY[NUMBER // 3 : NUMBER // 2]
MAIL = Mail(from_address="etl@corp.example", to=[str(address) for address in EVERYBODY], message_id="<1@corp.example>")
DELIVERY = Delivery(
    message_id="<1@corp.example>",
    outcome=Outcome.PARTIAL,
    accepted=HAVE_IT,
    refused=dict.fromkeys(REFUSED, Reply(code=450, text="later")),
    error=RefusedError("No.", retryable=True),
)


def settle() -> object:
    """Another transaction for those who lack it."""
    retry_queue = RetryQueue(iter((SendRequest(0, MAIL, EVERYBODY),)), 60)
    next(iter(retry_queue))
    return retry_queue.settle(DELIVERY, retry_queue.pending_recipients(DELIVERY))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: DELIVERY.never_asked(EVERYBODY),
        lambda: pending_recipients(DELIVERY, SendRequest(0, MAIL, EVERYBODY)),
        settle,
        lambda: pending_request(0, MAIL, PriorRow(RowState.RETRY, Progress(HAVE_IT, dict.fromkeys(REFUSED, "550 no")))),
    ],
    ids=["never asked", "who is left", "settle", "from the ledger"],
)
def test_each_recipient_is_compared_a_few_times(ask: Callable[[], object]) -> None:
    """And not with every other one."""
    Address.compared = 0
    ask()
    assert Address.compared < 10 * NUMBER
