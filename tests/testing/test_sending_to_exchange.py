"""This package against a relay with the personality of an Exchange: what a user reads, and that no mail is lost."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import AuthenticationError, ConnectError, MailError, RefusedError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.testing import Exchange, Relay
from tests.operators.merges import merge
from tests.operators.tasks import context
from tests.testing.clients import USER, USERS

Connect = Callable[..., SmtpConnectionManagerHook]
MAIL = Mail(from_address="alice@corp.example", to="bob@corp.example", subject="Report", text="Done.")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Create a hook for a relay, with changes of the connection that it gives."""

    def define(relay: Relay, **changes: Any) -> SmtpConnectionManagerHook:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection(**changes)))
        return SmtpConnectionManagerHook()

    return define


def exchange(**settings: Any) -> Exchange:
    """An Exchange that answers at once."""
    return Exchange(**({"tarpit": 0.0} | settings))


# --- What is refused, and what a user reads.


@pytest.mark.parametrize(
    ("settings", "changes", "reply", "remedy"),
    [
        (
            {},
            {"login": "", "auth_mode": "anonymous"},
            "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM",
            "set Authentication to 'Windows Authentication'",
        ),
        (
            {"version": 2010},
            {"login": "", "auth_mode": "anonymous"},
            "530 5.7.1 Client was not authenticated",
            "set Authentication to 'Windows Authentication'",
        ),
        (
            {"senders": {USER: ["etl@corp.example"]}},
            {},
            "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
            "have 'Send As' granted on the server",
        ),
        (
            {"senders": {USER: ["etl@corp.example"]}, "version": 2010},
            {},
            "550 5.7.1 Client does not have permissions to send as this sender",
            "have 'Send As' granted on the server",
        ),
    ],
)
def test_what_an_exchange_refuses_to_its_users_has_its_remedy(
    settings: dict[str, Any], changes: dict[str, Any], reply: str, remedy: str, connect: Connect
) -> None:
    """In the words of each version. A retry would not help, and nothing was delivered."""
    with Relay(users=USERS, personality=exchange(**settings)) as relay:
        with pytest.raises(RefusedError) as refused:
            connect(relay, **changes).send(MAIL)
        assert relay.messages == []
    assert f"'{reply}'" in str(refused.value)
    assert remedy in str(refused.value)
    assert not refused.value.retryable


