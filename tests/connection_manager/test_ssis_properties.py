"""An SSIS connection string fills the fields that are empty, and no message repeats a password from it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectionSettingsError

read = SmtpConnectionManager.from_connection_string


@pytest.mark.parametrize(
    "secret",
    [
        "SmtpServer=h;UserName=etl;Password=hunter2-x;",
        "SmtpServer=h;Password=hunter2;x;hunter2-x=1;",
        "SmtpServer=h;pwd=hunter2-x",
        "SmtpServer=h; user id = hunter2-x",
    ],
)
def test_an_account_in_the_string_is_refused_without_being_repeated(secret: str) -> None:
    """SSIS's connection manager has none, and errors end up in logs."""
    with pytest.raises(ConnectionSettingsError) as caught:
        read(secret)
    assert "'User name' and 'Password'" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("SmtpServer=h;EnableSsl=maybe", "EnableSsl"),
        ("SmtpServer=h;UseWindowsAuthentication=2", "UseWindowsAuthentication"),
        ("SmtpServer=h;Timeout=soon", "Timeout"),
        ("SmtpServer=h;Timeout=0", "Timeout"),
        ("SmtpServer=h;Timeout=-5", "Timeout"),
        pytest.param(f"SmtpServer=h;Timeout={'9' * 400}", "Timeout", id="400 digits"),
        pytest.param(f"SmtpServer=h;Timeout={'9' * 5000}", "Timeout", id="5,000 digits"),
        ("SmtpServer=h;SmtpServer=other", "twice"),
        ("SmtpServer=h;loose", "part 2 has no '='"),
        ("SmtpServer=mail:465:1", "'Port'"),
        ("SmtpServer=;EnableSsl=True", "is empty"),
        ("", "is empty"),
    ],
)
def test_the_fault_of_an_invalid_string_gives_its_place(string: str, message: str) -> None:
    """One fault for each mistake."""
    with pytest.raises(ConnectionSettingsError) as caught:
        read(string)
    assert [message in fault for fault in caught.value.faults] == [True]


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"host": "other"}, "SMTP server"),
        ({"extra": {"auth_mode": "anonymous"}}, "Authentication"),
        ({"extra": {"ssl_mode": "none"}}, "SSL"),
        ({"extra": {"timeout": 31}}, "Timeout"),
    ],
)
def test_a_contradiction_is_refused(fields: dict[str, object], label: str) -> None:
    """Neither side takes precedence."""
    string = "SmtpServer=h;UseWindowsAuthentication=True;EnableSsl=True;Timeout=30000;"
    extra = {"ssis_properties": string, **fields.pop("extra", {})}  # type: ignore[dict-item]
    with pytest.raises(ConnectionSettingsError, match=label):
        SmtpConnectionManager.from_airflow(SimpleNamespace(**{"host": "", "extra": extra, **fields}))


def test_equal_settings_are_not_a_contradiction() -> None:
    """Implicit TLS is SSL too."""
    extra = {"ssis_properties": "SmtpServer=Mail;EnableSsl=True", "ssl_mode": "implicit"}
    manager = SmtpConnectionManager.from_airflow(SimpleNamespace(host="mail", extra=extra))
    assert (manager.host, manager.ssl_mode, manager.port) == ("mail", SslMode.IMPLICIT, 465)


@pytest.mark.parametrize(
    "string",
    [
        "SmtpServer=h;UseWindowsAuthentication=True;EnableSsl=False;",
        "enablessl=false;USEWINDOWSAUTHENTICATION=true;smtpserver=h",
        " SmtpServer = h ;; UseWindowsAuthentication = True ; EnableSsl = False ",
    ],
)
def test_order_case_blanks_and_the_last_semicolon_do_not_matter(string: str) -> None:
    """Whatever program wrote it."""
    manager = read(string)
    assert (manager.host, manager.auth_mode, manager.ssl_mode) == ("h", AuthMode.WINDOWS, SslMode.NONE)


def test_a_bare_host_is_a_valid_string() -> None:
    """Microsoft's own example has one."""
    assert read("smtphost").host == "smtphost"


def test_a_missing_key_means_our_default() -> None:
    """So TLS is on, unlike in SSIS."""
    manager = read("SmtpServer=h")
    assert (manager.auth_mode, manager.ssl_mode, manager.timeout) == (AuthMode.ANONYMOUS, SslMode.STARTTLS, 30)


def test_the_timeout_is_in_milliseconds() -> None:
    """As in SSIS."""
    manager = read("SmtpServer=h;Timeout=10000;")
    assert manager.timeout == 10
    assert manager.warnings == ()


def test_a_timeout_below_a_second_is_taken_as_seconds_with_a_warning() -> None:
    """People wrote 20 and meant seconds."""
    manager = read("SmtpServer=h;Timeout=20;")
    assert manager.timeout == 20
    assert "20 seconds" in manager.warnings[0]


def test_a_key_that_only_looks_like_a_secret_is_kept() -> None:
    """.NET's own name for Windows Authentication."""
    assert "UseDefaultCredentials" in read("SmtpServer=h;UseDefaultCredentials=True;").warnings[0]


def test_unknown_keys_are_kept_and_warned_about() -> None:
    """The warning has no values."""
    manager = read("SmtpServer=h;ConnectByProxy=False;")
    assert manager.connection_string.endswith("ConnectByProxy=False;")
    assert "ConnectByProxy" in manager.warnings[0]
    assert SmtpConnectionManager.from_airflow(SimpleNamespace(**manager.to_airflow())) == manager


@given(
    host=st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9}){0,3}", fullmatch=True),
    windows=st.booleans(),
    ssl=st.booleans(),
    timeout=st.none() | st.integers(1000, 3_600_000).filter(lambda milliseconds: milliseconds != 30_000),
)
def test_ssis_own_strings_survive_a_round_trip(host: str, windows: bool, ssl: bool, timeout: int | None) -> None:
    """Octet for octet."""
    string = f"SmtpServer={host};UseWindowsAuthentication={windows};EnableSsl={ssl};"
    string += f"Timeout={timeout};" if timeout else ""
    assert read(string).connection_string == string
