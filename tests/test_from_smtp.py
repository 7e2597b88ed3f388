"""`from-smtp` converts what Airflow's own SMTP provider does with a connection, and says what it cannot convert."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.from_smtp import Conversion, convert
from airflow_provider_smtpcm.testing import Relay

PASSWORD = "correct horse battery"
SetConnection = Callable[[str, Mapping[str, Any]], None]


def stock(conn_id: str = "smtp_default", *, basic_as: AuthMode | None = None, **fields: Any) -> Conversion:
    """Convert a connection of the stock provider."""
    extra = json.dumps(fields.pop("extra", {}))
    given = {"conn_type": "smtp", "host": "relay.corp.example", "port": None, "login": None, "password": None, **fields}
    return convert(SimpleNamespace(conn_id=conn_id, extra=extra, **given), basic_as=basic_as)


def settings_of(conversion: Conversion) -> dict[str, Any]:
    """Return the settings, which our hook can read."""
    assert conversion.connection is not None, conversion.reason
    SmtpConnectionManager.from_airflow(SimpleNamespace(**{**conversion.connection, "password": conversion.password}))
    extra: dict[str, Any] = conversion.connection["extra"]
    return extra


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"disable_ssl": True},
        {"disable_tls": True},
        {"disable_ssl": True, "disable_tls": True},
        {"disable_ssl": "false", "disable_tls": "false"},
        {"disable_ssl": "", "disable_tls": 0},
        {"disable_ssl": None, "disable_tls": 1},
    ],
)
def test_encryption_is_what_the_stock_hook_does(extra: dict[str, Any]) -> None:
    """Its two properties decide, however an extra is spelled; both at once never worked, which a note says."""
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    hook = SmtpHook()
    hook.smtp_connection = SimpleNamespace(extra_dejson=extra)  # type: ignore[assignment]
    conversion = stock(extra=extra)
    expected = "implicit" if hook.use_ssl else "starttls" if hook.smtp_starttls else "none"
    assert settings_of(conversion)["ssl_mode"] == expected
    assert any("both SSL and TLS on" in note for note in conversion.notes) == (hook.use_ssl and hook.smtp_starttls)
    assert any("text 'false'" in note for note in conversion.notes) == ("false" in extra.values())


def test_what_has_an_equal_is_converted() -> None:
    """And the rest is named."""
    conversion = stock(
        "mail",
        port=2525,
        description="The relay",
        extra={
            "disable_ssl": True,
            "from_email": "ETL <etl@corp.example>",
            "timeout": 12,
            "ssl_context": "none",
            "subject_template": "/srv/subject.jinja2",
            "html_content_template": "/srv/body.html",
            "retry_limit": 2,
            "x": 1,
        },
    )
    assert conversion.new_id == "mail_smtpcm"
    assert conversion.connection == {
        "conn_type": "smtpcm",
        "description": "The relay",
        "host": "relay.corp.example",
        "port": 2525,
        "extra": {
            "auth_mode": "anonymous",
            "ssl_mode": "starttls",
            "from_address": "ETL <etl@corp.example>",
            "timeout": 12,
            "verify_certificate": False,
            "subject_file": "/srv/subject.jinja2",
            "html_file": "/srv/body.html",
        },
    }
    assert '"timeout": 12,' in json.dumps(conversion.connection)  # as it was written, not 12.0
    notes = " ".join(conversion.notes)
    for words in ("retry_limit has no equal", "1 more of its extras", "certificate is not verified"):
        assert words in notes


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"login": "etl", "password": PASSWORD}, "--basic-as windows"),
        ({"extra": {"auth_type": "oauth2", "access_token": PASSWORD}}, "by OAuth"),
        ({"host": ""}, "SMTP server (host) is empty"),
        ({"host": "smtp://relay.corp.example"}, "is a URL"),
        ({"conn_type": "http"}, "type is 'http'"),
        ({"extra": {"ssl_context": "custom"}}, "ssl_context"),
        ({"extra": {"timeout": "soon"}}, "Timeout"),
        ({"extra": [1]}, "not a JSON object"),
    ],
)
def test_what_cannot_be_converted_says_why(fields: dict[str, Any], words: str) -> None:
    """Without a value, which may be a secret."""
    conversion = stock(**fields)
    assert conversion.connection is None
    assert words in conversion.reason
    assert PASSWORD not in repr(conversion) + conversion.reason


def test_a_sign_in_with_a_password_becomes_what_is_asked_for() -> None:
    """Windows Authentication with the same account, or none."""
    account = {"login": r"CORP\etl", "password": PASSWORD}
    windows = stock(**account, basic_as=AuthMode.WINDOWS)
    assert settings_of(windows)["auth_mode"] == "windows"
    assert (windows.connection or {})["login"] == r"CORP\etl"
    assert "password" not in (windows.connection or {})
    assert windows.password == PASSWORD
    anonymous = stock(**account, basic_as=AuthMode.ANONYMOUS)
    assert settings_of(anonymous)["auth_mode"] == "anonymous"
    assert "were left out" in " ".join(anonymous.notes)
    assert PASSWORD not in str(anonymous.connection)


@pytest.mark.parametrize("account", [{"login": "etl"}, {"password": PASSWORD}])
def test_half_an_account_is_none(account: dict[str, str]) -> None:
    """The stock hook signs in only with both."""
    conversion = stock(**account)
    assert settings_of(conversion)["auth_mode"] == "anonymous"
    assert "was left out" in " ".join(conversion.notes)


# --- The command.


@pytest.fixture
def connections(set_connection: SetConnection, airflow_db: None) -> None:
    """One that can be converted, one that cannot, and one of another type."""
    off = {"disable_ssl": True, "disable_tls": True}
    set_connection("smtp_default", {"conn_type": "smtp", "host": "relay.corp.example", "extra": off})
    set_connection("mail", {"conn_type": "smtp", "host": "m", "login": "etl", "password": PASSWORD, "extra": off})
    set_connection("db", {"conn_type": "postgres", "host": "db", "password": PASSWORD})


@pytest.mark.usefixtures("connections")
def test_all_are_found_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """By id; exit status 1, since one cannot be converted."""
    assert main(["from-smtp"]) == 1
    out, err = capsys.readouterr()
    assert "smtp_default -> smtpcm_default: relay.corp.example:25, auth_mode=anonymous, ssl_mode=none\n" in out
    assert "mail: cannot be converted. It signs in with a password" in out
    assert err == ""
    assert "db" not in out
    assert PASSWORD not in out


@pytest.mark.usefixtures("connections")
def test_passwords_are_printed_only_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON and in the environment; the report never has them."""
    for output in ("json", "env", "text"):
        assert main(["from-smtp", "--basic-as", "windows", "--output", output]) == 0
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        assert "add --show-passwords" in out + err
    assert main(["from-smtp", "mail", "--basic-as", "windows", "--output", "json", "--show-passwords"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["mail_smtpcm"]["password"] == PASSWORD
    assert PASSWORD not in err
    assert main(["from-smtp", "mail", "--basic-as", "windows", "--show-passwords"]) == 0
    assert PASSWORD not in capsys.readouterr().out


def test_the_environment_is_what_a_shell_reads(
    set_connection: SetConnection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With quotes in a password; and `check` passes with it."""
    password = 'it\'s $HOME `hush` "ü"'
    with Relay(users={"etl": password}, ssl_mode="none") as relay:
        off = {"disable_ssl": True, "disable_tls": True}
        host = {"conn_type": "smtp", "host": "127.0.0.1", "port": relay.port}
        set_connection("mail", {**host, "login": "etl", "password": password, "extra": off})
        arguments = ["from-smtp", "mail", "--basic-as", "windows", "--output", "env", "--show-passwords"]
        assert main(arguments) == 0
        script = f'{capsys.readouterr().out}printf %s "$AIRFLOW_CONN_MAIL_SMTPCM"'
        value = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
        monkeypatch.setenv("AIRFLOW_CONN_MAIL_SMTPCM", value)
        assert main(["check", "mail_smtpcm"]) == 0


def test_what_no_shell_can_set_is_left_out_of_the_environment(
    set_connection: SetConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some shells end at such a line. JSON has it."""
    for conn_id in ("mail-prod", "mail.dev", "mail"):
        set_connection(conn_id, {"conn_type": "smtp", "host": "relay.corp.example"})
    assert main(["from-smtp", "mail-prod", "mail.dev", "mail", "--output", "env"]) == 1
    out, err = capsys.readouterr()
    assert [line.partition("=")[0] for line in out.splitlines()] == ["export AIRFLOW_CONN_MAIL_SMTPCM"]
    for conn_id in ("mail-prod", "mail.dev"):
        name = f"AIRFLOW_CONN_{conn_id.upper()}_SMTPCM"
        assert f"{conn_id}: cannot be converted. No shell can set a variable with the name {name}." in err
    assert main(["from-smtp", "mail-prod", "--output", "json"]) == 0
    assert "mail-prod_smtpcm" in json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("connections")
def test_the_connection_of_airflows_emails_is_pointed_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, set_connection: SetConnection
) -> None:
    """Its setting has to change too."""
    set_connection("alerts", {"conn_type": "smtp", "host": "relay.corp.example"})
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "alerts")
    main(["from-smtp", "alerts"])
    assert "[email] email_conn_id names it: set that to alerts_smtpcm" in capsys.readouterr().out


def test_a_connection_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str], airflow_db: None) -> None:
    """With a status of its own; as is none at all."""
    assert main(["from-smtp", "no_such_connection"]) == 3
    assert "Connection 'no_such_connection' was not found" in capsys.readouterr().err
    assert main(["from-smtp"]) == 3
    assert "no connection of type smtp" in capsys.readouterr().err


def test_a_stored_connection_that_cannot_be_decrypted_is_named(
    capsys: pytest.CaptureFixture[str], airflow_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one from a backup, or on a machine without Airflow's key."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id="locked", conn_type="smtp", host="m"))  # noqa: AIR311
        session.flush()
        session.query(Connection).filter_by(conn_id="locked").update({"is_encrypted": True, "_password": "no token"})  # noqa: AIR311
    try:
        assert main(["from-smtp"]) != 0
        shown = capsys.readouterr().err
        assert "'locked'" in shown
        assert "fernet_key" in shown
    finally:
        with create_session() as session:
            session.query(Connection).filter_by(conn_id="locked").delete()  # noqa: AIR311
