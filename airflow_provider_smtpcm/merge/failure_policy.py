"""What a finished merge means to Airflow: done, tried again, or failed for good. Knows no mail and no server."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from airflow_provider_smtpcm.errors import LedgerError, MailError
from airflow_provider_smtpcm.merge.result import MergeTally
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What the author of the DAG lets pass."""

    #: Rows of which no mail can be made; as long as somebody was accepted.
    failed: bool
    #: Refusals; as long as somebody was accepted.
    refused: bool
    #: Another try of what may have been delivered.
    retry_unknown: bool


def verdict(
    tally: MergeTally, tolerance: Tolerance, faults: list[MailError], *, durable: bool = False
) -> AirflowException | None:
    """The error with which the task ends, if it ends with one; what is let pass becomes a warning.

    Args:
        tally: the account.
        tolerance: what does not matter.
        faults: what kept the merge as a whole from being complete: rows that ended early, a report that is not whole.
        durable: whether the next try knows what this one did, so that it can do no harm.
    """
    handed_over = tally["accepted"] + tally["partial"]
    refused = tolerance.refused and handed_over > 0
    passing = {
        "failed": tolerance.failed and handed_over > 0,
        "refused": refused,
        "partial": refused and not tally.left_out,  # who was not asked was not refused
    }
    troubles = [outcome for outcome in ("failed", "refused", "partial", "unknown", "not_sent") if tally[outcome]]
    grave = [outcome for outcome in troubles if not passing.get(outcome)]
    for outcome in troubles:
        if outcome not in grave:
            log.warning("%s", _told(tally, outcome))
    if not grave and not faults:
        return None
    lines = [
        f"The merge is not complete: {tally.summary()} of {tally.rows} rows.",
        *(f"  - {_told(tally, outcome)}" for outcome in grave),
        *(f"  - {fault}" for fault in faults),
    ]
    # With rows that have changed, another try would send nothing of what an earlier one left in doubt.
    changed = any(isinstance(fault, LedgerError) and not fault.retryable for fault in faults)
    retry_unknown = tolerance.retry_unknown and tally["unknown"] > 0 and not changed
    may_pass = bool(any(fault.retryable for fault in faults) or tally.retryable & set(grave) or retry_unknown)
    in_doubt = 0 if tolerance.retry_unknown else tally["unknown"]
    harmless = durable or not (handed_over or in_doubt)
    lines.append(_what_follows(tally, handed_over, in_doubt, may_pass=may_pass, durable=durable))
    return (AirflowException if may_pass and harmless else AirflowFailException)("\n".join(lines))


def _what_follows(tally: MergeTally, handed_over: int, in_doubt: int, *, may_pass: bool, durable: bool) -> str:
    if durable:
        if may_pass:
            return (
                "Airflow tries this again if 'retries' are left: what was accepted, or may have been, is left alone."
                if in_doubt or not tally["unknown"]
                else "Airflow tries this again if 'retries' are left, and what may have been accepted bears the same "
                "Message-ID, since 'on_unknown' asks."
            )
        return (
            "Airflow does not try this again, since it would end the same way. Mend what is at fault and clear the "
            "task: it then sends what was not accepted."
        )
    if handed_over or in_doubt:
        return (
            f"Airflow does not try this again, since a new try sends all rows, and what arrived ({handed_over} accepted"
            f"{f', {in_doubt} in doubt' if in_doubt else ''}) would arrive twice. Mend what is at fault, and send the "
            "rows that lack (see 'report_file') in a run of their own."
        )
    if tally["unknown"]:
        return "Airflow tries this again if 'retries' are left, under the same Message-IDs, since 'on_unknown' asks."
    if may_pass:
        return "Nobody was accepted, so that another try can do no harm: Airflow makes it if 'retries' are left."
    return "Nobody was accepted; Airflow does not try this again, since it would end the same way."


def _told(tally: MergeTally, outcome: str) -> str:
    one = tally[outcome] == 1
    meaning = {
        "failed": "made no mail",
        "refused": f"{'was' if one else 'were'} refused by the server",
        "partial": "went out to some of the recipients only"
        if tally.left_out
        else f"{'was' if one else 'were'} refused for some of the recipients",
        "unknown": "got no answer after the whole message was handed over, which may have been delivered",
        "not_sent": f"{'was' if one else 'were'} not sent to anybody",
    }[outcome]
    rows = "row" if one else "rows"
    return f"{tally[outcome]} {rows} {meaning}; the first is {tally.first.get(outcome, 'not known')}"
