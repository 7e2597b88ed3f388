"""What Kerberos's error codes mean to the person who configured the connection. Knows the codes, and calls nothing."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_smtpcm.errors import AuthenticationError

# The com_err table of MIT Kerberos (krb5_err): a code is this base plus a number, which is RFC 4120 7.5.9's up to 127.
_BASE = -1765328384


class AccountRefusedError(AuthenticationError):
    """The KDC judged the account and said no: trying the same password elsewhere would only lock it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    said: str
    remedy: str
    retryable: bool = False
    judged: bool = False


_WRONG_PASSWORD = _Meaning(
    said="the password is wrong",
    remedy="Check 'User name' and 'Password'. Nothing weaker was tried, to spare the account a lockout.",
    judged=True,
)
# What the KDC means by the same codes where nobody gave a password.
_STALE_KEYTAB = _Meaning(
    said="the key in the keytab is not the account's any more",
    remedy="The account's password was changed since: the keytab has to be made anew. Nothing weaker was tried.",
    judged=True,
)
_NO_TICKET = (
    "Run kinit for the worker's user, set KRB5_CLIENT_KTNAME for the worker, or name a keytab, a credential cache, or "
    "user name and password in the connection."
)
_LOOK = (
    "Look at krb5.conf on the worker, and at the keytab (klist -k) or the credential cache (klist); a cache holds the "
    "tickets of one principal, which 'User name' must name if it is not empty."
)
_MEANINGS = {
    1: _Meaning(said="the account has expired", remedy="Have it renewed in the directory.", judged=True),
    6: _Meaning(
        said="the KDC does not know the account", remedy="Check 'User name' and its realm (user@corp.example)."
    ),
    7: _Meaning(
        said="the KDC does not know the server as {spn}",
        remedy="Register that name for the server's account (setspn -S {spn} SERVER), or give the right one as 'SPN'.",
    ),
    12: _Meaning(said="the KDC's policy forbids it", remedy="Ask the KDC's administrator.", judged=True),
    14: _Meaning(
        said="the KDC and this worker have no encryption type in common",
        remedy="Allow AES for the account (msDS-SupportedEncryptionTypes) and set its password anew.",
    ),
    18: _Meaning(
        said="the account is locked or disabled", remedy="Have it unlocked. Nothing weaker was tried.", judged=True
    ),
    23: _Meaning(said="the password has expired", remedy="Set a new one for the account.", judged=True),
    24: _WRONG_PASSWORD,
    31: _WRONG_PASSWORD,
    32: _Meaning(said="the ticket has expired", remedy="Renew it (kinit), or use a keytab, which renews by itself."),
    37: _Meaning(
        said="this worker's clock differs too much from the KDC's",
        remedy="Synchronise the clocks (NTP); five minutes are the usual limit.",
        retryable=True,
    ),
    134: _Meaning(said="the account's name is malformed", remedy="Write it as user@corp.example."),
    141: _Meaning(said="there is no ticket of that account in the cache", remedy=_NO_TICKET),
    154: _Meaning(
        said="no KDC is known for the realm",
        remedy="Write the realm in krb5.conf on the worker ([realms]), or check how it is spelled.",
    ),
    156: _Meaning(
        said="no KDC of the realm answers",
        remedy="Check krb5.conf, the network and the firewall between this worker and the KDC (port 88).",
        retryable=True,
    ),
    181: _Meaning(
        said="the keytab has no key of that account", remedy="Look into it with klist -k; export it anew if need be."
    ),
    195: _Meaning(said="there is no ticket", remedy=_NO_TICKET),
    210: _WRONG_PASSWORD,
    224: _Meaning(
        said="krb5.conf names no default realm", remedy="Write the user name with its realm: user@corp.example."
    ),
}

SERVICE_UNKNOWN = _BASE + 7
NO_SUCH_TICKET = _BASE + 141


def error_code(error: BaseException) -> int | None:
    """The Kerberos code inside an error of python-krb5, python-gssapi or pyspnego; None where there is none."""
    for candidate in (error, getattr(error, "base_error", None), error.__cause__):
        for name in ("err_code", "min_code"):
            code = getattr(candidate, name, None)
            if isinstance(code, int) and code:
                return code - 2**32 if code >= 2**31 else code
    return None


def kerberos_error(error: Exception, source: str, spn: str, *, by_password: bool = False) -> AuthenticationError:
    """An error of the Kerberos libraries as a sentence and a remedy.

    Args:
        error: what they raised; one of ours is handed back as it is.
        source: where the ticket was to come from.
        spn: the server's name in Kerberos.
        by_password: whether it was to come for a password.
    """
    if isinstance(error, AuthenticationError):
        return error
    if isinstance(error, ImportError):
        return AuthenticationError(
            "Kerberos needs libraries that are not installed on this worker.",
            remedy="Install them: apt-get install gcc python3-dev libkrb5-dev, then pip install "
            "'airflow-provider-smtpcm[kerberos]'; or set 'Windows protocol' to 'ntlm'.",
        )
    code = error_code(error)
    meaning = _MEANINGS.get(code - _BASE) if code is not None else None
    if meaning is None:
        from airflow_provider_smtpcm.smtp.auth.sasl import describe

        # python-krb5's and python-gssapi's own words, which name no secret.
        words = str(error) if code is not None and not getattr(error, "base_error", None) else describe(error)
        remedy = _NO_TICKET if "redential" in type(error).__name__ or "redential" in words else _LOOK
        meaning = _Meaning(said=words.replace("{", "(").replace("}", ")"), remedy=remedy)
    if meaning is _WRONG_PASSWORD and not by_password:
        meaning = _STALE_KEYTAB
    kind = AccountRefusedError if meaning.judged else AuthenticationError
    return kind(
        f"Kerberos ({source}): {meaning.said.format(spn=spn)}.",
        remedy=meaning.remedy.format(spn=spn.rsplit(" or ", maxsplit=1)[-1]),
        retryable=meaning.retryable,
    )
