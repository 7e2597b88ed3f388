"""An SMTP connection manager is parsed from anything that Airflow provides, and all faults are reported at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_smtpcm.check.connections import parse_connection
from airflow_provider_smtpcm.connection_manager import (
    FIELDS,
    AuthMode,
    Field,
    SmtpConnectionManager,
    SslMode,
    WindowsProtocol,
    parse,
)
from airflow_provider_smtpcm.connection_manager.faults import Faults
from airflow_provider_smtpcm.errors import ConnectionSettingsError, Phase
from airflow_provider_smtpcm.mail.address_list import parse_addresses


def connection(**fields: object) -> SimpleNamespace:
    """Return a connection as Airflow provides it."""
    return SimpleNamespace(**{"conn_id": "mail", "host": "mail.corp.example", "extra": None, **fields})


def faults_of(**fields: object) -> tuple[str, ...]:
    """Return the faults of a connection."""
    with pytest.raises(ConnectionSettingsError) as caught:
        SmtpConnectionManager.from_airflow(connection(**fields))
    assert caught.value.conn_id == "mail"
    return caught.value.faults


def extra_faults(**extra: object) -> tuple[str, ...]:
    """Return the faults of an extra."""
    return faults_of(extra=extra)


def test_all_faults_are_reported_together_by_their_form_labels() -> None:
    """One click on Test shows them all."""
    faults = faults_of(
        host="",
        port="smtp",
        extra={"ssl_mode": "yes", "timeout": "soon", "verify_certificate": "maybe", "frm_address": "x"},
    )
    labels = ("frm_address", "Port", "SSL", "Timeout (seconds)", "Verify certificate", "SMTP server")
    assert [any(label in fault for fault in faults) for label in labels] == [True] * 6
    assert len(faults) == 6


def test_the_error_names_the_connection_and_does_not_retry() -> None:
    """An invalid connection does not become valid by itself."""
    with pytest.raises(ConnectionSettingsError) as caught:
        SmtpConnectionManager.from_airflow(connection(host=None))
    assert "Connection 'mail' cannot be used" in str(caught.value)
    assert "enter the name of the mail server" in str(caught.value)
    assert caught.value.phase is Phase.SETTINGS
    assert not caught.value.retryable


@pytest.mark.parametrize("word", ["basic", "Basic", "plain", "login", "oauth2"])
def test_basic_authentication_is_refused_with_an_alternative(word: str) -> None:
    """The password itself is never sent."""
    (fault,) = extra_faults(auth_mode=word)
    assert "Windows Authentication" in fault
    assert "apache-airflow-providers-smtp" in fault


@pytest.mark.parametrize(
    "account", [{"login": "etl"}, {"password": "hunter2-x"}, {"login": "etl", "password": "hunter2-x"}]
)
def test_an_account_with_an_anonymous_server_is_refused(account: dict[str, str]) -> None:
    """The user expects it to be used."""
    (fault,) = faults_of(**account)
    assert "anonymous" in fault
    assert "apache-airflow-providers-smtp" in fault
    assert "hunter2-x" not in fault


def test_a_user_name_without_password_is_refused() -> None:
    """NTLM cannot prove an account without its password."""
    (fault,) = faults_of(login=r"CORP\etl", extra={"auth_mode": "windows"})
    assert "Password" in fault
    assert "worker's own identity" in fault


def test_a_password_without_user_name_is_refused() -> None:
    """Half an account is a mistake."""
    (fault,) = faults_of(password="hunter2-x", extra={"auth_mode": "windows"})
    assert "user name" in fault
    assert "hunter2-x" not in fault


@pytest.mark.parametrize("login", ["CORP\\", "@corp.example", "etl@", r"a\b\c", r"CORP\etl@corp.example"])
def test_a_login_with_another_syntax_is_refused(login: str) -> None:
    """It would count as a failed sign-in."""
    faults = faults_of(login=login, password="p", extra={"auth_mode": "windows"})
    assert ["User name" in fault for fault in faults] == [True]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"auth_mode": "anonymous", "spn": "smtp/x"}, "SPN"),
        ({"auth_mode": "anonymous", "domain": "CORP"}, "Windows domain"),
        ({"auth_mode": "anonymous", "keytab": "/x"}, "Keytab"),
        ({"auth_mode": "windows", "domain": "CORP"}, "no user name"),
        ({"auth_mode": "windows", "keytab": "/x", "ccache": "/y"}, "only one credential can be used"),
        ({"auth_mode": "windows", "keytab": "/x", "windows_protocol": "ntlm"}, "for Kerberos"),
        ({"auth_mode": "windows", "spn": "smtp/x", "windows_protocol": "ntlm"}, "for Kerberos"),
        ({"auth_mode": "windows", "spn": "smtp/x@REALM"}, "without a realm"),
        ({"auth_mode": "windows", "ssl_mode": "none", "channel_binding": "tls-unique"}, "no TLS to bind to"),
        ({"ssl_mode": "none", "client_certificate": "/x.pem"}, "would never be sent"),
        ({"ssl_mode": "none", "client_certificate": "/x.pem", "client_key": "/x.key"}, "would never be sent"),
        ({"client_key": "/x.key"}, "without Client certificate (client_certificate)"),
    ],
)
def test_a_setting_that_could_have_no_effect_is_refused(extra: dict[str, str], message: str) -> None:
    """The user expects it to have one."""
    (fault,) = extra_faults(**extra)
    assert message in fault


@pytest.mark.parametrize("setting", ["client_certificate", "client_key"])
def test_a_client_certificate_is_a_path_and_no_text(setting: str) -> None:
    """A private key in a connection would be shown to everybody who may edit it."""
    key = "-----BEGIN PRIVATE KEY-----\nHunter2x\n-----END PRIVATE KEY-----"
    faults = extra_faults(**{"client_certificate": "/x.pem", setting: key})
    assert ["holds PEM text" in fault for fault in faults] == [True]
    assert "Hunter2x" not in faults[0]


@pytest.mark.parametrize("auth_mode", ["anonymous", "windows"])
def test_a_client_certificate_goes_with_either_authentication(auth_mode: str) -> None:
    """A server may know the worker by its certificate, and its user by a ticket."""
    extra = {"auth_mode": auth_mode, "client_certificate": " /x.pem ", "client_key": "/x.key"}
    manager = SmtpConnectionManager.from_airflow(connection(extra=extra))
    assert (manager.client_certificate, manager.client_key) == ("/x.pem", "/x.key")


@pytest.mark.parametrize("credential", ["keytab", "ccache"])
def test_a_password_beside_a_file_is_refused(credential: str) -> None:
    """Which one is meant cannot be known."""
    faults = faults_of(login="etl", password="hunter2-x", extra={"auth_mode": "windows", credential: "/x"})
    assert ["only one credential can be used" in fault for fault in faults] == [True]


@pytest.mark.parametrize("login", [r"CORP\etl", "etl@corp.example", r".\etl"])
@pytest.mark.parametrize("domain", ["OTHER", "other.example", "sub.corp.example"])
def test_two_domains_for_one_account_are_refused(login: str, domain: str) -> None:
    """Which one is meant cannot be known."""
    (fault,) = faults_of(login=login, password="p", extra={"auth_mode": "windows", "domain": domain})
    assert "name the domain once: clear it" in fault


@pytest.mark.parametrize(
    ("login", "domain"),
    [
        ("etl@corp.example", "CORP"),
        ("etl@CORP.example", "corp.example"),
        (r"CORP\etl", "corp.example"),
        (r".\etl", "."),
    ],
)
def test_a_domain_that_repeats_that_of_the_user_name_is_not_sent(login: str, domain: str) -> None:
    """As in Windows, a UPN is an account by itself."""
    extra = {"auth_mode": "windows", "domain": domain}
    assert SmtpConnectionManager.from_airflow(connection(login=login, password="p", extra=extra)).account == login


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("smtp://mail.corp.example", "without smtp://"),
        ("mail.corp.example:587", "put the number into 'Port'"),
        ("mail.corp.example:465:1", "put the number into 'Port'"),
        ("[2001:db8::1]:587", "put the number into 'Port'"),
        (":25", "put the number into 'Port'"),
        ("2001:db8", "not a host name"),
        ("mail corp example", "not a host name"),
        ("mail.corp.example\r\nQUIT", "control character"),
        ("", "is empty"),
        (None, "is empty"),
    ],
)
def test_an_invalid_host_is_refused(host: str | None, remedy: str) -> None:
    """The most common mistakes each have a remedy."""
    assert [remedy in fault for fault in faults_of(host=host)] == [True]


@pytest.mark.parametrize(
    ("fallback_hosts", "remedy"),
    [
        ("relay2.corp.example,relay3.corp.example", "entry 1 is neither a host name nor host:port"),
        ("relay2.corp.example; etl@relay3", "entry 2 is neither a host name nor host:port"),
        ("relay2 relay3", "separated by ';'"),
        (":2525", "entry 1 is neither"),
        ("[relay2.corp.example]", "entry 1 is neither"),
        ("[::1", "entry 1 is neither"),
        ("[::1]2525", "entry 1 is neither"),
        ("2001:db8::25", "write it in brackets"),
        ("relay2:smtp", "the port of entry 1 is not a number from 1 to 65535"),
        ("relay2:65536", "the port of entry 1"),
        ("relay2:0", "the port of entry 1"),
        ("relay2:", "the port of entry 1"),
        ("[::1]:", "the port of entry 1"),
        ("smtp://relay2", "the port of entry 1"),
        ("Mail.corp.example.", "entry 1 is the SMTP server itself"),
        ("relay2; RELAY2.:25", "entry 2 is the same server as entry 1"),
        (["relay2"], "write text"),
    ],
)
def test_an_invalid_fallback_host_is_refused(fallback_hosts: object, remedy: str) -> None:
    """Each by its place in the list, since its text may be a password."""
    assert [remedy in fault for fault in extra_faults(fallback_hosts=fallback_hosts)] == [True]


def test_each_fallback_host_is_a_server_with_the_same_settings() -> None:
    """Its port is that of the connection unless it has one."""
    manager = SmtpConnectionManager(
        host="mail.corp.example",
        port=587,
        from_address="a@corp.example",
        fallback_hosts=" relay2 ;; [::1]:2525; relay2:25;",
    )
    assert manager.fallback_hosts == "relay2;[::1]:2525;relay2:25"
    servers = manager.list_servers()
    assert [(one.host, one.port) for one in servers] == [
        ("mail.corp.example", 587), ("relay2", 587), ("::1", 2525), ("relay2", 25),
    ]  # fmt: skip
    assert {(one.from_address, one.fallback_hosts) for one in servers} == {("a@corp.example", None)}
    assert SmtpConnectionManager(host="mail.corp.example", fallback_hosts=" ; ").fallback_hosts is None
    assert len(SmtpConnectionManager(host="mail.corp.example").list_servers()) == 1


@pytest.mark.parametrize("value", ["<>", "bounces@corp.example", "Bounces <bounces@corp.example>"])
def test_the_envelope_sender_is_an_address_or_a_null_return_path(value: str) -> None:
    """Anything else is a fault that names the field."""
    assert SmtpConnectionManager.from_airflow(connection(extra={"envelope_from": f" {value} "})).envelope_from == value
    for wrong in ("nobody", "< >", "a@corp.example; b@corp.example", "a@corp.example\r\nRCPT TO:<b@x.example>"):
        assert ["Envelope sender" in fault for fault in extra_faults(envelope_from=wrong)] == [True]


@pytest.mark.parametrize(
    "host", ["smtp://etl:hunter2@mail.corp.example", "etl:hunter2@mail.corp.example:25", "hunter2@h"]
)
def test_an_account_in_the_host_is_not_repeated(host: str) -> None:
    """Airflow masks only the password in the password field."""
    for faults in (faults_of(host=host), faults_of(host=None, extra={"ssis_properties": f"SmtpServer={host};"})):
        assert ["SMTP server" in fault for fault in faults] == [True]
        assert "hunter2" not in str(faults)
        assert "'User name'" in faults[0]


@pytest.mark.parametrize("port", ["smtp", 0, 65536, -1, 25.5, "25.5", True])
def test_an_invalid_port_is_refused(port: object) -> None:
    """It is a number from 1 to 65535."""
    assert ["Port" in fault for fault in faults_of(port=port)] == [True]


@pytest.mark.parametrize("value", ["maybe", "2", "", [], 3])
def test_a_flag_that_is_neither_true_nor_false_is_refused(value: object) -> None:
    """Text is not true merely because it is not empty."""
    if value == "":
        assert SmtpConnectionManager.from_airflow(connection(extra={"verify_certificate": value})).verify_certificate
    else:
        assert ["true or false" in fault for fault in extra_faults(verify_certificate=value)] == [True]


@pytest.mark.parametrize("value", [True, "true", "Yes", 1, "on"])
def test_binary_attachments_are_switched_on_by_any_word_for_true(value: object) -> None:
    """As text too, as in a URI; any other word is a fault."""
    assert ["true or false" in fault for fault in extra_faults(binary_mime="exchange")] == [True]
    assert SmtpConnectionManager.from_airflow(connection(extra={"binary_mime": value})).binary_mime is True


@pytest.mark.parametrize("value", ["soon", 0, -1, 3601, "1e9", "1_000", "nan", "inf", True])
def test_a_timeout_out_of_bounds_is_refused(value: object) -> None:
    """Seconds, from 1 to 3600."""
    assert ["Timeout (seconds)" in fault for fault in extra_faults(timeout=value)] == [True]


@pytest.mark.parametrize("extra", ["not json", "[1]", '"text"', [1], 5])
def test_an_extra_that_is_not_a_json_object_is_refused(extra: object) -> None:
    """The fault says what to write."""
    assert ["JSON" in fault for fault in faults_of(extra=extra)] == [True]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("ssl_mod", "did you mean 'ssl_mode'"),
        ("connection_string", "ssis_properties"),
        ("disable_ssl", "ssl_mode"),
        ("from_email", "from_address"),
        ("binary_mim", "did you mean 'binary_mime'"),
        ("timeuot", "did you mean 'timeout'"),
        ("domian", "did you mean 'domain'"),
        ("SSL_Mode", "did you mean 'ssl_mode'"),
        ("auth-mode", "did you mean 'auth_mode'"),
        ("authMode", "did you mean 'auth_mode'"),
        ("address_from", "did you mean 'from_address'"),
        ("extra__smtpcm__spn", "did you mean 'spn'"),
    ],
)
def test_a_key_that_looks_like_a_known_one_is_refused_with_the_known_one(key: str, hint: str) -> None:
    """A setting that has no effect must not look as if it had."""
    assert [hint in fault for fault in extra_faults(**{key: "x"})] == [True]


@pytest.mark.parametrize("key", ["not_known_here", "zzz", "x" * 99])
def test_any_other_unknown_key_is_a_warning(key: str) -> None:
    """It may belong to a newer version of this package: not all workers are updated at once."""
    manager = SmtpConnectionManager.from_airflow(connection(extra={"timeout": 5, key: "x"}))
    (warning,) = manager.warnings
    assert manager.timeout == 5
    assert (key if "_" in key else f"number 2 in Extra (text of {len(key)} characters)") in warning
    assert "update it on this worker" in warning


def test_a_thousand_unknown_keys_are_one_warning() -> None:
    """The result of the Test button has to fit."""
    (warning,) = SmtpConnectionManager.from_airflow(connection(extra={f"x{n}": 1 for n in range(1000)})).warnings
    assert "and 995 more" in warning


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"extra": {"zzz": 1}}, None),
        ({"extra": {"ssl_mod": "none"}}, "did you mean 'ssl_mode'"),
        ({"extra": {"timeout": "auth_mode"}}, "Timeout (seconds)"),
        ({"port": "auth_mode"}, "Port"),
        ({"extra": {"from_address": "auth_mode"}}, "From address"),
    ],
)
def test_no_other_fault_hides_that_a_password_has_no_effect(other: dict[str, object], fault: str | None) -> None:
    """In whichever words."""
    faults = faults_of(password="hunter2-x", **other)
    assert [fault for fault in faults if "Password (password): set, but Authentication" in fault]
    assert len(faults) == 1 + (fault is not None)
    assert fault is None or fault in "".join(faults)


@pytest.mark.parametrize(
    "fields",
    [
        {"login": "etl", "password": "p", "extra": {"auth_mode": "yes"}},
        {"login": "etl", "password": "p", "extra": {"auth_mod": "windows"}},
        {"login": "etl", "password": "p", "extra": {"UseWindowsAuthentication": "True"}},
        {"login": "etl", "password": "p", "extra": "{'auth_mode': 'windows'}"},
        {"login": "etl", "password": "p", "extra": {"ssis_properties": "SmtpServer=h;UseWindowsAuthentication=2"}},
        {"host": "", "extra": {"ssis_properties": "SmtpServer=h;EnableSsl=2"}},
        {"host": "", "extra": {"connection_string": "SmtpServer=h"}},
        {"host": "a\nb"},
        {"login": "a\nb", "password": "p", "extra": {"auth_mode": "windows"}},
        {"login": "a\nb", "extra": {"auth_mode": "windows", "domain": "CORP"}},
        {"login": "etl", "password": ["p"], "extra": {"auth_mode": "windows"}},
        {"login": "etl", "extra": {"auth_mode": "windows", "keytab": "a\nb"}},
    ],
)
def test_an_unreadable_setting_has_one_fault(fields: dict[str, object]) -> None:
    """No other fault is derived from it."""
    assert len(faults_of(**fields)) == 1


@pytest.mark.parametrize("name", ["worker 1", "-x", "[1.2.3.4", "a\r\nb"])
def test_an_invalid_local_host_name_is_refused(name: str) -> None:
    """It is sent in EHLO."""
    assert ["Local host name" in fault for fault in extra_faults(local_hostname=name)] == [True]


def test_the_defaults_are_anonymous_with_required_and_verified_tls() -> None:
    """Only a host is required."""
    manager = SmtpConnectionManager.from_airflow(connection())
    assert (manager.port, manager.auth_mode, manager.ssl_mode) == (25, AuthMode.ANONYMOUS, SslMode.STARTTLS)
    assert (manager.verify_certificate, manager.timeout, manager.final_reply_timeout) == (True, 30, 600)
    assert manager.windows_protocol is WindowsProtocol.NEGOTIATE
    assert manager.binary_mime is False
    assert manager.warnings == ()


def test_implicit_tls_has_its_own_port() -> None:
    """Unless the connection names one."""
    assert SmtpConnectionManager(host="h", ssl_mode=SslMode.IMPLICIT).port == 465
    assert SmtpConnectionManager(host="h", ssl_mode=SslMode.IMPLICIT, port=2465).port == 2465


def test_a_changed_copy_keeps_its_port_unless_the_port_is_0() -> None:
    """The manager does not know whether its port was set or is a default."""
    plain = SmtpConnectionManager(host="h")
    assert dataclasses.replace(plain, ssl_mode=SslMode.IMPLICIT).port == 25
    assert dataclasses.replace(plain, ssl_mode=SslMode.IMPLICIT, port=0).port == 465


@pytest.mark.parametrize(
    "extra",
    [
        {"auth_mode": "windows", "verify_certificate": "false", "timeout": "5", "domain": "CORP"},
        '{"auth_mode": "Windows", "verify_certificate": "False", "timeout": 5.0, "domain": "CORP"}',
        {"auth_mode": " windows ", "verify_certificate": 0, "timeout": 5, "domain": "CORP", "ssl_mode": None},
        {"auth_mode": "windows", "verify_certificate": "no", "timeout": "5.0", "domain": "CORP", "reply_to": ""},
    ],
)
def test_text_numbers_and_nulls_are_read_alike(extra: object) -> None:
    """A URI has only text, the form writes nulls, and "false" is false."""
    manager = SmtpConnectionManager.from_airflow(connection(port="2525", login="etl", password="p", extra=extra))
    assert (manager.auth_mode, manager.verify_certificate, manager.timeout) == (AuthMode.WINDOWS, False, 5.0)
    assert (manager.port, manager.ssl_mode, manager.account) == (2525, SslMode.STARTTLS, r"CORP\etl")


@pytest.mark.parametrize(
    "create",
    [
        lambda: SmtpConnectionManager(host="h", timeout=5),
        lambda: SmtpConnectionManager.from_airflow(connection(port=25, extra={"timeout": "5", "auth_mode": "windows"})),
        lambda: SmtpConnectionManager.from_connection_string("SmtpServer=h;UseWindowsAuthentication=True;"),
    ],
    ids=["constructor", "from Airflow", "from SSIS"],
)
def test_a_connection_is_parsed_once(
    create: Callable[[], SmtpConnectionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No value is coerced twice."""
    coerce, coerced = parse.coerce, []

    def record(field: Field, value: object, faults: Faults) -> object:
        if value is not None:
            coerced.append(field.name)
        return coerce(field, value, faults)

    monkeypatch.setattr(parse, "coerce", record)
    create()
    assert "host" in coerced
    assert sorted(set(coerced)) == sorted(coerced)


