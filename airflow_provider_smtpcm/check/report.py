"""What a check found: one entry for each step, and a verdict. Knows no network and no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.smtp.trace import Step


class Status(StrEnum):
    """How a step went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Around(StrEnum):
    """The steps that are the check's own, around those of the conversation (`Step`)."""

    SETTINGS = "settings"
    WEAK = "weak settings"
    CERTIFICATE = "certificate"
    IDENTITY = "identity"
    SIZE_LIMIT = "size limit"
    NOOP = "NOOP"
    BINDINGS = "every binding"


#: How wide the column of names is.
WIDEST_NAME = max(len(name) for name in (*Step, *Around))


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
