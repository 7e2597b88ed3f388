"""What a check found: one entry for each step, and a verdict. Knows no network and no terminal."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.check.certificates import describe_chain, moment
from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.smtp.trace import EncryptedLine, Step, Trace

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient


class Status(StrEnum):
    """How a step went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class CheckStep(StrEnum):
    """The steps that are the check's own, around those of the conversation (`Step`)."""

    SETTINGS = "settings"
    WEAK = "weak settings"
    CERTIFICATE = "certificate"
    IDENTITY = "identity"
    SIZE_LIMIT = "size limit"
    NOOP = "NOOP"
    BINDINGS = "every binding"


#: How wide the column of names is.
WIDEST_NAME = max(len(name) for name in (*Step, *CheckStep))


class ExitStatus:
    """What the command's exit status means. 2 is argparse's."""

    WELL = 0
    FAILED = 1
    UNUSABLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step.

    Args:
        name: one of `Step` or `Around`.
        detail: what was found, a line each; nothing secret.
        seconds: how long it took.
    """

    name: str
    status: Status
    detail: str
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "name": self.name,
            "status": str(self.status),
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole check.

    Args:
        subject: which connection.
        steps: in the order in which they happened; what was not reached is at the end.
        error: why it failed; None where it did not.
        remedy: what to do about it.
        exit_status: see `ExitStatus`.
    """

    subject: str
    steps: tuple[StepReport, ...]
    error: MailError | None = None
    remedy: str = ""
    exit_status: int = ExitStatus.WELL

    @property
    def verdict(self) -> Status:
        """`failed` at the first step that failed; `warning` where it works, but something is weak."""
        if self.error is not None:
            return Status.FAILED
        warned = any(step.status is Status.WARNING for step in self.steps)
        return Status.WARNING if warned else Status.OK

    @property
    def failed_step(self) -> str | None:
        """The step at which it failed."""
        return next((step.name for step in self.steps if step.status is Status.FAILED), None)

    def as_json(self) -> dict[str, object]:
        """One object for machines."""
        return {
            "connection": self.subject,
            "verdict": str(self.verdict),
            "exit_status": self.exit_status,
            "failed_step": self.failed_step,
            "error": printable(self.error.message) if self.error else None,
            "remedy": self.remedy or None,
            "retryable": self.error.retryable if self.error else None,
            "steps": [step.as_json() for step in self.steps],
        }


def printable(text: str) -> str:
    """Without the control characters by which a server could paint on the terminal; lines stay lines."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


# folded: Hears of the steps of a conversation and makes a report of each, as soon as the next begins.

Listener = Callable[[StepReport], None]


class Recorder(Trace):
    """Collects the steps.

    Args:
        listener: is handed each step as soon as it is over.
    """

    def __init__(self, listener: Listener) -> None:
        self.steps: list[StepReport] = []
        self._listener = listener
        self._name: str | None = None
        self._lines: list[str] = []
        self._status = Status.OK
        self._began = time.monotonic()

    def begin(self, step: Step | CheckStep) -> None:
        """Whatever was going on before is over. A step that had nothing to tell does not count."""
        if step != self._name:
            self.end()
            self._name = step

    def tell(self, step: Step | CheckStep, detail: str) -> None:
        """A line about a step."""
        self.begin(step)
        self._lines += printable(detail).split("\n")

    def warn(self, step: Step | CheckStep, detail: str) -> None:
        """A line that wants attention."""
        self.tell(step, detail)
        self._status = Status.WARNING

    def encrypted(self, line: EncryptedLine) -> None:
        """The certificates, while the line is open. They were verified, or the connection asks not to."""
        self.end()
        self.chain(line.certificates, host=None)

    def chain(self, certificates: list[bytes], *, host: str | None, authority_known: bool = True) -> None:
        """What the server's certificates say.

        Args:
            certificates: in DER, the server's own first.
            host: by which name it was called, if nobody has looked yet whether that is right.
            authority_known: whether this worker trusts where the chain ends.
        """
        lines, complaints = describe_chain(certificates, host=host, authority_known=authority_known)
        for line in lines:
            self.tell(CheckStep.CERTIFICATE, line)
        for complaint in complaints:
            self.warn(CheckStep.CERTIFICATE, complaint)

    def has_ticket(self, kerberos: KerberosClient) -> None:
        """When the ticket ends."""
        found = kerberos.service_ticket
        if found is not None:
            name, ends = found
            self.tell(Step.TICKET, f"service ticket {name}, until {moment(ends)}")

    def fail(self, error: MailError) -> None:
        """The step that is going on has failed."""
        if self._name is None:
            self._name = CheckStep.SETTINGS
        self._lines += printable(error.message).split("\n")
        self._status = Status.FAILED
        self.end()

    def skip(self, step: Step | CheckStep, why: str) -> None:
        """A step that is not taken."""
        self.end()
        self._report(StepReport(name=str(step), status=Status.SKIPPED, detail=why))

    def end(self) -> None:
        """The step that is going on is over."""
        now = time.monotonic()
        if self._name is not None and self._lines:
            report = StepReport(
                name=str(self._name), status=self._status, detail="\n".join(self._lines), seconds=now - self._began
            )
            self._report(report)
        self._name, self._lines, self._status, self._began = None, [], Status.OK, now

    def _report(self, step: StepReport) -> None:
        self.steps.append(step)
        self._listener(step)


# folded: A check as a page for a person: a block for each step as soon as it is over, the verdict, and the remedy last.

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
