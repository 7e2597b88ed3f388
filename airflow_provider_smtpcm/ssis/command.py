"""The command `import-ssis`: reads, writes, and says what became of it. Knows nothing of argparse."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.ssis.import_packages import Import, import_packages, make_converter
from airflow_provider_smtpcm.ssis.output import OutputFolder, on_one_line
from airflow_provider_smtpcm.ssis.reading import read_paths
from airflow_provider_smtpcm.ssis.report import machine
from airflow_provider_smtpcm.ssis.report import machine as table
from airflow_provider_smtpcm.ssis.report.entries import Totals
from airflow_provider_smtpcm.ssis.report.page import many

WELL = 0
UNUSABLE = 2
NEEDS_A_PERSON = 3
INTERRUPTED = 130
NOBODY_READS = 141
_SECONDS = 0.2  # between two looks at the progress


def run_import(
    *,
    paths: Sequence[Path],
    out: Path,
    windows_auth: Sequence[tuple[str, str | None]] = (),
    map_path: Sequence[tuple[str, str]] = (),
    force: bool = False,
    as_json: bool = False,
) -> int:
    """Import packages and print what became of them; the exit status.

    0: all converted. 3: a person has something to decide, or something could not be read. 2: nothing could be read at
    all, or `out` cannot be written into. Beside these, as a shell has it: 130 for Ctrl-C, 141 where nobody reads on.

    Args:
        paths: files and folders.
        out: the folder for what is written.
        windows_auth: `keep` or `anonymous`, each for one connection manager by its name, or for all (None).
        map_path: the beginning of a path in Windows, and what it is on a worker.
        force: overwrite what a person edited.
        as_json: one JSON object instead of words.
    """
    folder = OutputFolder(out, force=force)
    progress = _Progress()
    try:
        folder.open()
        converter = make_converter(windows_auth=windows_auth, map_path=map_path)
        with _ctrl_c() as stop:
            done = import_packages(
                read_paths(paths), converter, folder, told=progress.tell, is_stopped=lambda: bool(stop)
            )
    except MailError as error:
        progress.end()
        print(f"import-ssis: {on_one_line(str(error))}", file=sys.stderr)  # noqa: T201
        return UNUSABLE
    except KeyboardInterrupt:
        progress.end()
        print(f"Stopped at once. Every file in {out} is whole; no report was written.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    progress.end()
    status = _status(done)
    try:
        _tell(done, out, status, as_json=as_json)
    except BrokenPipeError:
        # Python would write what is left once more on its way out.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        return NOBODY_READS
    return status


def _status(done: Import) -> int:
    if done.totals.interrupted:
        return INTERRUPTED
    if not done.totals.packages and not done.totals.connections:
        return UNUSABLE
    return NEEDS_A_PERSON if done.needs_a_person else WELL


def _tell(done: Import, out: Path, status: int, *, as_json: bool) -> None:
    if as_json:
        summary = {
            "version": machine.VERSION,
            "exit_status": status,
            "interrupted": done.totals.interrupted,
            "counts": done.totals.as_json(),
            "codes": machine.codes_json(done.totals),
            "unreadable": [machine.unreadable_json(one) for one in done.unreadable],
            "findings": [machine.finding_json(one) for one in done.findings],
            "left_over": done.left_over,
            "report": str(out / "report.json"),
        }
        table.say(machine.dump(summary))
    else:
        told = table.lines(
            done.totals, out=out, unreadable=done.unreadable, findings=done.findings, left_over=done.left_over
        )
        for line in told:
            table.say(line)
    sys.stdout.flush()


class _Progress:
    """A line that is written over, where a person looks on; on standard error, so that the output stays whole."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = 0.0
        self._width = 0

    def tell(self, totals: Totals, source: str) -> None:
        now = time.monotonic()
        if not self._shown or now - self._last < _SECONDS:
            return
        self._last = now
        text = f"{many(totals.packages, 'package')}, {totals.with_mail:,} with mail: "
        # Its end says more than the folder that all are in; and a line that breaks could not be written over.
        text += on_one_line(source)[-max(shutil.get_terminal_size().columns - len(text) - 1, 1) :]
        encoding = sys.stderr.encoding or "utf-8"
        text = text.encode(encoding, "replace").decode(encoding)
        print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)  # noqa: T201
        self._width = len(text)

    def end(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)  # noqa: T201
            self._width = 0


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """The first Ctrl-C ends the import in order, after the package that is in work; the second at once."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        # Not by print: it may be in the middle of one.
        os.write(2, b"\nStopping after this package; once more, and at once.\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
