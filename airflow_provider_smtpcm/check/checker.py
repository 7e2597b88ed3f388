"""The check of a connection: every step that a task would go through, from the settings to NOOP, with remedies."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.check.channel_bindings import BindingTrials
from airflow_provider_smtpcm.check.client_certificate import CertificateRequestWatch, describe_client_certificate
from airflow_provider_smtpcm.check.report import (
    NOT_REACHED,
    CheckStep,
    ExitStatus,
    Report,
    StepCallback,
    StepRecorder,
)
from airflow_provider_smtpcm.connection_manager import (
    FIELDS,
    STANDARD_FIELDS,
    AuthMode,
    SmtpConnectionManager,
    SslMode,
)
from airflow_provider_smtpcm.connection_manager.faults import describe_path
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectionSettingsError, MailError
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import create_context_of
from airflow_provider_smtpcm.smtp.trace import Step, Trace
from airflow_provider_smtpcm.smtp.transport import format_peer

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.mime_message import AnyMail
    from airflow_provider_smtpcm.smtp.trace import EncryptedConnection


#: Time limit for each server in seconds, whatever the connection's timeouts are.
CHECK_SECONDS = 30.0
_WINDOWS_MECHANISMS = ("NTLM", "GSSAPI", "GSS-SPNEGO")
# OpenSSL's codes (X509_V_ERR_...) for a chain that does not end in a trusted authority.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


def check(
    manager: SmtpConnectionManager,
    *,
    subject: str,
    on_step: StepCallback,
    every_binding: bool = False,
    send_to: str | None = None,
) -> Report:
    """Check a connection, from its settings to NOOP, and stop at the first step that fails.

    If the connection has fallback hosts, each server is checked. An account that one refused is not tried at another.

    Args:
        manager: the connection.
        subject: its name in the report.
        on_step: called with each step when it ends.
        every_binding: whether to sign in with each channel binding, the connection's own first; the others are not
            tried if that sign-in fails with anything but 535.
        send_to: the address that receives a test mail and a sample alert, through the first server that passes; None:
            no mail is sent.
    """
    return _Check(manager, subject, on_step, every_binding=every_binding, send_to=send_to).run()


def report_unusable(
    error: MailError, *, subject: str, recorder: StepRecorder, where: str = "where the connection is defined"
) -> Report:
    """Return the report on a connection whose settings cannot be read or used; no other step was tried.

    Args:
        error: the reason.
        subject: the connection's name in the report.
        recorder: receives the failed step.
        where: the place in which to fix the connection, for the remedy.
    """
    recorder.begin(CheckStep.SETTINGS)
    recorder.fail(error)
    remedy = error.remedy
    if isinstance(error, ConnectionSettingsError):
        instruction = "Fix this" if len(error.faults) == 1 else "Fix each of these"
        remedy = f"{instruction} {where}, and run the check again."
    return Report(
        subject=subject,
        steps=tuple(recorder.steps),
        error=error,
        remedy=remedy,
        exit_status=ExitStatus.UNUSABLE,
    )


class _Check:
    def __init__(
        self,
        manager: SmtpConnectionManager,
        subject: str,
        on_step: StepCallback,
        *,
        every_binding: bool,
        send_to: str | None,
    ) -> None:
        self._manager = manager
        self._subject = subject
        self._every_binding = every_binding
        self._send_to = send_to  # None: nothing to send, or it was sent
        self._recorder = StepRecorder(on_step)
        self._give_up_at = 0.0  # set for each server
        # The server that refused the account; None: none did.
        self._refused_at: str | None = None

    def run(self) -> Report:
        recorder, manager = self._recorder, self._manager
        try:
            context = self._check_settings()
        except MailError as error:
            return report_unusable(error, subject=self._subject, recorder=recorder)
        servers = manager.list_servers()
        failures: list[tuple[str, MailError, str]] = []
        unreachable: list[str] = []
        fallback: str | None = None
        for number, server in enumerate(servers):
            peer = format_peer(server.host, server.port)
            if len(servers) > 1:
                role = f"fallback host {number} of {len(servers) - 1}" if number else "the SMTP server"
                recorder.info(CheckStep.SERVER, f"{peer}, {role}")
            self._manager = server if self._refused_at is None else _without_account(server)
            self._give_up_at = time.monotonic() + CHECK_SECONDS
            steps_before = len(recorder.steps)
            failure, remedy, is_unreachable = self._check_server(context)
            steps = recorder.steps[steps_before:]
            if is_unreachable:
                unreachable.append(peer)
            elif failure is None and fallback is None and len(unreachable) == number > 0:
                fallback = peer
            reached = {step.name for step in steps}
            for step in _list_steps(self._manager, sends_mail=self._send_to is not None):
                if step not in reached and step not in (CheckStep.SETTINGS, CheckStep.WEAK_SETTINGS):
                    recorder.skip(step, f"{NOT_REACHED} at {peer}" if len(servers) > 1 else NOT_REACHED)
            if failure is not None:
                failures.append((peer, failure, remedy))
                if _is_account_refused(failure):
                    self._refused_at = peer
        remedies = [f"{peer}: {remedy}" if len(servers) > 1 else remedy for peer, _, remedy in failures]
        return Report(
            subject=self._subject,
            steps=tuple(recorder.steps),
            error=failures[0][1] if failures else None,
            remedy=" ".join(remedies),
            exit_status=ExitStatus.FAILED if failures else ExitStatus.OK,
            fallback=fallback,
        )

    def _check_server(self, context: ssl.SSLContext | None) -> tuple[MailError | None, str, bool]:
        """Report the steps up to NOOP.

        Returns:
            The failure, if there was one; its remedy; and whether the server cannot be reached, so that mail goes to a
            fallback host.
        """
        recorder, failure, remedy = self._recorder, None, ""
        if context is not None:
            recorder.request_watch = CertificateRequestWatch(context, self._manager)
        session = Session(self._manager, context=context, give_up_at=self._give_up_at, trace=recorder)
        is_signed_in = False
        try:
            with session:
                is_signed_in = True
                self._check_session(session)
        except MailError as error:
            failure, remedy = error, error.remedy
            recorder.fail(error)
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                self._report_distrusted_chain(error.__context__.verify_code)
        trials = BindingTrials(self._manager, recorder, give_up_at=self._give_up_at)
        if self._every_binding and self._refused_at is None:
            remedy = trials.run(None if is_signed_in else failure, context) or remedy
        elif failure is not None and trials.is_binding_suspect(failure):
            remedy += (
                " To find out which binding the server accepts, run the check with --bindings; if the password is "
                "wrong, its two additional sign-ins count toward a lockout."
            )
        if failure is not None and time.monotonic() >= self._give_up_at:
            remedy += f" (The check takes {CHECK_SECONDS:g} seconds at most, whatever 'Timeout' says.)"
        return failure, remedy, session.is_unreachable

    def _check_settings(self) -> ssl.SSLContext | None:
        """Report the settings; return the TLS context, or None without TLS. No network."""
        recorder, manager = self._recorder, self._manager
        recorder.info(CheckStep.SETTINGS, _describe_settings(manager))
        if self._every_binding and manager.password:
            recorder.info(
                CheckStep.SETTINGS,
                "--bindings signs in up to three times: a wrong password counts three times toward a lockout."
                + (" Each fallback host is signed in to as well." if manager.fallback_hosts else ""),
            )
        context: ssl.SSLContext | None = None
        if manager.ssl_mode is not SslMode.NONE:
            context = create_context_of(manager)
        recorder.begin(CheckStep.WEAK_SETTINGS)
        for warning in manager.warnings:
            recorder.warn(CheckStep.WEAK_SETTINGS, warning)
        if not manager.warnings:
            recorder.info(CheckStep.WEAK_SETTINGS, "none")
        if manager.client_certificate is not None:
            lines, problems = describe_client_certificate(manager.client_certificate, manager.client_key)
            for line in lines:
                recorder.info(CheckStep.CLIENT_CERTIFICATE, line)
            for problem in problems:
                recorder.warn(CheckStep.CLIENT_CERTIFICATE, problem)
            recorder.end()
        return context

    def _check_session(self, session: Session) -> None:
        """Report the identity and the limits of an open session, and send NOOP."""
        recorder, authentication = self._recorder, session.authentication
        identity = authentication.identity if authentication else "none: an anonymous session"
        if self._refused_at is not None:
            identity = f"not tried: {self._refused_at} refused the account, and a refusal here would count again"
        recorder.info(CheckStep.IDENTITY, identity)
        offered = [name for name in session.extensions.get("AUTH", "").upper().split() if name in _WINDOWS_MECHANISMS]
        if authentication is None and offered and self._refused_at is None:
            recorder.info(
                CheckStep.IDENTITY,
                f"Hint: the server offers Windows Authentication ({', '.join(offered)}). It may refuse mail from an "
                "anonymous connection until Authentication is 'Windows Authentication' (auth_mode).",
            )
        limit = session.size_limit
        recorder.info(CheckStep.SIZE_LIMIT, f"{limit:,} octets a message" if limit else "the server announces none")
        recorder.begin(CheckStep.NOOP)
        recorder.info(CheckStep.NOOP, str(session.noop()))
        recorder.end()
        if self._send_to is not None and self._refused_at is None:
            self._send_mails(session, self._send_to)
            self._send_to = None

    def _send_mails(self, session: Session, to: str) -> None:
        """Send the test mail and the sample alert over an open session, and report each.

        Raises:
            MailError: a mail cannot be built, or was not accepted.
        """
        from airflow_provider_smtpcm.check.sample_mails import build_sample_alert, build_test_mail
        from airflow_provider_smtpcm.smtp.cancellation import get_single_delivery
        from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
        from airflow_provider_smtpcm.smtp.queue import SendRequest

        recorder, manager = self._recorder, self._manager
        server = format_peer(manager.host, manager.port)
        builders: dict[CheckStep, Callable[[], AnyMail]] = {
            CheckStep.TEST_MAIL: lambda: build_test_mail(manager, to, subject=self._subject, server=server),
            CheckStep.SAMPLE_ALERT: lambda: build_sample_alert(manager, to),
        }
        for step, build in builders.items():
            recorder.begin(step)
            mail = build()
            no_from = "" if manager.from_address else "; the connection has no From address, so this is the recipient's"
            recorder.info(step, f"from {mail.from_address} to {to}{no_from}")
            sender = BatchSender([SendRequest(0, mail)], manager, None, session=session)
            delivery = get_single_delivery(sender.deliveries())
            assert delivery is not None
            if delivery.error is not None:
                raise delivery.error
            recorder.info(step, f"accepted: {delivery.reply}; Message-ID {delivery.message_id}")
            recorder.end()

    def _report_distrusted_chain(self, verify_code: int) -> None:
        """Connect again only to see the certificates, without an account, so that no sign-in can happen."""
        manager = self._manager
        unverified = SmtpConnectionManager(
            host=manager.host,
            port=manager.port,
            ssl_mode=manager.ssl_mode,
            timeout=manager.timeout,
            local_hostname=manager.local_hostname,
            auth_mode=AuthMode.ANONYMOUS,
            verify_certificate=False,
        )
        collector = _CertificateCollector()
        with contextlib.suppress(MailError), Session(unverified, give_up_at=self._give_up_at, trace=collector):
            pass
        if collector.certificates:
            self._recorder.warn(CheckStep.CERTIFICATE, "seen on a second connection, without a sign-in:")
            authority_known = verify_code not in _UNKNOWN_AUTHORITY
            self._recorder.report_certificates(
                collector.certificates, host=manager.host, authority_known=authority_known
            )
            self._recorder.end()


def _is_account_refused(error: MailError) -> bool:
    """Return whether the sign-in at another server might count towards a lockout."""
    if not isinstance(error, AuthenticationError):
        return False
    from airflow_provider_smtpcm.smtp.auth.sasl import AccountRefusedError

    return error.reply is not None or isinstance(error, AccountRefusedError)


def _without_account(manager: SmtpConnectionManager) -> SmtpConnectionManager:
    """Return the manager of the same server for a session that does not sign in."""
    account: dict[str, Any] = dict.fromkeys(("login", "password", "domain", "keytab", "ccache", "spn"))
    return dataclasses.replace(manager, auth_mode=AuthMode.ANONYMOUS, **account)


class _CertificateCollector(Trace):
    """Collects the server's certificates."""

    def __init__(self) -> None:
        self.certificates: list[bytes] = []

    def on_encrypted(self, connection: EncryptedConnection) -> None:
        self.certificates = connection.certificates


