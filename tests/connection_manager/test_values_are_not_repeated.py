"""A value may be a password in the wrong field: no fault, warning, log line, repr or test result repeats it."""

from __future__ import annotations

import itertools
import json
import logging
import traceback
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS, STANDARD_FIELDS
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectionSettingsError, TlsError
from airflow_provider_smtpcm.hooks.smtpcm import describe_failure
from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient
from airflow_provider_smtpcm.smtp.tls import create_context_of

SECRETS = ("Hunter2x", "47114711", "hunter")

# Places of the secret in a value.
PLACES = (
    "{}", "a:{}", "{}:a", "{}!/x", "/{}", "smtp://{}", "{}://x", "smtp://a:{}@h", "{}@x", "x@{}", "{}:25", "[{}]:25",
    " {}\n", "{}\nx", "CORP\\{}:x", "CORP\\{}", "{}\\a\\b", "{} x", '"{}"', "1{}", "1.5{}x", "{}/h", "a/{}@REALM",
    "-----BEGIN {}", "-----BEGIN CERTIFICATE-----{}!-----END CERTIFICATE-----",
    "SmtpServer={}", "SmtpServer=h;{}=1", "SmtpServer=h;x={0};{0}", "SmtpServer=h;{}", "SmtpServer=h;Pass{}=1",
    "SmtpServer=h;Password=a;{}=b", "SmtpServer=h;Timeout={}x", "SmtpServer=h;EnableSsl={}", "SmtpServer=h;{0}=1;{0}=2",
    "SmtpServer=h;UseWindowsAuthentication={}", "SmtpServer={}@h", "SmtpServer={}:25", "SmtpServer=x;SmtpServer={}",
)  # fmt: skip

# The other settings of the connection.
SURROUNDINGS: tuple[dict[str, object], ...] = (
    {},
    {"auth_mode": "windows"},
    {"auth_mode": "windows", "login": "etl", "password": "p"},
    {"auth_mode": "windows", "login": "etl", "windows_protocol": "ntlm"},
    {"auth_mode": "windows", "login": r"CORP\etl", "password": "p", "domain": "OTHER", "windows_protocol": "ntlm"},
    {"ssis_properties": "SmtpServer=other;UseWindowsAuthentication=True;EnableSsl=False;Timeout=5000"},
)


def connection(**settings: object) -> SimpleNamespace:
    """Return a connection as Airflow provides it."""
    standard = {field.name: settings.pop(field.name, None) for field in STANDARD_FIELDS}
    return SimpleNamespace(**{"host": "mail.corp.example", **standard, "extra": settings})


def messages_about(given: SimpleNamespace) -> str:
    """Return all texts about a connection that appear before it is used."""
    try:
        manager = SmtpConnectionManager.from_airflow(given)
    except ConnectionSettingsError as error:
        return "".join((describe_failure(error, limit=None), repr(error), *traceback.format_exception(error)))
    return f"{manager.warnings}{manager!r}".replace(repr(manager.host), "")  # a valid host is shown


def values(secret: str) -> Iterator[object]:
    """Yield values with the secret in each place, and in each JSON type."""
    yield from (place.format(secret) for place in PLACES)
    yield from ([secret], {secret: secret}, secret.encode())
    if secret.isdigit():
        yield from (int(secret), -int(secret), float(secret) + 0.5)


@pytest.mark.parametrize("name", sorted(ALL_FIELDS))
@pytest.mark.parametrize("secret", SECRETS)
def test_no_field_is_repeated(name: str, secret: str) -> None:
    """Whatever its type, the other settings, and the place of the secret in the value."""
    for value, others in itertools.product(values(secret), SURROUNDINGS):
        settings = {"host": "h", **others, name: value}
        assert secret not in messages_about(connection(**settings)), settings


@pytest.mark.parametrize("secret", [*SECRETS, "ssl-mode-Hunter2x", "extra__Hunter2x__ssl_mode", "Hunter2x_ssl_mode"])
def test_no_key_is_repeated(secret: str) -> None:
    """In a URI, the part of a password after a question mark becomes a key."""
    for place in PLACES:
        assert secret not in messages_about(SimpleNamespace(host="h", extra={place.format(secret): "x"})), place


@pytest.mark.parametrize("extra", ['{{"password": "{}"', '"{}"', '["{}"]', "{}", "{{'a': '{}'}}"])
def test_an_extra_that_is_not_an_object_is_not_repeated(extra: str) -> None:
    """Not even by the JSON parser's error."""
    assert "Hunter2x" not in messages_about(SimpleNamespace(host="h", extra=extra.format("Hunter2x")))


@pytest.mark.parametrize("setting", ["keytab", "ccache", "ca_certificate", "client_certificate"])
@pytest.mark.parametrize("value", ["Hunter2x", "a/Hunter2x", "/Hunter2x", "FILE:Hunter2x"])
def test_only_an_absolute_path_is_repeated_if_the_file_is_missing(setting: str, value: str) -> None:
    """Anything else may be a password."""
    account = {} if setting.endswith("certificate") else {"auth_mode": AuthMode.WINDOWS, "login": "etl@corp.example"}
    for given, shown in ((value, False), ("/nowhere/at/Hunter2x", True)):
        manager = SmtpConnectionManager(host="h", **account, **{setting: given})  # type: ignore[arg-type]
        with pytest.raises((AuthenticationError, TlsError)) as caught:
            _ = (
                create_context_of(manager)
                if setting.endswith("certificate")
                else KerberosClient(manager)._find_credential()
            )
        assert ("Hunter2x" in str(caught.value)) is shown
        assert "cannot be used" in str(caught.value)


def test_the_log_repeats_no_value(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even at level DEBUG."""
    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook

    caplog.set_level(logging.DEBUG)
    extra = {"timeout": "Hunter2x", "Hunter2x": "Hunter2x", "auth_mode": "Hunter2x", "domain": "Hunter2x"}
    made = {"conn_type": "smtpcm", "host": "etl:Hunter2x@h", "login": "a:Hunter2x", "password": "Hunter2x"}
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps({**made, "extra": extra}))
    passed, answer = SmtpConnectionManagerHook("mail").test_connection()
    assert not passed
    assert "for 4 reasons" in answer
    assert "Hunter2x" not in answer + caplog.text
