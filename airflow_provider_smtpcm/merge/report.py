"""The report of a merge: a file with a line of JSON for each row, in the order in which rows finish."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

from airflow_provider_smtpcm.errors import MessageError

log = logging.getLogger(__name__)

#: The outcomes of a row: those of a delivery, and `failed` if the row could not be turned into a mail.
OUTCOMES = ("accepted", "partial", "refused", "unknown", "not_sent", "failed")
_WITHOUT_KEY = 128
_BLOCK = 1 << 16
_LINE_START = b'{"try_number": '
# As many merges as may have a report open, and be known to the others; and where in the file their locks are.
_LOCKS, _LOCKS_AT = 64, 1 << 62
_REMEDY = (
    "Set 'report_file' to a path that the worker may write to. In a store that cannot append, use one file for each "
    "attempt: 's3://.../{{ run_id }}-{{ ti.try_number }}.jsonl'."
)
_FULL_DISK_REMEDY = "Free space there, or set 'report_file' to a path on another disk."


class MergeReport:
    """The report file. Further attempts append to it.

    Each line is flushed before the next one is written. The line of a row may still be missing if the process is killed
    after the ledger has the row's result; the next attempt finds that by `read_earlier_lines`, and writes it.

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
        # The file as an earlier attempt, or an earlier run, left it; None: it is new.
        self._earlier: Any = None
        # For each row of an earlier attempt: the place in `OUTCOMES`, from 1, of its last outcome; 0: it has no line;
        # `_WITHOUT_KEY` is added if the line does not name the key.
        self._earlier_outcomes = bytearray()
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
            self._earlier = path if path.is_file() else None
            # Line-buffered, and closed by `close`.
            self._out = path.open("a", encoding="utf-8", buffering=1)
            is_alone = _lock_all(self._out)
            if self._earlier is not None:
                _remove_partial_line(path, self._out, is_alone=is_alone)
            _keep_one_lock(self._out, has_all=is_alone)
        except Exception as error:  # each storage library raises errors of its own
            self._close()
            raise self._make_error(error) from error

    def read_earlier_lines(self, rows: int, is_own: Callable[[str | None, str | None], bool]) -> None:
        """Read which rows have a line from an earlier attempt. A line that was cut off by a kill does not count.

        The whole file is read, since a row that was retried for a long time may have its line anywhere. It takes an
        octet of memory for each row.

        Args:
            rows: how many rows earlier attempts have reached.
            is_own: whether a line is of this run, given its key and its Message-ID: several runs may share a file.

        Raises:
            MessageError: the file cannot be read.
        """
        if self._earlier is None:
            return
        self._earlier_outcomes = bytearray(rows + 1)
        try:
            with self._earlier.open("rb") as file:
                for row, outcome, key, message_id in _parse_lines(file):
                    if 0 < row <= rows and is_own(key, message_id):
                        place = OUTCOMES.index(outcome) + 1
                        self._earlier_outcomes[row] = place + _WITHOUT_KEY if key is None else place
        except Exception as error:  # each storage library raises errors of its own
            self._close()
            raise self._make_error(error, "read") from error

    def is_missing(self, row: int, key: str | None, outcome: str) -> bool:
        """Whether the file lacks the line with which an earlier attempt settled a row.

        It does not if the file is new: then each attempt has a file of its own.

        Args:
            row: its number, from 1.
            key: its key; None: it has none.
            outcome: its outcome in the ledger.
        """
        return bool(self._earlier_outcomes) and not self.has_line(row, key, outcome)

    def has_line(self, row: int, key: str | None, outcome: str) -> bool:
        """Whether the last line of a row that earlier attempts wrote has this outcome, and names the key.

        Args:
            row: its number, from 1.
            key: its key; None: it has none, or it is not known.
            outcome: the outcome.
        """
        found = self._earlier_outcomes[row] if row < len(self._earlier_outcomes) else 0
        place = OUTCOMES.index(outcome) + 1
        return found == place or (key is None and found == place + _WITHOUT_KEY)

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
        self.error = self._make_error(error)
        log.error("%s", self.error)

    def _close(self) -> None:
        out, self._out = self._out, None
        with suppress(Exception):
            if out is not None:
                out.close()

    def _make_error(self, error: Exception, tried: str = "written") -> MessageError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        remedy = _FULL_DISK_REMEDY if is_full else _REMEDY
        return MessageError(f"The report '{self.file}' cannot be {tried}: {reason}.", remedy=remedy)


def _remove_partial_line(path: Any, out: IO[str], *, is_alone: bool) -> None:
    """Remove a last line without an end: an earlier attempt was killed while it wrote it.

    If another merge has the file open, the line may be one that it is writing. Then the line only gets an end, as in a
    store that cannot lock or shorten a file. So does a line that was not cut off, or that no merge has written.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        complete = _measure_complete_lines(file, size)
        if complete == size:
            return
        file.seek(complete)
        partial = file.read(_BLOCK)
    try:
        if is_alone and _is_cut_off(partial):
            os.ftruncate(out.fileno(), complete)
            return
    except OSError as error:
        log.debug("The last line of the report '%s' cannot be removed: %s", path, error)
    out.write("\n")


def _is_cut_off(partial: bytes) -> bool:
    """Whether a line without an end, or its first block, is the beginning of a line of a report."""
    if partial[: len(_LINE_START)] != _LINE_START[: len(partial)]:
        return False
    with suppress(ValueError):
        json.loads(partial)
        return False
    return True


def _lock_all(out: IO[str]) -> bool:
    """Lock out all other merges; whether that worked: not if one has the file open, or if there are no locks."""
    return _set_lock(out, fcntl.F_WRLCK, 0, _LOCKS)


def _keep_one_lock(out: IO[str], *, has_all: bool) -> None:
    """Hold one lock for as long as the file is open, and for as long as the process lives."""
    if has_all:
        _set_lock(out, fcntl.F_UNLCK, 1, _LOCKS - 1)
    else:
        any(_set_lock(out, fcntl.F_WRLCK, place, 1) for place in range(_LOCKS))


def _set_lock(out: IO[str], kind: int, place: int, count: int) -> bool:
    """Set or remove some locks, without waiting; whether that worked.

    Each lock is an octet that the file does not have: on an SMB share, a locked octet can be neither read nor written
    through another descriptor, and one with a shared lock cannot be written at all (flock(2), CIFS details).
    """
    if sys.platform != "linux":
        return False
    flock = struct.pack("hhqqi", kind, os.SEEK_SET, _LOCKS_AT + place, count, 0)  # see fcntl(2)
    try:
        fcntl.fcntl(out.fileno(), fcntl.F_OFD_SETLK, flock)
    except (OSError, AttributeError):  # another merge holds one of them, or the storage has no locks
        return False
    return True


def _measure_complete_lines(file: IO[bytes], size: int) -> int:
    """Return how many octets of the file the lines with an end take."""
    end = size
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        length = file.read(end - start).rfind(b"\n") + 1
        if length:
            return start + length
        end = start
    return 0


def _parse_lines(file: IO[bytes]) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Yield row, outcome, key and Message-ID of each complete line."""
    for line in file:
        with suppress(ValueError, TypeError, KeyError):  # incomplete, or not a line of a report
            entry = json.loads(line)
            row, outcome = entry["row"], entry["outcome"]
            if isinstance(row, int) and outcome in OUTCOMES:
                yield row, outcome, entry["key"], entry["message_id"]
