"""Signs in with each channel binding in turn, to learn which of them a server with Extended Protection takes."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterator

from airflow_provider_smtpcm.check.recorder import Recorder
from airflow_provider_smtpcm.check.report import Around
from airflow_provider_smtpcm.connection_manager import AuthMode, ChannelBinding, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import AuthenticationError, MailError
from airflow_provider_smtpcm.smtp.session import Session

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
        recorder.skip(Around.BINDINGS, why_not)
        return remedy
    recorder.begin(Around.BINDINGS)
    own = manager.channel_binding
    results = {own: failure} | dict(_others(manager, context, give_up_at))
    for kind, error in results.items():
        mine = " (the connection's own)" if kind is own else ""
        recorder.tell(Around.BINDINGS, f"{kind}{mine}: {_told(kind, error)}")
    passing = [kind for kind, error in results.items() if error is None]
    if failure is None:
        recorder.end()
        return ""
    if passing:
        best = next(kind for kind in _STRONGEST_FIRST if kind in passing)
        recorder.warn(Around.BINDINGS, f"What passes: {', '.join(passing)}.")
        remedy = f"Set 'Channel binding' to '{best}': with it this server lets this account in."
    else:
        recorder.warn(Around.BINDINGS, "None of them passes, so that the binding is hardly what is wrong.")
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