@pytest.mark.parametrize("extra", ["", "  \n", "null", b"", None])
def test_an_empty_extra_means_the_defaults(extra: object) -> None:
    """In any of its forms."""
    manager = SmtpConnectionManager.from_airflow(connection(extra=extra))
    assert manager == SmtpConnectionManager(host="mail.corp.example")


def test_an_empty_form_means_the_defaults() -> None:
    """The form writes an explicit null for each field."""
    extra = dict.fromkeys((field.name for field in FIELDS), None)
    assert SmtpConnectionManager.from_airflow(connection(extra=extra)) == SmtpConnectionManager(
        host="mail.corp.example"
    )


def test_digits_that_airflow_turned_into_numbers_become_text() -> None:
    """Some versions do that with URIs."""
    manager = SmtpConnectionManager.from_airflow(
        connection(login="etl", password=12345, extra={"auth_mode": "windows", "domain": 7})
    )
    assert (manager.password, manager.domain) == ("12345", "7")


def test_blanks_are_part_of_a_password() -> None:
    """They are trimmed everywhere else."""
    manager = SmtpConnectionManager(host=" h ", login=" etl ", password="  ", auth_mode=AuthMode.WINDOWS)
    assert (manager.host, manager.login, manager.password) == ("h", "etl", "  ")


