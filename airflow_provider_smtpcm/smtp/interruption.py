"""What is known of mails when something breaks into the sending. Knows no socket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.transaction import Transaction

_MAY_HAVE_ARRIVED = (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN)


def raise_unknown(handed_over: Iterable[Transaction], untold: Iterable[Delivery], interruption: BaseException) -> None:
    """Raise what is known of mails that may have been delivered when something broke into the sending.

    Args:
        handed_over: whose answers were awaited.
        untold: whose answers had come.
        interruption: what broke in.
    """
    errors = [flying.interrupted(interruption) for flying in handed_over]
    errors += [_never_told(delivery, interruption) for delivery in untold if delivery.outcome in _MAY_HAVE_ARRIVED]
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0] from interruption
    raise OutcomeUnknownError(
        "\n".join([f"{len(errors)} mails were handed over without an answer:", *(f"  - {e.message}" for e in errors)]),
        remedy=errors[0].remedy,
    ) from interruption


def _never_told(delivery: Delivery, interruption: BaseException) -> MailError:
    return OutcomeUnknownError(
        f"{delivery.message_id} was handed over (it is {delivery.outcome}), and the task was interrupted "
        f"({type(interruption).__name__}) before it could be told so.",
        remedy="Do not send it again.",
    )
