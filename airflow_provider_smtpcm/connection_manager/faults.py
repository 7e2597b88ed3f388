"""Faults in a connection's settings, as data, and their sentences, which never quote a value.

Any value may be a password that was typed into the wrong field. So a sentence contains only words from a closed
vocabulary (labels, keys, choices, property names), numbers computed by this package, and the type and length of a value
(`describe_value`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS, FIELDS
from airflow_provider_smtpcm.frozen_dataclasses import Record

#: `Fault.field` of a fault that concerns the extra as a whole.
EXTRA = "extra"

BASIC_REFUSED = (
    "As in SSIS, basic authentication (sending a password) is not supported; choose 'Windows Authentication' for a "
    "Windows account, or use the provider apache-airflow-providers-smtp for servers that require PLAIN, LOGIN or OAuth."
)


class FaultCode:
    """The kinds of faults. Not an enum: each process that parses a connection would take a millisecond to build it."""

    # The extra and its keys
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    FOREIGN_KEY = "foreign_key"
    MISSPELLED_KEY = "misspelled_key"
    # One value
    BASIC = "basic"
    NOT_A_CHOICE = "not_a_choice"
    NOT_A_BOOLEAN = "not_a_boolean"
    NOT_A_NUMBER = "not_a_number"
    NOT_TEXT = "not_text"
    CONTROL_CHARACTER = "control_character"
    NEITHER_PATH_NOR_PEM = "neither_path_nor_pem"
    NO_CERTIFICATE = "no_certificate"
    PEM_INSTEAD_OF_PATH = "pem_instead_of_path"
    NO_HOST = "no_host"
    HOST_WITH_ACCOUNT = "host_with_account"
    HOST_WITH_SCHEME = "host_with_scheme"
    HOST_WITH_PORT = "host_with_port"
    NOT_A_FALLBACK_HOST = "not_a_fallback_host"
    FALLBACK_WITHOUT_BRACKETS = "fallback_without_brackets"
    FALLBACK_PORT = "fallback_port"
    DUPLICATE_FALLBACK = "duplicate_fallback"
    NOT_A_HOST = "not_a_host"
    LOGIN_WITH_COLON = "login_with_colon"
    NOT_A_LOGIN = "not_a_login"
    NOT_A_DOMAIN = "not_a_domain"
    NOT_AN_SPN = "not_an_spn"
    NOT_AN_ADDRESS = "not_an_address"
    NOT_AN_EHLO_NAME = "not_an_ehlo_name"
    # Combinations of settings
    ACCOUNT_FOR_ANONYMOUS = "account_for_anonymous"
    TWO_CREDENTIALS = "two_credentials"
    NO_LOGIN = "no_login"
    NO_PASSWORD = "no_password"  # noqa: S105 - no password
    KERBEROS_ONLY = "kerberos_only"
    DOMAIN_WITHOUT_LOGIN = "domain_without_login"
    TWO_DOMAINS = "two_domains"
    NO_TLS_TO_BIND_TO = "no_tls_to_bind_to"
    NO_TLS_FOR_CERTIFICATE = "no_tls_for_certificate"
    KEY_WITHOUT_CERTIFICATE = "key_without_certificate"
    CONTRADICTION = "contradiction"
    # The SSIS connection string
    NO_EQUALS = "no_equals"
    ACCOUNT_IN_STRING = "account_in_string"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_SSIS_BOOLEAN = "not_an_ssis_boolean"
    NOT_MILLISECONDS = "not_milliseconds"


_TEXTS: Mapping[str, str] = {
    FaultCode.NOT_JSON: 'Extra is not JSON; write a JSON object such as {{"auth_mode": "windows"}}.',
    FaultCode.NOT_AN_OBJECT: "Extra is a JSON {type}; write a JSON object with one key for each setting.",
    FaultCode.FOREIGN_KEY: "Unknown setting '{key}'; use {instead}.",
    FaultCode.MISSPELLED_KEY: "Unknown setting {key}; did you mean '{field}'?",
    FaultCode.BASIC: f"{{title}} is '{{word}}'. {BASIC_REFUSED}",
    FaultCode.NOT_A_CHOICE: "{title} holds {value}; choose one of {choices}.",
    FaultCode.NOT_A_BOOLEAN: "{title} holds {value}; write true or false.",
    FaultCode.NOT_A_NUMBER: "{title} holds {value}; write a number from {low} to {high}.",
    FaultCode.NOT_TEXT: "{title} holds {value}; write text.",
    FaultCode.CONTROL_CHARACTER: "{title} contains a control character; remove it.",
    FaultCode.NEITHER_PATH_NOR_PEM: "{title} is neither a path nor PEM text; paste it with its BEGIN and END lines.",
    FaultCode.NO_CERTIFICATE: "{title} contains no complete certificate; paste it from '-----BEGIN CERTIFICATE-----' "
    "to '-----END CERTIFICATE-----'.",
    FaultCode.PEM_INSTEAD_OF_PATH: "{title} holds PEM text; write it to a file on the worker, which only the worker's "
    "user may read, and enter the path of that file.",
    FaultCode.NO_HOST: "{title} is empty; enter the name of the mail server.",
    FaultCode.HOST_WITH_ACCOUNT: "{title} contains '@'; write only the server's name, and put the account into "
    "'User name'.",
    FaultCode.HOST_WITH_SCHEME: "{title} is a URL; write only the server's name, without {scheme}.",
    FaultCode.HOST_WITH_PORT: "{title} includes a port; write only the name, and put the number into 'Port'.",
    FaultCode.NOT_A_FALLBACK_HOST: "{title}: entry {position} is neither a host name nor host:port; write names "
    "separated by ';', such as relay2.corp.example;relay3.corp.example:2525.",
    FaultCode.FALLBACK_WITHOUT_BRACKETS: "{title}: entry {position} is an IPv6 address; write it in brackets, as in "
    "[2001:db8::25] or [2001:db8::25]:2525.",
    FaultCode.FALLBACK_PORT: "{title}: the port of entry {position} is not a number from 1 to 65535.",
    FaultCode.DUPLICATE_FALLBACK: "{title}: entry {position} is {same}; remove it.",
    FaultCode.NOT_A_HOST: "{title} holds {value} with a character that is not allowed there, so it is not a host name; "
    "enter the name of the mail server.",
    FaultCode.LOGIN_WITH_COLON: "{title} contains ':', which no Windows account has; write only the account, and put "
    "its password into 'Password'.",
    FaultCode.NOT_A_LOGIN: r"{title} is not the name of an account; write CORP\user, user@corp.example, or user with a "
    "domain.",
    FaultCode.NOT_A_DOMAIN: "{title} holds {value} with a character that is not allowed there; write CORP or "
    "corp.example.",
    FaultCode.NOT_AN_SPN: "{title} is not an SPN; write service/host without a realm, such as smtp/mail.corp.example.",
    FaultCode.NOT_AN_ADDRESS: "{title} holds {value}, which is not an address; write etl@corp.example or ETL "
    "<etl@...>.",
    FaultCode.NOT_AN_EHLO_NAME: "{title} is neither a host name nor an address in brackets; write "
    "worker1.corp.example or [192.0.2.1].",
    FaultCode.ACCOUNT_FOR_ANONYMOUS: "{given}: set, but {auth_mode} is 'anonymous', which means no sign-in; "
    "choose 'Windows Authentication' to sign in with the account, or for an anonymous server, leave all account fields "
    f"empty. {BASIC_REFUSED}",
    FaultCode.TWO_CREDENTIALS: "{given}: only one credential can be used; keep one of them.",
    FaultCode.NO_LOGIN: "{title} is given without a user name; enter the Windows account too.",
    FaultCode.NO_PASSWORD: "{title} is empty, but there is a user name; enter its password, a keytab or a credential "
    "cache, or clear the user name to use the worker's own identity.",
    FaultCode.KERBEROS_ONLY: "{title} is for Kerberos, but {windows_protocol} is 'ntlm'; leave it empty or choose "
    "'kerberos'.",
    FaultCode.DOMAIN_WITHOUT_LOGIN: "{title} is given, but there is no user name; enter one, or clear the domain.",
    FaultCode.TWO_DOMAINS: "{title} differs from the domain in the user name; name the domain once: "
    "clear it, since a user name with '@' or a backslash needs no other domain.",
    FaultCode.NO_TLS_TO_BIND_TO: "{title} is 'tls-unique', but there is no TLS to bind to; leave it empty, or set "
    "{ssl_mode} to 'starttls' or 'implicit'.",
    FaultCode.NO_TLS_FOR_CERTIFICATE: "{title} is given, but {ssl_mode} is 'none', so it would never be sent; set "
    "{ssl_mode} to 'starttls' or 'implicit', or leave it empty.",
    FaultCode.KEY_WITHOUT_CERTIFICATE: "{title} is given without {client_certificate}; enter the certificate's path "
    "too.",
    FaultCode.CONTRADICTION: "{title} contradicts the SSIS connection string{values}; make them agree or leave one of "
    "them empty.",
    FaultCode.NO_EQUALS: "SSIS connection string: part {position} has no '='; write Key=Value pairs with ';' between "
    "them.",
    FaultCode.ACCOUNT_IN_STRING: "SSIS connection string: {key} is not a property of SSIS's SMTP connection manager, "
    "which has no account; put the account into 'User name' and 'Password' and remove it from the string.",
    FaultCode.DUPLICATE_KEY: "SSIS connection string: {key} appears twice with different values; keep one.",
    FaultCode.NOT_AN_SSIS_BOOLEAN: "SSIS connection string: {key} holds {value}; write True or False.",
    FaultCode.NOT_MILLISECONDS: "SSIS connection string: Timeout holds {value}; write a whole number of milliseconds "
    "above 0.",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Fault(Record):
    """One thing that is wrong. `str(fault)` is its sentence.

    Args:
        field: the key of the setting that is wrong, or that was probably meant; or `EXTRA`.
        code: what is wrong with it: one of `FaultCode`.
        details: values for the placeholders of the sentence; never a value that a user typed.
    """

    field: str
    code: str
    details: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        setting = ALL_FIELDS.get(self.field)
        title = self.field if setting is None else setting.title
        return _TEXTS[self.code].format(title=title, field=self.field, **self.details)


class Faults:
    """All faults of one connection, in the order in which they were found."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, field: str, code: str, **details: object) -> None:
        """Add a fault; the arguments are those of `Fault`."""
        self._faults.append(Fault(field=field, code=code, details=details))

    def extend(self, faults: Iterable[Fault]) -> None:
        """Add several faults."""
        self._faults += faults

    def unreadable_settings(self) -> frozenset[str]:
        """Return the keys of settings whose value is unknown because of a fault; no other fault may depend on them."""
        unreadable = {fault.field for fault in self._faults}
        if EXTRA in unreadable:
            unreadable |= {setting.name for setting in FIELDS}
        if "ssis_properties" in unreadable:
            unreadable |= {setting.name for setting in ALL_FIELDS.values() if setting.in_ssis_properties}
        return frozenset(unreadable)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)


def describe_value(value: object) -> str:
    """Describe a value that may be a password: its type, and its length if it is text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        text = value.strip()
        return f"text of {len(text)} character{'' if len(text) == 1 else 's'}"
    return f"a {type(value).__name__}"


def describe_path(path: str) -> str:
    """Return an absolute path with a folder in it; only describe anything else, even `/x`, which may be a password."""
    bare = path.removeprefix("FILE:").removeprefix("DIR:")
    return path if bare.startswith("/") and bare.isprintable() and bare.count("/") > 1 else f"({describe_value(path)})"
