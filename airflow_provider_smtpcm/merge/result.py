"""What became of the rows of a merge: counted, logged now and then, and reported. Keeps nothing for each row."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_smtpcm.arguments.values import shorten_list
from airflow_provider_smtpcm.errors import MailError, MessageError, OutcomeUnknownError
from airflow_provider_smtpcm.merge.rows import Rows, storage_path

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery


# folded: The report of a merge: what became of each row, a line of JSON each, written as they finish. Knows no mail.
#   After a crash it says what was done: each line is in the file (or with the store that keeps it) before the next
#   begins,
#   and another try writes behind the lines of the try before.

log = logging.getLogger(__name__)

_REMEDY = (
    "Give 'report_file' a path that the worker may write to. A store that cannot append takes a file for each try: "
    "'s3://.../{{ run_id }}-{{ ti.try_number }}.jsonl'."
)


class MergeReport:
    """An open report; without a file it is written nowhere.

    Args:
        file: a path or a URL as text, an object with `open`, or None.
        try_number: of the task; stands on each line.

    Raises:
        MessageError: it cannot be opened.
    """

    def __init__(self, file: Any, *, try_number: int) -> None:
        self.file = file
        self._try_number = try_number
        self._out: IO[str] | None = None
        # The length and the row of the line that was written last.
        self._written: deque[tuple[int, int]] = deque(maxlen=1)
        #: Why it is not complete.
        self.fault: MessageError | None = None
        if not file:
            return
        from airflow_provider_smtpcm.mail.tainted import check_path

        path = storage_path(check_path(file, "report_file")) if isinstance(file, str) else file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = _has_half_a_line(path)
            # Not closed here: it is open as long as the merge runs.
            self._out = path.open("a", encoding="utf-8", buffering=1)
            self._out.write("\n" * begun)
        except Exception as error:  # whatever a storage's own library raises; its classes are not known here
            self._close()
            raise self._unwritable(error) from error

    def write(self, *, row: int, **entry: object) -> None:
        """Write the line of a row, once, also where an exception from elsewhere interrupts this and it is called again.

        A disk that is full does not stop the mails; `fault` tells of it.
        """
        if self._out is None or (self._written and self._written[0][1] == row):
            return
        line = json.dumps({"try_number": self._try_number, "row": row, **entry}) + "\n"
        try:
            # In one call, since signal handlers run between calls: what was written is known to be.
            self._written.extend(zip(map(self._out.write, (line,)), (row,), strict=False))
        except Exception as error:  # noqa: BLE001 - see above
            self._give_up(error)

    def close(self) -> None:
        """Close the file; what keeps that from succeeding is in `fault`."""
        try:
            if self._out is not None:
                self._out.close()
        except Exception as error:  # noqa: BLE001 - a store may take what it was given only now
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
        return MessageError(f"The report '{self.file}' cannot be written: {reason}.", remedy=_REMEDY)


def _has_half_a_line(path: Any) -> bool:
    """Whether a former try was killed in the middle of a word."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return bool(file.read(1) != b"\n")


# folded: here began the module itself


PROGRESS_SECONDS = 5.0
#: So many failures stand in the log one by one, and so many mails that may have been delivered, since somebody has to
#: look for each; of the others it has the number.
LOGGED, LOGGED_IN_DOUBT = 20, 500
# So many rows with the same trouble are named by their numbers.
_NUMBERED = 5
#: So many stand in the result (the XCom); all of them stand in the report.
LISTED = 100
OUTCOMES = ("accepted", "partial", "refused", "unknown", "not_sent", "failed")


