"""What looks like a credential is not mailed, though nobody has told Airflow's masker of it; ordinary words are."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.notifications.credentials import without_credentials
from airflow_provider_smtpcm.notifications.event import event_of
from airflow_provider_smtpcm.notifications.page import page_of
from tests.notifications.shapes import raised, task_failed

SECRET = "T0p-s3cret!"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJldGwifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"postgresql://etl:{SECRET}@dw.corp.example/dw", "postgresql://etl:***@dw.corp.example/dw"),
        (f"mssql+pyodbc://etl:{SECRET}/p@ss@dw", "mssql+pyodbc://etl:***@dw"),
        (f"redis://:{SECRET}@cache:6379/0 is down", "redis://:***@cache:6379/0 is down"),
        (f"Authorization: Bearer {JWT}", "Authorization: ***"),
        (f"{{'Authorization': 'Basic {JWT}'}}", "{'Authorization': '***'}"),
        (f"sent bearer {JWT} twice", "sent bearer *** twice"),
        (f"Server=dw;Uid=sa;Pwd={SECRET};Encrypt=yes", "Server=dw;Uid=sa;Pwd=***;Encrypt=yes"),
        (f"Server=dw;PWD={{{SECRET};x}};Encrypt=yes", "Server=dw;PWD=***;Encrypt=yes"),
        (f"connect(user='etl', password='{SECRET}')", "connect(user='etl', password=***)"),
        (f"User ID=etl;Password = {SECRET}", "User ID=etl;Password = ***"),
        (f'{{"client_secret": "{SECRET}", "scope": "x"}}', '{"client_secret": ***, "scope": "x"}'),
        (f"{{'db_password': '{SECRET}'}}", "{'db_password': ***}"),
        (f"GET /blob?sv=2024&sig={SECRET}&se=1 403", "GET /blob?sv=2024&sig=***&se=1 403"),
        (f"AccountKey={SECRET}==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
    ],
)
def test_a_credential_is_withheld_and_what_stands_around_it_is_not(said: str, shown: str) -> None:
    """Who is called at night has to see which server and which user."""
    assert without_credentials(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "Login failed for user 'etl': the password is wrong",
        "password: authentication failed",
        "401 Unauthorized: invalid token",
        "Basic authentication is refused by https://dw.corp.example:8443/path",
        "the bearer of bad news",
        "GET https://dw.corp.example:8443/people?mail=jane@corp.example was refused",
        "no route to smtp://relay.corp.example:25; ask jane@corp.example",
        "signature mismatch: expected 3 arguments, token_count=5",
    ],
)
def test_ordinary_words_stay(said: str) -> None:
    """The reason is what the mail is for."""
    assert without_credentials(said) == said


def test_a_credential_stands_nowhere_in_the_default_mail() -> None:
    """Neither in the subject, nor in the traceback, nor split by a terminal's colours."""
    cause = OSError(f"pwd=\x1b[31m{SECRET}\x1b[0m")
    error = raised(OSError(f"no answer: postgresql://etl:{SECRET}@dw/dw"), cause=cause)
    made = page_of(event_of(task_failed(error)))
    assert "postgresql://etl:***@dw/dw" in made.subject
    assert "pwd=***" in made.text
    assert SECRET not in made.subject + made.text + made.html


@pytest.mark.parametrize("piece", ["a.", "password=", "://", "://a:", "token='", "bearer ", "authorization:", "pwd={"])
def test_megabytes_that_nearly_look_like_one_come_to_an_end(piece: str) -> None:
    """A pattern that goes back and forth in them would not, within the test's own limit."""
    assert without_credentials(piece * (100_000 // len(piece))).startswith(piece[:1])
