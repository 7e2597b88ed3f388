"""Kerberos: tickets from a password, a keytab, a credential cache or the worker's own identity, and what goes wrong.

Nothing here changes the process's environment, which workers share: tickets that we get ourselves live in a cache in
memory. Knows no socket and no SMTP.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import describe_path
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kerberos_errors import (
    NO_SUCH_TICKET,
    SERVICE_UNKNOWN,
    error_code,
    kerberos_error,
)
from airflow_provider_smtpcm.smtp.auth.ntlm import spnego_client
from airflow_provider_smtpcm.smtp.auth.principals import principal_name, service_names

if TYPE_CHECKING:
    from concurrent.futures import Future

    from spnego import ContextProxy
    from spnego.channel_bindings import GssChannelBindings


# folded: Calls into the Kerberos library, which has no deadline of its own: each runs in a thread, and is waited for
#   so long.
#   A call that was given up cannot be ended. MIT's library asks a KDC that is silent for about half a minute.

#: A call that takes longer has hung, whatever the KDC does: it no longer says anything about the next one.
STUCK_SECONDS = 90.0

T = TypeVar("T")


class TimedCalls:
    """Makes calls, and remembers the one that was given up last. Threads may share it.

    Args:
        source: where the tickets come from, for the error.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        # Its thread, and when it began.
        self._given_up: tuple[threading.Thread, float] | None = None

    def within(self, seconds: float, call: Callable[[], T]) -> T:
        """The result of a call.

        As long as one that was given up goes on, a further one would wait for the same KDC, and is refused at once: the
        sessions of a batch wait for a silent KDC once, and not one after the other.

        Args:
            seconds: how long it is waited for.
            call: what to do; it goes on when it was given up.

        Raises:
            AuthenticationError: it did not come to its end, or whatever it raised.
        """
        began = time.monotonic()
        if self._given_up is not None:
            thread, since = self._given_up
            if thread.is_alive() and began - since < STUCK_SECONDS:
                raise self._no_answer(began - since)
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                outcome.append((None, error))

        thread = threading.Thread(target=run, daemon=True, name="smtpcm-kerberos")
        thread.start()
        thread.join(seconds)
        if not outcome:
            self._given_up = thread, began
            raise self._no_answer(seconds)
        result, error = outcome[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _no_answer(self, seconds: float) -> AuthenticationError:
        return AuthenticationError(
            f"Kerberos ({self._source}): no KDC answered within {round(seconds, 1):g} seconds.",
            remedy="Check krb5.conf, the network and the firewall between this worker and the KDC (port 88).",
            retryable=True,
        )


# folded: here began the module itself

log = logging.getLogger(__name__)

# A ticket that ends within this many seconds is fetched anew.
_SPARE_SECONDS = 120

# The library's context and cache, kept since the cache in memory lives as long as they do; the cache's name; and the
# end of the ticket in it (seconds since 1970).
_Ticket: TypeAlias = tuple[Any, Any, str, float]


class KerberosClient:
    """Who we are to Kerberos, and the way to a security context. One for each hook; threads may share it.

    Args:
        manager: the account, keytab or credential cache, and the server.
    """

    def __init__(self, manager: SmtpConnectionManager) -> None:
        self._manager = manager
        self._lock = threading.Lock()
        self._cache: _Ticket | None = None
        # The ticket that is being fetched, for all who need one, and since when.
        self._fetching: tuple[Future[_Ticket], float] | None = None
        #: `service/host` for which the KDC gave a ticket; None until it did.
        self.spn: str | None = None

    @property
    def credential_source(self) -> str:
        """Where tickets come from, for the log."""
        manager = self._manager
        if manager.keytab:
            return f"keytab {describe_path(manager.keytab)}"
        if manager.ccache:
            return f"credential cache {describe_path(manager.ccache)}"
        return f"password of {manager.login}" if manager.login else "the worker's own credential cache or keytab"

    @property
    def identity(self) -> str:
        """The principal, as far as this side knows it."""
        with contextlib.suppress(Exception):
            import krb5

            library = krb5.init_context()
            cache = self._open_cache(library)
            if cache.principal is not None:
                return krb5.unparse_name_flags(library, cache.principal).decode()
        return self._manager.login or "the worker's own identity"

    @property
    def ticket(self) -> tuple[str, float] | None:
        """The server's principal and the end (seconds since 1970) of the ticket for it; None where none is found."""
        with contextlib.suppress(Exception):
            import krb5

            library = krb5.init_context()
            found = {
                krb5.unparse_name_flags(library, entry.server).decode(): float(entry.times.endtime)
                for entry in self._open_cache(library)
            }
            return max(
                (item for item in found.items() if item[0].partition("@")[0].lower() == (self.spn or "").lower()),
                key=operator.itemgetter(1),
            )
        return None

    def _open_cache(self, library: Any) -> Any:
        """Where the tickets are."""
        import krb5

        if self._cache is not None:
            return self._cache[1]
        if self._manager.ccache:
            return krb5.cc_resolve(library, self._cache_name().encode())
        return krb5.cc_default(library)

    def _cache_name(self) -> str:
        """With its type, which is FILE where it has none."""
        name = self._manager.ccache or ""
        return name if re.match(r"[A-Z]{2,}:", name) else f"FILE:{name}"

    def context(self, bindings: GssChannelBindings | None, *, spnego_wrapped: bool) -> tuple[ContextProxy, bytes]:
        """A security context for the server, after its first step, and the token of that step.

        Args:
            bindings: what ties it to the TLS line.
            spnego_wrapped: whether the tokens are SPNEGO's, with Kerberos alone inside.

        Raises:
            AuthenticationError: no ticket; the reason is the KDC's or the Kerberos library's.
        """
        credential = self._credential()
        context, token = self._first_step(credential, bindings)
        if not spnego_wrapped:
            return context, token
        service, _, host = (self.spn or "").partition("/")
        # A credential that is Kerberos's alone: with the worker's own the server could choose NTLM.
        credential = credential or self._default_cache()
        context = _client(credential, "negotiate", service, host, bindings)
        try:
            token = context.step() or b""
        except Exception as error:  # noqa: BLE001 - see kerberos_error, which takes all that the libraries raise
            raise self._error(error, self.spn or "") from None
        if context.negotiated_protocol != "kerberos":  # pyspnego falls to NTLM without a word
            raise AuthenticationError(
                "SPNEGO would have taken NTLM where Kerberos was asked for.",
                remedy="Set 'Windows protocol' to 'ntlm' if that is wanted.",
            )
        return context, token

    def _first_step(self, credential: Any, bindings: GssChannelBindings | None) -> tuple[ContextProxy, bytes]:
        """Ask for a ticket under each name that the server may have, until the KDC knows one."""
        names = [self.spn] if self.spn else service_names(self._manager)
        for name in names:
            service, _, host = name.partition("/")
            try:
                context = _client(credential, "kerberos", service, host, bindings)
                token = context.step()
            except Exception as error:  # noqa: BLE001 - GSSAPI, krb5 and pyspnego each have their own family
                if error_code(error) in (SERVICE_UNKNOWN, NO_SUCH_TICKET) and name != names[-1]:
                    log.debug("The KDC does not know %s; trying %s.", name, names[-1])
                    continue
                raise self._error(error, " or ".join(names)) from None
            self.spn = name
            return context, token or b""
        raise AssertionError("there is always a name")

    def _error(self, error: Exception, spn: str) -> AuthenticationError:
        return kerberos_error(error, self.credential_source, spn, by_password=bool(self._manager.password))

    def _default_cache(self) -> Any:
        """The worker's own cache, which the first step has filled from its keytab if it had to."""
        import krb5
        import spnego

        return spnego.KerberosCCache(krb5.cc_default_name(krb5.init_context()).decode())

    def _credential(self) -> Any:
        """What pyspnego takes; None is the worker's own identity, which the Kerberos library finds by itself."""
        import spnego

        manager = self._manager
        if manager.ccache:
            name = self._cache_name()
            _must_exist("Credential cache (ccache)", name.removeprefix("FILE:") if name.startswith("FILE:") else None)
            principal = principal_name(manager) if manager.login else None
            return spnego.KerberosCCache(name, principal)
        if not (manager.keytab or manager.password):
            return None
        cache = self._cache
        if cache is None or time.time() > cache[3] - _SPARE_SECONDS:
            try:
                cache = self._fetched_once(cache)
            except AuthenticationError as error:
                if not error.retryable or cache is None or time.time() > cache[3]:
                    raise
                log.warning("%s The ticket at hand is good for a moment yet.", error)
        return spnego.KerberosCCache(cache[2])

    def _fetched_once(self, seen: _Ticket | None) -> _Ticket:
        """Fetch a ticket, or wait for the one that another thread fetches.

        No lock is held meanwhile: a thread that hangs in the Kerberos library would hold it for ever.

        Args:
            seen: the ticket that is no longer good.
        """
        from concurrent.futures import Future

        mine: tuple[Future[_Ticket], float] | None = None
        with self._lock:
            if self._cache is not None and self._cache is not seen:
                return self._cache
            if self._fetching is None or time.monotonic() - self._fetching[1] > STUCK_SECONDS:
                self._fetching = mine = Future(), time.monotonic()
            fetching, _ = self._fetching
        if mine is not None:
            try:
                self._cache = self._fetch_ticket()
                fetching.set_result(self._cache)
            except BaseException as error:  # noqa: BLE001 - raised below, and in each thread that waits for it
                fetching.set_exception(error)
            with self._lock:
                if self._fetching is mine:
                    self._fetching = None
        return fetching.result()

    def _fetch_ticket(self) -> _Ticket:
        """Get a ticket-granting ticket into a cache in memory, as kinit does into a file."""
        import krb5

        manager = self._manager
        secret = b""
        try:
            library = krb5.init_context()
            options = krb5.get_init_creds_opt_alloc(library)
            krb5.get_init_creds_opt_set_canonicalize(options, canonicalize=True)
            if manager.keytab:
                _must_exist("Keytab (keytab)", manager.keytab.removeprefix("FILE:"))
                keytab = krb5.kt_resolve(library, manager.keytab.encode())
                # Copied, since an entry's principal goes with the entry.
                first = [krb5.unparse_name_flags(library, entry.principal) for entry in keytab][:1]
                if not first:
                    raise AuthenticationError(
                        f"Keytab (keytab): {describe_path(manager.keytab)} holds no key.",
                        remedy="Look into it with klist -k; export it anew if need be.",
                    )
                name = principal_name(manager).encode() if manager.login else first[0]
                principal = krb5.parse_name_flags(library, name)
                ticket = krb5.get_init_creds_keytab(library, principal, options, keytab=keytab)
            else:
                principal = krb5.parse_name_flags(library, principal_name(manager).encode())
                secret = (manager.password or "").encode("utf-8", "replace")
                ticket = krb5.get_init_creds_password(library, principal, options, password=secret)
            cache = krb5.cc_new_unique(library, b"MEMORY")
            krb5.cc_initialize(library, cache, ticket.client)
            krb5.cc_store_cred(library, cache, ticket)
        except krb5.Krb5Error as error:
            raise self._error(error, "") from None
        finally:
            secret = b""  # not for a traceback that shows what variables held
        # python-krb5 closes a cache and leaves its tickets in the process's memory.
        weakref.finalize(self, _destroy, library, cache)
        return library, cache, f"MEMORY:{(cache.name or b'').decode()}", float(ticket.times.endtime)


def _destroy(library: Any, cache: Any) -> None:
    import krb5

    with contextlib.suppress(krb5.Krb5Error):
        krb5.cc_destroy(library, cache)


def _client(
    credential: Any, protocol: str, service: str, host: str, bindings: GssChannelBindings | None
) -> ContextProxy:
    from spnego import ContextReq

    wanted = ContextReq.mutual_auth | ContextReq.integrity
    return spnego_client(credential, protocol=protocol, service=service, host=host, wanted=wanted, bindings=bindings)


def _must_exist(label: str, path: str | None) -> None:
    if path is not None and not os.access(path, os.R_OK):
        why = "there is no such file" if not Path(path).exists() else "this worker may not read it"
        raise AuthenticationError(
            f"{label}: {describe_path(path)} cannot be used ({why}).",
            remedy="Give the path of a file that exists on the worker and that its user may read.",
        )
