"""The result of a merge: rows counted by outcome, troubles in the log, and a report with a line for each row.

Memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_smtpcm.arguments.values import shorten_list
from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.merge.rows import Rows
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)

#: The outcomes of a row: those of a delivery, and `failed`: no mail could be made of it.
OUTCOMES = ("accepted", "partial", "refused", "unknown", "not_sent", "failed")
#: Seconds between two log lines about the progress.
PROGRESS_SECONDS = 5.0
#: How many failures the log holds one by one, and how many mails that may have been delivered, since each of these has
#: to be looked for.
LOGGED_FAILURES, LOGGED_UNKNOWN = 20, 500
# How many rows with the same failure are logged by number.
_NUMBERED_ROWS = 5
#: How many rows of each list stand in the result (the XCom); the report holds all of them.
LISTED_ROWS = 100
_REPORT_REMEDY = (
    "Give 'report_file' a path that the worker may write to. A store that cannot append takes a file for each attempt: "
    "'s3://.../{{ run_id }}-{{ ti.try_number }}.jsonl'."
)


class MergeReport:
    """The report file: a line of JSON for each row, in the order in which rows finish.

    Each line is in the file (or with the store that keeps it) before the next one, so that it is right after a crash;
    further attempts append to it.

    Args:
        file: a path or a URL as text, an object with `open`, or None for no report.
        try_number: the attempt, which each line names.
        locate: turns the text of a path or URL into an object with `open`.

    Raises:
        MessageError: it cannot be opened.
    """

    def __init__(self, file: Any, *, try_number: int, locate: Callable[[str], Any] = Path) -> None:
        self.file = file
        self._try_number = try_number
        self._out: IO[str] | None = None
        # The length and the row of the line that was written last.
        self._last_line: deque[tuple[int, int]] = deque(maxlen=1)
        #: Why it is incomplete.
        self.fault: MessageError | None = None
        if not file:
            return
        from airflow_provider_smtpcm.mail.tainted import check_path

        path = locate(str(check_path(file, "report_file"))) if isinstance(file, str) else file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            has_partial_line = _has_partial_line(path)
            # Not closed here: it is open as long as the merge runs.
            self._out = path.open("a", encoding="utf-8", buffering=1)
            self._out.write("\n" * has_partial_line)
        except Exception as error:  # each storage library raises errors of its own
            self._close()
            raise self._unwritable(error) from error

    def write(self, *, row: int, **entry: object) -> None:
        """Write the line of a row, once, even if an exception interrupts the call and it is made again.

        A full disk does not stop the mails; `fault` has the error.

        Args:
            row: its number, from 1.
            entry: the other fields of the line.
        """
        if self._out is None or (self._last_line and self._last_line[0][1] == row):
            return
        line = json.dumps({"try_number": self._try_number, "row": row, **entry}) + "\n"
        try:
            # One call, since signal handlers run between calls: a line that was written is known to be.
            self._last_line.extend(zip(map(self._out.write, (line,)), (row,), strict=False))
        except Exception as error:  # noqa: BLE001 - each storage library raises errors of its own
            self._give_up(error)

    def close(self) -> None:
        """Close the file; `fault` has the error, if there is one."""
        try:
            if self._out is not None:
                self._out.close()
        except Exception as error:  # noqa: BLE001 - a store may write only now
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._close()
        self.fault = self._unwritable(error)
        log.error("%s", self.fault)

    def _close(self) -> None:
        out, self._out = self._out, None
        with suppress(Exception):
            if out is not None:
                out.close()

    def _unwritable(self, error: Exception) -> MessageError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return MessageError(f"The report '{self.file}' cannot be written: {reason}.", remedy=_REPORT_REMEDY)


def _has_partial_line(path: Any) -> bool:
    """Whether an earlier attempt was killed while it wrote a line."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return bool(file.read(1) != b"\n")


