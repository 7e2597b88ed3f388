"""Reports contain no credentials and no control characters; a password in a mail's text is found."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.writing.secrets import (
    find_password_line,
    has_credentials,
    has_credentials_in_statement,
    sanitize,
    sanitize_line,
)
from tests.ssis.writing.building import constraint, handler, mail, other_task, smtp, variable, written


@pytest.mark.parametrize(
    "text",
    [
        "SmtpServer=mail.corp.example;UserName=svc;Password=hush1;EnableSsl=True;",
        "SmtpServer=mail.corp.example; user id = svc ; PWD = hush1",
        '"SmtpServer=" + @[User::Server] + ";UserName=svc;Password=hush1;"',
        r'"Password=\"hush1\";EnableSsl=True"',
        "Password='hush1'",
        "password=hush1 with blanks\nnext line",
        "smtpPassword=hush1",
        "Secret=hush1;Token=hush1",
        "Login=svc;Pwd=hush1",
        '"Server=x;User ID=" + "svc" + ";Password=" + "hush1"',
        '"Password=" + (DT_WSTR, 20)"hush1"',
    ],
)
def test_credentials_are_removed(text: str) -> None:
    """A marker shows their place."""
    cleaned = sanitize(text)
    assert "hush1" not in cleaned
    assert "svc" not in cleaned
    assert "(removed)" in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "SmtpServer=mail.corp.example;UseWindowsAuthentication=True;EnableSsl=False;",
        '@[User::Password]=="" ? "no password" : "Dear user"',
        '"Password=" + @[$Project::Password]',
        "Load of {{ ds }}: Grüße\n\tline 2",
    ],
)
def test_a_text_without_credentials_is_unchanged(text: str) -> None:
    """Character by character."""
    assert sanitize(text) == text


@pytest.mark.parametrize("text", ["\n", " ", "password", "password =", "Pwd= ", "Password:\t", "(", "User="])
@pytest.mark.parametrize("before", ["", "Password", "Password=", 'Password="+(', "Password: "])
def test_a_long_text_takes_linear_time(before: str, text: str) -> None:
    """Quadratic time would be hours here."""
    whole = before + text * (200_000 // len(text))
    sanitize(whole)
    has_credentials(whole)
    has_credentials_in_statement(whole)
    find_password_line(whole)


def test_control_characters_are_replaced() -> None:
    """Surrogates and marks of writing direction, too."""
    assert sanitize("a\x1b[31mb\ud800c\u202ed\0") == "a\ufffd[31mb\ufffdc\ufffdd\ufffd"
    assert sanitize("a\r\nb\rc") == "a\nb\nc"
    assert sanitize_line(" a\n\tb  c ") == "a b c"


@pytest.mark.parametrize(
    "text",
    [
        "Password: see the vault",
        "Password: ask the helpdesk.",
        "Password: unchanged",
        "Password: done.",
        "Password: ",
        "Password:\nHunter2",
        "Password: ******",
        "Password: <from the vault>",
        "Password: {{ var.value.x }}",
        "Password: ${SMTP_PASSWORD}",
        "Password: @[User::Password]",
        "Password: %PASSWORD%",
        "Password: ;",
        "pwd: /srv/etl",
        "Password: https://vault.corp.example/etl",
        r"Password: \\files\secrets\etl.txt",
        "Password: helpdesk@corp.example",
        "Password: 90 days left",
        "Password: 2026-11-25 is its last day",
        "Password: the usual one",
        "The password is expired",
        "The password is 12 days old",
        "Password policy: see the intranet",
        "Passwords: 17 expired, 3 locked",
        "The password of the job was changed",
        "password_changed: True",
    ],
)
def test_a_text_about_passwords_contains_none(text: str) -> None:
    """No false alarm for ordinary prose."""
    assert find_password_line(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Password: x",
        "pwd: hunter",
        "PASSWORD : Hunter2",
        "Password: Hunter2! (until Friday)",
        'Password: "correct-horse!"',
        "User: joe; Password: hunter",
        "User: joe, Kennwort: Sommer2026 (bitte ändern)",
        "smtpPassword: hunter",
        "Password: 1234",
        "The password is Hunter2!",
        "Passphrase -> xY7",
    ],
)
def test_a_password_is_found_by_its_form_or_as_the_only_word(text: str) -> None:
    """In several languages, after a colon or an arrow."""
    assert find_password_line(text) == 1


def test_the_line_of_the_password_is_returned() -> None:
    """A text has many lines."""
    assert find_password_line("Hello,\nPassword: see below\n\nPassword: Hunter2\nBye") == 4


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM OPENROWSET('SQLNCLI', 'srv';'sa';'hush1', 'SELECT 1')",
        "EXEC xp_cmdshell 'bcp db.dbo.t out t.txt -U svc -P hush1 -S srv'",
        "EXEC xp_cmdshell 'sqlcmd -Usvc -Phush1 -S srv'",
        r"EXEC xp_cmdshell 'net use \\srv\s hush1 /user:dom\svc'",
        "SELECT DECRYPTBYPASSPHRASE('hush1', x) FROM t",
        "CREATE CREDENTIAL c WITH IDENTITY = 'svc', SECRET = N'hush1'",
        "ALTER USER svc IDENTIFIED BY hush1",
        "EXEC sp_addlinkedsrvlogin 'srv', 'false', NULL, 'svc', 'hush1'",
        "ALTER LOGIN svc WITH PASSWORD = 'hush1'",
    ],
)
def test_a_statement_with_a_password_is_recognized(statement: str) -> None:
    """Also without the word in front."""
    assert has_credentials_in_statement(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT COUNT(*) FROM dbo.Orders WHERE Secret = 1 -- PART-P",
        "SELECT * FROM OPENROWSET(BULK N'C:\\t.csv', SINGLE_CLOB) AS d",
        "SELECT a -p FROM t",
        "UPDATE t SET url = 'https://x.example/user/1'",
    ],
)
def test_an_ordinary_statement_is_not_taken_for_one_with_a_password(statement: str) -> None:
    """It would become a placeholder."""
    assert not has_credentials_in_statement(statement)


@pytest.mark.parametrize(
    "name", ["Run sqlcmd Password=Hunter2", "Server=x;User ID=sa;Pwd=Hunter2;", "Send Password: Hunter2 to dba"]
)
def test_a_password_in_a_name_is_in_no_id(name: str) -> None:
    """Neither of a task, nor of an alert, nor of a connection; the id would not look like a password."""
    task, connection = other_task(name, sets=("User::Rows",)), smtp("SmtpServer=;", name)
    mailing = mail(f"{name} mail", connection=connection, expressions={"Subject": "@[User::Rows]"})
    alert = mail(f"{name} alert")
    module = written(
        task,
        mailing,
        variables=[variable("Rows", "1")],
        constraints=[constraint(task, mailing)],
        handlers=[handler("OnError", alert)],
        connection_managers=(connection,),
    )
    assert "hunter2" not in module.source
    assert "task_id=" in module.source
