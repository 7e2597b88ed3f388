"""The report of a check: recorded step by step while the session opens, printed as text or returned as JSON."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.smtp.trace import Step, Trace

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from airflow_provider_smtpcm.check.client_certificate import CertificateRequestWatch
    from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient
    from airflow_provider_smtpcm.smtp.trace import EncryptedConnection


class Status(StrEnum):
    """The result of a step, or of the whole check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class CheckStep(StrEnum):
    """The steps of the check in addition to those of the handshake (`Step`)."""

    SETTINGS = "settings"
    WEAK_SETTINGS = "weak settings"
    SERVER = "server"
    CERTIFICATE = "certificate"
    CLIENT_CERTIFICATE = "client certificate"
    IDENTITY = "identity"
    SIZE_LIMIT = "size limit"
    NOOP = "NOOP"
    TEST_MAIL = "test mail"
    SAMPLE_ALERT = "sample alert"
    BINDINGS = "every binding"


# A certificate with fewer days left is a warning.
_MIN_DAYS_LEFT = 14
# A shared certificate may have hundreds of names.
_MAX_SHOWN_NAMES = 8
#: How the detail of a step that the check did not reach begins.
NOT_REACHED = "not reached"


class ExitStatus:
    """The exit statuses of the command `check`; 2 is argparse's."""

    #: The connection works, perhaps with warnings.
    OK = 0
    #: A step failed.
    FAILED = 1
    #: There is no such connection, or its settings cannot be used.
    UNUSABLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """The result of one step of the check.

    Args:
        name: the value of a `Step` or `CheckStep`.
        status: its result.
        detail: what happened, in one or more lines; no secrets.
        seconds: its duration.
    """

    name: str
    status: Status
    detail: str
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return the step for `--json`."""
        return {
            "name": self.name,
            "status": str(self.status),
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of the whole check.

    Args:
        subject: the connection as it is shown, such as `the Airflow connection 'smtpcm_default'`.
        steps: in order; steps that were not reached are at the end.
        error: the failure; None if there was none.
        remedy: what to do about the failure.
        exit_status: one of `ExitStatus`.
        fallback: the fallback host that takes the mail, since no server before it can be reached; None: there is none.
    """

    subject: str
    steps: tuple[StepReport, ...]
    error: MailError | None = None
    remedy: str = ""
    exit_status: int = ExitStatus.OK
    fallback: str | None = None

    @property
    def verdict(self) -> Status:
        """`FAILED` if a step failed; `WARNING` if the connection works, but a step has a warning; else `OK`."""
        if self.error is not None:
            return Status.FAILED
        has_warning = any(step.status is Status.WARNING for step in self.steps)
        return Status.WARNING if has_warning else Status.OK

    @property
    def failed_step(self) -> str | None:
        """The name of the step that failed; None if there is none."""
        return next((step.name for step in self.steps if step.status is Status.FAILED), None)

    def to_dict(self) -> dict[str, object]:
        """Return the report for `--json`."""
        return {
            "connection": self.subject,
            "verdict": str(self.verdict),
            "exit_status": self.exit_status,
            "failed_step": self.failed_step,
            "error": remove_control_characters(self.error.message) if self.error else None,
            "remedy": self.remedy or None,
            "retryable": self.error.retryable if self.error else None,
            "steps": [step.to_dict() for step in self.steps],
        }