@pytest.mark.parametrize("host", ["::1", "2001:470:20::2", "fd00:10:20::25", "2001:db8::1:25", "fe80::1%eth0"])
def test_an_ipv6_address_is_a_host(host: str) -> None:
    """With or without brackets, and even if its last group looks like a port."""
    assert SmtpConnectionManager(host=f"[{host}]").host == SmtpConnectionManager(host=host).host == host


def test_escaped_line_ends_in_pem_are_restored() -> None:
    """Environment variables and URIs have them."""
    text = "Bag Attributes\nsubject=CN = Corp CA\n-----BEGIN CERTIFICATE-----\nAA\nBB\n-----END CERTIFICATE-----\n"
    for written in (text, text.replace("\n", "\\n"), text.replace("\n", " "), text.replace("\n", "\r\n")):
        manager = SmtpConnectionManager(host="h", ca_certificate=written)
        assert manager.ca_certificate == "-----BEGIN CERTIFICATE-----\nAABB\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PRIVATE KEY-----\nhunter2x\n-----END PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nhunter2x",
        "-----BEGIN CERTIFICATE-----\nhünter2x\n-----END CERTIFICATE-----",
        "hunter2x\nhunter2x",
    ],
)
def test_pem_without_a_certificate_is_refused_without_being_repeated(text: str) -> None:
    """People paste private keys."""
    (fault,) = extra_faults(ca_certificate=text)
    assert "CA certificate" in fault
    assert "nter2x" not in fault


