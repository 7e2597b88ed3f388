"""The hook resolves an Airflow connection to a session, and its test reports for a browser."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from airflow_provider_smtpcm.errors import (
    AuthenticationError,
    ConnectionSettingsError,
    MessageError,
    OutcomeUnknownError,
    RefusedError,
    TlsError,
)
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Outcome
from airflow_provider_smtpcm.testing import Relay
from tests.client_certificates import Clients, Server, settings_for, tls_server
from tests.smtp.dialogue import Dialogue

ALICE = {r"CORP\alice": "correct horse battery"}
HELLO = "S: 220 mail ESMTP\nC: EHLO *\nS: 250-mail\nS: 250 8BITMIME"

Connect = Callable[..., SmtpConnectionManagerHook]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Create a hook for a connection that is defined in the environment."""

    def define(definition: object) -> SmtpConnectionManagerHook:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", text)
        return SmtpConnectionManagerHook("mail")

    return define


def scripted(dialogue: Dialogue, **extra: object) -> dict[str, object]:
    """Return the connection to a scripted server."""
    settings = {"ssl_mode": "none", "timeout": dialogue.patience, "final_reply_timeout": dialogue.patience, **extra}
    return {"conn_type": "smtpcm", "host": "127.0.0.1", "port": dialogue.port, "extra": settings}


def mails(count: int) -> Iterator[Mail]:
    """Yield small mails."""
    for number in range(count):
        yield Mail(from_address="etl@corp.example", to=f"r{number}@corp.example", subject=f"Number {number}")


def test_creating_a_hook_does_not_look_up_the_connection() -> None:
    """Airflow creates hooks with a connection that does not exist."""
    assert SmtpConnectionManagerHook().smtpcm_conn_id == "smtpcm_default"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda hook: pickle.loads(pickle.dumps(hook))])  # noqa: S301
def test_a_hook_can_be_copied_at_any_time(
    copied: Callable[[SmtpConnectionManagerHook], SmtpConnectionManagerHook], connect: Connect
) -> None:
    """The copy looks up the connection again."""
    with Relay(users=ALICE) as relay:
        hook = connect(relay.airflow_connection())
        assert hook.test_connection()[0]
        copy_of_it = copied(hook)
        assert copy_of_it.smtpcm_conn_id == "mail"
        assert copy_of_it.test_connection()[0]


def test_the_error_of_an_invalid_connection_has_its_id(connect: Connect) -> None:
    """All faults at once."""
    hook = connect({"conn_type": "smtpcm", "host": "", "extra": {"auth_mode": "basic"}})
    with pytest.raises(ConnectionSettingsError, match="Connection 'mail'") as caught:
        hook.get_conn()
    assert len(caught.value.faults) == 2
    good, message = hook.test_connection()
    assert not good
    assert all(fault in message for fault in caught.value.faults)
    assert "\n" not in message  # the browser would swallow it


