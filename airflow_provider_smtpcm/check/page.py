"""A check as a page for a person: a block for each step as soon as it is over, the verdict, and the remedy last."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import textwrap
from itertools import zip_longest

from airflow_provider_smtpcm.check.report import WIDEST_NAME, Report, Status, StepReport

_WORDS = {Status.OK: "ok", Status.WARNING: "WARNING", Status.FAILED: "FAILED", Status.SKIPPED: "-"}
_STATUS_WIDTH = max(map(len, _WORDS.values()))
_INDENT = _STATUS_WIDTH + 2 + WIDEST_NAME + 2
# Below this a step's time is nobody's concern.
_SLOW = 1.0


class Page:
    """Writes to standard output, line by line, whatever the terminal can show of it."""

    def __init__(self) -> None:
        # Wide enough that a reply of a server stays in one piece, narrow enough to be read.
        self._width = max(70, min(shutil.get_terminal_size((110, 24)).columns, 120))

    def title(self, subject: str) -> None:
        """What is checked."""
        self._say(f"Checking {subject} from {socket.gethostname()}. No mail is sent.")
        self._say("")

    def step(self, step: StepReport) -> None:
        """One block; what was not reached is told in the end."""
        if step.detail == "not reached":
            return
        slow = f"\n({step.seconds:.1f} seconds)" if step.seconds >= _SLOW else ""
        lines = [piece for line in (step.detail + slow).split("\n") for piece in self._wrapped(line)]
        head = f"{_WORDS[step.status]:<{_STATUS_WIDTH}}  {step.name:<{WIDEST_NAME}}  "
        self._say((head + lines[0]).rstrip())
        for line in lines[1:]:
            self._say(" " * _INDENT + line)

    def end(self, report: Report) -> None:
        """The verdict, and what to do."""
        unreached = [step.name for step in report.steps if step.detail == "not reached"]
        if unreached:
            told = textwrap.wrap(f"not reached: {', '.join(unreached)}", self._width - _STATUS_WIDTH - 2)
            for mark, line in zip_longest("-", told, fillvalue=" "):
                self._say(f"{mark:<{_STATUS_WIDTH}}  {line}")
        self._say("")
        match report.verdict:
            case Status.FAILED:
                self._say(f"FAILED at this step: {report.failed_step}.")
                for line in textwrap.wrap(f"What to do: {report.remedy}", self._width, break_long_words=False):
                    self._say(line)
            case Status.WARNING:
                warned = [step.name for step in report.steps if step.status is Status.WARNING]
                self._say(f"It works, with warnings: {', '.join(warned)}.")
            case _:
                self._say("All is well.")

    def _wrapped(self, line: str) -> list[str]:
        beginning = re.match(r"\s*(\d+\. |[CS]: |- )?", line)
        deeper = " " * (beginning.end() if beginning else 0)
        return textwrap.wrap(
            line,
            self._width - _INDENT,
            subsequent_indent=deeper,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]

    @staticmethod
    def _say(text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), flush=True)  # noqa: T201
