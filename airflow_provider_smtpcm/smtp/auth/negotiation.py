"""Windows Authentication: chooses the SASL mechanism and the protocol, and signs sessions in.

Exchange offers the mechanisms GSSAPI and NTLM; other servers offer GSS-SPNEGO. The Kerberos protocol needs GSSAPI or
GSS-SPNEGO; the NTLM protocol needs NTLM, GSS-SPNEGO or (as Exchange and .NET use it) GSSAPI. The choice is made once
and nothing weaker is tried afterward. pyspnego's own negotiation is not used, since it falls back to NTLM silently.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import ChannelBinding, SmtpConnectionManager, WindowsProtocol
from airflow_provider_smtpcm.errors import AuthenticationError, MailError, clear_frames
from airflow_provider_smtpcm.smtp.auth.kerberos_errors import explain_kerberos_error
from airflow_provider_smtpcm.smtp.auth.ntlm import USER_FILE_VARIABLE, create_ntlm_context, find_ntlm_identity
from airflow_provider_smtpcm.smtp.auth.sasl import (
    AccountRefusedError,
    Authentication,
    Mechanism,
    authenticate,
    gss_spnego_mechanism,
    gssapi_mechanism,
    ntlm_mechanism,
)
from airflow_provider_smtpcm.smtp.tls import UNDEFINED_END_POINT, compute_channel_bindings
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.transport import Transport

if TYPE_CHECKING:
    from spnego.channel_bindings import GssChannelBindings

    from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

log = logging.getLogger(__name__)

# Seconds to wait for a KDC's first answer if NTLM is possible too. Only the first session of a hook waits.
KDC_TIMEOUT = 5.0
#: For so many seconds after a sign-in others need not wait for their turn: the password has hardly changed since.
TRUST_SECONDS = 60.0
#: A temporary failure is also that of sign-ins that come within this many seconds after it, as from other sessions of
#: the same batch.
SHARED_SECONDS = 1.0

_KERBEROS_MECHANISMS = {"GSSAPI": gssapi_mechanism, "GSS-SPNEGO": gss_spnego_mechanism}
_NTLM_MECHANISMS = {"NTLM": ntlm_mechanism, "GSS-SPNEGO": gss_spnego_mechanism, "GSSAPI": gssapi_mechanism}


class AccountState:
    """What the sign-ins of an account at all servers of a connection have shown."""

    def __init__(self) -> None:
        #: Held during a sign-in, unless the account was accepted within `TRUST_SECONDS`.
        self.sign_in_lock = threading.RLock()
        #: When (`time.monotonic`) the account was last accepted, unless a sign-in has failed since.
        self.accepted_at = -math.inf
        #: Whether the account was accepted, so that a broken connection is probably no refusal.
        self.is_trusted = False
        #: Why the account was refused, or may have been; None: it was not.
        self.refusal: AuthenticationError | None = None


class WindowsAuthenticator:
    """Signs sessions in. Each hook has one; it remembers whether Kerberos works and whether the account was refused.

    Thread-safe. A few sign-ins with a wrong password lock an account. So until one has succeeded, only one runs at a
    time, and those that came meanwhile share its failure; an account that was refused, or may have been, is not tried
    again.

    Args:
        manager: the account, the server, and what the connection allows.
        account: the state of the account, shared by the authenticators for a connection's servers; None: a new one.
    """

    def __init__(self, manager: SmtpConnectionManager, *, account: AccountState | None = None) -> None:
        self._manager = manager
        self.account = account or AccountState()
        self._protocol_lock = threading.Lock()
        self._has_used_kerberos = False
        # Why Kerberos was given up, as an error's message; None until then.
        self._kerberos_failure: str | None = None
        # The last temporary failure at this server, and when it was (`time.monotonic`).
        self._temporary_failure: AuthenticationError | None = None
        self._failed_at = -math.inf

    @cached_property
    def _kerberos(self) -> KerberosClient:
        """The client for tickets. An NTLM sign-in needs neither it nor its module."""
        from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

        return KerberosClient(self._manager)

    def authenticate(
        self, transport: Transport, extensions: Mapping[str, str], *, trace: Trace = LOG
    ) -> Authentication:
        """Sign in over this connection.

        Args:
            transport: a transport after EHLO, and with TLS unless clear text is allowed.
            extensions: the extensions in the server's latest reply to EHLO.
            trace: receives each step.

        Raises:
            AuthenticationError: the sign-in is not possible, or was refused. No frame of its traceback holds a
                password, a hash or a token.
        """
        handled = sys.exception()
        try:
            if self.account.refusal is None and time.monotonic() < self.account.accepted_at + TRUST_SECONDS:
                return self._try_account(transport, extensions, trace)
            with self._wait_for_turn(transport):
                return self._try_account(transport, extensions, trace)
        except BaseException as error:
            clear_frames(error, handled)
            raise

    @contextmanager
    def _wait_for_turn(self, transport: Transport) -> Iterator[None]:
        """Wait until no other sign-in runs.

        Raises:
            AuthenticationError: the account was refused, or the sign-in on which this one waited has failed.
        """
        began = time.monotonic()
        # Each session ahead in the queue may run until its own deadline; waiting for all could exceed this session's.
        if not self.account.sign_in_lock.acquire(timeout=transport.seconds_left(transport.timeout)):
            if "_kerberos" in vars(self):
                self._kerberos.raise_if_kdc_is_silent()  # then it is not the mail server that is slow
            raise transport.deadline_error("did not finish another session's sign-in, on which this session waited,")
        try:
            if self.account.refusal is not None:
                raise copy.copy(self.account.refusal)  # without the frames of another thread
            if self._temporary_failure is not None and self._failed_at > began - SHARED_SECONDS:
                raise copy.copy(self._temporary_failure)
            yield
        finally:
            self.account.sign_in_lock.release()

    def _try_account(self, transport: Transport, extensions: Mapping[str, str], trace: Trace) -> Authentication:
        """Sign in, and record the result for later sign-ins."""
        account = self.account
        was_trusted = account.is_trusted
        try:
            authentication = self._sign_in(transport, extensions, trace)
        except AccountRefusedError as error:
            account.accepted_at, account.is_trusted = -math.inf, False
            broken = error.__cause__
            if was_trusted and isinstance(broken, MailError) and broken.retryable:
                raise broken from None  # if the next sign-in ends like this too, the account counts as refused
            account.refusal = copy.copy(error)
            raise
        except AuthenticationError as error:
            account.accepted_at = -math.inf
            if error.retryable:
                self._temporary_failure, self._failed_at = copy.copy(error), time.monotonic()
            raise
        account.accepted_at, account.is_trusted = time.monotonic(), True
        return authentication

    def _sign_in(self, transport: Transport, extensions: Mapping[str, str], trace: Trace) -> Authentication:
        trace.begin(Step.MECHANISMS)
        offered = extensions.get("AUTH", "").upper().split()
        if not _NTLM_MECHANISMS.keys() & set(offered):
            raise _no_mechanism_error(transport, offered, extensions)
        trace.info(Step.MECHANISMS, ", ".join(offered))
        trace.begin(Step.BINDING)
        kind = self._manager.channel_binding
        bindings = compute_channel_bindings(kind, transport, is_required=self._manager.is_binding_required)
        if transport.tls_version is None:
            trace.info(Step.BINDING, "none, since there is no TLS to bind to")
        elif bindings is None and kind is not ChannelBinding.NONE:
            trace.info(Step.BINDING, f"none: {UNDEFINED_END_POINT}, so no server can check a binding")
        else:
            trace.info(Step.BINDING, str(kind))
        trace.begin(Step.CHOICE)
        authentication, mechanism = self._choose_protocol(offered, bindings, transport, trace)
        is_binding_off = kind is ChannelBinding.NONE and transport.tls_version is not None
        authentication = dataclasses.replace(authentication, is_binding_off=is_binding_off)
        trace.info(Step.CHOICE, f"{authentication}: {authentication.reason}")
        # The reason may be a sentence; its period does not belong in parentheses.
        reason = authentication.reason.removesuffix(".")
        log.info("%s offers %s; signing in with %s (%s).", transport.peer, " ".join(offered), authentication, reason)
        try:
            authenticate(transport, mechanism, authentication, trace=trace)
        except AuthenticationError as error:
            if authentication.protocol == "NTLM" and self._kerberos_failure:
                error.message += f" (Kerberos was tried first. {self._kerberos_failure})"
            elif (
                authentication.protocol == "NTLM"
                and authentication.offers_kerberos
                and (self._manager.windows_protocol is WindowsProtocol.NEGOTIATE)
            ):
                error.message += f" (Kerberos was not possible: {reason}.)"
            raise
        return authentication

    def _choose_protocol(
        self, offered: list[str], bindings: GssChannelBindings | None, transport: Transport, trace: Trace
    ) -> tuple[Authentication, Mechanism]:
        """Return the sign-in to use, and its mechanism with the first token."""
        protocol = self._manager.windows_protocol
        if protocol is WindowsProtocol.NTLM:
            return self._prepare_ntlm(offered, bindings, "the connection asks for NTLM")
        if protocol is WindowsProtocol.KERBEROS:
            return self._prepare_kerberos(
                offered,
                bindings,
                transport,
                "the connection asks for Kerberos",
                trace,
                timeout=transport.timeout,
            )
        with self._protocol_lock:
            obstacle = self._find_kerberos_obstacle(offered)
            if self._has_used_kerberos and obstacle is not None:
                # Kerberos worked before, so its removal from the offer may be an attack to obtain an NTLM response.
                raise obstacle
            kerberos_problem = self._kerberos_failure or (obstacle.message if obstacle else None)
            if kerberos_problem is None:
                try:
                    timeout = KDC_TIMEOUT if self._has_ntlm_identity() else transport.timeout
                    prepared = self._prepare_kerberos(
                        offered, bindings, transport, "Kerberos is preferred", trace, timeout=timeout
                    )
                except AccountRefusedError:
                    raise
                except AuthenticationError as error:
                    if self._has_used_kerberos or not self._has_ntlm_identity():
                        raise
                    kerberos_problem = self._kerberos_failure = error.message
                    trace.warn(Step.TICKET, f"none, so Kerberos is not possible: {kerberos_problem}")
                else:
                    self._has_used_kerberos = True
                    return prepared
        trace.begin(Step.CHOICE)
        if not self._has_ntlm_identity():
            raise AuthenticationError(
                "Windows Authentication: neither Kerberos nor NTLM is possible. "
                f"Kerberos: {kerberos_problem} NTLM: there is no password.",
                remedy=(obstacle.remedy if obstacle else "")
                or "Enter 'User name' and 'Password', a keytab or a credential cache.",
            )
        return self._prepare_ntlm(offered, bindings, kerberos_problem)

    def _find_kerberos_obstacle(self, offered: list[str]) -> AuthenticationError | None:
        """Return why `negotiate` has to skip Kerberos, if that is known without asking a KDC; else None."""
        manager = self._manager
        if not _KERBEROS_MECHANISMS.keys() & set(offered):
            remedy = "Have Kerberos (GSSAPI) enabled on the server, or enter 'User name' and 'Password' for NTLM."
            return AuthenticationError("the server offers only NTLM.", remedy=remedy)
        if not all(map(importlib.util.find_spec, ("gssapi", "krb5"))):
            return explain_kerberos_error(ImportError(), "", "")
        from airflow_provider_smtpcm.smtp.auth.kerberos_names import (
            is_realm_configured,
            list_client_names,
            list_service_names,
        )

        try:
            list_service_names(manager)
            names = list_client_names(manager) if manager.password else []
        except AuthenticationError as error:
            return error
        if not names or any(is_realm_configured(name.realm) for name in names):
            return None
        realm = names[0].realm
        unknown = f"krb5.conf does not know the realm {realm}" if realm else "the user name has no realm"
        return AuthenticationError(f"{unknown}, and krb5.conf names no default realm.")

    def _has_ntlm_identity(self) -> bool:
        manager = self._manager
        return bool(manager.password) or (
            not (manager.login or manager.keytab or manager.ccache) and bool(os.environ.get(USER_FILE_VARIABLE))
        )

    def _prepare_kerberos(
        self,
        offered: list[str],
        bindings: GssChannelBindings | None,
        transport: Transport,
        reason: str,
        trace: Trace,
        *,
        timeout: float,
    ) -> tuple[Authentication, Mechanism]:
        name = next((name for name in _KERBEROS_MECHANISMS if name in offered), None)
        if name is None:
            raise AuthenticationError(
                f"The server does not offer Kerberos (GSSAPI or GSS-SPNEGO); it offers {', '.join(offered)}.",
                remedy="Have it enabled there, or set 'Windows protocol' to 'negotiate' or 'ntlm'.",
            )
        trace.begin(Step.TICKET)
        kerberos = self._kerberos
        context, token = kerberos.create_context(
            bindings,
            in_spnego=name == "GSS-SPNEGO",
            timeout=transport.seconds_left(timeout),
            proof_timeout=transport.seconds_left(transport.timeout),
        )
        authentication = Authentication(
            mechanism=name,
            protocol="Kerberos",
            identity=kerberos.identity,
            reason=reason,
            has_channel_binding=bindings is not None,
            clock_offset=kerberos.clock_offset,
        )
        source = kerberos.credential_source.removeprefix("the ")
        trace.info(Step.TICKET, f"{authentication.identity} for {kerberos.spn}, from the {source}")
        trace.on_ticket(kerberos)
        return authentication, _KERBEROS_MECHANISMS[name](context, token)

    def _prepare_ntlm(
        self, offered: list[str], bindings: GssChannelBindings | None, reason: str
    ) -> tuple[Authentication, Mechanism]:
        name = next(name for name in _NTLM_MECHANISMS if name in offered)
        identity = find_ntlm_identity(self._manager)
        context, token = create_ntlm_context(self._manager, identity, bindings, mechanism=name)
        note = "" if self._manager.login else ", the worker's own identity"
        authentication = Authentication(
            mechanism=name,
            protocol="NTLM",
            identity=f"{identity.account}{note}",
            reason=reason,
            has_channel_binding=bindings is not None,
            offers_kerberos=bool(_KERBEROS_MECHANISMS.keys() & set(offered)),
        )
        return authentication, _NTLM_MECHANISMS[name](context, token)


def _no_mechanism_error(transport: Transport, offered: list[str], extensions: Mapping[str, str]) -> AuthenticationError:
    if offered:
        return AuthenticationError(
            f"{transport.peer} does not offer Windows Authentication (GSSAPI, GSS-SPNEGO or NTLM); it offers "
            f"{', '.join(offered)}.",
            remedy="Have 'Integrated Windows authentication' enabled on the server's receive connector; this package "
            "sends no password with PLAIN or LOGIN.",
        )
    extension_names = ", ".join(extensions) or "no extensions"
    tls_hint = "" if transport.tls_version else " Many servers offer it only after TLS: set SSL to 'STARTTLS'."
    return AuthenticationError(
        f"{transport.peer} offers no authentication at all (it offers {extension_names}).",
        remedy="If it accepts mail from this worker without a sign-in, set Authentication to 'Anonymous'; otherwise "
        f"have Windows Authentication enabled on the server.{tls_hint}",
    )
