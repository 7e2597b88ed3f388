"""What can be wrong with a connection's settings, as data; the sentences are made last, and repeat no value.

Whatever was typed may be a password in the wrong field. A sentence shows only words from a closed vocabulary (labels,
keys, choices, property names), numbers that this package counted, and the kind and the length of a value (`shape`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum, auto

from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS, FIELDS

#: The field of a fault that is about the extra as a whole.
EXTRA = "extra"

BASIC_REFUSED = (
    "Basic authentication (sending a password) is not supported, as in SSIS; choose 'Windows Authentication' for a "
    "Windows account, or use the provider apache-airflow-providers-smtp for servers that want PLAIN, LOGIN or OAuth."
)


class FaultKind(StrEnum):
    """What is wrong."""

    # The extra and its keys
    NOT_JSON = auto()
    NOT_AN_OBJECT = auto()
    FOREIGN_KEY = auto()
    MISSPELLED_KEY = auto()
    # One value
    BASIC = auto()
    NOT_A_CHOICE = auto()
    NOT_A_FLAG = auto()
    NOT_A_NUMBER = auto()
    NOT_TEXT = auto()
    CONTROL_CHARACTER = auto()
    NEITHER_PATH_NOR_PEM = auto()
    NO_CERTIFICATE = auto()
    NO_HOST = auto()
    HOST_WITH_ACCOUNT = auto()
    HOST_WITH_SCHEME = auto()
    HOST_WITH_PORT = auto()
    NOT_A_HOST = auto()
    LOGIN_WITH_COLON = auto()
    NOT_A_LOGIN = auto()
    NOT_A_DOMAIN = auto()
    NOT_AN_SPN = auto()
    NOT_AN_ADDRESS = auto()
    NOT_AN_EHLO_NAME = auto()
    # What belongs together
    ACCOUNT_FOR_ANONYMOUS = auto()
    TWO_CREDENTIALS = auto()
    NO_LOGIN = auto()
    NO_PASSWORD = auto()
    KERBEROS_ONLY = auto()
    DOMAIN_WITHOUT_LOGIN = auto()
    TWO_DOMAINS = auto()
    NO_TLS_TO_BIND_TO = auto()
    CONTRADICTION = auto()
    # The SSIS connection string
    NO_EQUALS = auto()
    ACCOUNT_IN_STRING = auto()
    KEY_TWICE = auto()
    NOT_A_BOOLEAN = auto()
    NOT_MILLISECONDS = auto()


_TEXTS: Mapping[FaultKind, str] = {
    FaultKind.NOT_JSON: 'Extra is not JSON; write a JSON object such as {{"auth_mode": "windows"}}.',
    FaultKind.NOT_AN_OBJECT: "Extra is a JSON {type}; write a JSON object with one key for each setting.",
    FaultKind.FOREIGN_KEY: "Unknown setting '{key}'; use {instead}.",
    FaultKind.MISSPELLED_KEY: "Unknown setting {key}; did you mean '{field}'?",
    FaultKind.BASIC: f"{{title}} is '{{word}}'. {BASIC_REFUSED}",
    FaultKind.NOT_A_CHOICE: "{title} holds {shape}; choose one of {choices}.",
    FaultKind.NOT_A_FLAG: "{title} holds {shape}; write true or false.",
    FaultKind.NOT_A_NUMBER: "{title} holds {shape}; write a number from {low} to {high}.",
    FaultKind.NOT_TEXT: "{title} holds {shape}; write text.",
    FaultKind.CONTROL_CHARACTER: "{title} holds a control character; remove it.",
    FaultKind.NEITHER_PATH_NOR_PEM: "{title} is neither a path nor PEM text; paste it with its BEGIN and END lines.",
    FaultKind.NO_CERTIFICATE: "{title} holds no whole certificate; paste it from '-----BEGIN CERTIFICATE-----' to "
    "'-----END CERTIFICATE-----'.",
    FaultKind.NO_HOST: "{title} is empty; enter the name of the mail server.",
    FaultKind.HOST_WITH_ACCOUNT: "{title} holds an '@'; write the server's name alone, and the account into "
    "'User name'.",
    FaultKind.HOST_WITH_SCHEME: "{title} is a URL; write the server's name alone, without {scheme}.",
    FaultKind.HOST_WITH_PORT: "{title} has a port behind its name; write the name alone and put the number into "
    "'Port'.",
    FaultKind.NOT_A_HOST: "{title} holds {shape} with a character that is not allowed there, so it is not a host name; "
    "enter the name of the mail server.",
    FaultKind.LOGIN_WITH_COLON: "{title} holds a ':', which no Windows account has; write the account alone, and its "
    "password into 'Password'.",
    FaultKind.NOT_A_LOGIN: r"{title} is not written as an account is; write CORP\user, user@corp.example, or user with "
    "a domain.",
    FaultKind.NOT_A_DOMAIN: "{title} holds {shape} with a character that is not allowed there; write CORP or "
    "corp.example.",
    FaultKind.NOT_AN_SPN: "{title} is not an SPN; write service/host without a realm, as smtp/mail.corp.example.",
    FaultKind.NOT_AN_ADDRESS: "{title} holds {shape}, which is not an address; write etl@corp.example or ETL "
    "<etl@...>.",
    FaultKind.NOT_AN_EHLO_NAME: "{title} is neither a host name nor an address in brackets; write "
    "worker1.corp.example or [192.0.2.1].",
    FaultKind.ACCOUNT_FOR_ANONYMOUS: "{given}: given, but {auth_mode} is 'anonymous', which signs in nowhere; leave "
    f"them empty for an anonymous server. {BASIC_REFUSED}",
    FaultKind.TWO_CREDENTIALS: "{given}: each is a credential of its own; leave one of them.",
    FaultKind.NO_LOGIN: "{title} is given without a user name; enter the Windows account too.",
    FaultKind.NO_PASSWORD: "{title} is empty, and there is a user name; enter its password, or a keytab or credential "
    "cache, or leave the user name empty too to use the worker's own identity.",
    FaultKind.KERBEROS_ONLY: "{title} is for Kerberos, but {windows_protocol} is 'ntlm'; leave it empty or choose "
    "'kerberos'.",
    FaultKind.DOMAIN_WITHOUT_LOGIN: "{title} is given, but there is no user name that it could belong to.",
    FaultKind.TWO_DOMAINS: "{title} differs from the domain in the user name; name the domain once.",
    FaultKind.NO_TLS_TO_BIND_TO: "{title} is 'tls-unique', but there is no TLS to bind to.",
    FaultKind.CONTRADICTION: "{title} contradicts the SSIS connection string{values}; make them agree or leave one of "
    "them empty.",
    FaultKind.NO_EQUALS: "SSIS connection string: part {position} has no '='; write Key=Value pairs with ';' between "
    "them.",
    FaultKind.ACCOUNT_IN_STRING: "SSIS connection string: {key} is not a property of SSIS's SMTP connection manager, "
    "which holds no account; put the account into 'User name' and 'Password' and remove it from the string.",
    FaultKind.KEY_TWICE: "SSIS connection string: {key} stands there twice with different values; keep one.",
    FaultKind.NOT_A_BOOLEAN: "SSIS connection string: {key} holds {shape}; write True or False.",
    FaultKind.NOT_MILLISECONDS: "SSIS connection string: Timeout holds {shape}; write a whole number of milliseconds "
    "above 0.",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong.

    Args:
        field: the key of the setting whose value is wrong, or was meant; or `EXTRA`.
        kind: what is wrong with it.
        details: what the sentence fills in; nothing that somebody typed.
    """

    field: str
    kind: FaultKind
    details: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """The sentence, by the label of the field."""
        setting = ALL_FIELDS.get(self.field)
        title = self.field if setting is None else setting.title
        return _TEXTS[self.kind].format(title=title, field=self.field, **self.details)


