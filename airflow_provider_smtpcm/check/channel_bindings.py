"""Trials of channel bindings: one sign-in with each, to find out which ones a server accepts."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterator, Mapping

from airflow_provider_smtpcm.check.report import CheckStep, StepRecorder
from airflow_provider_smtpcm.connection_manager import AuthMode, ChannelBinding, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import AuthenticationError, MailError
from airflow_provider_smtpcm.smtp.auth.remedies import find_account_remedy
from airflow_provider_smtpcm.smtp.session import Session

_STRONGEST_FIRST = (ChannelBinding.TLS_SERVER_END_POINT, ChannelBinding.TLS_UNIQUE, ChannelBinding.NONE)
_BEHIND_PROXY = (
    " Or a proxy or load balancer ends TLS in front of a server that requires bindings (ExtendedProtectionPolicy "
    "'Require'): then none can match. Connect to the server itself, or have the policy set to 'Allow' and set 'Channel "
    "binding' to 'none'."
)
_DO_NOT_REPEAT = " Do not repeat this with a password that may be wrong."


class BindingTrials:
    """The channel bindings of a connection at one server.

    Args:
        manager: the connection, with its own binding.
        recorder: receives the step.
        give_up_at: the deadline (`time.monotonic`) of every sign-in.
    """

    def __init__(self, manager: SmtpConnectionManager, recorder: StepRecorder, *, give_up_at: float) -> None:
        self._manager = manager
        self._recorder = recorder
        self._give_up_at = give_up_at

    def is_binding_suspect(self, error: MailError) -> bool:
        """Return whether the server may have refused the sign-in because of the binding."""
        manager = self._manager
        if _is_account_unusable(error):
            return False  # a further sign-in would prolong that
        return _is_535(error) and manager.auth_mode is AuthMode.WINDOWS and manager.ssl_mode is not SslMode.NONE

    def run(self, failure: MailError | None, context: ssl.SSLContext | None) -> str:
        """Sign in with every channel binding but the connection's own, and report which ones the server accepts.

        Args:
            failure: the failure with the connection's own binding; None if it was accepted.
            context: the TLS context.

        Returns:
            The remedy for the failure, if there was one.
        """
        recorder = self._recorder
        obstacle = self._find_obstacle_to_bindings(failure)
        if obstacle is not None:
            recorder.skip(CheckStep.BINDINGS, obstacle)
            return failure.remedy if failure else ""
        recorder.begin(CheckStep.BINDINGS)
        own = self._manager.channel_binding
        results = {own: failure} | dict(self._try_other_bindings(context))
        for binding, error in results.items():
            note = " (the connection's own)" if binding is own else ""
            recorder.info(CheckStep.BINDINGS, f"{binding}{note}: {_describe_binding_result(binding, error)}")
        if failure is None:
            recorder.end()
            return ""
        accepted = [binding for binding, error in results.items() if error is None]
        if accepted:
            best = next(binding for binding in _STRONGEST_FIRST if binding in accepted)
            recorder.warn(CheckStep.BINDINGS, f"Accepted: {', '.join(accepted)}.")
            remedy = f"Set 'Channel binding' to '{best}': this server accepts the account with it."
        else:
            recorder.warn(CheckStep.BINDINGS, "No binding was accepted.")
            remedy = self._get_remedy_without_binding(results)
        recorder.end()
        return remedy

    def _get_remedy_without_binding(self, results: Mapping[ChannelBinding, MailError | None]) -> str:
        """Return the remedy if every binding was refused: behind a proxy that ends TLS, none can match."""
        errors = [error for error in results.values() if error is not None]
        if locked := [error for error in errors if _is_account_unusable(error)]:
            return locked[-1].remedy
        plain = results.get(ChannelBinding.NONE)
        caution = _DO_NOT_REPEAT if self._manager.password else ""
        return f"{(plain or errors[0]).remedy}{_BEHIND_PROXY}{caution}"

    def _find_obstacle_to_bindings(self, failure: MailError | None) -> str | None:
        """Return why no other binding can be tried; None if nothing prevents it."""
        if self._manager.auth_mode is not AuthMode.WINDOWS:
            return "an anonymous connection has no sign-in to bind"
        if self._manager.ssl_mode is SslMode.NONE:
            return "without TLS there is nothing to bind to"
        if failure is not None and not _is_535(failure):
            return "the sign-in failed before the server could judge a binding, so no other was tried"
        if failure is not None and _is_account_unusable(failure):
            return "the server says that the account is locked, disabled or expired, so nothing else was tried"
        return None

    def _try_other_bindings(self, context: ssl.SSLContext | None) -> Iterator[tuple[ChannelBinding, MailError | None]]:
        """Try the other bindings; yield each with the error of its sign-in (None: accepted).

        Stops after an error that a further sign-in could make worse (a locked account) or would only repeat.
        """
        for binding in ChannelBinding:
            if binding is self._manager.channel_binding:
                continue
            manager = dataclasses.replace(self._manager, channel_binding=binding)
            try:
                with Session(manager, context=context, give_up_at=self._give_up_at):
                    pass
            except MailError as error:
                yield binding, error
                # An error without a reply: the binding is not defined for this TLS version or certificate.
                is_undefined = isinstance(error, AuthenticationError) and error.reply is None
                if _is_account_unusable(error) or not (_is_535(error) or is_undefined):
                    return
            else:
                yield binding, None


def _describe_binding_result(binding: ChannelBinding, error: MailError | None) -> str:
    if error is None:
        return "accepted"
    if binding is ChannelBinding.TLS_UNIQUE and error.message.endswith("TLSv1.3."):
        return "not tried, as expected: it is defined up to TLS 1.2, and this connection has TLSv1.3."
    return f"not accepted: {error.message}"


def _is_535(error: MailError) -> bool:
    return error.reply is not None and error.reply.code == 535


def _is_account_unusable(error: MailError) -> bool:
    return error.reply is not None and find_account_remedy(error.reply) is not None
