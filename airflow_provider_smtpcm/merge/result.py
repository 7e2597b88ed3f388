"""The result of a merge: its counts, log lines, XCom, and a report file with a line for each row.

Its memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_smtpcm.arguments.values import shorten_list
from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.merge.rows import Rows
    from airflow_provider_smtpcm.smtp.outcome import Delivery

log = logging.getLogger(__name__)

#: The outcomes of a row: those of a delivery, and `failed` if the row could not be turned into a mail.
OUTCOMES = ("accepted", "partial", "refused", "unknown", "not_sent", "failed")
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
_REPORT_REMEDY = (
    "Set 'report_file' to a path that the worker may write to. In a store that cannot append, use one file for each "
    "attempt: 's3://.../{{ run_id }}-{{ ti.try_number }}.jsonl'."
)


class MergeReport:
    """The report file: a line of JSON for each row, in the order in which rows finish.

    Each line is flushed before the next one is written, so that the file is correct after a crash. Further attempts
    append to it.

    Args:
        file: a path or a URL as text, an object with `open`, or None for no report.
        try_number: the number of the attempt, a field of each line.
        to_path: turns the text of a path or URL into an object with `open`.

    Raises:
        MessageError: the file cannot be opened.
    """

    def __init__(self, file: Any, *, try_number: int, to_path: Callable[[str], Any]) -> None:
        self.file = file
        self._try_number = try_number
        self._out: IO[str] | None = None
        # The length and the row of the last line.
        self._last_line: deque[tuple[int, int]] = deque(maxlen=1)
        #: Why the report is incomplete; None if it is complete.
        self.error: MessageError | None = None
        if not file:
            return
        from airflow_provider_smtpcm.mail.tainted import check_path

        path = to_path(str(check_path(file, "report_file"))) if isinstance(file, str) else file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            has_partial_line = _has_partial_line(path)
            # Line-buffered, and closed by `close`.
            self._out = path.open("a", encoding="utf-8", buffering=1)
            self._out.write("\n" * has_partial_line)
        except Exception as error:  # each storage library raises errors of its own
            self._close()
            raise self._write_error(error) from error

    def write(self, *, row: int, **entry: object) -> None:
        """Write the line of a row; if an exception interrupts the call, a second call does not write it twice.

        An error (a full disk) does not stop the merge; see `error`.

        Args:
            row: its number, from 1.
            entry: the other fields of the line.
        """
        if self._out is None or (self._last_line and self._last_line[0][1] == row):
            return
        line = json.dumps({"try_number": self._try_number, "row": row, **entry}) + "\n"
        try:
            # One call writes the line and adds it to `_last_line`: between two, a signal handler could raise.
            self._last_line.extend(zip(map(self._out.write, (line,)), (row,), strict=False))
        except Exception as error:  # noqa: BLE001 - each storage library raises errors of its own
            self._give_up(error)

    def close(self) -> None:
        """Close the file; see `error`."""
        try:
            if self._out is not None:
                self._out.close()
        except Exception as error:  # noqa: BLE001 - object storage may upload only now
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._close()
        self.error = self._write_error(error)
        log.error("%s", self.error)

    def _close(self) -> None:
        out, self._out = self._out, None
        with suppress(Exception):
            if out is not None:
                out.close()

    def _write_error(self, error: Exception) -> MessageError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return MessageError(f"The report '{self.file}' cannot be written: {reason}.", remedy=_REPORT_REMEDY)


def _has_partial_line(path: Any) -> bool:
    """Whether the last line has no end: an earlier attempt was killed while it wrote it."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return bool(file.read(1) != b"\n")


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
        # How many problems were logged, by whether the outcome is unknown.
        self._logged: Counter[bool] = Counter()
        # For each outcome and error that was logged: the first rows that have it, and how often it was repeated.
        self._logged_rows: dict[tuple[str, str], list[int]] = {}
        self._repetitions: Counter[tuple[str, str]] = Counter()
        # With all keys: for a missing one a Counter calls `__missing__`, and a signal handler may raise after any call.
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
            delivery: the delivery of its mail, if the error was found only while sending it.
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
        self._log_progress()

    def add_settled(self, number: int, outcome: str) -> None:
        """Add a row that an earlier attempt has settled, and that is in its log and report."""
        self._counts[outcome] += 1
        self.settled_earlier += 1
        if outcome != "accepted":
            reason = str(_unfinished_row_error(None)) if outcome == "unknown" else "by an earlier attempt"
            self.first_problem.setdefault(outcome, f"row {number}: {reason}")
        self._log_progress()

    def add_left_in_doubt(
        self, number: int, key: str | None, message_id: str | None, *, has_moved: bool = False
    ) -> None:
        """Add a row that an earlier attempt has reserved, without a result.

        Args:
            number: the row's number in that attempt, from 1.
            key: its key; None: not known.
            message_id: the Message-ID of its mail; None: not known.
            has_moved: whether the rows have changed, so that the error has to name the key too.
        """
        self._counts["unknown"] += 1
        self.settled_earlier += 1
        error = _unfinished_row_error(message_id, key if has_moved else None)
        self.first_problem.setdefault("unknown", f"row {number}: {error}")
        self._log(number, "unknown", error)
        self._write(number, key, outcome="unknown", error=error, message_id=message_id)
        self._log_progress()

    def add_unknown(
        self, number: int, key: str | None, error: MailError, *, message_id: str | None, accepted: Sequence[str] = ()
    ) -> None:
        """Add a row whose mail was in flight when this attempt, or an earlier one, was interrupted.

        Args:
            number: the row's number, from 1.
            key: its key; None: it has none.
            error: the reason.
            message_id: the Message-ID of the mail; None: not known.
            accepted: the recipients who have the mail from an earlier attempt.
        """
        self._count("unknown", number, error)
        self._write(number, key, outcome="unknown", error=error, message_id=message_id, accepted=accepted)

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
        return shorten_list([f"{self[outcome]} {outcome}" for outcome in OUTCOMES if self[outcome]]) or "none"

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
        elapsed, total, fraction_done = now - self._began, self._rows.total, self._rows.fraction_done(self.rows)
        log.info(
            "MailMergeTaskProgress: %s done (%s), %.1f a second%s.",
            format_count(self.rows, "row") if total is None else f"{self.rows} of {format_count(total, 'row')}",
            self.summary(),
            self.rows / elapsed,
            f", about {elapsed * (1 - fraction_done) / fraction_done:.0f} seconds to go" if fraction_done else "",
        )


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


def _unfinished_row_error(message_id: str | None, key: str | None = None) -> OutcomeUnknownError:
    mail = f"The mail {message_id}" if message_id else "Its mail"
    return OutcomeUnknownError(
        f"{mail}{f' of the row {key!r}' if key else ''} was about to be sent, or in flight, when an earlier attempt "
        "ended without recording its result.",
        remedy="Look for it in the server's log before you send it again.",
    )