@pytest.mark.parametrize(
    ("version", "reply"),
    [(2019, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"), (2010, "550 5.7.1 Unable to relay")],
)
def test_an_anonymous_worker_that_may_not_relay_reads_so(version: int, reply: str, connect: Connect) -> None:
    """Recipients inside get the mail; signing in is one way out."""
    with Relay(personality=exchange(version=version, accepted_domains=["corp.example"])) as relay:
        hook = connect(relay)
        with pytest.raises(RefusedError) as refused:
            hook.send(Mail(from_address="alice@corp.example", to="zoe@elsewhere.example", subject="Report"))
        assert f"'{reply}'. The server does not relay this mail: set Authentication to" in str(refused.value)
        delivery = hook.send(
            Mail(from_address="alice@corp.example", to="bob@corp.example; zoe@elsewhere.example", subject="Report")
        )
        assert delivery.outcome == "partial"
        assert list(delivery.refused) == ["zoe@elsewhere.example"]
        assert [mail.recipients for mail in relay.messages] == [("bob@corp.example",)]


def test_one_unknown_recipient_keeps_the_mail_from_all(connect: Connect) -> None:
    """All are reported as refused, since nobody received it."""
    with Relay(personality=exchange(mailboxes=["bob@corp.example"])) as relay:
        mail = Mail(from_address="alice@corp.example", to="bob@corp.example; gone@corp.example", subject="Report")
        with pytest.raises(RefusedError, match=r"550 5\.1\.10 RESOLVER\.ADR\.RecipientNotFound") as refused:
            connect(relay).send(mail)
        assert not refused.value.retryable
        assert relay.messages == []


@pytest.mark.parametrize("changes", [{"password": "wrong"}, {"channel_binding": "none"}], ids=str)
def test_a_refused_sign_in_is_tried_once(changes: dict[str, Any], connect: Connect) -> None:
    """A wrong password, or no channel bindings where Extended Protection requires them: Exchange says the same.

    The remedy begins with the binding that is turned off.
    """
    with Relay(users=USERS, personality=exchange(extended_protection="require")) as relay:
        with pytest.raises(AuthenticationError, match=r"535 5\.7\.3 Authentication unsuccessful") as refused:
            connect(relay, **changes).send(MAIL)
        assert not refused.value.retryable
        is_binding_off = "channel_binding" in changes
        assert refused.value.remedy.startswith("'Channel binding' is 'none'") is is_binding_off
        connect(relay).send(MAIL)
        assert [mail.authenticated_as for mail in relay.messages] == [USER]


def test_a_message_that_is_too_large_is_not_even_sent(connect: Connect) -> None:
    """SIZE is known from EHLO."""
    with Relay(personality=exchange(), size_limit=200) as relay:
        with pytest.raises(MailError, match="accepts 200 at most") as refused:
            connect(relay).send(MAIL)
        assert not refused.value.retryable


def test_a_limit_of_the_server_is_worth_another_try(connect: Connect) -> None:
    """Of messages, of connections, and under back pressure: each error can be retried."""
    with Relay(personality=exchange(message_rate_limit=1)) as relay:
        hook = connect(relay)
        hook.send(MAIL)
        with pytest.raises(RefusedError, match=r"421 4\.4\.2 Message submission rate.*lower 'rate_limit'") as refused:
            hook.send(MAIL)
        assert refused.value.retryable
    with Relay(personality=exchange(connection_limit=1)) as relay, connect(relay).get_conn():
        with pytest.raises(ConnectError, match=r"421 4\.3\.2 The maximum number of concurrent server conn") as away:
            connect(relay).send(MAIL)
        assert away.value.retryable
    with Relay(personality=exchange(back_pressure=1)) as relay:
        hook = connect(relay)
        with pytest.raises(RefusedError, match=r"452 4\.3\.1 Insufficient system resources.*short of disk") as refused:
            hook.send(MAIL)
        assert refused.value.retryable
        hook.send(MAIL)
        assert len(relay.messages) == 1


# --- What arrives.


def test_binary_attachments_arrive_in_chunks(connect: Connect) -> None:
    """BINARYMIME, where the connection asks for it."""
    content = bytes(range(256)) * 1000
    mail = Mail(
        from_address="alice@corp.example",
        to="bob@corp.example",
        subject="Report",
        attachments=[Attachment(name="rows.bin", content=content)],
    )
    with Relay(users=USERS, personality=exchange()) as relay:
        connect(relay, binary_mime=True).send(mail)
        [received] = relay.messages
    assert content in received.content
    [part] = received.message.iter_attachments()
    assert part.get_payload(decode=True) == content


@pytest.mark.parametrize(
    "rate_limit", [pytest.param(None, marks=pytest.mark.slow), 1200], ids=["found out", "rate_limit"]
)
def test_a_merge_under_the_limits_loses_nothing_and_doubles_nothing(
    rate_limit: int | None, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """200 rows at 30 a second, over 4 connections where 2 are allowed, after some back pressure.

    Where `rate_limit` is below the server's, the server does not have to complain about the rate.
    """
    caplog.set_level(logging.INFO, logger="airflow_provider_smtpcm")
    settings = exchange(message_rate_limit=30, rate_interval=1.0, connection_limit=2, back_pressure=3)
    rows = [{"email": f"r{number}@corp.example", "name": str(number)} for number in range(200)]
    limits = {} if rate_limit is None else {"rate_limit": rate_limit}
    with Relay(users=USERS, personality=settings) as relay:
        connect(relay)
        merge(rows=rows, connections=4, retry_for=300, **limits).execute(context())
        arrived = Counter(str(mail.message["Subject"]) for mail in relay.messages)
    assert arrived == {f"For {number}": 1 for number in range(200)}
    complaints = caplog.text.count("accepts no mail for now ('421 4.4.2")
    assert "452 4.3.1 Insufficient system resources" in caplog.text
    if rate_limit is None:
        assert 1 <= complaints <= 60
    else:
        assert complaints == 0


def test_more_connections_than_are_allowed_cost_no_mail(connect: Connect) -> None:
    """The others wait."""
    mails = [
        Mail(from_address="alice@corp.example", to=f"r{number}@corp.example", subject=str(number), text="Done.")
        for number in range(100)
    ]
    with Relay(users=USERS, personality=exchange(connection_limit=1)) as relay:
        outcomes = Counter(delivery.outcome for delivery in connect(relay).send_many(mails, connections=4))
        assert outcomes == {"accepted": 100}
        assert len({mail.message["Subject"] for mail in relay.messages}) == len(relay.messages) == 100