class MergeTally:
    """The account of one merge.

    Args:
        source: what knows how many rows there are, or which part of them was read.
        report: where each row gets its line.
    """

    def __init__(self, *, source: Rows, report: MergeReport) -> None:
        self._source = source
        self._report = report
        self._began = self._told = time.monotonic()
        # How many were logged of those in doubt, and of the others.
        self._logged: Counter[bool] = Counter()
        # The rows with each trouble that was logged: as many as are named, and how many there are.
        self._alike: dict[tuple[str, str], list[int]] = {}
        self._repeated: Counter[tuple[str, str]] = Counter()
        # With all keys, since a Counter calls something for one that is missing; see `_count`.
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        # The row that was counted last.
        self._counted = 0
        self._refused: list[dict[str, object]] = []
        self._failed: list[dict[str, object]] = []
        #: The first trouble of each outcome, and the outcomes of which some may pass by themselves.
        self.first: dict[str, str] = {}
        self.retryable: set[str] = set()
        #: How many rows an earlier try has settled.
        self.earlier = 0
        #: How many `partial` rows have a recipient who was neither accepted nor refused: nobody asked the server.
        self.left_out = 0

    def __getitem__(self, outcome: str) -> int:
        """How many rows had this outcome."""
        return self._counts[outcome]

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return self._counts.total()

    def may_have_arrived(self) -> bool:
        """Whether a recipient was accepted, or may have been, by this try."""
        return any(self[outcome] for outcome in ("accepted", "partial", "unknown"))

    def made_no_mail(
        self,
        number: int,
        key: str | None,
        error: MailError,
        *,
        delivery: Delivery | None = None,
        accepted: Sequence[str] = (),
    ) -> None:
        """A row of which no mail could be made.

        Args:
            number: of the row.
            key: what names it.
            error: why.
            delivery: what became of it, if that was found out on its way.
            accepted: who has it by an earlier try.
        """
        self._count("failed", number, error, self._failed, {"row": number, "key": key, "reason": str(error)})
        self._write(number, key, outcome="failed", error=error, delivery=delivery, accepted=accepted)
        self._tell_now_and_then()

    def delivered(self, number: int, key: str, mail: Mail, delivery: Delivery) -> None:
        """What the server, or the way to it, made of a row's mail; may be called again if the call was interrupted."""
        outcome, error = str(delivery.outcome), delivery.error
        # A file that is not there, a message that is too large: only now known, and the row's own fault all the same.
        if outcome == "not_sent" and isinstance(error, MessageError):
            self.made_no_mail(number, key, error, delivery=delivery)
            return
        if outcome in ("refused", "partial"):
            everybody = [address.address for address in mail.recipients]
            left_out = delivery.never_asked(everybody) if outcome == "partial" else ()
            recipients = [*delivery.refused, *left_out] or everybody
            entry: dict[str, object] = {"row": number, "key": key, "recipients": recipients, "reason": str(error)}
            self._count(outcome, number, error, self._refused, entry, left_out=bool(left_out))
        else:
            self._count(outcome, number, error)
        self._write(number, key, outcome=outcome, error=error, delivery=delivery)
        self._tell_now_and_then()

    def settled_before(self, number: int, outcome: str) -> None:
        """A row that an earlier try has settled, and named where it was in trouble."""
        self._counts[outcome] += 1
        self.earlier += 1
        if outcome != "accepted":
            said = f"{_left_in_doubt(None)}" if outcome == "unknown" else "by an earlier try"
            self.first.setdefault(outcome, f"row {number}: {said}")
        self._tell_now_and_then()

    def left_in_doubt(self, number: int, key: str | None, message_id: str | None, *, moved: bool = False) -> None:
        """A row that an earlier try has begun, and said nothing of.

        Args:
            number: of the row, in that try.
            key: what names it; None: not known.
            message_id: of its mail; None: not known.
            moved: whether the rows have changed, so that the number says little, and the key more.
        """
        self._counts["unknown"] += 1
        self.earlier += 1
        error = _left_in_doubt(message_id, key if moved else None)
        self.first.setdefault("unknown", f"row {number}: {error}")
        self._log(number, "unknown", error)
        self._write(number, key, outcome="unknown", error=error, message_id=message_id)
        self._tell_now_and_then()

    def in_doubt(
        self, number: int, key: str | None, error: MailError, *, message_id: str | None, accepted: Sequence[str] = ()
    ) -> None:
        """A mail that was on its way when the task was interrupted, in this try or an earlier one.

        Args:
            number: of the row.
            key: what names it.
            error: why no more is known, or was done.
            message_id: of the mail; None where none was made this time.
            accepted: who has it by an earlier try.
        """
        self._count("unknown", number, error)
        self._write(number, key, outcome="unknown", error=error, message_id=message_id, accepted=accepted)

    def result(self) -> dict[str, object]:
        """The task's XCom: the counts, the first troubles of each kind, and how fast it went."""
        elapsed = time.monotonic() - self._began
        sent = self.rows - self["failed"] - self.earlier
        return {
            "counts": {"rows": self.rows, **{outcome: self[outcome] for outcome in OUTCOMES}},
            "refused": self._refused,
            "refused_more": self["refused"] + self["partial"] - len(self._refused),
            "failed": self._failed,
            "failed_more": self["failed"] - len(self._failed),
            "settled_earlier": self.earlier,
            "elapsed": round(elapsed, 3),
            "mails_per_second": round(sent / elapsed, 1) if elapsed else None,
            "report_file": None if self._report.file is None else str(self._report.file),
        }

    def _count(
        self,
        outcome: str,
        number: int,
        error: MailError | None,
        listed: list[dict[str, object]] | None = None,
        entry: dict[str, object] | None = None,
        *,
        left_out: bool = False,
    ) -> None:
        """Count a row once, although an exception from elsewhere may interrupt this, so that it is called again."""
        if number == self._counted:
            return
        if error is not None:
            self.first.setdefault(outcome, f"row {number}: {error}")
            if error.retryable:
                self.retryable.add(outcome)
            self._log(number, outcome, error)
        entries = [entry] if listed is not None and entry is not None and len(listed) < LISTED else []
        # Signal handlers run after calls. There is none from here on, so no exception comes between these.
        if listed is not None:
            listed += entries
        self.left_out += left_out
        self._counts[outcome] += 1
        self._counted = number

    def tell_repeated(self) -> None:
        """Say, at the end, of how many rows what was logged of one holds as well."""
        for trouble, repeated in self._repeated.items():
            first, *others = self._alike[trouble]
            more = f" and {repeated - len(others)} more" if repeated > len(others) else ""
            numbers = f"{'Row' if repeated == 1 else 'Rows'} {', '.join(map(str, others))}{more}"
            log.warning("%s: %s, for the same reason as row %d.", numbers, trouble[0], first)

    def _log(self, number: int, outcome: str, error: MailError) -> None:
        trouble = (outcome, str(error))
        # What may have been delivered is looked for one by one.
        if outcome != "unknown" and trouble in self._alike:
            self._repeated[trouble] += 1
            if len(self._alike[trouble]) <= _NUMBERED:
                self._alike[trouble].append(number)
            return
        in_doubt = outcome == "unknown"
        self._logged[in_doubt] += 1
        most = LOGGED_IN_DOUBT if in_doubt else LOGGED
        if self._logged[in_doubt] <= most:
            self._alike[trouble] = [number]
            log.warning("Row %d: %s: %s", number, outcome, error)
        if self._logged[in_doubt] == most:
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

    def _tell_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        elapsed, total, share = now - self._began, self._source.total, self._source.share(self.rows)
        log.info(
            "MailMergeTaskProgress: %d%s rows done (%s), %.1f a second%s.",
            self.rows,
            f" of {total}" if total is not None else "",
            self.summary(),
            self.rows / elapsed,
            f", about {elapsed * (1 - share) / share:.0f} seconds to go" if share else "",
        )

    def summary(self) -> str:
        """The outcomes that there were, with their numbers."""
        return shorten_list([f"{self[outcome]} {outcome}" for outcome in OUTCOMES if self[outcome]]) or "none"


def without_addresses(result: Mapping[str, object]) -> dict[str, object]:
    """The result without the rows that are listed in it, which name recipients."""
    counts = cast("Mapping[str, int]", result["counts"])
    more = {"refused_more": counts["refused"] + counts["partial"], "failed_more": counts["failed"]}
    return {**result, "refused": [], "failed": [], **more}


def _left_in_doubt(message_id: str | None, key: str | None = None) -> OutcomeUnknownError:
    mail = f"The mail {message_id}" if message_id else "Its mail"
    return OutcomeUnknownError(
        f"{mail}{f' of the row {key!r}' if key else ''} was about to be sent, or on its way, when an earlier try ended "
        "without knowing what became of it.",
        remedy="Look for it in the server's log before you send it again.",
    )
