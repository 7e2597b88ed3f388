"""A DAG sends through a real Postfix that requires Windows Authentication (NTLM), with each TLS mode."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.postfix import Postfix

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

pytestmark = pytest.mark.slow

# The start of the third NTLM message in base64 (MS-NLMP 2.2.1.3): passwords can be guessed from it offline.
NTLM_AUTHENTICATE = "TlRMTVNTUAAD"
SUBJECT = "Ladelauf für Süd abgeschlossen"


def windows_connection(server: Postfix, **changes: Any) -> dict[str, Any]:
    """Return the connection to this server, in Airflow's JSON form."""
    extra = {"auth_mode": "windows", "ssl_mode": "starttls", "ca_certificate": server.ca_certificate}
    extra |= changes.pop("extra", {})
    return {
        "conn_type": "smtpcm",
        "host": server.host,
        "port": server.starttls_port,
        "login": "alice",
        "password": server.users["alice"],
        "extra": extra,
    } | changes


@pytest.fixture
def send(
    run_dag: Callable[[DAG], DagRun], set_connection: Callable[[str, Mapping[str, Any]], None]
) -> Callable[[Mapping[str, Any]], DagRun]:
    """Return a function that runs a DAG of one SendMailOperator with the given connection."""

    def run(connection: Mapping[str, Any]) -> DagRun:
        from airflow.sdk import DAG

        from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

        set_connection("mail_server", connection)
        with DAG("postfix", schedule=None) as dag:
            SendMailOperator(
                task_id="send",
                smtpcm_conn_id="mail_server",
                from_address="etl@corp.example",
                to=["ops@corp.example"],
                subject=SUBJECT,
                text="7 Zeilen geladen.\n",
            )
        return run_dag(dag)

    return run


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_windows_authentication_delivers_and_the_stored_message_names_the_sender(
    ssl_mode: str, postfix: Postfix, send: Callable[[Mapping[str, Any]], DagRun]
) -> None:
    """NTLM inside TLS, however TLS starts."""
    port = getattr(postfix, f"{ssl_mode}_port")

    run = send(windows_connection(postfix, port=port, extra={"ssl_mode": ssl_mode}))

    assert run.state == "success"
    [message] = postfix.wait_for_messages(1)
    assert message["Subject"] == SUBJECT
    assert message.get_content() == "7 Zeilen geladen.\n"
    assert "(Authenticated sender: alice@corp.example)" in message["Received"]
    assert "TLSv1.3" in message["Received"]


@pytest.mark.parametrize("login", ["alice", r"CORP.EXAMPLE\alice", "alice@corp.example"])
def test_a_login_may_have_each_form_of_windows(
    login: str, postfix: Postfix, send: Callable[[Mapping[str, Any]], DagRun]
) -> None:
    r"""The name alone, DOMAIN\name, or name@domain."""
    run = send(windows_connection(postfix, login=login))

    assert run.state == "success"
    [message] = postfix.wait_for_messages(1)
    assert "(Authenticated sender: alice@corp.example)" in message["Received"]


def test_the_xcom_has_the_server_s_reply(postfix: Postfix, send: Callable[[Mapping[str, Any]], DagRun]) -> None:
    """With Postfix's queue id."""
    run = send(windows_connection(postfix))

    delivery = run.get_task_instance("send").xcom_pull(task_ids="send")
    [message] = postfix.wait_for_messages(1)
    assert delivery["outcome"] == "accepted"
    assert delivery["accepted"] == ["ops@corp.example"]
    assert delivery["message_id"] == message["Message-ID"]
    assert "queued as" in str(delivery["reply"])


def test_a_fallback_host_takes_the_mail_of_a_server_that_is_down(
    postfix: Postfix, send: Callable[[Mapping[str, Any]], DagRun]
) -> None:
    """It is signed in to, and the XCom names it."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        fallback = f"{postfix.host}:{postfix.starttls_port}"
        run = send(
            windows_connection(
                postfix, host="127.0.0.1", port=closed.getsockname()[1], extra={"fallback_hosts": fallback}
            )
        )

    assert run.state == "success"
    assert run.get_task_instance("send").xcom_pull(task_ids="send")["server"] == fallback
    [message] = postfix.wait_for_messages(1)
    assert "(Authenticated sender: alice@corp.example)" in message["Received"]


def test_a_wrong_password_is_proved_once_over_eight_connections(
    postfix: Postfix, set_connection: Callable[[str, Mapping[str, Any]], None]
) -> None:
    """In a batch, and in the batch after it: the server's log has one failure."""
    from airflow_provider_smtpcm import Mail, SmtpConnectionManagerHook

    set_connection("mail_server", windows_connection(postfix, password="wrong-Password-8"))
    hook = SmtpConnectionManagerHook("mail_server")
    mails = [Mail(from_address="etl@corp.example", to="ops@corp.example", text=str(number)) for number in range(20)]
    failures_before = postfix.log().count("SASL NTLM authentication failed")
    outcomes = [delivery.outcome for _ in range(2) for delivery in hook.send_many(mails, connections=8)]
    assert outcomes == ["not_sent"] * 40
    assert postfix.log().count("SASL NTLM authentication failed") == failures_before + 1


@pytest.mark.parametrize(("login", "password"), [("alice", "wrong-Password-1"), ("jürgen", "Pässwörd-№2")])
def test_a_refused_login_fails_in_one_clear_error(
    login: str,
    password: str,
    postfix: Postfix,
    send: Callable[[Mapping[str, Any]], DagRun],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It has the server's own words, and the password is in no log."""
    with caplog.at_level(logging.DEBUG):
        run = send(windows_connection(postfix, login=login, password=password))

    assert run.state == "failed"
    assert postfix.messages() == []
    logged = caplog.text + "".join(capfd.readouterr())
    assert "535 5.7.8" in logged
    assert password not in logged
    assert NTLM_AUTHENTICATE not in logged


def test_a_server_without_a_windows_mechanism_is_an_error_that_names_what_it_offers(
    postfix: Postfix, send: Callable[[Mapping[str, Any]], DagRun], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing weaker is tried: the password itself is never sent."""
    run = send(windows_connection(postfix, port=postfix.basic_only_port))

    assert run.state == "failed"
    assert "PLAIN" in "".join(capfd.readouterr())
    assert "sasl_method" not in postfix.log().rpartition("connect from")[2]


def test_an_anonymous_relay_accepts_the_mail(postfix: Postfix, send: Callable[[Mapping[str, Any]], DagRun]) -> None:
    """Without a login, and the stored message has no authenticated user."""
    run = send(
        {
            "conn_type": "smtpcm",
            "host": postfix.host,
            "port": postfix.anonymous_port,
            "extra": {"auth_mode": "anonymous", "ca_certificate": postfix.ca_certificate},
        }
    )

    assert run.state == "success"
    [message] = postfix.wait_for_messages(1)
    assert "Authenticated" not in message["Received"]
