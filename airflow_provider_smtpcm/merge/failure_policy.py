"""The failure policy of a merge: which outcomes fail the task, and whether Airflow may retry it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_smtpcm.errors import LedgerError, MailError
from airflow_provider_smtpcm.merge.result import MergeResult, format_count

log = logging.getLogger(__name__)

_PROBLEMS = ("failed", "refused", "partial", "unknown", "not_sent")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """Decides whether a merge succeeds; see `on_error`, `on_refused` and `on_unknown` of `MailMergeOperator`.

    Args:
        allow_failed: whether rows that cannot be turned into a mail are tolerated, if any recipient was accepted.
        allow_refused: whether refusals are tolerated, if any recipient was accepted.
        retry_unknown: whether a mail that may have been delivered is sent again.
    """

    allow_failed: bool
    allow_refused: bool
    retry_unknown: bool

    def find_failure(
        self, result: MergeResult, errors: Sequence[MailError] = (), *, is_durable: bool = False
    ) -> MailError | None:
        """Return the error with which the task fails, or None if it succeeds; log tolerated outcomes as warnings.

        Args:
            result: the outcomes of all rows.
            errors: errors of the merge as a whole (the source of the rows failed, the report is incomplete).
            is_durable: whether there is a ledger, so that another attempt delivers nothing twice.

        Returns:
            An error that is retryable if another attempt may help and delivers nothing twice.
        """
        delivered = result["accepted"] + result["partial"]
        allow_refused = self.allow_refused and delivered > 0
        tolerated = {
            "failed": self.allow_failed and delivered > 0,
            "refused": allow_refused,
            "partial": allow_refused and not result.never_asked,  # a recipient who was never asked was not refused
        }
        problems = [outcome for outcome in _PROBLEMS if result[outcome]]
        failures = [outcome for outcome in problems if not tolerated.get(outcome)]
        for outcome in problems:
            if outcome not in failures:
                log.warning("%s", _describe_outcome(result, outcome))
        if not failures and not errors:
            return None
        # If the rows have changed, another attempt cannot send the unknown ones again.
        have_rows_changed = any(isinstance(error, LedgerError) and not error.retryable for error in errors)
        retry_unknown = self.retry_unknown and result["unknown"] > 0 and not have_rows_changed
        retry_may_help = bool(
            any(error.retryable for error in errors) or result.retryable & set(failures) or retry_unknown
        )
        in_doubt = 0 if self.retry_unknown else result["unknown"]
        lines = [
            f"The merge is not complete: {result.summary()} of {format_count(result.rows, 'row')}.",
            *(f"  - {_describe_outcome(result, outcome)}" for outcome in failures),
            *(f"  - {error}" for error in errors),
            _describe_retry(result, delivered, in_doubt, retry_may_help=retry_may_help, is_durable=is_durable),
        ]
        is_safe = is_durable or not (delivered or in_doubt)
        return MailError("\n".join(lines), retryable=retry_may_help and is_safe)


def _describe_retry(
    result: MergeResult, delivered: int, in_doubt: int, *, retry_may_help: bool, is_durable: bool
) -> str:
    if is_durable:
        if not retry_may_help:
            return (
                "Airflow does not retry this, since it would end the same way. Fix the cause and clear the task: it "
                "then sends only the mails that were not accepted."
            )
        if result["unknown"] and not in_doubt:
            return (
                "Airflow retries this if 'retries' are left: 'on_unknown' is 'retry', and mail that may have been "
                "accepted is sent again with its Message-ID."
            )
        return (
            "Airflow retries this if 'retries' are left; mail that was accepted, or may have been, is not sent again."
        )
    if delivered or in_doubt:
        return (
            f"Airflow does not retry this, since a new attempt sends all rows, and mail that arrived ({delivered} "
            f"accepted{f', {in_doubt} in doubt' if in_doubt else ''}) would arrive twice. Fix the cause, and send the "
            "missing rows (see 'report_file') in a separate run."
        )
    if result["unknown"]:
        return (
            "Airflow retries this if 'retries' are left: 'on_unknown' is 'retry', and each mail keeps its Message-ID."
        )
    return (
        "No recipient was accepted; Airflow retries this if 'retries' are left."
        if retry_may_help
        else "No recipient was accepted; Airflow does not retry this, since it would end the same way."
    )


def _describe_outcome(result: MergeResult, outcome: str) -> str:
    count = result[outcome]
    were = "was" if count == 1 else "were"
    meaning = {
        "failed": "could not be turned into a mail",
        "refused": f"{were} refused by the server",
        "partial": f"{were} sent to some of the recipients only"
        if result.never_asked
        else f"{were} refused for some of the recipients",
        "unknown": "got no reply after the whole message was sent, and may have been delivered",
        "not_sent": f"{were} not sent to any recipient",
    }[outcome]
    return f"{format_count(count, 'row')} {meaning}; the first is {result.first_problem.get(outcome, 'not known')}"
