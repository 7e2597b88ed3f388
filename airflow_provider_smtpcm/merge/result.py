"""The result of a merge: its counts, log lines and XCom, its lines in the report, and whether it fails the task.

Its memory does not grow with the number of rows.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from airflow_provider_smtpcm.errors import LedgerError, MailError, MessageError, RefusedError
from airflow_provider_smtpcm.ledger.record import NO_PROGRESS, Progress
from airflow_provider_smtpcm.merge.report import OUTCOMES, MergeReport
from airflow_provider_smtpcm.smtp.outcome import format_addresses

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.merge.rows import Rows
    from airflow_provider_smtpcm.smtp.outcome import Delivery

log = logging.getLogger(__name__)

#: Seconds between two log lines with the progress.
PROGRESS_SECONDS = 5.0
#: How many failed rows are logged one by one.
LOGGED_FAILURES = 20
#: How many rows of unknown outcome are logged one by one: each has to be looked for in the server's log.
LOGGED_UNKNOWN = 500
# How many rows with the same error as an earlier one are logged by number.
_NUMBERED_ROWS = 5
#: How many rows each list in the result (the XCom) names; the report names all of them.
LISTED_ROWS = 100
_NO_REPLIES: Mapping[str, str] = MappingProxyType({})
# The outcomes that fail the task, unless they are tolerated.
_PROBLEMS = ("failed", "refused", "partial", "unknown", "not_sent")


class MergeResult:
    """Counts the outcomes of a merge, logs its problems and its progress, and writes its report.

    Args:
        rows: the rows, of which the progress is logged.
        report: receives a line for each row.
    """

    def __init__(self, *, rows: Rows, report: MergeReport) -> None:
        self._rows = rows
        self._report = report
        self._began = self._progress_logged_at = time.monotonic()
        # How many problems were logged one by one, or exceeded the limit; the key: whether the outcome is unknown.
        self._logged: Counter[bool] = Counter()
        # For each outcome and error that was logged: the first rows that have it, and how many times it was repeated.
        self._logged_rows: dict[tuple[str, str], list[int]] = {}
        self._repetitions: Counter[tuple[str, str]] = Counter()
        # The files without content that were logged.
        self._empty_files: set[str] = set()
        # All keys are set, since a Counter calls `__missing__` for a missing one, and a signal handler may raise after
        # any call: see `_count`.
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        # The number of the row that was counted last.
        self._last_counted = 0
        self._refused: list[dict[str, object]] = []
        self._failed: list[dict[str, object]] = []
        #: The first row with each outcome, and its error.
        self.first_problem: dict[str, str] = {}
        #: The outcomes that another attempt may improve for at least one row.
        self.retryable: set[str] = set()
        #: How many rows were settled by earlier attempts.
        self.settled_earlier = 0
        #: How many `partial` rows have a recipient whom the server neither accepted nor refused.
        self.never_asked = 0

    def __getitem__(self, outcome: str) -> int:
        """Return how many rows have this outcome."""
        return self._counts[outcome]

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return self._counts.total()

    def may_have_arrived(self) -> bool:
        """Whether a recipient was accepted, or may have been."""
        return any(self[outcome] for outcome in ("accepted", "partial", "unknown"))

    def add_failed(
        self,
        number: int,
        key: str | None,
        error: MailError,
        *,
        delivery: Delivery | None = None,
        accepted: Sequence[str] = (),
    ) -> None:
        """Add a row that could not be turned into a mail.

        Args:
            number: the row's number, from 1.
            key: its key; None: it has none.
            error: the reason.
            delivery: the delivery of its mail, if the error was found only while sending it; None: there was no mail.
            accepted: the recipients who have the mail from an earlier attempt.
        """
        self._count("failed", number, error, self._failed, {"row": number, "key": key, "reason": str(error)})
        self._write(number, key, outcome="failed", error=error, delivery=delivery, accepted=accepted)
        self._log_progress()

    def add_delivery(self, number: int, key: str, mail: Mail, delivery: Delivery) -> None:
        """Add the delivery of a row's mail. If an exception interrupts the call, it may be repeated.

        Args:
            number: the row's number, from 1.
            key: its key.
            mail: the mail that was sent.
            delivery: the result.
        """
        outcome, error = str(delivery.outcome), delivery.error
        # A missing file or a message above the server's size limit is found only while sending.
        if outcome == "not_sent" and isinstance(error, MessageError):
            self.add_failed(number, key, error, delivery=delivery)
            return
        if outcome in ("refused", "partial"):
            addresses = [address.address for address in mail.recipients]
            never_asked = delivery.never_asked(addresses) if outcome == "partial" else ()
            recipients = [*delivery.refused, *never_asked] or addresses
            entry: dict[str, object] = {"row": number, "key": key, "recipients": recipients, "reason": str(error)}
            self._count(outcome, number, error, self._refused, entry, has_never_asked=bool(never_asked))
        else:
            self._count(outcome, number, error)
        self._write(number, key, outcome=outcome, error=error, delivery=delivery)
        self._log_empty_files(number, mail)
        self._log_progress()

    def add_settled(self, number: int, outcome: str, error: MailError | None = None) -> None:
        """Add a row that an earlier attempt has settled. It is not logged again, since that attempt has logged it.

        The caller then checks `is_line_missing`, and calls `restore_line` if so.

        Args:
            number: the row's number, from 1.
            outcome: its outcome in the ledger.
            error: the reason; None: the log of an earlier attempt has it.
        """
        self._counts[outcome] += 1
        self.settled_earlier += 1
        if outcome != "accepted":
            reason = error or "see the log of an earlier attempt"
            self.first_problem.setdefault(outcome, f"row {number}: {reason}")
        self._log_progress()

    def is_line_missing(self, number: int, key: str | None, outcome: str) -> bool:
        """Whether the report lacks the line of a settled row: the earlier attempt was killed before writing it."""
        return self._report.is_missing(number, key, outcome)

    def restore_line(
        self,
        number: int,
        key: str | None,
        outcome: str,
        *,
        message_id: str | None,
        accepted: Sequence[str],
        rejected: Mapping[str, str],
        error: MailError | None = None,
    ) -> None:
        """Write the missing line of a settled row.

        Args:
            number: the row's number, from 1.
            key: its key; None: it has none.
            outcome: its outcome in the ledger.
            message_id: the Message-ID of its mail; None: not known.
            accepted: the recipients who have the mail.
            rejected: the permanently refused recipients, each with the server's reply.
            error: the reason; None: the refusals, if there are any.
        """
        if error is None and (rejected or outcome != "accepted"):
            names = format_addresses([*rejected])
            error = RefusedError(f"The server refused recipients in an earlier attempt: {names}.")
        self._write(
            number, key, outcome=outcome, error=error, message_id=message_id, accepted=accepted, rejected=rejected
        )

    def add_left_in_doubt(
        self,
        number: int,
        key: str | None,
        error: MailError,
        *,
        message_id: str | None,
        progress: Progress,
    ) -> None:
        """Add a row that an earlier attempt reserved, and whose outcome is not known.

        Args:
            number: the row's number in that attempt, from 1.
            key: its key; None: not known.
            error: the reason.
            message_id: the Message-ID of its mail; None: not known.
            progress: its recipient progress.
        """
        self._counts["unknown"] += 1
        self.settled_earlier += 1
        self.first_problem.setdefault("unknown", f"row {number}: {error}")
        self._log(number, "unknown", error)
        # An earlier attempt may have written the line, and been killed before the ledger recorded the outcome.
        if not self._report.has_line(number, key, "unknown"):
            self._write_unknown(number, key, error, message_id, progress)
        self._log_progress()

    def add_unknown(
        self,
        number: int,
        key: str | None,
        error: MailError,
        *,
        message_id: str | None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Add a row whose mail was in flight when this attempt, or an earlier one, was interrupted.

        Args:
            number: the row's number, from 1.
            key: its key; None: it has none.
            error: the reason.
            message_id: the Message-ID of the mail; None: not known.
            progress: its recipient progress.
        """
        self._count("unknown", number, error)
        self._write_unknown(number, key, error, message_id, progress)

    def _write_unknown(
        self, number: int, key: str | None, error: MailError, message_id: str | None, progress: Progress
    ) -> None:
        self._write(
            number,
            key,
            outcome="unknown",
            error=error,
            message_id=message_id,
            accepted=progress.accepted,
            rejected=progress.rejected,
        )

    def to_dict(self) -> dict[str, object]:
        """Return the task's XCom: the counts, the first rows that were refused or failed, and the speed."""
        elapsed = time.monotonic() - self._began
        sent = self.rows - self["failed"] - self.settled_earlier
        return {
            "counts": {"rows": self.rows, **{outcome: self[outcome] for outcome in OUTCOMES}},
            "refused": self._refused,
            "refused_more": self["refused"] + self["partial"] - len(self._refused),
            "failed": self._failed,
            "failed_more": self["failed"] - len(self._failed),
            "settled_earlier": self.settled_earlier,
            "elapsed": round(elapsed, 3),
            "mails_per_second": round(sent / elapsed, 1) if elapsed else None,
            "report_file": None if self._report.file is None else str(self._report.file),
        }

    def summary(self) -> str:
        """Return the counts of all outcomes that occurred, as text."""
        return ", ".join([f"{self[outcome]} {outcome}" for outcome in OUTCOMES if self[outcome]]) or "none"

    def log_repetitions(self) -> None:
        """Log the rows that had the same error as a row that was logged."""
        for problem, repetitions in self._repetitions.items():
            first_row, *others = self._logged_rows[problem]
            more = f" and {repetitions - len(others)} more" if repetitions > len(others) else ""
            numbers = f"{'Row' if repetitions == 1 else 'Rows'} {', '.join(map(str, others))}{more}"
            log.warning("%s: %s, for the same reason as row %d.", numbers, problem[0], first_row)

    def _count(
        self,
        outcome: str,
        number: int,
        error: MailError | None,
        listed: list[dict[str, object]] | None = None,
        entry: dict[str, object] | None = None,
        *,
        has_never_asked: bool = False,
    ) -> None:
        """Count a row; if an exception interrupts the call, a second call does not count it twice."""
        if number == self._last_counted:
            return
        if error is not None:
            self.first_problem.setdefault(outcome, f"row {number}: {error}")
            if error.retryable:
                self.retryable.add(outcome)
            self._log(number, outcome, error)
        entries = [entry] if listed is not None and entry is not None and len(listed) < LISTED_ROWS else []
        # A signal handler may raise after any call. No call follows, so the statements below run together.
        if listed is not None:
            listed += entries
        self.never_asked += has_never_asked
        self._counts[outcome] += 1
        self._last_counted = number

    def _log(self, number: int, outcome: str, error: MailError) -> None:
        problem = (outcome, str(error))
        is_unknown = outcome == "unknown"
        # A mail that may have been delivered has to be looked for by its own Message-ID.
        if not is_unknown and problem in self._logged_rows:
            self._repetitions[problem] += 1
            if len(self._logged_rows[problem]) <= _NUMBERED_ROWS:
                self._logged_rows[problem].append(number)
            return
        self._logged[is_unknown] += 1
        limit = LOGGED_UNKNOWN if is_unknown else LOGGED_FAILURES
        if self._logged[is_unknown] <= limit:
            self._logged_rows[problem] = [number]
            log.warning("Row %d: %s: %s", number, outcome, error)
        if self._logged[is_unknown] == limit:
            log.warning("Further problems are only counted; 'report_file', if set, lists all of them.")

    def _write(
        self,
        number: int,
        key: str | None,
        *,
        outcome: str,
        error: MailError | None,
        delivery: Delivery | None = None,
        message_id: str | None = None,
        accepted: Sequence[str] = (),
        rejected: Mapping[str, str] = _NO_REPLIES,
    ) -> None:
        if not self._report.file:
            return
        self._report.write(
            row=number,
            key=key,
            message_id=delivery.message_id if delivery else message_id,
            outcome=outcome,
            accepted=list(delivery.accepted if delivery else accepted),
            refused={address: str(reply) for address, reply in (delivery.refused if delivery else rejected).items()},
            error=str(error) if error else None,
            server=delivery.server if delivery else None,
        )

    def _log_empty_files(self, number: int, mail: Mail) -> None:
        """Log the files that have no octets, as the program that should write them may have failed; not all of many."""
        if len(self._empty_files) >= LOGGED_FAILURES:
            return
        for file in (*mail.attachments, *mail.inline_images):
            if file.is_empty and (name := file.describe()) not in self._empty_files:
                self._empty_files.add(name)
                log.warning("Row %d: %s is empty (0 octets).", number, name)
                if len(self._empty_files) >= LOGGED_FAILURES:
                    log.warning("Further empty files are not logged.")
                    return

    def _log_progress(self) -> None:
        now = time.monotonic()
        if now - self._progress_logged_at < PROGRESS_SECONDS:
            return
        self._progress_logged_at = now
        elapsed, total, fraction_done = now - self._began, self._rows.total, self._rows.fraction_done(self.rows)
        log.info(
            "MailMergeTaskProgress: %s done (%s), %.1f a second%s.",
            format_count(self.rows, "row") if total is None else f"{self.rows} of {format_count(total, 'row')}",
            self.summary(),
            self.rows / elapsed,
            f", about {elapsed * (1 - fraction_done) / fraction_done:.0f} seconds to go" if fraction_done else "",
        )


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
        # A ledger error that is not retryable means that the rows have changed, or that the ledger cannot be used.
        # Another attempt then cannot send the unknown rows again.
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
                "then sends only the mails that were not accepted, or all if on_clear is 'send_again'."
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


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an `s` unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def without_addresses(result: Mapping[str, object]) -> dict[str, object]:
    """Return a result without its lists of rows, which name recipients.

    Args:
        result: what `MergeResult.to_dict` returned.
    """
    counts = cast("Mapping[str, int]", result["counts"])
    more = {"refused_more": counts["refused"] + counts["partial"], "failed_more": counts["failed"]}
    return {**result, "refused": [], "failed": [], **more}