class Faults:
    """All that is wrong with one connection, in the order in which it was found."""

    def __init__(self) -> None:
        self._found: list[Fault] = []

    def add(self, name: str, kind: FaultKind, **details: object) -> None:
        """Add one.

        Args:
            name: the key of the setting, or `EXTRA`.
            kind: what is wrong with it.
            details: what the sentence fills in; nothing that somebody typed.
        """
        self._found.append(Fault(field=name, kind=kind, details=details))

    def extend(self, faults: Iterable[Fault]) -> None:
        """Add several."""
        self._found += faults

    def unread(self) -> frozenset[str]:
        """The settings whose value is not known because of a fault, so that nothing can be said of them."""
        found = {fault.field for fault in self._found}
        if EXTRA in found:
            found |= {setting.name for setting in FIELDS}
        if "ssis_properties" in found:
            found |= {setting.name for setting in ALL_FIELDS.values() if setting.in_ssis_properties}
        return frozenset(found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._found)


def shape(value: object) -> str:
    """What may be said of a value that may be a password: its kind and its length."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        text = value.strip()
        return f"text of {len(text)} character{'' if len(text) == 1 else 's'}"
    return f"a {type(value).__name__}"


def describe_path(path: str) -> str:
    """A path for a message; what is not written as the absolute path of a file may be anything, and is not shown."""
    bare = path.removeprefix("FILE:").removeprefix("DIR:")
    return path if bare.startswith("/") and bare.isprintable() and bare.count("/") > 1 else f"({shape(path)})"
