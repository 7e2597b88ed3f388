"""No account and nothing that cannot be seen gets into a report."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.output import clean, holds_account, on_one_line
from airflow_provider_smtpcm.ssis.writing.secrets import password_line


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
def test_an_account_is_taken_out_wherever_it_stands(text: str) -> None:
    """And one sees that something was there."""
    cleaned = clean(text)
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
def test_what_is_no_account_stays(text: str) -> None:
    """To the letter."""
    assert clean(text) == text


@pytest.mark.parametrize("text", ["\n", " ", "password", "password =", "Pwd= ", "Password:\t", "(", "User="])
@pytest.mark.parametrize("before", ["", "Password", "Password=", 'Password="+(', "Password: "])
def test_a_text_of_whatever_length_is_looked_at_at_once(before: str, text: str) -> None:
    """What grows with the square of its length would take hours here."""
    whole = before + text * (200_000 // len(text))
    clean(whole)
    holds_account(whole)
    password_line(whole)


def test_what_cannot_be_seen_is_marked() -> None:
    """Control characters, half characters, and marks that turn the direction of writing."""
    assert clean("a\x1b[31mb\ud800c\u202ed\0") == "a\ufffd[31mb\ufffdc\ufffdd\ufffd"
    assert clean("a\r\nb\rc") == "a\nb\nc"
    assert on_one_line(" a\n\tb  c ") == "a b c"
