"""Kerberos: tickets (from a password, a keytab, a cache or the worker's identity), and security contexts.

Tickets requested here go into an in-memory cache (type MEMORY), which needs no KRB5CCNAME: changing the environment
would affect every thread of the process.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import describe_path
from airflow_provider_smtpcm.connection_manager.fields import WindowsProtocol
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kdc_calls import STUCK_SECONDS, TimedCalls, unanswered_proof_error
from airflow_provider_smtpcm.smtp.auth.kerberos_errors import (
    CLIENT_UNKNOWN,
    NO_KDC_ANSWERS,
    NO_KDC_KNOWN,
    NO_KEY_IN_KEYTAB,
    NO_SUCH_TICKET,
    NO_SUITABLE_KEY,
    SERVICE_UNKNOWN,
    explain_kerberos_error,
    get_error_code,
)
from airflow_provider_smtpcm.smtp.auth.kerberos_names import (
    find_host_realm,
    get_default_realm,
    is_realm_configured,
    list_client_names,
    list_service_names,
)
from airflow_provider_smtpcm.smtp.auth.sasl import create_context

if TYPE_CHECKING:
    from concurrent.futures import Future

    from spnego import ContextProxy
    from spnego.channel_bindings import GssChannelBindings

    from airflow_provider_smtpcm.smtp.auth.kerberos_names import ClientName

log = logging.getLogger(__name__)

# A ticket is renewed this many seconds before it ends.
_RENEW_BEFORE_END = 120

# With these codes a KDC, or the keytab, does not know one name of an account; another name may be known.
_NAME_UNKNOWN = (CLIENT_UNKNOWN, NO_KDC_KNOWN, NO_KEY_IN_KEYTAB)


class _Ticket(NamedTuple):
    """A ticket-granting ticket in an in-memory cache. Keeping the krb5 objects keeps the cache open."""

    krb5_context: Any
    cache: Any
    cache_name: str
    #: When it expires, in seconds since 1970.
    end: float


class KerberosClient:
    """Creates security contexts for a server. Each hook has one client, so that tickets are reused. Thread-safe.

    Args:
        manager: the account, keytab or credential cache, and the server.
    """

    def __init__(self, manager: SmtpConnectionManager) -> None:
        self._manager = manager
        self._calls = TimedCalls(self.credential_source)
        self._lock = threading.Lock()
        self._ticket: _Ticket | None = None
        # The request in progress, shared by all threads that need its ticket, and when it started (`time.monotonic`).
        self._request: tuple[Future[_Ticket], float] | None = None
        #: The SPN for which the KDC issued a ticket; None until then.
        self.spn: str | None = None

    @property
    def credential_source(self) -> str:
        """The source of the tickets, for messages."""
        manager = self._manager
        if manager.keytab:
            return f"keytab {describe_path(manager.keytab)}"
        if manager.ccache:
            return f"credential cache {describe_path(manager.ccache)}"
        return f"password of {manager.login}" if manager.login else "the worker's own credential cache or keytab"

    @property
    def identity(self) -> str:
        """The principal of the credential cache; if that cannot be read, the login."""
        with contextlib.suppress(Exception):
            import krb5

            krb5_context = krb5.init_context()
            cache = self._open_cache(krb5_context)
            if cache.principal is not None:
                return krb5.unparse_name_flags(krb5_context, cache.principal).decode()
        return self._manager.login or "the worker's own identity"

    @property
    def service_ticket(self) -> tuple[str, float] | None:
        """The server's principal, and when its ticket expires (seconds since 1970); None without a ticket."""
        with contextlib.suppress(Exception):
            import krb5

            krb5_context = krb5.init_context()
            tickets = {
                krb5.unparse_name_flags(krb5_context, entry.server).decode(): float(entry.times.endtime)
                for entry in self._open_cache(krb5_context)
            }
            return max(
                (item for item in tickets.items() if item[0].partition("@")[0].lower() == (self.spn or "").lower()),
                key=operator.itemgetter(1),
            )
        return None

    @property
    def clock_offset(self) -> float:
        """The seconds by which the KDC's clock is ahead of this worker's; 0 if the ticket was not requested here."""
        with contextlib.suppress(Exception):
            import krb5

            if self._ticket is not None:
                return float(krb5.get_time_offsets(self._ticket.krb5_context)[0])
        return 0.0

    def _open_cache(self, krb5_context: Any) -> Any:
        """Return the cache with the tickets that `create_context` uses."""
        import krb5

        if self._ticket is not None:
            return self._ticket.cache
        if self._manager.ccache:
            return krb5.cc_resolve(krb5_context, self._get_ccache_name().encode())
        return krb5.cc_default(krb5_context)

    def _get_ccache_name(self) -> str:
        """Return the name of the connection's credential cache with a type prefix: `FILE:` if it has none."""
        name = self._manager.ccache or ""
        return name if re.match(r"[A-Z]{2,}:", name) else f"FILE:{name}"

    def create_context(
        self, bindings: GssChannelBindings | None, *, in_spnego: bool, timeout: float, proof_timeout: float = 0.0
    ) -> tuple[ContextProxy, bytes]:
        """Create a security context for the server and take its first step; return the context and the token.

        Args:
            bindings: the channel binding; None: the sign-in is not bound to TLS.
            in_spnego: whether the tokens are wrapped in SPNEGO, with Kerberos as the only protocol.
            timeout: seconds to wait for a KDC.
            proof_timeout: seconds to wait in all, if that is longer, once the password was proved to a KDC.

        Raises:
            AuthenticationError: it cannot be created: there is no ticket, for example, or no KDC answered in time.
        """
        return self._calls.run(
            lambda: self._create_context(bindings, in_spnego=in_spnego), timeout=timeout, proof_timeout=proof_timeout
        )

    def raise_if_kdc_is_silent(self) -> None:
        """Raise AuthenticationError if a sign-in of another thread is waiting for a KDC."""
        self._calls.raise_if_silent()

    def _create_context(self, bindings: GssChannelBindings | None, *, in_spnego: bool) -> tuple[ContextProxy, bytes]:
        credential = self._find_credential()
        context, token = self._try_service_names(credential, bindings)
        if not in_spnego:
            return context, token
        context = _wrap_in_spnego(_create_spn_context(credential, self.spn or "", bindings), bindings)
        try:
            token = context.step() or b""
        except Exception as error:  # noqa: BLE001 - as in `_try_service_names`
            raise self._explain_error(error, self.spn or "") from None
        return context, token

    def _try_service_names(self, credential: Any, bindings: GssChannelBindings | None) -> tuple[ContextProxy, bytes]:
        """Create a context for the first SPN that the KDC knows and take its first step; return context and token."""
        names = [self.spn] if self.spn else list_service_names(self._manager)
        for name in names:
            try:
                context = _create_spn_context(credential, name, bindings)
                token = context.step()
            except Exception as error:  # noqa: BLE001 - GSSAPI, krb5 and pyspnego have no common base class
                if get_error_code(error) in (SERVICE_UNKNOWN, NO_SUCH_TICKET) and name != names[-1]:
                    log.debug("The KDC does not know %s; trying %s.", name, names[-1])
                    continue
                raise self._explain_error(error, " or ".join(names)) from None
            self.spn = name
            return context, token or b""
        raise AssertionError("list_service_names returned no name")

    def _explain_error(self, error: Exception, spn: str) -> AuthenticationError:
        return explain_kerberos_error(error, self.credential_source, spn, by_password=bool(self._manager.password))

    def _find_credential(self) -> Any:
        """Return pyspnego's credential object; None for the worker's own identity, which the Kerberos library finds."""
        import spnego

        manager = self._manager
        if manager.ccache:
            name = self._get_ccache_name()
            if name.startswith("FILE:"):
                _require_readable("Credential cache (ccache)", name.removeprefix("FILE:"))
            if manager.login:
                self._require_own_cache()
            return spnego.KerberosCCache(name)
        if not (manager.keytab or manager.password):
            return None
        ticket = self._ticket
        if ticket is None or time.time() > ticket.end - _RENEW_BEFORE_END:
            try:
                ticket = self._renew_ticket(ticket)
            except AuthenticationError as error:
                if not error.retryable or ticket is None or time.time() > ticket.end:
                    raise
                log.warning("%s Using the current ticket, which is still valid.", error)
        return spnego.KerberosCCache(ticket.cache_name)

    def _require_own_cache(self) -> None:
        """Reject a credential cache whose tickets are not those of the login."""
        import krb5

        krb5_context = krb5.init_context()
        names = list_client_names(self._manager)
        try:
            principal = self._open_cache(krb5_context).principal
            if principal is None:
                return  # without tickets; the first step says so
            owner = krb5.unparse_name_flags(krb5_context, principal).decode()
            own_names = [krb5.unparse_name_flags(krb5_context, name.parse(krb5_context)).decode() for name in names]
        except krb5.Krb5Error as error:
            raise self._explain_error(error, "") from None
        if owner.lower() in map(str.lower, own_names):  # Active Directory does not distinguish them
            return
        is_upn = names[0].is_enterprise or not is_realm_configured(names[0].realm)
        # A cache whose principal is itself a UPN (kinit -E without -C) is that of this UPN alone.
        if is_upn and "\\@" not in owner and owner.rpartition("@")[2] == get_default_realm():
            # kinit has replaced the UPN by the account's principal, as the KDC returned it (RFC 6806 6).
            log.info("The credential cache is that of %s; taking it for %s.", owner, self._manager.login)
            return
        raise AuthenticationError(
            f"Kerberos ({self.credential_source}): its tickets are those of {owner}, not of {self._manager.login}.",
            remedy="Leave 'User name' empty to sign in as the cache's account, or run kinit for the other one.",
        )

    def _renew_ticket(self, stale: _Ticket | None) -> _Ticket:
        """Request a ticket, or wait for the one that another thread is requesting.

        No lock is held during the request: a thread that hangs in the Kerberos library would never release it.

        Args:
            stale: the ticket to replace; None: there is none yet.
        """
        from concurrent.futures import Future

        own_request: tuple[Future[_Ticket], float] | None = None
        with self._lock:
            if self._ticket is not None and self._ticket is not stale:
                return self._ticket
            if self._request is None or time.monotonic() - self._request[1] > STUCK_SECONDS:
                self._request = own_request = Future(), time.monotonic()
            result, _ = self._request
        if own_request is not None:
            try:
                self._ticket = self._request_ticket()
                result.set_result(self._ticket)
            except BaseException as error:  # noqa: BLE001 - raised below, and in each thread that waits for it
                result.set_exception(error)
            with self._lock:
                if self._request is own_request:
                    self._request = None
        return result.result()

    def _request_ticket(self) -> _Ticket:
        """Request a ticket-granting ticket into an in-memory cache, as kinit does into a file."""
        import krb5

        manager = self._manager
        principal = None
        source, as_service = self.credential_source, False
        try:
            krb5_context = krb5.init_context()
            options = krb5.get_init_creds_opt_alloc(krb5_context)
            krb5.get_init_creds_opt_set_canonicalize(options, canonicalize=True)
            keytab = self._open_keytab(krb5_context) if manager.keytab else None
            if keytab is not None and not manager.login:
                principals = [_get_first_principal(krb5_context, keytab, manager.keytab or "")]
                first = krb5.unparse_name_flags(krb5_context, principals[0]).decode()
                source, as_service = f"{source}, whose first entry is {first}", "/" in first
            else:
                principals = [name.parse(krb5_context) for name in self._list_client_names()]
                if keytab is not None:
                    principals = [_find_in_keytab(krb5_context, keytab, principal) for principal in principals]
                else:
                    _require_whole_password(manager.password or "")
            for principal in principals:
                try:
                    credentials = self._ask_kdc(krb5_context, principal, options, keytab)
                    break
                except krb5.Krb5Error as error:
                    if get_error_code(error) not in _NAME_UNKNOWN or principal is principals[-1]:
                        raise
            cache = krb5.cc_new_unique(krb5_context, b"MEMORY")
            krb5.cc_initialize(krb5_context, cache, credentials.client)
            krb5.cc_store_cred(krb5_context, cache, credentials)
        except krb5.Krb5Error as error:
            by_password, account, key_types = bool(manager.password), "", ""
            if manager.keytab and principal is not None and get_error_code(error) in NO_SUITABLE_KEY:
                account = krb5.unparse_name_flags(krb5_context, principal).decode()
                key_types = _list_key_types(krb5_context, manager.keytab, account)
            problem = explain_kerberos_error(
                error,
                source,
                "",
                by_password=by_password,
                as_service=as_service,
                account=account,
                key_types=key_types,
            )
            if get_error_code(error) == NO_KDC_ANSWERS and self._calls.is_proving():
                raise unanswered_proof_error(source, problem) from problem
            raise problem from None
        # Closing a cache, as python-krb5 does, leaves its tickets in the memory of the process.
        weakref.finalize(self, _destroy_cache, krb5_context, cache)
        return _Ticket(krb5_context, cache, f"MEMORY:{(cache.name or b'').decode()}", float(credentials.times.endtime))

    def _ask_kdc(self, krb5_context: Any, principal: Any, options: Any, keytab: Any) -> Any:
        """Ask a KDC for credentials; without a keytab, with the password, which is proved at most once.

        `get_init_creds_password`, like kinit, would send a wrong one again to the realm's `primary_kdc`. The library
        prompts for the password after the KDC's first answer, to prove it (RFC 4120 5.2.7.2). So a call that NTLM has
        replaced by then ends instead, and NTLM does not replace one that has proved it.
        """
        import krb5

        def get_password() -> _PromptReply:
            if not self._calls.begin_proof(is_awaited=self._is_ntlm_possible):
                raise TimeoutError
            return _PromptReply(_encode_password(self._manager.password or ""))

        class PasswordPrompt(krb5.Krb5Prompt):
            def prompt(self, msg: bytes, hidden: bool) -> bytes:  # noqa: ARG002, FBT001 - python-krb5's signature
                self.reply = get_password()
                return self.reply

        # It keeps the reply in memory until the request has ended.
        prompt = None if keytab is not None else PasswordPrompt()
        request = krb5.init_creds_init(krb5_context, principal, options, 0, prompt)
        try:
            if keytab is not None:
                krb5.init_creds_set_keytab(krb5_context, request, keytab)
            krb5.init_creds_get(krb5_context, request)
            self._calls.end_proof()
            return krb5.init_creds_get_creds(krb5_context, request)
        except krb5.Krb5Error:
            if self._is_ntlm_possible and self._calls.has_timed_out() and not self._calls.is_proving():
                self._calls.raise_if_silent()
            raise
        finally:
            # Python's garbage collection, to which a traceback would leave it, crashes in python-krb5 0.10.
            del request

    @property
    def _is_ntlm_possible(self) -> bool:
        return self._manager.windows_protocol is WindowsProtocol.NEGOTIATE and bool(self._manager.password)

    def _list_client_names(self) -> list[ClientName]:
        """Return the names to try. Where NTLM is possible too, none whose KDC would have to be looked up in DNS."""
        names = list_client_names(self._manager)
        if self._is_ntlm_possible:
            return [name for name in names if is_realm_configured(name.realm)] or names
        return names

    def _open_keytab(self, krb5_context: Any) -> Any:
        import krb5

        name = self._manager.keytab or ""
        _require_readable("Keytab (keytab)", name.removeprefix("FILE:"))
        return krb5.kt_resolve(krb5_context, name.encode())