class MergeResult:
    """Counts the outcomes of a merge, logs its troubles and its progress, and writes its report.

    Args:
        rows: tell how many there are, or which share of them was read.
        report: gets a line for each row.
    """

    def __init__(self, *, rows: Rows, report: MergeReport) -> None:
        self._rows = rows
        self._report = report
        self._began = self._progress_logged_at = time.monotonic()
        # How many rows were logged: of unknown outcome, and failures.
        self._logged: Counter[bool] = Counter()
        # The rows with each failure that was logged: those to log by number, and how many there are after the first.
        self._numbers: dict[tuple[str, str], list[int]] = {}
        self._repetitions: Counter[tuple[str, str]] = Counter()
        # With all keys, since a Counter calls a method for a missing one; see `_count`.
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        # The number of the row that was counted last.
        self._last_counted = 0
        self._refused: list[dict[str, object]] = []
        self._failed: list[dict[str, object]] = []
        #: The first trouble of each outcome.
        self.first: dict[str, str] = {}
        #: The outcomes some of whose rows another attempt may improve.
        self.retryable: set[str] = set()
        #: How many rows were settled by earlier attempts.
        self.settled_earlier = 0
        #: How many `partial` rows have a recipient whom the server neither accepted nor refused.
        self.never_asked = 0

    def __getitem__(self, outcome: str) -> int:
        """How many rows have this outcome."""
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
        """Add a row of which no mail could be made.

        Args:
            number: of the row, from 1.
            key: its key; None: it has none.
            error: the reason.
            delivery: of its mail, if the reason was found only while sending it.
            accepted: the recipients who have the mail by an earlier attempt.
        """
        self._count("failed", number, error, self._failed, {"row": number, "key": key, "reason": str(error)})
        self._write(number, key, outcome="failed", error=error, delivery=delivery, accepted=accepted)
        self._log_progress()

    def add_delivery(self, number: int, key: str, mail: Mail, delivery: Delivery) -> None:
        """Add the delivery of a row's mail; may be called again if an exception interrupted the call.

        Args:
            number: of the row, from 1.
            key: its key.
            mail: what was sent.
            delivery: the result.
        """
        outcome, error = str(delivery.outcome), delivery.error
        # A file that is missing, or a message that is too large, is found only now, and is the row's own fault.
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
        self._log_progress()

    def add_settled(self, number: int, outcome: str) -> None:
        """Add a row that an earlier attempt has settled, logged and reported."""
        self._counts[outcome] += 1
        self.settled_earlier += 1
        if outcome != "accepted":
            reason = str(_left_in_doubt(None)) if outcome == "unknown" else "by an earlier attempt"
            self.first.setdefault(outcome, f"row {number}: {reason}")
        self._log_progress()

    def add_left_in_doubt(
        self, number: int, key: str | None, message_id: str | None, *, has_moved: bool = False
    ) -> None:
        """Add a row that an earlier attempt has begun, and left without a result.

        Args:
            number: of the row in that attempt, from 1.
            key: its key; None: not known.
            message_id: of its mail; None: not known.
            has_moved: whether the rows have changed since, so that the error names the key too.
        """
        self._counts["unknown"] += 1
        self.settled_earlier += 1
        error = _left_in_doubt(message_id, key if has_moved else None)
        self.first.setdefault("unknown", f"row {number}: {error}")
        self._log(number, "unknown", error)
        self._write(number, key, outcome="unknown", error=error, message_id=message_id)
        self._log_progress()

    def add_unknown(
        self, number: int, key: str | None, error: MailError, *, message_id: str | None, accepted: Sequence[str] = ()
    ) -> None:
        """Add a row whose mail was in flight when this attempt, or an earlier one, was interrupted.

        Args:
            number: of the row, from 1.
            key: its key; None: it has none.
            error: the reason.
            message_id: of the mail; None: none was made in this attempt.
            accepted: the recipients who have the mail by an earlier attempt.
        """
        self._count("unknown", number, error)
        self._write(number, key, outcome="unknown", error=error, message_id=message_id, accepted=accepted)

    def to_dict(self) -> dict[str, object]:
        """Return the task's XCom: the counts, the first rows in trouble, and the speed."""
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
        """Return the outcomes that there were, with their counts."""
        return shorten_list([f"{self[outcome]} {outcome}" for outcome in OUTCOMES if self[outcome]]) or "none"

    def log_repetitions(self) -> None:
        """Log, at the end, how many rows had the same failure as one that was logged."""
        for failure, repetitions in self._repetitions.items():
            first, *others = self._numbers[failure]
            more = f" and {repetitions - len(others)} more" if repetitions > len(others) else ""
            numbers = f"{'Row' if repetitions == 1 else 'Rows'} {', '.join(map(str, others))}{more}"
            log.warning("%s: %s, for the same reason as row %d.", numbers, failure[0], first)

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
        """Count a row once, even if an exception interrupts the call and it is made again."""
        if number == self._last_counted:
            return
        if error is not None:
            self.first.setdefault(outcome, f"row {number}: {error}")
            if error.retryable:
                self.retryable.add(outcome)
            self._log(number, outcome, error)
        entries = [entry] if listed is not None and entry is not None and len(listed) < LISTED_ROWS else []
        # Signal handlers run after calls. There is none from here on, so no exception comes between these.
        if listed is not None:
            listed += entries
        self.never_asked += has_never_asked
        self._counts[outcome] += 1
        self._last_counted = number

    def _log(self, number: int, outcome: str, error: MailError) -> None:
        failure = (outcome, str(error))
        is_unknown = outcome == "unknown"
        # Mails that may have been delivered have to be looked for one by one.
        if not is_unknown and failure in self._numbers:
            self._repetitions[failure] += 1
            if len(self._numbers[failure]) <= _NUMBERED_ROWS:
                self._numbers[failure].append(number)
            return
        self._logged[is_unknown] += 1
        limit = LOGGED_UNKNOWN if is_unknown else LOGGED_FAILURES
        if self._logged[is_unknown] <= limit:
            self._numbers[failure] = [number]
            log.warning("Row %d: %s: %s", number, outcome, error)
        if self._logged[is_unknown] == limit:
            log.warning("Further rows in trouble are only counted here; 'report_file', if given, lists them.")

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
    ) -> None:
        if not self._report.file:
            return
        self._report.write(
            row=number,
            key=key,
            message_id=delivery.message_id if delivery else message_id,
            outcome=outcome,
            accepted=list(delivery.accepted if delivery else accepted),
            refused={address: str(reply) for address, reply in delivery.refused.items()} if delivery else {},
            error=str(error) if error else None,
        )

    def _log_progress(self) -> None:
        now = time.monotonic()
        if now - self._progress_logged_at < PROGRESS_SECONDS:
            return
        self._progress_logged_at = now
        elapsed, total, share = now - self._began, self._rows.total, self._rows.share(self.rows)
        log.info(
            "MailMergeTaskProgress: %s done (%s), %.1f a second%s.",
            count_of(self.rows, "row") if total is None else f"{self.rows} of {count_of(total, 'row')}",
            self.summary(),
            self.rows / elapsed,
            f", about {elapsed * (1 - share) / share:.0f} seconds to go" if share else "",
        )


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an `s` unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def without_addresses(result: Mapping[str, object]) -> dict[str, object]:
    """Return a result without the rows that are listed in it, which name recipients.

    Args:
        result: as `MergeResult.to_dict` returned it.
    """
    counts = cast("Mapping[str, int]", result["counts"])
    more = {"refused_more": counts["refused"] + counts["partial"], "failed_more": counts["failed"]}
    return {**result, "refused": [], "failed": [], **more}


def _left_in_doubt(message_id: str | None, key: str | None = None) -> OutcomeUnknownError:
    mail = f"The mail {message_id}" if message_id else "Its mail"
    return OutcomeUnknownError(
        f"{mail}{f' of the row {key!r}' if key else ''} was about to be sent, or in flight, when an earlier attempt "
        "ended without knowing what became of it.",
        remedy="Look for it in the server's log before you send it again.",
    )
