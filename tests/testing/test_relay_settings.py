"""Wrong settings of a relay are one error, before it starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_smtpcm.testing import Exchange, Relay
from airflow_provider_smtpcm.testing.relay import RelaySettings
from tests.testing.clients import PASSWORD, USER, USERS


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "mail.corp.example", "localhost", "", "127.0.0.1 "])  # noqa: S104
def test_a_relay_listens_on_the_loopback_interface_only(host: str) -> None:
    """Other addresses are refused, and so are names, which could mean any address."""
    with pytest.raises(ValueError, match="loopback interface only"):
        Relay(host=host)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"ssl_mode": "tls"}, "it must be one of starttls, none, implicit"),
        ({"port": 65536}, "it must be between 0"),
        ({"size_limit": 0}, "too few for a message"),
        ({"certificate_names": ()}, "needs at least one name"),
        ({"users": {}}, "pass None for an anonymous relay"),
        ({"users": {"": "x"}}, "name 1 is neither"),
        ({"users": {"CORP\\": "x"}}, "is neither a user name"),
        ({"users": {r"A\B\c": "x"}}, "is neither a user name"),
        ({"users": {"al:ice": "x"}}, "name 1 contains a colon"),
        ({"users": {"alice": "x\nCORP:mallory:y"}}, "password 1 contains a colon or a line break"),
        ({"users": {"alice": "a:b"}}, "password 1 contains a colon"),
        ({"users": {"alice": "a\u2028b"}}, "password 1 contains a colon or a line break"),
        ({"users": {r"CORP\alice": "x", r"corp\ALICE": "y"}}, "differ only in upper and lower case"),
        ({"refuse": {"b@corp.example": "no"}}, "the reply for recipient 1 is not a refusal"),
        ({"refuse": {"b@corp.example": "250 2.0.0 OK"}}, "is not a refusal"),
        ({"refuse": {"b@corp.example": "550 5.1.1 No\r\n250 Yes"}}, "is not a refusal"),
        ({"personality": "postfix"}, "it must be 'exchange', an Exchange, or None"),
        ({"personality": Exchange(version=2003)}, "version: it must be one of 2010, 2019"),  # type: ignore[arg-type]
        (
            {"personality": Exchange(extended_protection="off")},  # type: ignore[arg-type]
            "extended_protection: it must be one of none, allow, require",
        ),
        ({"personality": Exchange(message_rate_limit=0)}, "message_rate_limit: no mail could be sent"),
        ({"personality": Exchange(connection_limit=0)}, "connection_limit: no mail could be sent"),
        ({"personality": Exchange(rate_interval=0)}, "rate_interval: it must be positive"),
        ({"personality": Exchange(keytab="/no/such.keytab")}, "keytab: it cannot be read"),
        ({"personality": Exchange(tarpit=-1)}, "tarpit: it is negative"),
        ({"personality": Exchange(back_pressure=-1)}, "back_pressure: it is negative"),
        ({"personality": Exchange(accepted_domains="corp.example")}, "accepted_domains: it is one string"),
        ({"personality": Exchange(mailboxes="dba@corp.example")}, "mailboxes: it is one string"),
        ({"personality": Exchange(senders={"x": "dba@corp.example"})}, "the value for user 1: it is one string"),
    ],
)
def test_each_fault_is_named(settings: dict[str, Any], fault: str) -> None:
    """With the name of the argument."""
    with pytest.raises(ValueError, match="cannot be set up like this") as raised:
        Relay(**settings)
    assert fault in str(raised.value)
    assert f"  - {next(iter(settings))}: " in str(raised.value)


def test_all_faults_come_together() -> None:
    """In one error, without passwords."""
    with pytest.raises(ValueError, match="The relay cannot be set up") as raised:
        Relay(host="hush", port=-1, users={"a:hush": "hush:hush"}, refuse={"hush": "hush"})
    assert str(raised.value).count("\n  - ") == 5
    assert "hush" not in str(raised.value)


def test_settings_survive_the_way_into_the_process() -> None:
    """As one line of JSON."""
    values = {"ssl_mode": "none", "users": {r"ДОМЕН\Jürgen": "пароль"}, "host": "127.0.0.2", "port": 1, "size_limit": 2}
    values |= {"refuse": {"a": "550 No"}, "smtputf8": True, "certificate_names": ("x",), "certificate_expired": True}
    values["personality"] = Exchange(
        message_rate_limit=5, mailboxes=("dba@corp.example",), senders={r"ДОМЕН\Jürgen": {"etl@corp.example"}}
    )
    settings = RelaySettings(**values)  # type: ignore[arg-type]
    again = RelaySettings.from_json(settings.to_json())
    assert again.personality is not None
    assert again.personality.mailboxes == ["dba@corp.example"]
    assert again.personality.senders == {r"ДОМЕН\Jürgen": ["etl@corp.example"]}
    values["personality"] = Exchange(message_rate_limit=5)
    settings = RelaySettings(**values)  # type: ignore[arg-type]
    assert RelaySettings.from_json(settings.to_json()) == settings
    assert len(settings.to_json().splitlines()) == 1


# --- The Airflow connection to it


def test_the_connection_to_a_relay_with_users() -> None:
    """The first user, Windows Authentication, and the authority to trust."""
    with Relay(users=USERS | {r"CORP\bob": "other"}) as relay:
        assert relay.airflow_connection() == {
            "conn_type": "smtpcm",
            "host": "localhost",
            "port": relay.port,
            "login": USER,
            "password": PASSWORD,
            "extra": {"auth_mode": "windows", "ssl_mode": "starttls", "ca_certificate": relay.ca_certificate},
        }
        assert relay.airflow_connection(login=r"CORP\bob")["password"] == "other"
        assert relay.airflow_connection(password="wrong")["password"] == "wrong"
        assert "password" not in relay.airflow_connection(login=r"CORP\mallory")
        assert relay.airflow_connection(login="").keys() == {"conn_type", "host", "port", "extra"}
        json.dumps(relay.airflow_connection())


def test_the_connection_to_an_anonymous_relay() -> None:
    """No login, and no certificate without TLS. Further settings are added or replace these."""
    with Relay(ssl_mode="none") as relay:
        connection = relay.airflow_connection(timeout=5)
        assert connection.keys() == {"conn_type", "host", "port", "extra"}
        assert connection["extra"] == {"auth_mode": "anonymous", "ssl_mode": "none", "timeout": 5}
    with Relay(host="127.0.0.2") as relay:
        connection = relay.airflow_connection(ssl_mode="none", ca_certificate=None)
        assert connection["host"] == "127.0.0.2"
        assert connection["extra"] == {"auth_mode": "anonymous", "ssl_mode": "none"}
