"""The command `import-ssis`: runs an import, shows its progress, and prints a summary."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.ssis.import_packages import CONNECTIONS, PackageConverter, import_packages
from airflow_provider_smtpcm.ssis.model import Severity
from airflow_provider_smtpcm.ssis.output_folder import NEW_SUFFIX, OutputFolder
from airflow_provider_smtpcm.ssis.questions import QUESTIONS, AskedQuestion, read_answers
from airflow_provider_smtpcm.ssis.reading import check_paths, read_paths
from airflow_provider_smtpcm.ssis.report.entries import (
    WALK_THROUGH_NOTICE,
    ImportResult,
    PackageStatus,
    Totals,
    UnreadableFile,
    count_noun,
    plural,
)
from airflow_provider_smtpcm.ssis.report.json_report import summary_json
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize_line

EXIT_CONVERTED = 0
EXIT_UNUSABLE = 2
EXIT_NEEDS_ATTENTION = 3
# The exit statuses of shells for SIGINT and SIGPIPE.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_PROGRESS_INTERVAL = 0.2  # seconds
_WIDTH = 110
# Limits for each list in the summary; the report is complete.
_MAX_LINES = 10
_MAX_PARAGRAPHS = 5


def run_import(
    *,
    paths: Sequence[Path],
    out: Path,
    windows_auth: Sequence[tuple[str, str | None]] = (),
    map_path: Sequence[tuple[str, str]] = (),
    answers: Sequence[Path] = (),
    placeholders: str = "fail",
    force: bool = False,
    as_json: bool = False,
) -> int:
    """Import packages and print a summary; return the exit status.

    Args:
        paths: files and folders.
        out: the output folder.
        windows_auth: pairs of a mode (`keep` or `anonymous`) and the name of a connection manager; the name None means
            all others. The last pair for a name takes precedence.
        map_path: pairs of a Windows path prefix and the path on a worker.
        answers: `questions.csv` files of earlier imports, with answers filled in.
        placeholders: `fail` or `pass`: what placeholders do when they run.
        force: whether to overwrite files that were edited after an import; answers in `questions.csv` are kept.
        as_json: whether to print one JSON object instead of text.

    Returns:
        0: everything was converted. 2: a path does not exist, nothing could be read, answers cannot be used, or `out`
        cannot be written. 3: there is something to decide, or something could not be read. 130: interrupted by Ctrl-C
        or SIGTERM. 141: standard output is a closed pipe.
    """
    modes = {name: WindowsAuth(mode) for mode, name in windows_auth}
    output = OutputFolder(out, force=force)
    progress = _ProgressLine()
    try:
        given = read_answers(answers)
        options = ConversionOptions(
            windows_auth=modes.get(None),
            windows_auth_by_name={name: mode for name, mode in modes.items() if name is not None},
            path_map=tuple(map_path),
            answers=given,
            placeholders_pass=placeholders == "pass",
        )
        check_paths(paths)
        output.open()
        converter = PackageConverter(options)
        with _handle_interrupts() as received:
            result = import_packages(
                read_paths(paths, answers=given),
                converter,
                output,
                answers=given,
                on_progress=progress.update,
                is_stopped=lambda: bool(received),
            )
    except MailError as error:
        progress.clear()
        print(f"import-ssis: {sanitize_line(str(error))}", file=sys.stderr)  # noqa: T201
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        progress.clear()
        print(f"Stopped at once. Every file in {out} is complete; no report was written.", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    progress.clear()
    status = _exit_status(result)
    try:
        if as_json:
            _print(summary_json(result, exit_status=status, report=str(out / "report.json")))
        else:
            for line in _summary_lines(result, out):
                _print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python would flush its buffer at exit, and print another error.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        return EXIT_BROKEN_PIPE
    return status


def _exit_status(result: ImportResult) -> int:
    if result.totals.interrupted:
        return EXIT_INTERRUPTED
    if not result.totals.packages and not result.totals.connections:
        return EXIT_UNUSABLE
    return EXIT_NEEDS_ATTENTION if result.needs_attention else EXIT_CONVERTED


def _print(text: str) -> None:
    """Print a line, with `?` for characters that the terminal's encoding does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201


def _summary_lines(result: ImportResult, out: Path) -> list[str]:
    lines = [WALK_THROUGH_NOTICE, ""] if result.totals.placeholders_pass else []
    lines += _count_lines(result.totals) + _error_lines(result.totals) + _unreadable_lines(result.unreadable)
    lines += _question_lines(result.questions.unanswered())
    for finding in result.findings:
        text = sanitize_line(f"{finding.text} {finding.remedy}")
        lines += ["", *textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]
    if result.left_over:
        lines += ["", f"{count_noun(len(result.left_over), 'file')} of an earlier import that this one did not write:"]
        lines += [f"  {name}" for name in result.left_over[:_MAX_LINES]]
        lines += _and_more(len(result.left_over), _MAX_LINES)
    return [*lines, "", *_next_steps(result, out)]


