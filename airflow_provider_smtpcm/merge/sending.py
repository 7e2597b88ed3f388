"""Sending the mails of a merge: every row gets an outcome, even if an exception interrupts it at any point."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import LedgerError, MailError, OutcomeUnknownError, StoppedError
from airflow_provider_smtpcm.ledger.journal import (
    LedgerJournal,
    describe_progress,
    find_delivery_remedy,
    not_begun_delivery,
    pending_addresses,
)
from airflow_provider_smtpcm.merge.messages import RowMails
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.smtp.cancellation import drain_deliveries
from airflow_provider_smtpcm.smtp.outcome import format_addresses

if TYPE_CHECKING:
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest

    # Sends requests, recorded in a journal, and yields a delivery for each. For a float see `smtp.queue.Source`.
    Send = Callable[[Iterator[SendRequest | float], LedgerJournal | None], Generator[Delivery, None, None]]


def send_rows(
    mails: RowMails,
    result: MergeResult,
    ledger: Ledger | None,
    *,
    send: Send,
    on_delivery: Callable[[Mail, Delivery], None],
    cancellation: CancellationToken,
) -> MailError | None:
    """Send the mails of all pending rows.

    Args:
        mails: the mails of the rows.
        result: receives the outcome of each row.
        ledger: the task's ledger; None: before Airflow 3.3.
        send: sends the requests.
        on_delivery: called with each mail and its delivery, once the result has it.
        cancellation: the task's token, with the reason why rows were not sent.

    Returns:
        None; or, if an exception (such as a time limit) interrupted sending, the error with which the task fails. That
        exception is its cause. It is retryable if there is a ledger.

    Raises:
        BaseException: the exception that interrupted sending, if it asks the process to exit, or came before any mail
            was sent.
    """
    journal = None if ledger is None else LedgerJournal(ledger, mails.fingerprint)
    deliveries = send(iter(mails), journal)
    last: Delivery | None = None

    def account_for(delivery: Delivery) -> None:
        row = mails.in_flight[delivery.index]
        result.add_delivery(row.number, row.key, row.mail, delivery)
        on_delivery(row.mail, delivery)
        del mails.in_flight[delivery.index]  # last: an interruption before it leaves the row in flight

    try:
        with closing(deliveries):
            try:
                for last in deliveries:
                    account_for(last)
            except BaseException as interruption:
                if last is not None and last.index in mails.in_flight:
                    account_for(last)
                for delivery in drain_deliveries(deliveries, interruption):
                    account_for(delivery)
                raise
    except LedgerError as error:
        mails.failure = error
        _account_for_unfinished(mails, result, journal, error)
    except BaseException as interruption:
        _account_for_unfinished(mails, result, journal, interruption)
        # The exception is raised unchanged as long as there is nothing to report: with a ledger, while every counted
        # row is `failed`; without one, until a mail may have arrived, since a retry is safe before that.
        has_outcomes = result.may_have_arrived() if ledger is None else result.rows > result["failed"]
        if isinstance(interruption, KeyboardInterrupt | SystemExit) or not has_outcomes:
            raise
        return _interruption_error(result, interruption, is_durable=ledger is not None)
    finally:
        if journal is not None:
            journal.close()
    _account_for_unfinished(mails, result, journal, cancellation.error())
    return None


def _account_for_unfinished(
    mails: RowMails, result: MergeResult, journal: LedgerJournal | None, cause: BaseException
) -> None:
    """Add the rows still in flight to the result: as not sent if their mail was not started, otherwise as unknown."""
    stopped = StoppedError(f"It was not sent: {_describe_cause(cause)}.", remedy="Run the task again.")
    for index, row in mails.in_flight.items():
        was_begun = not isinstance(cause, StoppedError) if journal is None else index in journal.in_doubt
        if not was_begun:
            delivery = not_begun_delivery(index, row.mail, row.prior, stopped)
            result.add_delivery(row.number, row.key, row.mail, delivery)
            continue
        message_id = row.mail.message_id
        progress = row.prior.progress if journal is None else journal.get_progress(journal.in_doubt[index])
        names = format_addresses(pending_addresses(row.mail, progress))
        error = OutcomeUnknownError(
            f"The task was interrupted ({_describe_cause(cause)}) while the mail {message_id} was in flight to {names}."
            f"{describe_progress(progress)}",
            remedy=find_delivery_remedy(names),
        )
        result.add_unknown(row.number, row.key, error, message_id=message_id, progress=progress)
        if journal is not None:
            journal.abandon(index)
    mails.in_flight.clear()


def _interruption_error(result: MergeResult, interruption: BaseException, *, is_durable: bool) -> MailError:
    error = MailError(
        f"The task was interrupted ({_describe_cause(interruption)}): {result.summary()}.",
        remedy="Airflow retries the pending rows, if 'retries' are left."
        if is_durable
        else "Airflow does not retry this, since mail that was accepted would arrive twice.",
        retryable=is_durable,
    )
    error.__cause__ = interruption
    return error


def _describe_cause(interruption: BaseException) -> str:
    cause = interruption.__cause__ if isinstance(interruption, OutcomeUnknownError) else None
    if cause is None and isinstance(interruption, StoppedError | LedgerError):
        return interruption.message.removeprefix("It was not sent: ").removesuffix(".")
    return f"{type(cause or interruption).__name__}: {cause or interruption}".removesuffix(": ")
