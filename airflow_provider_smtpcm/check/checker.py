"""The check: opens a session as a task would, hears of each of its steps, and ends with NOOP. It never sends mail."""

from __future__ import annotations

import contextlib
import ssl
import time

from airflow_provider_smtpcm.check.bindings import try_bindings
from airflow_provider_smtpcm.check.recorder import Listener, Recorder
from airflow_provider_smtpcm.check.report import Around, ExitStatus, Report
from airflow_provider_smtpcm.check.words import settings
from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import tls_context
from airflow_provider_smtpcm.smtp.trace import EncryptedLine, Step, Trace

#: All of it together, whatever the connection's own timeouts say.
CHECK_SECONDS = 30.0
# The mechanisms that carry Windows Authentication.
_WINDOWS = ("NTLM", "GSSAPI", "GSS-SPNEGO")
# OpenSSL's X509_V_ERR_... for a chain that ends in nobody who is trusted.
_AUTHORITY_UNKNOWN = (2, 18, 19, 20, 21)


def check(manager: SmtpConnectionManager, *, subject: str, listener: Listener, every_binding: bool = False) -> Report:
    """Walk from the settings to NOOP, and stop at the first step that fails.

    Args:
        manager: the connection.
        subject: how the report calls it.
        listener: is handed each step as soon as it is over.
        every_binding: sign in with each channel binding, unless the normal sign-in fails for another reason than 535.
    """
    return _Check(manager, subject, listener, every_binding=every_binding).run()


def unusable(
    error: MailError, *, subject: str, recorder: Recorder, where: str = "where the connection is defined"
) -> Report:
    """The report on a connection that cannot be read or used: nothing was tried.

    Args:
        error: why.
        subject: how the report calls the connection.
        recorder: hears of it.
        where: the place at which its author mends it.
    """
    recorder.begin(Around.SETTINGS)
    recorder.fail(error)
    remedy = error.remedy
    if isinstance(error, ConnectionSettingsError):
        remedy = f"Mend each of these {where}, and run the check again."
    return Report(
        subject=subject,
        steps=tuple(recorder.steps),
        error=error,
        remedy=remedy,
        exit_status=ExitStatus.UNUSABLE,
    )