def _count_lines(totals: Totals) -> list[str]:
    rows = [
        (totals.packages, "package", "read"),
        (totals.statuses[PackageStatus.CONVERTED], "", "converted, nothing to decide"),
        (totals.statuses[PackageStatus.DECIDE], "", "converted, with something to decide or complete"),
        (totals.statuses[PackageStatus.FAILED], "", "failed"),
        (totals.statuses[PackageStatus.NO_MAIL], "", "without mail"),
        (totals.copies, "copy", "of packages, not converted again"),
        (totals.unreadable, "file", "could not be read"),
        (totals.mails, "Send Mail task", ""),
        (totals.dags, "DAG", ""),
        (totals.placeholders, "placeholder", "to replace with a task"),
        (totals.connections, "connection", ""),
        (totals.connections_to_decide, "", "of them with something to decide"),
        (totals.kept, "edited file", f"kept, with the new text next to it, as NAME{NEW_SUFFIX}"),
    ]
    return [
        f"{count:>9,}  {' '.join(word for word in (noun and plural(count, noun), suffix) if word)}"
        for count, noun, suffix in rows
        if count or noun in {"package", "connection", "DAG"}
    ]


def _error_lines(totals: Totals) -> list[str]:
    rows = [(code, count) for (severity, code), count in totals.codes.items() if severity is Severity.ERROR]
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[1], row[0]))
    return [
        "",
        "Errors, and how many packages or connections have them:",
        *(f"{count:>9,}  {code}" for code, count in rows[:_MAX_LINES]),
        *_and_more(len(rows), _MAX_LINES),
    ]


def _question_lines(questions: Sequence[AskedQuestion]) -> list[str]:
    if not questions:
        return []
    lines = ["", "Questions, and how many mails wait for the answer:"]
    for asked in questions[:_MAX_PARAGRAPHS]:
        lines += textwrap.wrap(
            asked.text,
            _WIDTH,
            initial_indent=f"{asked.mails:>9,}  ",
            subsequent_indent=" " * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [*lines, *_and_more(len(questions), _MAX_PARAGRAPHS)]


def _unreadable_lines(unreadable: Sequence[UnreadableFile]) -> list[str]:
    if not unreadable:
        return []
    lines = ["", "Could not be read:"]
    for file in unreadable[:_MAX_PARAGRAPHS]:
        text = sanitize_line(f"{file.message} {file.remedy}")
        lines += textwrap.wrap(
            text if file.source in file.message else f"{sanitize_line(file.source)}: {text}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [*lines, *_and_more(len(unreadable), _MAX_PARAGRAPHS)]


def _and_more(count: int, shown: int) -> list[str]:
    return [f"  ... and {count - shown:,} more"] if count > shown else []


def _next_steps(result: ImportResult, out: Path) -> list[str]:
    totals = result.totals
    if totals.interrupted:
        return [
            f"Stopped before the end. The files written so far are complete; see {out / 'report.html'}.",
            "Run the same command again to import everything.",
        ]
    lines = [f"Report: {out / 'report.html'}; machine-readable: {out / 'report.json'}."]
    if questions := result.questions.unanswered():
        lines.append(
            f"Fill in the answers to {count_noun(len(questions), 'question')} in {out / QUESTIONS}, and import again "
            f"with --answers {shlex.quote(str(out / QUESTIONS))}."
        )
    if totals.connections:
        lines.append(f"Connections: airflow connections import {out / CONNECTIONS}")
    if totals.dags:
        lines.append(f"DAGs: {out / 'dags'}")
    return lines


class _ProgressLine:
    """A progress line on standard error, overwritten in place; nothing is shown if that is not a terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._updated = 0.0
        self._width = 0

    def update(self, totals: Totals, source: str) -> None:
        """Show the counts and the current source, at most five times per second."""
        now = time.monotonic()
        if not self._is_shown or now - self._updated < _PROGRESS_INTERVAL:
            return
        self._updated = now
        text = f"{count_noun(totals.packages, 'package')}, {totals.with_mail:,} with mail: "
        # A line that wraps could not be overwritten, so a long path is cut; its end distinguishes the files.
        text += sanitize_line(source)[-max(shutil.get_terminal_size().columns - len(text) - 1, 1) :]
        encoding = sys.stderr.encoding or "utf-8"
        text = text.encode(encoding, "replace").decode(encoding)
        print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)  # noqa: T201
        self._width = len(text)

    def clear(self) -> None:
        """Remove the line."""
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)  # noqa: T201
            self._width = 0


@contextmanager
def _handle_interrupts() -> Iterator[list[int]]:
    """Yield a list to which a received SIGINT or SIGTERM is added; a second one raises KeyboardInterrupt.

    Outside the main thread, Python cannot handle signals, so the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        # Not with `print`: the signal may have interrupted a `print`, whose buffer is not reentrant.
        os.write(2, b"\nStopping after this package; press Ctrl-C again to stop at once.\n")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