@pytest.mark.parametrize("address", ["garbage", "a b", "etl@corp.example; x", "<etl@corp.example", "@corp.example"])
@pytest.mark.parametrize("name", ["from_address", "reply_to"])
def test_an_invalid_address_is_a_fault_of_the_connection(name: str, address: str) -> None:
    """It is found before a mail needs it."""
    (fault,) = extra_faults(**{name: address})
    assert name in fault


@pytest.mark.parametrize("address", ["etl@corp.example", "ETL, nightly <etl@corp.example>", "Jürgen <j@köln.example>"])
def test_an_address_may_have_a_display_name(address: str) -> None:
    """Reply-To may also have several addresses."""
    extra = {"from_address": address, "reply_to": f"{address}; ops@corp.example"}
    assert SmtpConnectionManager.from_airflow(connection(extra=extra)).from_address == address


@pytest.mark.parametrize(
    ("reply_to", "expected"),
    [
        ("a@corp.example\r\nb@corp.example\n", ["a@corp.example", "b@corp.example"]),
        ("a@corp.example,\n\tb@corp.example, c@corp.example", ["a@corp.example", "b@corp.example", "c@corp.example"]),
        ("Doe, Jane <j@corp.example>;\nb@corp.example", ['"Doe, Jane" <j@corp.example>', "b@corp.example"]),
        ("Team: a@corp.example, b@corp.example;", ["a@corp.example", "b@corp.example"]),
        ("a@corp.example <A@corp.example>", ["A@corp.example"]),
    ],
)
def test_addresses_of_a_connection_are_taken_as_those_of_a_mail(reply_to: str, expected: list[str]) -> None:
    """JSON and the command line may give several lines; white space around the sender is none of it."""
    extra = {"from_address": " ETL <etl@corp.example>\n", "reply_to": reply_to}
    manager = SmtpConnectionManager.from_airflow(connection(extra=extra))
    assert [str(address) for address in parse_addresses(manager.reply_to, field="Reply-To")] == expected
    assert manager.from_address == "ETL <etl@corp.example>"


