"""Windows Authentication: which mechanism and which protocol, decided once, and why. Nothing weaker is tried instead.

Exchange offers GSSAPI and NTLM; others offer GSS-SPNEGO. Kerberos goes into GSSAPI or GSS-SPNEGO, NTLM into NTLM,
GSS-SPNEGO or (as Exchange and .NET have it) GSSAPI. pyspnego's own choice is not used: it falls to NTLM silently.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager, WindowsProtocol
from airflow_provider_smtpcm.errors import AuthenticationError, clear_frames
from airflow_provider_smtpcm.smtp.auth.channel_binding import channel_bindings
from airflow_provider_smtpcm.smtp.auth.exchange import Mechanism, exchange, gss_spnego, gssapi, ntlm
from airflow_provider_smtpcm.smtp.auth.kerberos import Kerberos, KerberosCalls
from airflow_provider_smtpcm.smtp.auth.kerberos_errors import AccountRefusedError, kerberos_error
from airflow_provider_smtpcm.smtp.auth.ntlm import USER_FILE, ntlm_context, ntlm_identity
from airflow_provider_smtpcm.smtp.auth.principals import principal_name, realm_is_configured, service_names
from airflow_provider_smtpcm.smtp.auth.remedies import How
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.transport import Transport

if TYPE_CHECKING:
    from spnego.channel_bindings import GssChannelBindings


log = logging.getLogger(__name__)

# How long a worker may look for a KDC where Kerberos is only the better way; once for each hook.
KERBEROS_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """How we got in.

    Args:
        mechanism: the SASL mechanism.
        protocol: `Kerberos` or `NTLM`.
        identity: who we are to the server, as far as this side knows.
        reason: why this protocol.
    """

    mechanism: str
    protocol: str
    identity: str
    reason: str

    def __str__(self) -> str:
        inside = "" if self.mechanism == self.protocol else f" ({self.protocol})"
        return f"{self.mechanism}{inside} as {self.identity}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    how: SignedIn
    steps: Mechanism


class WindowsSignIn:
    """Signs sessions in. One for each hook: what it found out about Kerberos it keeps. Threads may share it.

    Args:
        manager: the account, the server, and what the connection allows.
    """

    def __init__(self, manager: SmtpConnectionManager) -> None:
        self._manager = manager
        self._kerberos = Kerberos(manager)
        self._calls = KerberosCalls(self._kerberos.credential_source)
        self._deciding = threading.Lock()
        self._kerberos_works = False
        self._kerberos_ruled_out: str | None = None
        # Until one sign-in was good, the others wait for its outcome; what was refused is not tried again.
        self._proving = threading.RLock()
        self._proved = False
        self._refused: AuthenticationError | None = None

    def sign_in(self, wire: Transport, extensions: Mapping[str, str], *, trace: Trace = LOG) -> SignedIn:
        """Sign in over this line.

        Args:
            wire: after EHLO, and after TLS where TLS is wanted.
            extensions: what the server offers now.
            trace: hears of each step.

        Raises:
            AuthenticationError: with what the server offered or answered, and the remedy. A refused account is not
                tried again, here or in another thread, since a few tries lock it. The frames of what is raised hold
                no password, hash or token.
        """
        before = sys.exception()
        try:
            return self._sign_in_once(wire, extensions, trace)
        except BaseException as error:
            clear_frames(error, before)
            raise

    def _sign_in_once(self, wire: Transport, extensions: Mapping[str, str], trace: Trace) -> SignedIn:
        if self._proved:
            return self._sign_in(wire, extensions, trace)
        # Each holder may use up a deadline of its own, so no one waits for all of them.
        if not self._proving.acquire(timeout=wire.seconds_left(wire.timeout)):
            raise wire.deadline_error("did not end the sign-in of another session, whose outcome this one waited for,")
        try:
            if self._refused is not None:
                raise copy.copy(self._refused)  # without the frames of another thread
            try:
                signed_in = self._sign_in(wire, extensions, trace)
            except AuthenticationError as error:
                if isinstance(error, AccountRefusedError) or (error.reply is not None and error.reply.code == 535):
                    self._refused = copy.copy(error)
                raise
            self._proved = True
            return signed_in
        finally:
            self._proving.release()

    def _sign_in(self, wire: Transport, extensions: Mapping[str, str], trace: Trace) -> SignedIn:
        trace.begin(Step.MECHANISMS)
        offered = extensions.get("AUTH", "").upper().split()
        if not {"NTLM", "GSSAPI", "GSS-SPNEGO"} & set(offered):
            raise _nothing_offered(wire, offered, extensions)
        trace.tell(Step.MECHANISMS, ", ".join(offered))
        trace.begin(Step.BINDING)
        bindings = channel_bindings(self._manager.channel_binding, wire)
        clear = "none, since there is no TLS to bind to"
        trace.tell(Step.BINDING, str(self._manager.channel_binding) if wire.tls_version else clear)
        trace.begin(Step.CHOICE)
        attempt = self._choose(offered, bindings, wire, trace)
        trace.tell(Step.CHOICE, f"{attempt.how}: {attempt.how.reason}")
        # A reason may be a sentence of its own, whose full stop has no place in brackets.
        reason = attempt.how.reason.removesuffix(".")
        log.info("%s offers %s now; signing in by %s (%s).", wire.peer, " ".join(offered), attempt.how, reason)
        try:
            how = How(protocol=attempt.how.protocol, identity=attempt.how.identity, bound=bindings is not None)
            exchange(wire, attempt.how.mechanism, attempt.steps, how=how, trace=trace)
        except AuthenticationError as error:
            if attempt.how.protocol == "NTLM" and self._kerberos_ruled_out:
                # Whoever reads that NTLM failed has to know why it was not Kerberos.
                error.message += f" (Kerberos was tried first. {self._kerberos_ruled_out})"
            raise
        return attempt.how

    def _choose(
        self, offered: list[str], bindings: GssChannelBindings | None, wire: Transport, trace: Trace
    ) -> _Attempt:
        wanted = self._manager.windows_protocol
        if wanted is WindowsProtocol.NTLM:
            return self._by_ntlm(offered, bindings, "the connection asks for NTLM")
        if wanted is WindowsProtocol.KERBEROS:
            seconds = wire.seconds_left(wire.timeout)
            return self._by_kerberos(offered, bindings, seconds, "the connection asks for Kerberos", trace)
        with self._deciding:
            obstacle = self._obstacle_to_kerberos(offered)
            if self._kerberos_works and obstacle is not None:
                # Kerberos was good a moment ago: who strips it from the offer may be after the NTLM response.
                raise obstacle
            why_not = self._kerberos_ruled_out or (obstacle.message if obstacle else None)
            if why_not is None:
                try:
                    # With nothing to fall to there is no reason to hurry.
                    seconds = wire.seconds_left(KERBEROS_SECONDS if self._has_ntlm_identity() else wire.timeout)
                    attempt = self._by_kerberos(offered, bindings, seconds, "Kerberos comes first", trace)
                except AccountRefusedError:
                    raise
                except AuthenticationError as error:
                    if self._kerberos_works or not self._has_ntlm_identity():
                        raise
                    why_not = self._kerberos_ruled_out = error.message
                    trace.warn(Step.TICKET, f"none, so that Kerberos is out of the question: {why_not}")
                else:
                    self._kerberos_works = True
                    return attempt
        trace.begin(Step.CHOICE)
        if not self._has_ntlm_identity():
            raise AuthenticationError(
                f"Windows Authentication: neither way in is open. Kerberos: {why_not} NTLM: there is no password.",
                remedy=(obstacle.remedy if obstacle else "")
                or "Enter 'User name' and 'Password', a keytab or a credential cache.",
            )
        return self._by_ntlm(offered, bindings, why_not)

    def _obstacle_to_kerberos(self, offered: list[str]) -> AuthenticationError | None:
        """Why Kerberos is not even tried under `negotiate`; None where it is."""
        manager = self._manager
        if not {"GSSAPI", "GSS-SPNEGO"} & set(offered):
            remedy = "Have Kerberos (GSSAPI) enabled on the server, or enter 'User name' and 'Password' for NTLM."
            return AuthenticationError("the server offers NTLM alone.", remedy=remedy)
        if not all(map(importlib.util.find_spec, ("gssapi", "krb5"))):
            return kerberos_error(ImportError(), "", "")
        try:
            service_names(manager)
            realm = principal_name(manager).rpartition("@")[2] if manager.password else None
        except AuthenticationError as error:
            return error
        if realm is None or realm_is_configured(realm):
            return None
        unknown = f"this worker's krb5.conf does not know the realm {realm}."
        return AuthenticationError("the user name carries no realm." if realm == manager.login else unknown)

    def _has_ntlm_identity(self) -> bool:
        manager = self._manager
        return bool(manager.password) or (
            not (manager.login or manager.keytab or manager.ccache) and bool(os.environ.get(USER_FILE))
        )

    def _by_kerberos(
        self, offered: list[str], bindings: GssChannelBindings | None, seconds: float, reason: str, trace: Trace
    ) -> _Attempt:
        mechanism = next((name for name in ("GSSAPI", "GSS-SPNEGO") if name in offered), None)
        if mechanism is None:
            raise AuthenticationError(
                f"The server does not offer Kerberos (GSSAPI or GSS-SPNEGO); it offers {', '.join(offered)}.",
                remedy="Have it enabled there, or set 'Windows protocol' to 'negotiate' or 'ntlm'.",
            )
        wrapped = mechanism == "GSS-SPNEGO"
        trace.begin(Step.TICKET)
        context, token = self._calls.within(seconds, lambda: self._kerberos.context(bindings, spnego_wrapped=wrapped))
        how = SignedIn(mechanism=mechanism, protocol="Kerberos", identity=self._kerberos.identity, reason=reason)
        source = self._kerberos.credential_source
        trace.tell(Step.TICKET, f"{how.identity} for {self._kerberos.spn}, by the {source.removeprefix('the ')}")
        trace.has_ticket(self._kerberos)
        return _Attempt(how=how, steps=(gss_spnego if wrapped else gssapi)(context, token))

    def _by_ntlm(self, offered: list[str], bindings: GssChannelBindings | None, reason: str) -> _Attempt:
        mechanism = next(name for name in ("NTLM", "GSS-SPNEGO", "GSSAPI") if name in offered)
        steps = {"NTLM": ntlm, "GSS-SPNEGO": gss_spnego, "GSSAPI": gssapi}[mechanism]
        identity = ntlm_identity(self._manager)
        context, token = ntlm_context(self._manager, identity, bindings, mechanism=mechanism)
        who = identity.account if self._manager.login else f"{identity.account}, the worker's own identity"
        how = SignedIn(mechanism=mechanism, protocol="NTLM", identity=who, reason=reason)
        return _Attempt(how=how, steps=steps(context, token))


def _nothing_offered(wire: Transport, offered: list[str], extensions: Mapping[str, str]) -> AuthenticationError:
    if offered:
        return AuthenticationError(
            f"{wire.peer} does not offer Windows Authentication (GSSAPI, GSS-SPNEGO or NTLM); it offers "
            f"{', '.join(offered)}.",
            remedy="Have 'Integrated Windows authentication' enabled on the server's receive connector; this package "
            "sends no password by PLAIN or LOGIN.",
        )
    seen = ", ".join(extensions) or "no extension"
    clear = "" if wire.tls_version else " Many servers offer it after TLS only: set SSL to 'STARTTLS'."
    return AuthenticationError(
        f"{wire.peer} offers no authentication at all (it offers {seen}).",
        remedy="If it takes mail from this worker without signing in, set Authentication to 'Anonymous'; else have "
        f"Windows Authentication enabled on the server.{clear}",
    )
