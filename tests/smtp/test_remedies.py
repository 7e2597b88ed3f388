"""What a refusal usually means, by its codes and by the server's text."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.outcome import get_greeting_remedy, remedy_for


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (550, "5.7.60", "SMTP; Client does not have permissions to send as this sender"),
        (550, "5.7.1", "Client does not have permissions to send as this sender"),
        (554, "5.2.252", "SendAsDenied; etl@corp.example not allowed to send as dba@corp.example"),
    ],
)
def test_who_may_not_send_as_this_sender_is_not_told_about_relaying(
    code: int, enhanced: str, text: str, anonymous: bool
) -> None:
    """Exchange uses 5.7.1 too, depending on its version."""
    remedy = remedy_for(Reply(code=code, enhanced=enhanced, text=text), is_anonymous=anonymous)
    assert "'Send As' granted" in remedy
    # An anonymous session has no account that could be granted a right.
    assert ("'Windows Authentication'" in remedy) is anonymous
    assert ("The account" in remedy) is not anonymous
    assert "relay" not in remedy


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (421, "4.4.2", "Message submission rate for this client has exceeded the configured limit"),
        (421, "4.4.2", "Message rate exceeded, connection dropped"),
        (421, "4.3.2", "The maximum number of concurrent connections has exceeded a limit, closing channel"),
        (421, "4.7.0", "Error: too many connections from 192.0.2.7"),
        (450, "4.7.1", "You are sending too fast, slow down"),
        (451, "4.7.500", "Server busy: throttled"),
        (550, "5.7.1", "Your message rate limit is reached"),
        (450, "4.7.1", "Error: too much mail from 192.0.2.7"),  # Postfix, smtpd_client_message_rate_limit
        (450, "4.7.1", "Error: too many recipients from 192.0.2.7"),
        (451, "", "Sender rate overlimit"),  # Exim
    ],
)
def test_a_limit_of_the_server_names_what_to_turn_down(code: int, enhanced: str, text: str) -> None:
    """And not only that it is temporary."""
    remedy = remedy_for(Reply(code=code, enhanced=enhanced, text=text), is_anonymous=False)
    assert "'rate_limit'" in remedy
    assert "'connections'" in remedy


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (421, "4.3.2", "Service not available"),
        (421, "4.4.2", "Connection timed out, too long idle"),
        (451, "4.7.1", "Greylisted, try again"),
        (452, "4.2.2", "Mailbox has exceeded its limit"),
        (452, "4.5.3", "Too many recipients"),
    ],
)
def test_what_is_no_limit_of_that_kind_is_only_temporary(code: int, enhanced: str, text: str) -> None:
    """Sending less would not help."""
    remedy = remedy_for(Reply(code=code, enhanced=enhanced, text=text), is_anonymous=False)
    assert "temporary" in remedy
    assert "rate_limit" not in remedy


def test_a_relay_that_is_refused_is_told_as_one() -> None:
    """With the same code as for a sender, and another text."""
    reply = Reply(code=550, enhanced="5.7.1", text="Unable to relay")
    assert "does not relay" in remedy_for(reply, is_anonymous=False)
    assert "'Windows Authentication'" in remedy_for(reply, is_anonymous=True)


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (530, "5.7.57", "SMTP; Client was not authenticated to send anonymous mail during MAIL FROM"),
        (530, "5.7.1", "Client was not authenticated"),
        (550, "5.7.1", "Client was not authenticated"),
    ],
)
def test_an_account_that_may_not_submit_is_a_matter_of_the_connector(code: int, enhanced: str, text: str) -> None:
    """Exchange says so to those who have signed in, too, if its connector lets no users submit."""
    reply = Reply(code=code, enhanced=enhanced, text=text)
    assert "-PermissionGroups ExchangeUsers" in remedy_for(reply, is_anonymous=False)
    assert "'Windows Authentication'" in remedy_for(reply, is_anonymous=True)


@pytest.mark.parametrize("is_anonymous", [True, False])
@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (530, "5.7.0", "Must issue a STARTTLS command first"),  # Postfix, as RFC 3207 has it
        (530, "5.7.1", "TLS required"),
        (530, "", "You must use TLS"),
        (550, "5.7.1", "Encryption required"),
        (554, "5.7.10", "Encryption Needed"),
        (454, "4.7.0", "This server requires an encrypted connection"),
    ],
)
def test_a_server_that_wants_encryption_asks_for_no_account(
    code: int, enhanced: str, text: str, is_anonymous: bool
) -> None:
    """Though it says so with the code of one that wants a sign-in."""
    reply = Reply(code=code, enhanced=enhanced or None, text=text)
    remedy = remedy_for(reply, is_anonymous=is_anonymous)
    assert remedy == "The server wants encryption first: set SSL to 'STARTTLS' or 'Implicit TLS'."


def test_a_recipient_whom_exchange_does_not_know_is_one_without_a_mailbox() -> None:
    """Its code for that differs from everybody else's."""
    reply = Reply(code=550, enhanced="5.1.10", text="RESOLVER.ADR.RecipientNotFound; Recipient not found")
    remedy = remedy_for(reply, is_anonymous=False)
    assert "no such mailbox" in remedy
    assert "each recipient's" in remedy  # one of them has the mail refused for all, and the reply does not name it


def test_a_server_that_is_short_of_resources_is_not_only_temporary() -> None:
    """Exchange's back pressure ends when somebody makes room."""
    remedy = remedy_for(Reply(code=452, enhanced="4.3.1", text="Insufficient system resources"), is_anonymous=True)
    assert "disk space or memory" in remedy


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "remedy"),
    [
        (421, "4.3.2", "The maximum number of concurrent connections has exceeded a limit", "'connections'"),
        (554, "5.7.1", "No SMTP service for you", "ask its administrator"),
        (421, "4.7.1", "Error: No client certificate presented", "'Client certificate'"),
    ],
)
def test_a_greeting_that_turns_the_client_away_has_its_own_remedy(
    code: int, enhanced: str, text: str, remedy: str
) -> None:
    """A limit of the server says what to turn down."""
    reply = Reply(code=code, enhanced=enhanced, text=text)
    assert remedy in get_greeting_remedy(reply, has_client_certificate=False)