@pytest.mark.parametrize(
    "extra",
    [
        {"reply_to": "a@corp.example\nBcc: b@corp.example"},
        {"reply_to": "a@corp.example\nX: b@corp.example;"},
        {"reply_to": "a@corp.example\nops"},
        {"reply_to": "a@cor\tp.example"},
        {"from_address": "a@corp.example\nb@corp.example"},
        {"from_address": "b@corp.example <a@corp.example>"},
    ],
)
def test_a_line_break_within_an_address_is_a_fault_of_the_connection(extra: dict[str, str]) -> None:
    """And so is a line that looks like a header."""
    (fault,) = extra_faults(**extra)
    assert next(iter(extra)) in fault


def test_the_password_is_in_no_repr() -> None:
    """Nor are unknown properties of an SSIS connection string."""
    manager = SmtpConnectionManager(host="h", login="etl", password="hunter2-x", auth_mode=AuthMode.WINDOWS)
    assert "hunter2-x" not in repr(manager)


def test_windows_without_login_is_the_workers_own_identity() -> None:
    """As in SSIS."""
    manager = SmtpConnectionManager(host="h", auth_mode=AuthMode.WINDOWS)
    assert manager.account is None


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"auth_mode": "windows", "ssl_mode": "none"}, "clear text"), ({"verify_certificate": False}, "not verified")],
)
def test_a_weak_setting_that_is_explicit_is_a_warning(settings: dict[str, object], word: str) -> None:
    """It is allowed."""
    (warning,) = SmtpConnectionManager(host="h", **settings).warnings  # type: ignore[arg-type]
    assert word in warning


