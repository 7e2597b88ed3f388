"""Which outcomes of a merge fail the task, whether Airflow may retry it, and what its error says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_smtpcm.errors import LedgerError, MailError
from airflow_provider_smtpcm.merge.result import MergeResult, count_of

log = logging.getLogger(__name__)

_TROUBLES = ("failed", "refused", "partial", "unknown", "not_sent")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """What the author of the DAG tolerates; see `on_error`, `on_refused` and `on_unknown` of `MailMergeOperator`.

    Args:
        allow_failed: rows of which no mail can be made, as long as a recipient was accepted.
        allow_refused: refusals, as long as a recipient was accepted.
        retry_unknown: retrying mails that may have been delivered.
    """

    allow_failed: bool
    allow_refused: bool
    retry_unknown: bool

    def failure(
        self, result: MergeResult, faults: Sequence[MailError] = (), *, is_durable: bool = False
    ) -> MailError | None:
        """Return the error with which the task fails; None: it succeeds. What is tolerated is logged as a warning.

        Args:
            result: of all rows.
            faults: what kept the merge as a whole from being complete: rows that ended early, an incomplete report.
            is_durable: whether the next attempt knows what this one did, so that it can deliver nothing twice.

        Returns:
            An error that is retryable where another attempt may help, and can deliver nothing twice.
        """
        delivered = result["accepted"] + result["partial"]
        allow_refused = self.allow_refused and delivered > 0
        tolerated = {
            "failed": self.allow_failed and delivered > 0,
            "refused": allow_refused,
            "partial": allow_refused and not result.never_asked,  # a recipient who was never asked was not refused
        }
        troubles = [outcome for outcome in _TROUBLES if result[outcome]]
        failures = [outcome for outcome in troubles if not tolerated.get(outcome)]
        for outcome in troubles:
            if outcome not in failures:
                log.warning("%s", _describe(result, outcome))
        if not failures and not faults:
            return None
        # With rows that have changed, another attempt would send nothing of what an earlier one left in doubt.
        have_rows_changed = any(isinstance(fault, LedgerError) and not fault.retryable for fault in faults)
        retry_unknown = self.retry_unknown and result["unknown"] > 0 and not have_rows_changed
        may_help = bool(any(fault.retryable for fault in faults) or result.retryable & set(failures) or retry_unknown)
        in_doubt = 0 if self.retry_unknown else result["unknown"]
        lines = [
            f"The merge is not complete: {result.summary()} of {count_of(result.rows, 'row')}.",
            *(f"  - {_describe(result, outcome)}" for outcome in failures),
            *(f"  - {fault}" for fault in faults),
            _describe_retry(result, delivered, in_doubt, may_help=may_help, is_durable=is_durable),
        ]
        is_harmless = is_durable or not (delivered or in_doubt)
        return MailError("\n".join(lines), retryable=may_help and is_harmless)


def _describe_retry(result: MergeResult, delivered: int, in_doubt: int, *, may_help: bool, is_durable: bool) -> str:
    if is_durable:
        if not may_help:
            return (
                "Airflow does not retry this, since it would end the same way. Fix the cause and clear the task: it "
                "then sends what was not accepted."
            )
        if result["unknown"] and not in_doubt:
            return (
                "Airflow retries this if 'retries' are left, and mail that may have been accepted keeps its "
                "Message-ID, as 'on_unknown' asks."
            )
        return (
            "Airflow retries this if 'retries' are left; mail that was accepted, or may have been, is not sent again."
        )
    if delivered or in_doubt:
        return (
            f"Airflow does not retry this, since a new attempt sends all rows, and what arrived ({delivered} accepted"
            f"{f', {in_doubt} in doubt' if in_doubt else ''}) would arrive twice. Fix the cause, and send the missing "
            "rows (see 'report_file') in a run of their own."
        )
    if result["unknown"]:
        return "Airflow retries this if 'retries' are left, with the same Message-IDs, as 'on_unknown' asks."
    return (
        "No recipient was accepted, so that a retry can do no harm: Airflow makes it if 'retries' are left."
        if may_help
        else "No recipient was accepted; Airflow does not retry this, since it would end the same way."
    )


def _describe(result: MergeResult, outcome: str) -> str:
    count = result[outcome]
    were = "was" if count == 1 else "were"
    meaning = {
        "failed": "made no mail",
        "refused": f"{were} refused by the server",
        "partial": f"{were} sent to some of the recipients only"
        if result.never_asked
        else f"{were} refused for some of the recipients",
        "unknown": "got no answer after the whole message was handed over, which may have been delivered",
        "not_sent": f"{were} not sent to anybody",
    }[outcome]
    return f"{count_of(count, 'row')} {meaning}; the first is {result.first.get(outcome, 'not known')}"
