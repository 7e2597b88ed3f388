"""Explains errors of the Kerberos libraries: what went wrong, and what to do about it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.remedies import UNKNOWN_ACCOUNT
from airflow_provider_smtpcm.smtp.auth.sasl import AccountRefusedError, describe_library_error

# The base of MIT's com_err codes. The numbers added to it are those of RFC 4120 7.5.9; from 128 on, MIT's own. Other
# codes are those of the operating system (errno).
_BASE = -1765328384

CLIENT_UNKNOWN = _BASE + 6
SERVICE_UNKNOWN = _BASE + 7
NO_SUCH_TICKET = _BASE + 141
NO_KDC_KNOWN = _BASE + 154
NO_KDC_ANSWERS = _BASE + 156
NO_KEY_IN_KEYTAB = _BASE + 181


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explanation:
    """What an error code means.

    Args:
        problem: a clause; may contain `{spn}`.
        remedy: a sentence; may contain `{spn}`.
        retryable: whether the same sign-in may succeed later.
        account_refused: whether the KDC rejected the account, so that NTLM must not be tried either.
    """

    problem: str
    remedy: str
    retryable: bool = False
    account_refused: bool = False


_WRONG_PASSWORD = _Explanation(
    problem="the password is wrong",
    remedy="Check 'User name' and 'Password'. No weaker protocol was tried, to avoid locking the account.",
    account_refused=True,
)
# What the same codes mean if the ticket was requested with a keytab.
_STALE_KEYTAB = _Explanation(
    problem="the key in the keytab is no longer the account's",
    remedy="The account's password has been changed since: export the keytab again. No weaker protocol was tried.",
    account_refused=True,
)
# What code 6 means for a keytab that begins with a service, and no user name.
_SERVICE_IN_KEYTAB = _Explanation(
    problem="the keytab's first entry is a service, and the KDC knows no account of that name",
    remedy="Enter the account as 'User name', or have the keytab begin with it: without a user name, the first entry "
    "is taken. To see the entries: klist -k.",
)
# With these codes the KDC takes no key of the keytab, or none can be found in it.
_PREAUTH_FAILED = _BASE + 210
NO_SUITABLE_KEY = (_BASE + 14, _BASE + 181, _PREAUTH_FAILED)
_NO_KEY_OF_A_TYPE = "the keytab has no key of a type that the KDC takes for {account}"
_EXPORT_WITH_AES = (
    "Export it again with AES256: 'ktpass ... -crypto AES256-SHA1' on Windows, or in ktutil 'add_entry -password -p "
    "{account} -k 1 -e aes256-cts-hmac-sha1-96 -f'."
)
_BROKEN_CONFIGURATION = _Explanation(
    problem="the configuration ({configuration}) cannot be read, or has a syntax error",
    remedy="Check its brackets, its braces, and the files that it includes; 'klist' says whether it can be read.",
)
_NOT_A_KEYTAB = _Explanation(
    problem="the file is not a keytab, or is damaged",
    remedy="Inspect it with klist -k, and copy or export it again; it is a binary file.",
)
_NOT_A_CACHE = _Explanation(
    problem="the file is not a credential cache, or is damaged", remedy="Create it again: kinit -c FILE."
)
_NO_TICKET_REMEDY = (
    "Run kinit for the worker's user, set KRB5_CLIENT_KTNAME for the worker, or enter a keytab, a credential cache, or "
    "a user name and password in the connection."
)
_DEFAULT_REMEDY = (
    "Check krb5.conf on the worker, and the keytab (klist -k) or the credential cache (klist); a cache holds the "
    "tickets of one principal, which must be the 'User name' unless that is empty."
)
_EXPLANATIONS = {
    1: _Explanation(
        problem="the account has expired", remedy="Have it renewed in the directory.", account_refused=True
    ),
    6: _Explanation(
        problem=UNKNOWN_ACCOUNT,
        remedy="Check 'User name': it is the account's UPN, or its name in the directory (sAMAccountName) with the "
        "realm (user@corp.example). For a UPN whose suffix is no realm, krb5.conf on the worker must have the "
        "account's realm as default_realm.",
    ),
    7: _Explanation(
        problem="the KDC does not know the server as {spn}",
        remedy="Register that name for the server's account (setspn -S {spn} SERVER), or set 'SPN' to the right one.",
    ),
    12: _Explanation(
        problem="the KDC's policy forbids this sign-in",
        remedy="Ask the KDC's administrator about the account's logon hours, permitted workstations and authentication "
        "policies.",
        account_refused=True,
    ),
    14: _Explanation(
        problem="the KDC and this worker have no encryption type in common",
        remedy="Allow AES for the account (msDS-SupportedEncryptionTypes) and set its password again.",
    ),
    # Active Directory says no more than this to MIT's library.
    18: _Explanation(
        problem="the account is locked, disabled or expired, or may not sign in at this hour",
        remedy="Look it up in the directory (lockout, state, expiry, logon hours), and do not sign in again before: "
        "an attempt may prolong a lockout. No weaker protocol was tried.",
        account_refused=True,
    ),
    23: _Explanation(
        problem="the password has expired, or must be changed at the next sign-in",
        remedy="Set a new one for the account; a keytab must be exported again then.",
        account_refused=True,
    ),
    24: _WRONG_PASSWORD,
    31: _WRONG_PASSWORD,
    32: _Explanation(
        problem="the ticket has expired", remedy="Renew it (kinit), or use a keytab, which renews by itself."
    ),
    37: _Explanation(
        problem="this worker's clock differs too much from the KDC's",
        remedy="Synchronize the clocks (NTP); the usual limit is five minutes.",
        retryable=True,
    ),
    33: _Explanation(
        problem="the ticket is not valid yet, so the clocks of the KDC and this worker differ",
        remedy="Synchronize the clocks (NTP).",
        retryable=True,
    ),
    134: _Explanation(problem="the account's name is malformed", remedy="Write it as user@corp.example."),
    135: _BROKEN_CONFIGURATION,
    136: _BROKEN_CONFIGURATION,
    141: _Explanation(problem="the cache has no ticket for that account", remedy=_NO_TICKET_REMEDY),
    142: _NOT_A_CACHE,
    154: _Explanation(
        problem="no KDC is known for the realm",
        remedy="Check its spelling, or add the realm to krb5.conf on the worker ([realms]). If it is no realm but the "
        "suffix of a UPN, name the account's realm there as default_realm.",
    ),
    156: _Explanation(
        problem="no KDC of the realm answers",
        remedy="Check krb5.conf, the network and the firewall between this worker and the KDC (port 88).",
        retryable=True,
    ),
    181: _Explanation(
        problem="the keytab has no key for that account",
        remedy="Inspect it with klist -k: 'User name' must be one of its principals, not another UPN of the account. "
        "Export it again if necessary.",
    ),
    182: _NOT_A_KEYTAB,
    184: _NOT_A_KEYTAB,
    193: _NOT_A_CACHE,
    195: _Explanation(problem="there is no ticket", remedy=_NO_TICKET_REMEDY),
    199: _NOT_A_CACHE,
    210: _Explanation(
        problem="the KDC does not accept the account's password or key alone",
        remedy="Ask the KDC's administrator whether the account needs a smart card or a second factor; this package "
        "supports neither.",
        account_refused=True,
    ),
    212: _NOT_A_CACHE,
    213: _NOT_A_KEYTAB,
    224: _Explanation(
        problem="krb5.conf names no default realm", remedy="Write the user name with its realm: user@corp.example."
    ),
}


def get_error_code(error: BaseException) -> int | None:
    """Return the Kerberos code in an error of python-krb5, python-gssapi or pyspnego; None if there is none."""
    for candidate in (error, getattr(error, "base_error", None), error.__cause__):
        for name in ("err_code", "min_code"):
            code = getattr(candidate, name, None)
            if isinstance(code, int) and code:
                return code - 2**32 if code >= 2**31 else code
    return None


def explain_kerberos_error(
    error: Exception,
    credential_source: str,
    spn: str,
    *,
    by_password: bool = False,
    as_service: bool = False,
    account: str = "",
    key_types: str = "",
) -> AuthenticationError:
    """Convert an error of the Kerberos libraries into an `AuthenticationError` with a remedy.

    Args:
        error: an error of python-krb5, python-gssapi or pyspnego; an `AuthenticationError` is returned unchanged.
        credential_source: the source of the ticket, for the message.
        spn: the server's SPN; or several, joined by " or ".
        by_password: whether the ticket was requested with a password.
        as_service: whether it was requested as a service principal.
        account: the account's principal, if the ticket was requested with a keytab.
        key_types: the encryption types of the account's keys in the keytab.
    """
    if isinstance(error, AuthenticationError):
        return error
    if isinstance(error, ImportError):
        return AuthenticationError(
            "Kerberos needs libraries that are not installed on this worker.",
            remedy="Install them: apt-get install gcc python3-dev libkrb5-dev, then pip install "
            "'airflow-provider-smtpcm[kerberos]'; or set 'Windows protocol' to 'ntlm'.",
        )
    code = get_error_code(error)
    explanation = _EXPLANATIONS.get(code - _BASE) if code is not None else None
    if code in NO_SUITABLE_KEY and key_types:
        explanation = _Explanation(problem=f"{_NO_KEY_OF_A_TYPE} (it has {{key_types}})", remedy=_EXPORT_WITH_AES)
    elif code == _PREAUTH_FAILED and not by_password:
        explanation = _Explanation(problem=_NO_KEY_OF_A_TYPE, remedy=_EXPORT_WITH_AES)
    if explanation is None:
        problem = _describe_unknown_error(error, code)
        remedy = _NO_TICKET_REMEDY if "redential" in type(error).__name__ or "redential" in problem else _DEFAULT_REMEDY
        explanation = _Explanation(problem=problem.replace("{", "(").replace("}", ")"), remedy=remedy)
    if explanation is _WRONG_PASSWORD and not by_password:
        explanation = _STALE_KEYTAB
    if code == CLIENT_UNKNOWN and as_service:
        explanation = _SERVICE_IN_KEYTAB
    error_type = AccountRefusedError if explanation.account_refused else AuthenticationError
    values = {
        "account": account or "the account",
        "key_types": key_types,
        "configuration": os.environ.get("KRB5_CONFIG") or "/etc/krb5.conf",
    }
    return error_type(
        f"Kerberos ({credential_source}): {explanation.problem.format(spn=spn, **values)}.",
        remedy=explanation.remedy.format(spn=spn.rsplit(" or ", maxsplit=1)[-1], **values),
        retryable=explanation.retryable,
    )


def _describe_unknown_error(error: Exception, code: int | None) -> str:
    """Describe an error without an explanation in words: the library's own, without its numbers."""
    if code is not None and 0 < code < 1000:
        return os.strerror(code)
    # Messages of python-krb5 and python-gssapi contain no secrets; messages of pyspnego may.
    is_kerberos = code is not None and not getattr(error, "base_error", None)
    text = str(error) if is_kerberos else describe_library_error(error)
    return re.sub(r" -?\d{6,}$", "", re.sub(r"(?s)^.*Minor \(\d+\): ", "", text)).rstrip(". ")