def test_it_is_an_ssis_connection_manager_of_type_smtp() -> None:
    """SSIS's `ConnectionManagerType`."""
    assert SmtpConnectionManager.connection_manager_type == "SMTP"


managers = st.builds(
    SmtpConnectionManager,
    host=st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9}){0,3}", fullmatch=True),
    port=st.integers(1, 65535),
    auth_mode=st.sampled_from(AuthMode),
    ssl_mode=st.sampled_from(SslMode),
    windows_protocol=st.sampled_from(WindowsProtocol),
    verify_certificate=st.booleans(),
    binary_mime=st.booleans(),
    timeout=st.floats(1, 3600, allow_nan=False),
    from_address=st.sampled_from([None, "a@corp.example", "Ä <a@corp.example>"]),
    ca_certificate=st.sampled_from([None, "/etc/ssl/ca.pem"]),
    local_hostname=st.sampled_from([None, "worker1.corp.example", "[192.0.2.1]"]),
    envelope_from=st.sampled_from([None, "<>", "bounces@corp.example", "Bounces <b@corp.example>"]),
    fallback_hosts=st.sampled_from([None, "0.corp.example;[2001:db8::25]:2525"]),
    unknown_properties=st.sampled_from([(), (("ConnectByProxy", "False"),)]),
)