class _Check:
    def __init__(
        self, manager: SmtpConnectionManager, subject: str, listener: Listener, *, every_binding: bool
    ) -> None:
        self._manager = manager
        self._subject = subject
        self._every_binding = every_binding
        self._recorder = Recorder(listener)
        self._give_up_at = time.monotonic() + CHECK_SECONDS

    def run(self) -> Report:
        recorder, manager = self._recorder, self._manager
        try:
            context = self._settings()
        except MailError as error:
            return unusable(error, subject=self._subject, recorder=recorder)
        remedy, failure = "", None
        session = Session(manager, context=context, give_up_at=self._give_up_at, trace=recorder)
        try:
            with session:
                self._after_sign_in(session)
        except MailError as error:
            failure, remedy = error, error.remedy
            recorder.fail(error)
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                self._look_at_distrusted_chain(error.__context__.verify_code)
        if self._every_binding:
            remedy = try_bindings(manager, recorder, failure=failure, context=context, give_up_at=self._give_up_at)
        elif failure is not None and _may_be_the_binding(manager, failure):
            remedy += (
                " To learn which binding the server takes, run the check with --bindings: its two more sign-ins count "
                "towards a lockout if the password is wrong."
            )
        if failure is not None and time.monotonic() >= self._give_up_at:
            remedy += f" (The check takes {CHECK_SECONDS:g} seconds at the most, whatever 'Timeout' says.)"
        reached = {step.name for step in recorder.steps}
        for step in _expected(manager):
            if step not in reached:
                recorder.skip(step, "not reached")
        return Report(
            subject=self._subject,
            steps=tuple(recorder.steps),
            error=failure,
            remedy=remedy,
            exit_status=ExitStatus.WELL if failure is None else ExitStatus.FAILED,
        )

    def _settings(self) -> ssl.SSLContext | None:
        """What needs no network."""
        recorder, manager = self._recorder, self._manager
        recorder.tell(Around.SETTINGS, settings(manager))
        if self._every_binding and manager.password:
            recorder.tell(
                Around.SETTINGS,
                "--bindings signs in up to three times: a wrong password counts three times towards a lockout.",
            )
        context = None if manager.ssl_mode is SslMode.NONE else tls_context(manager)
        recorder.begin(Around.WEAK)
        for warning in manager.warnings:
            recorder.warn(Around.WEAK, warning)
        if not manager.warnings:
            recorder.tell(Around.WEAK, "none")
        return context

    def _after_sign_in(self, session: Session) -> None:
        recorder = self._recorder
        who = session.signed_in.identity if session.signed_in else "nobody: an anonymous session"
        recorder.tell(Around.IDENTITY, who)
        windows = [name for name in session.extensions.get("AUTH", "").upper().split() if name in _WINDOWS]
        if session.signed_in is None and windows:
            recorder.tell(
                Around.IDENTITY,
                f"Hint: the server offers Windows Authentication ({', '.join(windows)}). It may refuse mail from an "
                "anonymous connection until Authentication is 'Windows Authentication' (auth_mode).",
            )
        limit = session.size_limit
        recorder.tell(Around.SIZE_LIMIT, f"{limit:,} octets a message" if limit else "the server names none")
        recorder.begin(Around.NOOP)
        recorder.tell(Around.NOOP, str(session.noop()))
        recorder.end()

    def _look_at_distrusted_chain(self, verify_code: int) -> None:
        """Connect once more, for the sake of the certificates alone: without an account, so that nobody signs in."""
        manager = self._manager
        stranger = SmtpConnectionManager(
            host=manager.host,
            port=manager.port,
            ssl_mode=manager.ssl_mode,
            timeout=manager.timeout,
            local_hostname=manager.local_hostname,
            auth_mode=AuthMode.ANONYMOUS,
            verify_certificate=False,
        )
        look = _Look()
        with contextlib.suppress(MailError), Session(stranger, give_up_at=self._give_up_at, trace=look):
            pass
        if look.certificates:
            self._recorder.warn(Around.CERTIFICATE, "seen on a second connection, which did not sign in:")
            self._recorder.chain(
                look.certificates, host=manager.host, authority_known=verify_code not in _AUTHORITY_UNKNOWN
            )
            self._recorder.end()


class _Look(Trace):
    """Takes the certificates along."""

    def __init__(self) -> None:
        self.certificates: list[bytes] = []

    def encrypted(self, line: EncryptedLine) -> None:
        self.certificates = line.certificates


def _may_be_the_binding(manager: SmtpConnectionManager, error: MailError) -> bool:
    refused = error.reply is not None and error.reply.code == 535
    return refused and manager.auth_mode is AuthMode.WINDOWS and manager.ssl_mode is not SslMode.NONE


def _expected(manager: SmtpConnectionManager) -> list[Step | Around]:
    """The steps on the way of this connection."""
    tls: list[Step | Around] = [Step.TLS, Around.CERTIFICATE]
    steps: list[Step | Around] = [Around.SETTINGS, Around.WEAK, Step.NAME, Step.TCP]
    steps += tls if manager.ssl_mode is SslMode.IMPLICIT else []
    steps += [Step.GREETING, Step.HELLO]
    steps += [*tls, Step.HELLO_AFTER_TLS] if manager.ssl_mode is SslMode.STARTTLS else []
    if manager.auth_mode is AuthMode.WINDOWS:
        steps += [Step.MECHANISMS, Step.BINDING, Step.CHOICE, Step.SIGN_IN]
    return [*steps, Around.IDENTITY, Around.SIZE_LIMIT, Around.NOOP]