class _PromptReply(bytes):
    """A password as python-krb5 needs it from a prompt: kept by the caller, and not shared with anyone.

    python-krb5 0.10 gives the Kerberos library a pointer to these bytes, and releases them before the library has read
    them: another thread's data may then be sent as the password. The library finally overwrites them with zeros, also
    in plain bytes of one character, which Python shares within the process.
    """

    __slots__ = ()


def _encode_password(password: str) -> bytes:
    """Return a password as Windows derives its Kerberos keys from it: UTF-8, and U+FFFD for half a surrogate pair."""
    return password.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _require_whole_password(password: str) -> None:
    """Reject a password with a NUL character: the Kerberos library would send what is before that."""
    if "\0" in password:
        raise AuthenticationError(
            "Kerberos: the password contains a NUL character, at which the Kerberos library would cut it off.",
            remedy="Set another password for the account, use a keytab, or set 'Windows protocol' to 'ntlm'.",
        )


def _find_in_keytab(krb5_context: Any, keytab: Any, principal: Any) -> Any:
    """Return a principal as the keytab writes it, in upper or lower case; unchanged if the keytab does not have it."""
    import krb5

    name = krb5.unparse_name_flags(krb5_context, principal)
    names = {krb5.unparse_name_flags(krb5_context, entry.principal): None for entry in keytab}
    same = [found for found in names if found.decode().lower() == name.decode().lower()]
    return principal if name in names or not same else krb5.parse_name_flags(krb5_context, same[0])