def remove_control_characters(text: str) -> str:
    """Replace unprintable characters with `?`, since a server could control the terminal; keep line breaks."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


# --- Recording.

StepCallback = Callable[[StepReport], None]


class StepRecorder(Trace):
    """Records the steps of a handshake and of the check, and reports each as soon as the next begins.

    Args:
        on_step: called with each step.
    """

    records_info = True

    def __init__(self, on_step: StepCallback) -> None:
        self.steps: list[StepReport] = []
        self._on_step = on_step
        self._name: str | None = None
        self._lines: list[str] = []
        self._status = Status.OK
        self._start = time.monotonic()
        #: Tells what became of the client certificate in the TLS handshake; None without TLS.
        self.request_watch: CertificateRequestWatch | None = None

    def begin(self, step: Step | CheckStep) -> None:
        """End the current step and begin this one, unless they are the same. A step without lines is not reported."""
        if step != self._name:
            self.end()
            self._name = step

    def info(self, step: Step | CheckStep, detail: str) -> None:
        """Add one or more lines to a step, and begin it if it is not the current one."""
        self.begin(step)
        self._lines += remove_control_characters(detail).split("\n")

    def warn(self, step: Step | CheckStep, detail: str) -> None:
        """Add a line that makes the step a warning."""
        self.info(step, detail)
        self._status = Status.WARNING

    def on_encrypted(self, connection: EncryptedConnection) -> None:
        """Report the certificates, which are already verified unless *Verify certificate* is off."""
        if self.request_watch is not None:
            lines, problems = self.request_watch.describe()
            for line in lines:
                self.info(Step.TLS, line)
            for problem in problems:
                self.warn(Step.TLS, problem)
        self.end()
        self.report_certificates(connection.certificates, host=None)

    def report_certificates(self, certificates: list[bytes], *, host: str | None, authority_known: bool = True) -> None:
        """Report a server's certificates; the arguments are those of `describe_chain`."""
        lines, problems = describe_chain(certificates, host=host, authority_known=authority_known)
        for line in lines:
            self.info(CheckStep.CERTIFICATE, line)
        for problem in problems:
            self.warn(CheckStep.CERTIFICATE, problem)

    def on_ticket(self, kerberos: KerberosClient) -> None:
        """Report the service ticket and when it expires."""
        ticket = kerberos.service_ticket
        if ticket is not None:
            name, end = ticket
            self.info(Step.TICKET, f"service ticket {name}, until {format_time(end)}")

    def fail(self, error: MailError) -> None:
        """End the current step as failed; if there is none, the step `settings`."""
        if self._name is None:
            self._name = CheckStep.SETTINGS
        if self._name == Step.TLS and self.request_watch is not None:
            self._lines += self.request_watch.describe()[0]
        self._lines += remove_control_characters(error.message).split("\n")
        self._status = Status.FAILED
        self.end()

    def skip(self, step: Step | CheckStep, reason: str) -> None:
        """Report a step as skipped."""
        self.end()
        self._report(StepReport(name=str(step), status=Status.SKIPPED, detail=reason))

    def end(self) -> None:
        """End the current step."""
        now = time.monotonic()
        if self._name is not None and self._lines:
            report = StepReport(
                name=str(self._name), status=self._status, detail="\n".join(self._lines), seconds=now - self._start
            )
            self._report(report)
        self._name, self._lines, self._status, self._start = None, [], Status.OK, now

    def _report(self, step: StepReport) -> None:
        self.steps.append(step)
        self._on_step(step)


# --- Printing.

_STATUS_TEXTS = {Status.OK: "ok", Status.WARNING: "WARNING", Status.FAILED: "FAILED", Status.SKIPPED: "-"}
_STATUS_WIDTH = max(map(len, _STATUS_TEXTS.values()))
_NAME_WIDTH = max(len(name) for name in (*Step, *CheckStep))
_INDENT = _STATUS_WIDTH + 2 + _NAME_WIDTH + 2
# Durations of at least this many seconds are printed.
_SLOW = 1.0


class CheckPrinter:
    """Prints a check to standard output: each step, the verdict, and the remedy last."""

    def __init__(self) -> None:
        # Wide enough to keep a server's reply on one line, narrow enough to be read.
        self._width = max(70, min(shutil.get_terminal_size((110, 24)).columns, 120))

    def print_title(self, subject: str, *, send_to: str | None = None) -> None:
        """Print the name of the connection, and which mail is sent.

        Args:
            subject: the connection.
            send_to: the address that receives a test mail and a sample alert; None: no mail is sent.
        """
        mails = "No mail is sent." if send_to is None else f"A test mail and a sample alert are sent to {send_to}."
        self._print(f"Checking {subject} from {socket.gethostname()}. {mails}")
        self._print("")

    def print_step(self, step: StepReport) -> None:
        """Print one step; steps that were not reached are printed by `print_verdict`."""
        if step.detail.startswith(NOT_REACHED):
            return
        duration = f"\n({step.seconds:.1f} seconds)" if step.seconds >= _SLOW else ""
        lines = [wrapped for line in (step.detail + duration).split("\n") for wrapped in self._wrap(line)]
        heading = f"{_STATUS_TEXTS[step.status]:<{_STATUS_WIDTH}}  {step.name:<{_NAME_WIDTH}}  "
        self._print((heading + lines[0]).rstrip())
        for line in lines[1:]:
            self._print(" " * _INDENT + line)

    def print_verdict(self, report: Report) -> None:
        """Print the steps that were not reached, the verdict, and what to do."""
        unreached: dict[str, list[str]] = {}
        for step in report.steps:
            if step.detail.startswith(NOT_REACHED):
                unreached.setdefault(step.detail, []).append(step.name)
        for detail, names in unreached.items():
            lines = textwrap.wrap(f"{detail}: {', '.join(names)}", self._width - _STATUS_WIDTH - 2)
            for status, line in zip_longest("-", lines, fillvalue=" "):
                self._print(f"{status:<{_STATUS_WIDTH}}  {line}")
        self._print("")
        match report.verdict:
            case Status.FAILED:
                if report.fallback is not None:
                    self._print(f"Mail is sent through {report.fallback}, until a server before it can be reached.")
                self._print(f"FAILED at this step: {report.failed_step}.")
                for line in textwrap.wrap(f"What to do: {report.remedy}", self._width, break_long_words=False):
                    self._print(line)
            case Status.WARNING:
                names = [step.name for step in report.steps if step.status is Status.WARNING]
                self._print(f"The connection works, with warnings: {', '.join(names)}.")
            case _:
                self._print("The connection works.")

    def _wrap(self, line: str) -> list[str]:
        prefix = re.match(r"\s*(\d+\. |[CS]: |- )?", line)
        return textwrap.wrap(
            line,
            self._width - _INDENT,
            subsequent_indent=" " * (prefix.end() if prefix else 0),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]

    @staticmethod
    def _print(text: str) -> None:
        """Print a line, with question marks for characters that the terminal cannot show."""
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), flush=True)  # noqa: T201


