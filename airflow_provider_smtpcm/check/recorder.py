"""Hears of the steps of a conversation and makes a report of each, as soon as the next begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.check.certificates import describe_chain
from airflow_provider_smtpcm.check.report import Around, Status, StepReport, printable
from airflow_provider_smtpcm.check.words import moment
from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.smtp.trace import EncryptedLine, Step, Trace

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.windows.kerberos import Kerberos

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

    def begin(self, step: Step | Around) -> None:
        """Whatever was going on before is over. A step that had nothing to tell does not count."""
        if step != self._name:
            self.end()
            self._name = step

    def tell(self, step: Step | Around, detail: str) -> None:
        """A line about a step."""
        self.begin(step)
        self._lines += printable(detail).split("\n")

    def warn(self, step: Step | Around, detail: str) -> None:
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
            self.tell(Around.CERTIFICATE, line)
        for complaint in complaints:
            self.warn(Around.CERTIFICATE, complaint)

    def has_ticket(self, kerberos: Kerberos) -> None:
        """When the ticket ends."""
        found = kerberos.ticket
        if found is not None:
            name, ends = found
            self.tell(Step.TICKET, f"service ticket {name}, until {moment(ends)}")

    def fail(self, error: MailError) -> None:
        """The step that is going on has failed."""
        if self._name is None:
            self._name = Around.SETTINGS
        self._lines += printable(error.message).split("\n")
        self._status = Status.FAILED
        self.end()

    def skip(self, step: Step | Around, why: str) -> None:
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