def _get_first_principal(krb5_context: Any, keytab: Any, path: str) -> Any:
    import krb5

    for entry in keytab:
        # By its text, since an entry's principal is freed together with the entry.
        return krb5.parse_name_flags(krb5_context, krb5.unparse_name_flags(krb5_context, entry.principal))
    raise AuthenticationError(
        f"Keytab (keytab): {describe_path(path)} contains no key.",
        remedy="Inspect it with klist -k, and export it again if necessary.",
    )


def _destroy_cache(krb5_context: Any, cache: Any) -> None:
    import krb5

    with contextlib.suppress(krb5.Krb5Error):
        krb5.cc_destroy(krb5_context, cache)


def _list_key_types(krb5_context: Any, keytab: str, account: str) -> str:
    """Return the encryption types of an account's keys in a keytab, separated by commas."""
    import krb5

    types = [
        krb5.enctype_to_name(entry.key.enctype)
        for entry in krb5.kt_resolve(krb5_context, keytab.encode())
        if krb5.unparse_name_flags(krb5_context, entry.principal).decode() == account
    ]
    return ", ".join(dict.fromkeys(types))


def _create_spn_context(credential: Any, spn: str, bindings: GssChannelBindings | None) -> ContextProxy:
    """Create a context for exactly this SPN, whatever krb5.conf says of DNS.

    pyspnego names the server by service and host. MIT's library then asks DNS for the host's canonical name, and a KDC
    for a ticket for that (`dns_canonicalize_hostname` and `rdns`, on by default). A principal's name is not rewritten.
    """
    import gssapi
    from gssapi.raw import ChannelBindings
    from spnego import ContextReq

    service, _, host = spn.partition("/")
    requirements = ContextReq.mutual_auth | ContextReq.integrity
    context: Any = create_context(
        credential, protocol="kerberos", service=service, host=host, requirements=requirements, bindings=bindings
    )
    # Without types of addresses, as in Windows' bindings; python-gssapi's own default is another type.
    channel_bindings = None
    if bindings is not None:
        channel_bindings = ChannelBindings(
            initiator_address_type=0, acceptor_address_type=0, application_data=bindings.application_data
        )
    security_context = gssapi.SecurityContext(
        name=gssapi.Name(f"{spn}@{find_host_realm(host)}", gssapi.NameType.kerberos_principal),
        creds=context._credential,  # noqa: SLF001 - a private interface that is tested, as are the others
        usage="initiate",
        mech=gssapi.MechType.kerberos,
        flags=gssapi.RequirementFlag.mutual_authentication | gssapi.RequirementFlag.integrity,
        channel_bindings=channel_bindings,
    )
    vars(context).update(_context=security_context)
    return context  # type: ignore[no-any-return]


def _wrap_in_spnego(kerberos: Any, bindings: GssChannelBindings | None) -> ContextProxy:
    """Return an SPNEGO context that offers Kerberos alone: pyspnego's own would fall back to NTLM silently."""
    import spnego
    from spnego._context import GSSMech

    kerberos._is_wrapped = True  # noqa: SLF001 - as above
    return spnego.client(
        protocol="negotiate",
        options=spnego.NegotiateOptions.use_negotiate,
        context_req=kerberos.context_req,
        channel_bindings=bindings,
        _negotiate_contexts={GSSMech.kerberos: kerberos},
    )


def _require_readable(label: str, path: str) -> None:
    if not os.access(path, os.R_OK):
        why = "there is no such file" if not Path(path).exists() else "this worker is not permitted to read it"
        raise AuthenticationError(
            f"{label}: {describe_path(path)} cannot be used ({why}).",
            remedy="Give the path of a file that exists on the worker and that the worker's user can read.",
        )