# --- Describing the server's certificates. Whether they are trusted is decided by the TLS library alone.


def describe_chain(chain: list[bytes], *, host: str | None, authority_known: bool) -> tuple[list[str], list[str]]:
    """Return lines that describe each certificate, and a sentence for each problem.

    Args:
        chain: the certificates in DER, the server's own first.
        host: the name for which the first must be valid; None if the TLS library has checked the name.
        authority_known: whether the chain ends in an authority that this worker trusts.
    """
    from cryptography import x509

    lines: list[str] = []
    certificates: list[Certificate] = []
    for number, der in enumerate(chain, start=1):
        try:
            certificate = x509.load_der_x509_certificate(der)
            lines += _describe_certificate(certificate, number)
        except (ValueError, x509.InvalidVersion):
            lines.append(f"{number}. ({len(der)} octets that cannot be read as a certificate)")
        else:
            certificates.append(certificate)
    if not certificates:
        return lines, ["The server sent no readable certificate."]
    problems = _find_validity_problems(certificates)
    if host is not None and not any(_matches(host, name) for name in _get_names(certificates[0])):
        problems.append(f"Certificate 1 is not issued for {host}.")
    if not authority_known:
        problems.append(_describe_unknown_authority(certificates))
    return lines, problems


def _describe_certificate(certificate: Certificate, number: int) -> list[str]:
    names = _get_names(certificate) if number == 1 else []
    more = f" and {len(names) - _MAX_SHOWN_NAMES} more" if len(names) > _MAX_SHOWN_NAMES else ""
    shown_names = f"; names: {', '.join(names[:_MAX_SHOWN_NAMES])}{more}" if names else ""
    issuer = "itself" if certificate.issuer == certificate.subject else certificate.issuer.rfc4514_string()
    return [
        f"{number}. {certificate.subject.rfc4514_string() or '(no subject)'}{shown_names}",
        f"   issued by {issuer}; valid until {format_time(certificate.not_valid_after_utc.timestamp())}",
    ]


def _get_names(certificate: Certificate) -> list[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return []
    return [
        *extension.get_values_for_type(x509.DNSName),
        *(str(address) for address in extension.get_values_for_type(x509.IPAddress)),
    ]


def _find_validity_problems(chain: list[Certificate]) -> list[str]:
    problems: list[str] = []
    for number, certificate in enumerate(chain, start=1):
        seconds_left = certificate.not_valid_after_utc.timestamp() - time.time()
        if certificate.not_valid_before_utc.timestamp() > time.time():
            start = format_time(certificate.not_valid_before_utc.timestamp())
            problems.append(f"Certificate {number} is not valid before {start}; check this worker's clock too.")
        elif seconds_left < 0:
            problems.append(f"Certificate {number} expired {format_time_left(seconds_left)}.")
        elif seconds_left < _MIN_DAYS_LEFT * 86400:
            problems.append(f"Certificate {number} expires soon: {format_time_left(seconds_left)}.")
    return problems


def _describe_unknown_authority(chain: list[Certificate]) -> str:
    last = chain[-1]
    if last.issuer != last.subject:
        return (
            f"The last certificate that the server sends was issued by {last.issuer.rfc4514_string()}, which this "
            "worker does not trust: give that authority as 'CA certificate'."
        )
    if len(chain) == 1:
        return "The certificate is self-signed: give it as 'CA certificate'."
    return "The chain ends in a private authority, which this worker does not trust: give it as 'CA certificate'."


def _matches(host: str, name: str) -> bool:
    """Return whether a name in a certificate covers a host. Only the name's first label may be `*` (RFC 6125 6.4)."""
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        pass
    host, name = host.lower().rstrip("."), name.lower()
    return host == name or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def format_time(seconds: float) -> str:
    """Format a Unix time as `2026-01-31 12:00 UTC (41 days left)`."""
    left = seconds - time.time()
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC ({format_time_left(left)})"


def format_time_left(seconds: float) -> str:
    """Format a number of seconds as `41 days left`, or a negative one as `3 hours ago`."""
    duration = abs(seconds)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if duration >= 2 * length or unit == "minute":
            count = int(duration // length)
            break
    return f"{count} {unit}{'' if count == 1 else 's'} {'left' if seconds >= 0 else 'ago'}"
