"""The check: opens a session as a task would, hears of each of its steps, and ends with NOOP. It never sends mail."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import time
from collections.abc import Iterator

from airflow_provider_smtpcm.check.certificates import settings
from airflow_provider_smtpcm.check.report import CheckStep, ExitStatus, Listener, Recorder, Report
from airflow_provider_smtpcm.connection_manager import AuthMode, ChannelBinding, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectionSettingsError, MailError
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import tls_context
from airflow_provider_smtpcm.smtp.trace import EncryptedLine, Step, Trace

# folded: Signs in with each channel binding in turn, to learn which of them a server with Extended Protection takes.

_STRONGEST_FIRST = (ChannelBinding.TLS_SERVER_END_POINT, ChannelBinding.TLS_UNIQUE, ChannelBinding.NONE)
_NONE_PASSES = (
    r"Check 'User name' (CORP\user or user@corp.example) and 'Password', and that the account is neither locked nor "
    "barred from this server; its log has the reason. Do not repeat this with a password that may be wrong."
)


def try_bindings(
    manager: SmtpConnectionManager,
    recorder: Recorder,
    *,
    failure: MailError | None,
    context: ssl.SSLContext | None,
    give_up_at: float,
) -> str:
    """Sign in with the bindings that the connection does not name; the remedy for the failure, if there was one.

    Args:
        manager: the connection, with which one sign-in was made already.
        recorder: hears the results.
        failure: why that sign-in failed.
        context: the TLS context of the connection.
        give_up_at: a moment (`time.monotonic`) that nothing outlives.
    """
    remedy = failure.remedy if failure else ""
    why_not = _why_not(manager, failure)
    if why_not is not None:
        recorder.skip(CheckStep.BINDINGS, why_not)
        return remedy
    recorder.begin(CheckStep.BINDINGS)
    own = manager.channel_binding
    results = {own: failure} | dict(_others(manager, context, give_up_at))
    for kind, error in results.items():
        mine = " (the connection's own)" if kind is own else ""
        recorder.tell(CheckStep.BINDINGS, f"{kind}{mine}: {_told(kind, error)}")
    passing = [kind for kind, error in results.items() if error is None]
    if failure is None:
        recorder.end()
        return ""
    if passing:
        best = next(kind for kind in _STRONGEST_FIRST if kind in passing)
        recorder.warn(CheckStep.BINDINGS, f"What passes: {', '.join(passing)}.")
        remedy = f"Set 'Channel binding' to '{best}': with it this server lets this account in."
    else:
        recorder.warn(CheckStep.BINDINGS, "None of them passes, so that the binding is hardly what is wrong.")
        remedy = _NONE_PASSES
    recorder.end()
    return remedy


def _told(kind: ChannelBinding, error: MailError | None) -> str:
    if error is None:
        return "accepted"
    if kind is ChannelBinding.TLS_UNIQUE and error.message.endswith("TLSv1.3."):
        return "not tried, as expected: it ended with TLS 1.2, and this line has TLSv1.3."
    return f"no: {error.message}"


def _why_not(manager: SmtpConnectionManager, failure: MailError | None) -> str | None:
    """Why no further sign-in is made; None where one may be."""
    if manager.auth_mode is not AuthMode.WINDOWS:
        return "an anonymous connection binds nothing"
    if manager.ssl_mode is SslMode.NONE:
        return "without TLS there is nothing to bind to"
    if failure is not None and not _refused(failure):
        return "the sign-in failed before the server could judge a binding, so that no other was tried"
    if failure is not None and _locked(failure):
        return "the server says that the account is locked, disabled or expired, so that nothing else was tried"
    return None


def _others(
    manager: SmtpConnectionManager, context: ssl.SSLContext | None, give_up_at: float
) -> Iterator[tuple[ChannelBinding, MailError | None]]:
    """Each other binding and why it did not pass; ends where going on could do harm."""
    for kind in ChannelBinding:
        if kind is manager.channel_binding:
            continue
        other = dataclasses.replace(manager, channel_binding=kind)
        try:
            with Session(other, context=context, give_up_at=give_up_at):
                pass
        except MailError as error:
            yield kind, error
            undefined = isinstance(error, AuthenticationError) and error.reply is None
            if _locked(error) or not (_refused(error) or undefined):
                return
        else:
            yield kind, None


def _refused(error: MailError) -> bool:
    return error.reply is not None and error.reply.code == 535


def _locked(error: MailError) -> bool:
    text = error.reply.text.lower() if error.reply else ""
    return any(word in text for word in ("locked", "disabled", "expired"))


# folded: here began the module itself

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
    recorder.begin(CheckStep.SETTINGS)
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
        recorder.tell(CheckStep.SETTINGS, settings(manager))
        if self._every_binding and manager.password:
            recorder.tell(
                CheckStep.SETTINGS,
                "--bindings signs in up to three times: a wrong password counts three times towards a lockout.",
            )
        context = None if manager.ssl_mode is SslMode.NONE else tls_context(manager)
        recorder.begin(CheckStep.WEAK)
        for warning in manager.warnings:
            recorder.warn(CheckStep.WEAK, warning)
        if not manager.warnings:
            recorder.tell(CheckStep.WEAK, "none")
        return context

    def _after_sign_in(self, session: Session) -> None:
        recorder = self._recorder
        who = session.authentication.identity if session.authentication else "nobody: an anonymous session"
        recorder.tell(CheckStep.IDENTITY, who)
        windows = [name for name in session.extensions.get("AUTH", "").upper().split() if name in _WINDOWS]
        if session.authentication is None and windows:
            recorder.tell(
                CheckStep.IDENTITY,
                f"Hint: the server offers Windows Authentication ({', '.join(windows)}). It may refuse mail from an "
                "anonymous connection until Authentication is 'Windows Authentication' (auth_mode).",
            )
        limit = session.size_limit
        recorder.tell(CheckStep.SIZE_LIMIT, f"{limit:,} octets a message" if limit else "the server names none")
        recorder.begin(CheckStep.NOOP)
        recorder.tell(CheckStep.NOOP, str(session.noop()))
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
            self._recorder.warn(CheckStep.CERTIFICATE, "seen on a second connection, which did not sign in:")
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


def _expected(manager: SmtpConnectionManager) -> list[Step | CheckStep]:
    """The steps on the way of this connection."""
    tls: list[Step | CheckStep] = [Step.TLS, CheckStep.CERTIFICATE]
    steps: list[Step | CheckStep] = [CheckStep.SETTINGS, CheckStep.WEAK, Step.NAME, Step.TCP]
    steps += tls if manager.ssl_mode is SslMode.IMPLICIT else []
    steps += [Step.GREETING, Step.HELLO]
    steps += [*tls, Step.HELLO_AFTER_TLS] if manager.ssl_mode is SslMode.STARTTLS else []
    if manager.auth_mode is AuthMode.WINDOWS:
        steps += [Step.MECHANISMS, Step.BINDING, Step.CHOICE, Step.SIGN_IN]
    return [*steps, CheckStep.IDENTITY, CheckStep.SIZE_LIMIT, CheckStep.NOOP]
