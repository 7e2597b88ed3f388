"""What one try of a task inherits from those before it, and leaves to those after it. Knows Airflow's context."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import LedgerError, MailError
from airflow_provider_smtpcm.operators.airflow_errors import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.operators.ledger.book import Standing
    from airflow_provider_smtpcm.operators.ledger.ledger import Ledger
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)


class Tries:
    """The ledger of a task during one try, and how the try ends."""

    def __init__(self, ledger: Ledger | None) -> None:
        #: None before Airflow 3.3.
        self.ledger = ledger
        #: What became of the mail, of a task that sends one.
        self.told: list[Delivery] = []
        #: What the task returns, and the same without an address, once it is done.
        self.result: Mapping[str, object] = {}
        self.summary: Mapping[str, object] = {}
        #: With what the try ends; None: it is done.
        self.failure: AirflowException | None = None

    def may_have_arrived(self) -> bool:
        """Whether a recipient was accepted, or may have been, by this try."""
        return any(delivery.may_have_arrived for delivery in self.told)


@contextmanager
def ledger_of(context: Context, *, on_clear: str, window: int | None = None, connections: int = 1) -> Iterator[Tries]:
    """Open the ledger of the task, and write down at the end what is in it and how the try ended.

    Args:
        context: of the try.
        on_clear: `send_again` or `resume_unfinished`; see the operators.
        window, connections: see `Ledger`.

    Raises:
        LedgerError: it cannot be read, or not be written.
    """
    # Here, since every parse of a DAG imports this module.
    from airflow_provider_smtpcm.operators.ledger.ledger import Ledger
    from airflow_provider_smtpcm.operators.ledger.store import TaskStateStore
    from airflow_provider_smtpcm.operators.supervisor_line import LINE
    from airflow_provider_smtpcm.smtp.interruption import let_go

    store = TaskStateStore.of(context)
    if store is None:
        log.info("This Airflow keeps no state of tasks: once a mail was accepted, the task is not tried again.")
        yield Tries(None)
        return
    ledger = Ledger(
        store,
        send_again=on_clear == "send_again",
        window=window,
        connections=connections,
        max_tries=getattr(context["ti"], "max_tries", None),
        cleared=_times_cleared(context),
    )
    if ledger.done is not None:
        log.info("An earlier try was done, and died before Airflow heard of it: nothing is sent.")
        yield Tries(ledger)
        return
    if ledger.resumed:
        log.info(
            "An earlier try came to %d mail(s): left %d, in doubt %d.",
            ledger.rows,
            ledger.left,
            len(ledger.doubts),
        )
    elif ledger.generation:
        log.info("The task was cleared after it had ended: all is sent again (generation %d).", ledger.generation)
    tries = Tries(ledger)
    try:
        yield tries
    except BaseException as error:
        let_go(LINE)  # the ledger's thread may need it to come to its end
        final = isinstance(error, MailError) and not error.retryable
        with suppress(LedgerError):
            ledger.end(_ended(context, final=final))
        raise
    if tries.failure is None:
        ledger.close(tries.result, tries.summary)
    else:
        ledger.end(_ended(context, final=isinstance(tries.failure, AirflowFailException)))


def _times_cleared(context: Context) -> int:
    """At least 1 after somebody cleared the task, by what Airflow then adds to the number of its retries.

    It counts where the ledger is gone: expired, or removed by `[state_store] clear_on_success`. A mail that is sent
    again on purpose needs another Message-ID, or a server may drop it.
    """
    most = getattr(context["ti"], "max_tries", None)
    retries = getattr(context.get("task"), "retries", None)
    return max(0, most - retries) if isinstance(most, int) and isinstance(retries, int) else 0


def _ended(context: Context, *, final: bool) -> Standing:
    from airflow_provider_smtpcm.operators.ledger.book import Standing

    return Standing.ENDED if final or _is_the_last(context["ti"]) else Standing.OPEN


def _is_the_last(ti: Any) -> bool:
    tries, most = getattr(ti, "try_number", None), getattr(ti, "max_tries", None)
    return isinstance(tries, int) and isinstance(most, int) and tries > most


def identity_of(context: Context, ledger: Ledger | None, *more: str) -> tuple[str, ...]:
    """What makes a mail of this task this one and no other, on every try; see `mail.identity.stable_message_id`.

    Args:
        context: of the try.
        ledger: knows how often all was begun anew on purpose: a server would drop what bears an old Message-ID.
        more: what tells the mails of the task from one another.
    """
    ti = context["ti"]
    generation = ledger.generation if ledger is not None else 0
    again = (f"generation {generation}",) if generation else ()
    return (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index), *more, *again)


def budget(seconds: float, limit: timedelta | None) -> float:
    """How long a mail may be tried again: so many seconds, and never more than half of the task's time limit."""
    return seconds if limit is None else min(seconds, limit.total_seconds() / 2)
