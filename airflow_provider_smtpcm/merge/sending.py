"""The mails of a merge on their way, each accounted for, whatever breaks in. Knows no server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import LedgerError, OutcomeUnknownError, StoppedError
from airflow_provider_smtpcm.ledger.journal import LedgerJournal, as_before
from airflow_provider_smtpcm.ledger.ledger import Ledger
from airflow_provider_smtpcm.merge.messages import RowMails
from airflow_provider_smtpcm.merge.result import MergeTally
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.smtp.cancellation import drain_deliveries

if TYPE_CHECKING:
    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.delivery import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms mails are sent; see `MailMergeOperator`."""

    connections: int
    rate_limit: float | None
    retry_for: float
    stop: CancellationToken


def send_all(
    hook: SmtpConnectionManagerHook,
    mails: RowMails,
    tally: MergeTally,
    ledger: Ledger | None,
    terms: Terms,
    *,
    sent: Callable[[Mail, Delivery], None],
) -> AirflowException | None:
    """Send every mail that there is.

    Args:
        hook: whose server they go to.
        mails: one for each row that is left.
        tally: hears what became of each.
        ledger: is told before and after; None: nobody is.
        terms: see there.
        sent: is told of each mail and what became of it, last of all.

    Returns:
        The error with which the task ends, where something broke in.
    """
    journal = None if ledger is None else LedgerJournal(ledger, mails.mark)
    deliveries = hook.send_requests(
        iter(mails),
        connections=terms.connections,
        rate_limit=terms.rate_limit,
        retry_for=terms.retry_for,
        journal=journal,
        cancellation=terms.stop,
    )
    last: Delivery | None = None

    def account_for(delivery: Delivery) -> None:
        row = mails.in_flight[delivery.index]
        tally.delivered(row.number, row.key, row.mail, delivery)
        sent(row.mail, delivery)
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
        mails.broken = error
        _leave(mails, tally, journal, error)
    except BaseException as interruption:
        _leave(mails, tally, journal, interruption)
        # Without a ledger a mail that was not sent is no reason to forbid another try, which would send it.
        begun = tally.may_have_arrived() if ledger is None else tally.rows > tally["failed"]
        if isinstance(interruption, KeyboardInterrupt | SystemExit) or not begun:
            raise
        return _interrupted(tally, interruption, durable=ledger is not None)
    finally:
        if journal is not None:
            journal.close()
    _leave(mails, tally, journal, terms.stop.error())
    return None


def _leave(mails: RowMails, tally: MergeTally, journal: LedgerJournal | None, why: BaseException) -> None:
    """Account for rows whose mails were made, and of which nothing was heard in this try."""
    not_begun = StoppedError(f"It was not sent: {_reason(why)}.", remedy="Run the task again.")
    for index, row in mails.in_flight.items():
        if index not in journal.in_doubt if journal is not None else isinstance(why, StoppedError):
            tally.delivered(row.number, row.key, row.mail, as_before(index, row.mail, row.known, not_begun))
            continue
        message_id = row.mail.message_id
        doubt = OutcomeUnknownError(
            f"The task was interrupted ({_reason(why)}) while the mail {message_id} was on its way.",
            remedy="Look for its Message-ID in the server's log.",
        )
        tally.in_doubt(row.number, row.key, doubt, message_id=message_id, accepted=row.known.rest.accepted)
        if journal is not None:
            journal.never_heard(index)
    mails.in_flight.clear()


def _interrupted(tally: MergeTally, interruption: BaseException, *, durable: bool) -> AirflowException:
    said = f"The task was interrupted ({_reason(interruption)}): {tally.summary()}."
    failure: AirflowException
    if durable:
        failure = AirflowException(f"{said} Airflow tries again what is left, if 'retries' are left.")
    else:
        failure = AirflowFailException(
            f"{said} Airflow does not try this again, since mails that were accepted would arrive twice."
        )
    failure.__cause__ = interruption
    return failure


def _reason(interruption: BaseException) -> str:
    told = interruption.__cause__ if isinstance(interruption, OutcomeUnknownError) else None
    if told is None and isinstance(interruption, StoppedError | LedgerError):
        return interruption.message.removeprefix("It was not sent: ").removesuffix(".")
    return f"{type(told or interruption).__name__}: {told or interruption}".removesuffix(": ")
