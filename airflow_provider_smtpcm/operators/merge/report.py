"""The report of a merge: what became of each row, a line of JSON each, written as they finish. Knows no mail.

After a crash it says what was done: each line is in the file (or with the store that keeps it) before the next begins,
and another try writes behind the lines of the try before.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from contextlib import suppress
from typing import IO, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.merge.rows import storage_path

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
        from airflow_provider_smtpcm.mail.tainted import checked_path

        path = storage_path(checked_path(file, "report_file")) if isinstance(file, str) else file
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