def _list_steps(manager: SmtpConnectionManager, *, sends_mail: bool) -> list[Step | CheckStep]:
    """Return the steps of this connection, in order."""
    tls: list[Step | CheckStep] = [Step.TLS, CheckStep.CERTIFICATE]
    steps: list[Step | CheckStep] = [CheckStep.SETTINGS, CheckStep.WEAK_SETTINGS, Step.NAME, Step.TCP]
    steps += tls if manager.ssl_mode is SslMode.IMPLICIT else []
    steps += [Step.GREETING, Step.HELLO]
    steps += [*tls, Step.HELLO_AFTER_TLS] if manager.ssl_mode is SslMode.STARTTLS else []
    if manager.auth_mode is AuthMode.WINDOWS:
        steps += [Step.MECHANISMS, Step.BINDING, Step.CHOICE, Step.SIGN_IN]
    mails = [CheckStep.TEST_MAIL, CheckStep.SAMPLE_ALERT] if sends_mail else []
    return [*steps, CheckStep.IDENTITY, CheckStep.SIZE_LIMIT, CheckStep.NOOP, *mails]


# --- The settings of the connection.

# Shown even with their default value: the other steps depend on them.
_ALWAYS_SHOWN = ("host", "port", "auth_mode", "ssl_mode")
_ALWAYS_SHOWN_FOR_WINDOWS = ("login", "windows_protocol", "channel_binding")
_SECRET_FIELDS = ("password",)
_PATH_FIELDS = ("ca_certificate", "keytab", "ccache", "client_certificate", "client_key")


def _describe_settings(manager: SmtpConnectionManager) -> str:
    """Return the settings as `name=value`, without secrets and most defaults."""
    is_windows = manager.auth_mode is AuthMode.WINDOWS
    shown: list[str] = []
    for field in (*STANDARD_FIELDS, *FIELDS):
        value = getattr(manager, field.name, None)
        always = field.name in _ALWAYS_SHOWN or (is_windows and field.name in _ALWAYS_SHOWN_FOR_WINDOWS)
        if field.name == "login" and (manager.keytab or manager.ccache):
            always = False  # they determine the account
        if value in (None, field.default) and not always:
            continue
        shown.append(f"{field.name}={_format_setting(field.name, value)}")
    return ", ".join(shown)


def _format_setting(name: str, value: object) -> str:
    if name in _SECRET_FIELDS:
        return "(set)"
    if value is None:
        return "(empty: the worker's own identity)" if name == "login" else "(empty)"
    if name == "ca_certificate" and str(value).startswith("-----BEGIN"):
        return "(PEM text)"
    if name in _PATH_FIELDS:
        return describe_path(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
