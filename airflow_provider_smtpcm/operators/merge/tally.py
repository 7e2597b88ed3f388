"""What became of the rows of a merge: counted, logged now and then, and reported. Keeps nothing for each row.

Rows that made no mail are told by the threads that take rows, deliveries by the task's own: hence the lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.operators.fields import first_of
from airflow_provider_smtpcm.operators.merge.report import MergeReport

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
#: So many failures stand in the log one by one; of the others it has the number.
LOGGED = 20
#: So many stand in the result (the XCom); all of them stand in the report.
LISTED = 100
OUTCOMES = ("accepted", "partial", "refused", "unknown", "not_sent", "failed")


class MergeTally:
    """The account of one merge.

    Args:
        total: how many rows there are, if that is known.
        report: where each row gets its line.
    """

    def __init__(self, *, total: int | None, report: MergeReport) -> None:
        self._total = total
        self._report = report
        self._lock = threading.Lock()
        self._began = self._told = time.monotonic()
        self._logged = 0
        self._counts: Counter[str] = Counter()
        self._refused: list[dict[str, object]] = []
        self._failed: list[dict[str, object]] = []
        #: The first trouble of each outcome, and the outcomes of which some may pass by themselves.
        self.first: dict[str, str] = {}
        self.retryable: set[str] = set()

    def __getitem__(self, outcome: str) -> int:
        """How many rows had this outcome."""
        return self._counts[outcome]

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return self._counts.total()

    def made_no_mail(self, number: int, key: str | None, error: MailError) -> None:
        """A row of which no mail could be made."""
        with self._lock:
            self._count("failed", number, error)
            if len(self._failed) < LISTED:
                self._failed.append({"row": number, "key": key, "reason": str(error)})
            self._write(number, key, outcome="failed", error=error)
            self._tell_now_and_then()

    def delivered(self, number: int, key: str, mail: Mail, delivery: Delivery) -> None:
        """What the server, or the way to it, made of a row's mail."""
        outcome = str(delivery.outcome)
        with self._lock:
            self._count(outcome, number, delivery.error)
            if outcome in ("refused", "partial") and len(self._refused) < LISTED:
                recipients = list(delivery.refused) or [address.address for address in mail.recipients]
                entry = {"row": number, "key": key, "recipients": recipients, "reason": str(delivery.error)}
                self._refused.append(entry)
            self._write(number, key, outcome=outcome, error=delivery.error, delivery=delivery)
            self._tell_now_and_then()

    def interrupted(self, number: int, key: str, message_id: str | None, error: MailError) -> None:
        """A mail that was on its way when the task was interrupted: it may have been delivered."""
        with self._lock:
            self._count("unknown", number, error)
            self._write(number, key, outcome="unknown", error=error, message_id=message_id)

    def result(self) -> dict[str, object]:
        """The task's XCom: the counts, the first troubles of each kind, and how fast it went."""
        elapsed = time.monotonic() - self._began
        sent = self.rows - self["failed"]
        return {
            "counts": {"rows": self.rows, **{outcome: self[outcome] for outcome in OUTCOMES}},
            "refused": self._refused,
            "refused_more": self["refused"] + self["partial"] - len(self._refused),
            "failed": self._failed,
            "failed_more": self["failed"] - len(self._failed),
            "elapsed": round(elapsed, 3),
            "mails_per_second": round(sent / elapsed, 1) if elapsed else None,
            "report_file": None if self._report.file is None else str(self._report.file),
        }

    def _count(self, outcome: str, number: int, error: MailError | None) -> None:
        self._counts[outcome] += 1
        if error is None:
            return
        self.first.setdefault(outcome, f"row {number}: {error}")
        if error.retryable:
            self.retryable.add(outcome)
        self._logged += 1
        if self._logged <= LOGGED:
            log.warning("Row %d: %s: %s", number, outcome, error)
        if self._logged == LOGGED:
            log.warning("Further rows in trouble are counted, and stand in 'report_file' if it is given.")

    def _write(
        self,
        number: int,
        key: str | None,
        *,
        outcome: str,
        error: MailError | None,
        delivery: Delivery | None = None,
        message_id: str | None = None,
    ) -> None:
        self._report.write(
            row=number,
            key=key,
            message_id=delivery.message_id if delivery else message_id,
            outcome=outcome,
            accepted=list(delivery.accepted) if delivery else [],
            refused={address: str(reply) for address, reply in delivery.refused.items()} if delivery else {},
            error=str(error) if error else None,
        )

    def _tell_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        rate = self.rows / (now - self._began)
        known = self._total is not None
        log.info(
            "MailMergeTaskProgress: %d%s rows done (%s), %.1f a second%s.",
            self.rows,
            f" of {self._total}" if known else "",
            self.summary(),
            rate,
            f", about {max(0, (self._total or 0) - self.rows) / rate:.0f} seconds to go" if known else "",
        )

    def summary(self) -> str:
        """The outcomes that there were, with their numbers."""
        return first_of([f"{self[outcome]} {outcome}" for outcome in OUTCOMES if self[outcome]]) or "none"
