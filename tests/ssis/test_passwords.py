"""What tells a reader his password, and what only speaks of passwords."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.writing.secrets import password_line


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
def test_a_text_about_passwords_tells_none(text: str) -> None:
    """No false alarm for ordinary prose."""
    assert password_line(text) is None


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
def test_a_password_is_one_by_how_it_is_written_or_by_standing_alone(text: str) -> None:
    """In several languages, with a colon or an arrow."""
    assert password_line(text) == 1


def test_the_line_is_known() -> None:
    """A body has many."""
    assert password_line("Hello,\nPassword: see below\n\nPassword: Hunter2\nBye") == 4