def test_threads_that_share_a_hook_share_its_cached_values(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a wrong password would count toward a lockout once for each thread."""
    look_up, looked_up = SmtpConnectionManagerHook.get_connection, []
    everybody = threading.Barrier(3, timeout=0.5)

    def get_connection(conn_id: str) -> object:
        looked_up.append(conn_id)
        with contextlib.suppress(threading.BrokenBarrierError):
            everybody.wait()  # the other threads have time to get here too
        return look_up(conn_id)

    monkeypatch.setattr(SmtpConnectionManagerHook, "get_connection", staticmethod(get_connection))
    with Relay(users=ALICE) as relay, ThreadPoolExecutor(3) as threads:
        hook = connect(relay.airflow_connection(password="wrong horse battery"))
        errors = [failure.exception() for failure in [threads.submit(hook.get_conn) for _ in range(3)]]
    assert looked_up == ["mail"]
    assert all(isinstance(error, AuthenticationError) for error in errors)
    assert len({id(error.reply) for error in errors}) == 1  # type: ignore[union-attr]  # of the one that was refused


@pytest.mark.parametrize(
    ("relay_settings", "changes", "expected"),
    [
        ({"users": ALICE}, {"password": "wrong horse battery"}, "535"),
        ({"users": ALICE}, {"login": r"CORP\bob"}, "535"),
        ({"users": ALICE}, {"ca_certificate": None}, "CA certificate"),
        ({"users": ALICE}, {"ssl_mode": "implicit"}, "does not speak TLS from the start"),
        ({"users": ALICE, "ssl_mode": "implicit"}, {"ssl_mode": "starttls"}, "'Implicit TLS'"),
        ({"users": ALICE, "certificate_expired": True}, {}, "expired"),
        ({"users": ALICE, "certificate_names": ("other.corp.example",)}, {}, "a name that is in the certificate"),
        ({"users": None}, {"auth_mode": "windows", "login": "alice", "password": "x" * 9}, "'Anonymous'"),
        ({"users": ALICE, "ssl_mode": "none"}, {"ssl_mode": "starttls"}, "does not offer STARTTLS"),
        ({"users": ALICE}, {"ca_certificate": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
        ({"users": ALICE}, {"ca_certificate": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"}, "PEM"),
    ],
)
def test_the_test_button_names_the_fault_and_its_remedy(
    relay_settings: dict[str, object], changes: dict[str, object], expected: str, connect: Connect
) -> None:
    """With a real server, and without the password."""
    with Relay(**relay_settings) as relay:  # type: ignore[arg-type]
        # Only a client that expects the greeting within TLS has to wait for the time limit.
        is_silent = relay_settings.get("ssl_mode") == "implicit"
        definition = relay.airflow_connection(timeout=3 if is_silent else 60)
        for name, value in changes.items():
            (definition if name in ("login", "password") else definition["extra"])[name] = value  # type: ignore[index]
        good, message = connect(definition).test_connection()
        assert relay.messages == []
    assert not good
    assert expected in message
    assert "battery" not in message


def test_a_hook_uses_a_renewed_client_certificate(connect: Connect, tmp_path: Path) -> None:
    """A task of many hours outlives a certificate, and keeps its hook."""
    clients, server = Clients(tmp_path), trustme.CA()
    tls = tls_server(server, clients.authority, verify_mode=ssl.CERT_REQUIRED)
    certificate = clients.issue(days=-1, since=-9)
    with Server(tls=tls) as running:
        hook = connect(running.manager(**settings_for(server, client_certificate=certificate)).to_airflow())
        with pytest.raises(TlsError, match="TLS alert: certificate expired"):
            hook.get_conn()
        Path(clients.issue("renewed.pem")).rename(certificate)
        hook.get_conn().close()


def test_the_test_button_never_waits_longer_than_its_limit(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the connection's own timeout is."""
    monkeypatch.setattr("airflow_provider_smtpcm.hooks.smtpcm.TEST_SECONDS", 6.0)
    with Dialogue("HANG") as dialogue:
        good, message = connect(scripted(dialogue, timeout=3600)).test_connection()
    assert not good
    assert "before the deadline" in message


@pytest.mark.parametrize(
    ("ssl_mode", "users", "words"),
    [
        ("starttls", ALICE, ("TLSv1.3", "signed in with NTLM", "octets")),
        ("implicit", ALICE, ("TLSv1.3", "signed in with NTLM")),
        ("none", None, ("clear text", "anonymous")),
    ],
)
def test_the_test_button_reports_how_it_signed_in(
    ssl_mode: str, users: dict[str, str] | None, words: tuple[str, ...], connect: Connect
) -> None:
    """The mechanism, the TLS version and the size limit; nothing is sent."""
    with Relay(ssl_mode=ssl_mode, users=users) as relay:  # type: ignore[arg-type]
        good, message = connect(relay.airflow_connection()).test_connection()
        assert relay.messages == []
    assert good, message
    assert all(word in message for word in words)


def test_the_result_of_the_test_button_is_logged_too(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """The browser removes it after a few seconds."""
    caplog.set_level("INFO", logger="airflow_provider_smtpcm")
    with Relay(users=ALICE) as relay:
        answers = [
            connect(relay.airflow_connection(password=password)).test_connection()[1]
            for password in ("wrong horse battery", next(iter(ALICE.values())))
        ]
    assert [record.levelname for record in caplog.records if record.message.endswith(tuple(answers))] == [
        "WARNING",
        "INFO",
    ]


def test_a_mail_that_no_recipient_accepted_raises(connect: Connect) -> None:
    """A caller that ignores the delivery must notice it."""
    with Relay(ssl_mode="none", refuse={"r0@corp.example": "550 5.1.1 No such user"}) as relay:
        hook = connect(relay.airflow_connection())
        with pytest.raises(RefusedError, match=r"550 5\.1\.1 No such user"):
            hook.send(next(mails(1)))


def test_a_mail_whose_outcome_is_unknown_raises(connect: Connect) -> None:
    """The error says that it may have arrived."""
    steps = f"{HELLO}\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go on\nMESSAGE\nRESET"
    with Dialogue(steps) as dialogue, pytest.raises(OutcomeUnknownError, match="may have been delivered"):
        connect(scripted(dialogue)).send(next(mails(1)))


def test_some_refused_recipients_do_not_raise(connect: Connect) -> None:
    """The delivery lists them."""
    with Relay(ssl_mode="none", refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        mail = Mail(from_address="etl@corp.example", to="good@corp.example; bad@corp.example")
        delivery = connect(relay.airflow_connection()).send(mail)
        assert relay.messages[0].recipients == ("good@corp.example",)
    assert (delivery.outcome, list(delivery.refused)) == (Outcome.PARTIAL, ["bad@corp.example"])


def test_a_connection_from_a_uri_is_parsed_from_text(connect: Connect) -> None:
    """Every value of a URI is text."""
    with Relay(ssl_mode="starttls", users=ALICE) as relay:
        uri = (
            f"smtpcm://CORP%5Calice:correct%20horse%20battery@localhost:{relay.port}/"
            "?auth_mode=windows&ssl_mode=starttls&verify_certificate=false&timeout=5"
        )
        hook = connect(uri)
        assert hook.send(next(mails(1))).outcome is Outcome.ACCEPTED
        assert relay.messages[0].authenticated_as == r"CORP\alice"


def test_weak_settings_are_logged_once(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """Per connection, not per mail."""
    with Relay(ssl_mode="none") as relay:
        definition = relay.airflow_connection(ssis_properties="Foo=1")
        hook = connect(definition)
        for mail in mails(3):
            hook.send(mail)
    assert [record.levelname for record in caplog.records if "kept, but has no effect" in record.getMessage()] == [
        "WARNING"
    ]


def test_one_bad_mail_does_not_stop_the_others(connect: Connect) -> None:
    """Each mail has exactly one delivery."""
    with Relay(ssl_mode="none", refuse={"r1@corp.example": "550 5.1.1 No such user"}) as relay:
        deliveries = list(connect(relay.airflow_connection()).send_many(mails(4)))
        assert [message.recipients for message in relay.messages] == [
            ("r0@corp.example",),
            ("r2@corp.example",),
            ("r3@corp.example",),
        ]
    assert [delivery.index for delivery in deliveries] == [0, 1, 2, 3]
    assert [str(delivery.outcome) for delivery in deliveries] == ["accepted", "refused", "accepted", "accepted"]


def test_a_server_that_closes_after_each_mail_loses_none(connect: Connect) -> None:
    """A new session is opened; none of the mail had been sent."""
    steps = f"{HELLO}\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go on\nMESSAGE\nS: 250 ok"
    listener = socket.create_server(("127.0.0.1", 0))
    dialogues = [Dialogue(steps, listener=listener) for _ in range(3)]
    definition = scripted(dialogues[0])
    with listener:
        for dialogue in dialogues:
            dialogue.start()
        deliveries = list(connect(definition).send_many(mails(3)))
    assert [str(delivery.outcome) for delivery in deliveries] == ["accepted"] * 3
    assert sorted(len(dialogue.messages) for dialogue in dialogues) == [1, 1, 1]


def test_a_missing_attachment_is_found_before_connecting(connect: Connect) -> None:
    """All missing files are named, and the error is permanent although the server is down too."""
    definition = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": 1, "extra": {"ssl_mode": "none"}}
    mail = Mail(from_address="etl@corp.example", to="a@corp.example", attachments=["/no/a.csv", "/no/b.csv"])
    hook = connect(definition)
    with pytest.raises(MessageError, match=r"(?s)/no/a\.csv.*/no/b\.csv") as caught:
        hook.send(mail)
    assert not caught.value.retryable


def test_an_unreachable_server_is_not_tried_for_each_mail(connect: Connect) -> None:
    """Each mail has its delivery."""
    definition = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": 1, "extra": {"ssl_mode": "none"}}
    deliveries = list(connect(definition).send_many(mails(50), connections=2))
    assert sorted(delivery.index for delivery in deliveries) == list(range(50))
    assert {str(delivery.outcome) for delivery in deliveries} == {"not_sent"}


def test_a_refused_sign_in_is_not_repeated_for_each_mail(connect: Connect) -> None:
    """It would lock the account."""
    with Relay(users=ALICE) as relay:
        hook = connect({**relay.airflow_connection(), "password": "wrong horse battery"})
        deliveries = list(hook.send_many(mails(5)))
    errors = {id(delivery.error) for delivery in deliveries}
    assert len(deliveries) == 5
    assert len(errors) == 1


def test_an_error_of_the_iterable_of_mails_is_raised(connect: Connect) -> None:
    """The mails sent before it have their deliveries."""

    def source() -> Iterator[Mail]:
        yield from mails(3)
        raise LookupError("the query failed")

    with Relay(ssl_mode="none") as relay:
        for connections in (1, 3):
            deliveries = connect(relay.airflow_connection()).send_many(source(), connections=connections)
            seen = sorted(next(deliveries).index for _ in range(3))
            with pytest.raises(LookupError, match="the query failed"):
                next(deliveries)
            assert seen == [0, 1, 2]


@pytest.mark.parametrize("connections", [1, 3])
def test_many_mails_over_few_sessions_each_arrive_once(connections: int, connect: Connect) -> None:
    """With several sessions they finish in any order."""
    with Relay(users=ALICE) as relay:
        deliveries = list(connect(relay.airflow_connection()).send_many(mails(40), connections=connections))
        received = sorted(message.recipients[0] for message in relay.messages)
    assert {str(delivery.outcome) for delivery in deliveries} == {"accepted"}
    assert sorted(delivery.index for delivery in deliveries) == list(range(40))
    assert received == sorted(f"r{number}@corp.example" for number in range(40))


def test_closing_the_generator_ends_the_sending(connect: Connect) -> None:
    """No thread keeps running."""
    with Relay(ssl_mode="none") as relay:
        deliveries = connect(relay.airflow_connection()).send_many(mails(1000), connections=2)
        next(deliveries)
        deliveries.close()  # type: ignore[attr-defined]
        assert len(relay.messages) < 100


def closed_port() -> socket.socket:
    """Return a socket whose port refuses connections, since nothing listens on it."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def test_a_hook_falls_back_to_a_relay_that_it_signs_in_to(connect: Connect) -> None:
    """Under that relay's own name, and the delivery has it."""
    with Relay(users=ALICE) as relay, closed_port() as closed:
        fallback = f"localhost:{relay.port}"
        definition = relay.airflow_connection(fallback_hosts=fallback)
        definition |= {"host": "127.0.0.1", "port": closed.getsockname()[1]}
        hook = connect(definition)
        delivery = hook.send(Mail(from_address="etl@corp.example", to="a@corp.example"))
        assert delivery.server == fallback
        assert {one.server for one in hook.send_many(mails(8), connections=4)} == {fallback}
        assert len(relay.messages) == 9
        assert {message.authenticated_as for message in relay.messages} == {r"CORP\alice"}


def test_the_test_of_a_connection_warns_of_a_server_that_is_down(connect: Connect) -> None:
    """It works all the same."""
    with Relay(ssl_mode="none") as relay, closed_port() as closed:
        port = closed.getsockname()[1]
        definition = relay.airflow_connection(fallback_hosts=f"127.0.0.1:{relay.port}") | {"host": "127.0.0.1"}
        good, message = connect(definition | {"port": port}).test_connection()
    assert good
    assert f"Connected to 127.0.0.1:{relay.port}" in message
    assert f"Warning: Cannot connect to 127.0.0.1:{port}" in message