def test_a_client_certificate_survives_the_round_trip() -> None:
    """As JSON, and as the URI of an environment variable."""
    manager = SmtpConnectionManager(
        host="h", client_certificate="/etc/etl/client.pem", client_key="/etc/etl/client.key"
    )
    assert SmtpConnectionManager.from_airflow(SimpleNamespace(**manager.to_airflow())) == manager
    uri = "smtpcm://h:25/?client_certificate=%2Fetc%2Fetl%2Fclient.pem&client_key=%2Fetc%2Fetl%2Fclient.key"
    assert SmtpConnectionManager.from_airflow(parse_connection(uri, "the URI")) == manager
    assert "client" not in repr(manager) + manager.connection_string


@given(manager=managers, as_text=st.booleans())
def test_to_airflow_and_from_airflow_round_trip(manager: SmtpConnectionManager, as_text: bool) -> None:
    """With the extra as a dict, and as JSON text."""
    written = manager.to_airflow()
    if as_text:
        written["extra"] = json.dumps(written["extra"])
    assert SmtpConnectionManager.from_airflow(SimpleNamespace(**written)) == manager


def test_a_subclass_checks_a_connection_too() -> None:
    """Where it comes from Airflow or from a connection string, as where it is constructed."""

    class Internal(SmtpConnectionManager):
        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.host.endswith(".corp.example"):
                raise ValueError(self.host)

    with pytest.raises(ValueError, match=r"mail\.example"):
        Internal.from_connection_string("SmtpServer=mail.example")
    internal = Internal.from_connection_string("SmtpServer=mail.corp.example")
    assert (internal.host, type(internal)) == ("mail.corp.example", Internal)


def test_faults_come_in_the_order_of_the_form_whatever_the_order_of_the_extras() -> None:
    """So that the same connection always gets the same message."""
    both = {"keytab": ["x"], "timeout": "soon", "auth_mode": "basic"}
    told = []
    for extra in (both, dict(reversed(both.items()))):
        with pytest.raises(ConnectionSettingsError) as caught:
            SmtpConnectionManager.from_airflow(
                SimpleNamespace(host="h", port=None, login=None, password=None, extra=json.dumps(extra))
            )
        told.append(caught.value.faults)
    assert told[0] == told[1]
