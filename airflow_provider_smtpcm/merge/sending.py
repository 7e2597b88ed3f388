"""Sending the mails of a merge, so that each row is accounted for whatever interrupts it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import LedgerError, MailError, OutcomeUnknownError, StoppedError
from airflow_provider_smtpcm.ledger.journal import LedgerJournal, not_begun_delivery
from airflow_provider_smtpcm.merge.messages import RowMails
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.smtp.cancellation import drain_deliveries

if TYPE_CHECKING:
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.delivery import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest

    # Sends requests, with a journal, and yields a delivery for each.
    Send = Callable[[Iterator[SendRequest | float], LedgerJournal | None], Generator[Delivery, None, None]]


def send_rows(
    mails: RowMails,
    result: MergeResult,
    ledger: Ledger | None,
    *,
    send: Send,
    on_delivery: Callable[[Mail, Delivery], None],
    stop: CancellationToken,
) -> MailError | None:
    """Send the mails of all pending rows.

    Args:
        mails: one for each pending row.
        result: gets the delivery of each.
        ledger: of the task; None: this Airflow stores none.
        send: sends requests.
        on_delivery: called with each mail and its delivery, after both were counted.
        stop: says why rows were not sent, where the task was asked to end.

    Returns:
        The error with which the task ends, if an exception from elsewhere (a time limit) interrupted it; its cause is
        that exception. It is retryable if the next attempt knows what this one did.
    """
    journal = None if ledger is None else LedgerJournal(ledger, mails.fingerprint)
    deliveries = send(iter(mails), journal)
    last: Delivery | None = None

    def account_for(delivery: Delivery) -> None:
        row = mails.in_flight[delivery.index]
        result.add_delivery(row.number, row.key, row.mail, delivery)
        on_delivery(row.mail, delivery)
        del mails.in_flight[delivery.index]  # last, so that an interruption finds it unfinished

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
        # Without a ledger, a mail that was not sent is no reason to forbid a retry, which would send it.
        has_begun = result.may_have_arrived() if ledger is None else result.rows > result["failed"]
        if isinstance(interruption, KeyboardInterrupt | SystemExit) or not has_begun:
            raise
        return _interruption_error(result, interruption, is_durable=ledger is not None)
    finally:
        if journal is not None:
            journal.close()
    _account_for_unfinished(mails, result, journal, stop.error())
    return None


def _account_for_unfinished(
    mails: RowMails, result: MergeResult, journal: LedgerJournal | None, cause: BaseException
) -> None:
    """Count the rows whose mails were made and have no delivery in this attempt."""
    not_begun = StoppedError(f"It was not sent: {_reason(cause)}.", remedy="Run the task again.")
    for index, row in mails.in_flight.items():
        if index not in journal.in_doubt if journal is not None else isinstance(cause, StoppedError):
            delivery = not_begun_delivery(index, row.mail, row.prior, not_begun)
            result.add_delivery(row.number, row.key, row.mail, delivery)
            continue
        message_id = row.mail.message_id
        error = OutcomeUnknownError(
            f"The task was interrupted ({_reason(cause)}) while the mail {message_id} was in flight.",
            remedy="Look for its Message-ID in the server's log.",
        )
        result.add_unknown(row.number, row.key, error, message_id=message_id, accepted=row.prior.progress.accepted)
        if journal is not None:
            journal.abandon(index)
    mails.in_flight.clear()


def _interruption_error(result: MergeResult, interruption: BaseException, *, is_durable: bool) -> MailError:
    error = MailError(
        f"The task was interrupted ({_reason(interruption)}): {result.summary()}.",
        remedy="Airflow retries what is pending, if 'retries' are left."
        if is_durable
        else "Airflow does not retry this, since mails that were accepted would arrive twice.",
        retryable=is_durable,
    )
    error.__cause__ = interruption
    return error


def _reason(interruption: BaseException) -> str:
    cause = interruption.__cause__ if isinstance(interruption, OutcomeUnknownError) else None
    if cause is None and isinstance(interruption, StoppedError | LedgerError):
        return interruption.message.removeprefix("It was not sent: ").removesuffix(".")
    return f"{type(cause or interruption).__name__}: {cause or interruption}".removesuffix(": ")
