"""Airflow's email backend: `email_on_failure` through our connection, with the arguments that Airflow passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__
from airflow.sdk import DAG, task
from airflow.utils.email import get_email_address_list

from airflow_provider_smtpcm import email_backend
from airflow_provider_smtpcm.email_backend import send_email
from airflow_provider_smtpcm.notifications import alert_delivery
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.testing import Relay
from demo.processes import free_port
from tests.smtp.server import MESSAGE, STORE_AND_HANG_UP, Server
from tests.smtp.test_retried_batches import at_first

TO = ["oncall@corp.example"]
# Airflow 3.2.0 to 3.3.0 send through their own SMTP provider, whatever the setting is.
HONOURED = tuple(int(part) for part in __version__.split(".")[:3] if part.isdigit())
IS_HONOURED = HONOURED < (3, 2, 0) or HONOURED >= (3, 3, 1)


@pytest.fixture(scope="module")
def running_relay() -> Iterator[Relay]:
    """A relay for all tests."""
    with Relay(ssl_mode="none", refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        yield relay


@pytest.fixture
def relay(running_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """An empty relay behind `smtpcm_default`."""
    running_relay.clear()
    connection = running_relay.airflow_connection(from_address="Airflow <airflow@corp.example>")
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    return running_relay


def take_down(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `smtpcm_default` lead to a port on which nothing listens, as after its server stopped."""
    connection = {**relay.airflow_connection(from_address="airflow@corp.example"), "port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))


@pytest.fixture(autouse=True)
def _nothing_was_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email_backend, "_unknown_outcomes", {})
    monkeypatch.setattr(alert_delivery, "_unreachable_since", {})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of this package's warnings."""
    return [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING" and "smtpcm" in record.name
    ]


@pytest.mark.parametrize(
    ("to", "conn_id", "said"),
    [
        (["bad@corp.example"], None, "550 5.1.1"),
        ("nobody", None, "nobody"),
        ([], None, "recipient"),
        (TO, "no_such_connection", "no_such_connection"),
    ],
)
def test_a_mail_that_reaches_no_one_raises_with_its_remedy(
    to: Any, conn_id: str | None, said: str, relay: Relay
) -> None:
    """Airflow logs it, and does not change the task's state."""
    with pytest.raises(AirflowFailException, match=said):
        send_email(to, "x", "y", conn_id=conn_id)
    assert relay.messages == []


def test_a_server_that_is_down_raises_a_retryable_error(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tasks that call the backend themselves."""
    take_down(relay, monkeypatch)
    monkeypatch.setattr("airflow_provider_smtpcm.email_backend.ALERT_RETRY_FOR", 0.0)
    with pytest.raises(AirflowException, match="Cannot connect") as caught:
        send_email(TO, "x", "y")
    assert not isinstance(caught.value, AirflowFailException)


def test_few_mails_of_unknown_outcome_are_kept_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the error and its frames; no more than some hundreds, and for five minutes."""
    extra = {"ssl_mode": "none", "from_address": "airflow@corp.example"}
    with Server(lambda about: STORE_AND_HANG_UP if about == MESSAGE else None) as server:
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
        for subject in ("first", "second"):
            with pytest.raises(AirflowFailException) as caught:
                send_email(TO, subject, "y")
    said = {key: text for key, (_, text) in email_backend._unknown_outcomes.items()}
    assert len(said) == 2
    assert str(caught.value) in said.values()
    for number in range(1000):
        email_backend._add_unknown_outcome(str(number), "x")
    assert len(email_backend._unknown_outcomes) == email_backend._MAX_UNKNOWN_OUTCOMES
    assert email_backend._find_unknown_outcome("999") == "x"
    monkeypatch.setattr(email_backend, "UNKNOWN_OUTCOME_TTL", 0.0)
    assert email_backend._find_unknown_outcome("999") is None
    assert email_backend._unknown_outcomes == {}


def test_a_mail_that_may_have_been_delivered_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow 3.1 calls the backend again if it raised, with another body. Another mail, and a later one, are sent."""
    said = [STORE_AND_HANG_UP]
    with Server(lambda about: said.pop() if said and about == MESSAGE else None) as server:
        extra = {"ssl_mode": "none", "from_address": "airflow@corp.example"}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
        with pytest.raises(AirflowFailException, match="may have been delivered") as first:
            send_email("oncall@corp.example", "Airflow alert", "the exception")
        with pytest.raises(AirflowFailException) as second:
            send_email("oncall@corp.example", "Airflow alert", "Failed attempt to attach error logs")
        assert str(second.value) == str(first.value)
        assert len(server.stored) == 1
        assert any("was not sent again" in warning for warning in warnings(caplog))
        send_email("oncall@corp.example", "Another alert", "the exception")
        assert len(server.stored) == 2
        monkeypatch.setattr(email_backend, "UNKNOWN_OUTCOME_TTL", 0.0)
        send_email("oncall@corp.example", "Airflow alert", "once more")
        assert len(server.stored) == 3


def test_an_error_after_one_recipient_was_accepted_does_not_raise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow would call the backend again; here no thread could be started to retry the other recipient."""
    open_session, opened = Session.open, []

    def start(session: Session, **options: Any) -> Session:
        opened.append(session)
        if len(opened) > 1:
            raise RuntimeError("can't start new thread")
        return open_session(session, **options)

    monkeypatch.setattr(Session, "open", start)
    with Server(at_first(1, "450 4.2.0 greylisted", "RCPT TO:<b@corp.example>"), per_connection=1) as server:
        extra = {"ssl_mode": "none", "from_address": "airflow@corp.example"}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
        send_email(["a@corp.example", "b@corp.example"], "Failed", "<p>It failed.</p>")
        assert [stored.recipients for stored in server.stored] == [("a@corp.example",)]
    assert any("the task was interrupted (RuntimeError: can't start new thread)" in said for said in warnings(caplog))


def test_a_missing_attachment_raises(relay: Relay) -> None:
    """As in Airflow's own backend."""
    with pytest.raises(AirflowFailException, match="/nowhere/report"):
        send_email(TO, "x", "y", files=["/nowhere/report.csv"])
    assert relay.messages == []


def test_a_missing_sender_is_the_first_recipient_and_the_log_names_the_setting(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow's placeholder is not an address, and the alert must not be lost by that."""
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
    send_email(TO, "x", "y", from_email="airflow@airflow")
    assert relay.messages[0].message["From"] == TO[0]
    assert "'From address' on the connection" in caplog.text


def test_some_refused_recipients_are_a_warning(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """The others get the mail."""
    send_email(["bad@corp.example", *TO], "x", "y")
    assert [received.recipients for received in relay.messages] == [tuple(TO)]
    assert any("bad@corp.example" in warning for warning in warnings(caplog))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"priority": "high", "reply_to": "x"}, "priority, reply_to"),
        ({"mime_subtype": "related"}, "mime_subtype is 'related'"),
        ({"mime_charset": "iso-8859-1"}, "mime_charset is 'iso-8859-1'"),
        ({"custom_headers": {"Bcc": "eve@corp.example"}}, "Bcc"),
        ({"custom_headers": {"Content-Type": "text/plain"}}, "Content-Type"),
        ({"custom_headers": {"List-Unsubscribe": "corp.example"}}, "List-Unsubscribe: 'corp.example' is not a list of"),
        ({"custom_headers": {"Sender": "dba"}}, "Sender: there is no '@' in 'dba'"),
        ({"custom_headers": {"X-Run": "a\nb"}}, "X-Run: 'a\\nb' contains"),
        ({"custom_headers": {"X Run": "a"}}, "'X Run' cannot be the name of a header"),
        ({"custom_headers": {4711: "a"}}, "4711 cannot be the name of a header"),
        ({"custom_headers": {"Message-ID": "4711"}}, "'4711' is not a message id"),
        ({"custom_headers": {"Sender": "a@corp.example", "sender": "b@corp.example"}}, "sender is given twice"),
    ],
)
def test_an_unsupported_argument_is_a_warning_and_the_mail_is_sent(
    arguments: dict[str, Any], named: str, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is ignored silently."""
    send_email(TO, "x", "y", **arguments)
    assert len(relay.messages) == 1
    (warning,) = warnings(caplog)
    assert named in warning


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8"])
def test_the_default_value_is_no_warning(charset: str, relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """Airflow's own callers pass it."""
    send_email(TO, "x", "y", mime_subtype="mixed", mime_charset=charset)
    assert warnings(caplog) == []


def test_a_dry_run_logs_the_mail_and_sends_nothing(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """With its recipients and the connection."""
    caplog.set_level("INFO")
    send_email(TO, "The subject", "y", dryrun=True)
    assert relay.messages == []
    assert "'The subject'" in caplog.text
    assert "oncall@corp.example" in caplog.text
    assert "smtpcm_default" in caplog.text


def test_every_argument_reaches_the_mail(relay: Relay, tmp_path: Path) -> None:
    """Positional, as for Airflow's own backend."""
    report = tmp_path / "größe.csv"
    report.write_text("a,b\n")
    send_email(
        TO,
        "Failed:\n a line",
        "<p>Größe</p>",
        [report],
        False,  # noqa: FBT003 - as Airflow's callers write it
        "cc@corp.example, cc2@corp.example",
        ["bcc@corp.example"],
        from_email="ETL <etl@corp.example>",
        custom_headers={"X-Run": 7, "Reply-To": "reply@corp.example", "X-Priority": "1 (Highest)", "X-None": None},
    )
    (received,) = relay.messages
    message = received.message
    assert received.recipients == (*TO, "cc@corp.example", "cc2@corp.example", "bcc@corp.example")
    assert (message["Subject"], message["From"]) == ("Failed: a line", "ETL <etl@corp.example>")
    assert (message["X-Run"], message["Reply-To"], message["Importance"]) == ("7", "reply@corp.example", "high")
    assert message["X-None"] is None
    assert [part.get_filename() for part in message.iter_attachments()] == ["größe.csv"]
    assert "<p>Größe</p>" in message.get_body(("html",)).get_content()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "to",
    [
        "a@corp.example, b@corp.example; c@corp.example",
        ["a@corp.example;b@corp.example", "c@corp.example"],
        ["a@corp.example,b@corp.example", "c@corp.example"],
        ("a@corp.example", "b@corp.example", "c@corp.example"),
        "A <a@corp.example>, b@corp.example; C <c@corp.example>",
        "a@corp.example,\n b@corp.example;\tc@corp.example",
        ["a@corp.example ,\r\n\tb@corp.example", "c@corp.example\n"],
        "a@corp.example <a@corp.example>, Team: b@corp.example, c@corp.example;",
    ],
)
def test_addresses_are_parsed_as_by_airflow_s_own_backend(to: Any, relay: Relay) -> None:
    """With both separators mixed; a DAG with `email=` needs no change."""
    send_email(to, "x", "y")
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example", "c@corp.example")


def test_airflow_s_own_list_of_addresses_is_taken(relay: Relay) -> None:
    """Its caller splits the text and joins it again."""
    text = "a@corp.example,\n b@corp.example;\t c@corp.example"
    send_email(", ".join(get_email_address_list(text)), "x", "y", cc=text)
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example", "c@corp.example")
    assert [str(address) for address in received.message["Cc"].addresses] == list(received.recipients)


@pytest.mark.parametrize(
    "to", ["dba, oncall@corp.example", ["dba", *TO], '"Ops <ops@corp.example>; oncall@corp.example']
)
def test_a_faulty_address_is_a_warning_and_the_others_get_the_mail(
    to: Any, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """An alert must not be lost by it."""
    send_email(to, "x", "y", cc="boss", from_email="ETL <etl@corp.example>")
    (received,) = relay.messages
    assert received.recipients == tuple(TO)
    assert received.message["From"] == "ETL <etl@corp.example>"
    assert len(warnings(caplog)) == 2
    assert "Cc: there is no '@' in 'boss'" in caplog.text


def test_a_comma_in_a_quoted_name_is_no_separator(relay: Relay) -> None:
    """As Outlook writes names."""
    send_email('"Doe, Jane" <jane@corp.example>; b@corp.example', "x", "y")
    (received,) = relay.messages
    assert received.recipients == ("jane@corp.example", "b@corp.example")


@pytest.mark.parametrize(
    "subject",
    ["failed: \x1b[31mred\x1b[0m\r\nBcc: eve@corp.example", "failed: " + "x" * 200_000],
    ids=["unprintable", "endless"],  # pytest puts them into the environment, whose size is limited
)
def test_a_subject_may_contain_an_exception(subject: str, relay: Relay) -> None:
    """`[email] subject_template` may put it there."""
    send_email(TO, subject, "y")
    (received,) = relay.messages
    assert received.message["Subject"].startswith("failed: ")
    assert len(received.message["Subject"]) <= 500
    assert received.recipients == tuple(TO)


def test_a_body_may_contain_an_exception(relay: Relay) -> None:
    """With a NUL or half a character in it; the alert is sent all the same."""
    send_email(TO, "x", "<p>Größe \0 \udc80</p>")
    (received,) = relay.messages
    assert received.message.get_content().strip() == "<p>Größe \ufffd \ufffd</p>"


def test_a_body_may_seem_to_refer_to_an_image(relay: Relay) -> None:
    """Airflow does not escape the text of an exception; a reader sees what it is."""
    send_email(TO, "x", "<p>KeyError: key=CID:4711 in <img src='cid:logo'></p>")
    (received,) = relay.messages
    text = received.message.get_content().strip()
    assert unescape(text) == "<p>KeyError: key=CID:4711 in <img src='cid:logo'></p>"


def test_a_content_header_that_is_not_generated_may_be_set(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """The language of the text, for one."""
    send_email(TO, "x", "y", custom_headers={"Content-Language": "de"})
    assert relay.messages[0].message["Content-Language"] == "de"
    assert warnings(caplog) == []


def test_a_string_of_addresses_and_a_single_path_are_accepted(relay: Relay, tmp_path: Path) -> None:
    """Instead of lists."""
    (tmp_path / "a.txt").write_text("x")
    send_email("a@corp.example, b@corp.example", "x", "y", files=str(tmp_path / "a.txt"))
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example")
    assert len(list(received.message.iter_attachments())) == 1


@pytest.mark.parametrize("header", [{"Importance": "Low"}, {"Priority": "non-urgent"}, {"X-MSMail-Priority": "Low"}])
def test_a_priority_header_sets_the_mail_s_priority(header: dict[str, str], relay: Relay) -> None:
    """In all of its notations."""
    send_email(TO, "x", "y", custom_headers=header)
    assert relay.messages[0].message["X-Priority"] == "5"


@pytest.mark.parametrize("sender", [None, "airflow@airflow"])
def test_the_default_sender_is_the_connection_s_from_address(sender: str | None, relay: Relay) -> None:
    """Also instead of Airflow's placeholder."""
    send_email(TO, "x", "y", from_email=sender)
    assert relay.messages[0].message["From"] == "Airflow <airflow@corp.example>"


@pytest.mark.parametrize("conn_id", [None, "smtp_default", "smtpcm_default"])
def test_airflows_default_connection_id_means_ours(
    conn_id: str | None, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although a connection of that id for Airflow's own SMTP provider exists."""
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://elsewhere.corp.example:25")
    send_email(TO, "x", "y", conn_id=conn_id)
    assert len(relay.messages) == 1


def test_a_call_without_a_connection_uses_the_configured_one(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow itself passes `[email] email_conn_id`; a DAG's own call may not."""
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "alerts")
    monkeypatch.setenv("AIRFLOW_CONN_ALERTS", json.dumps(relay.airflow_connection(from_address="alerts@corp.example")))
    send_email(TO, "x", "y")
    assert relay.messages[0].message["From"] == "alerts@corp.example"


def test_a_connection_of_that_id_that_is_of_our_type_is_used(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was given that type deliberately."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(relay.airflow_connection(from_address="own@corp.example"))
    )
    send_email(TO, "x", "y", conn_id="smtp_default")
    assert relay.messages[0].message["From"] == "own@corp.example"


@pytest.mark.parametrize("down", [False, True], ids=["server up", "server down"])
def test_email_on_failure_is_sent_and_does_not_change_the_task_s_state(
    down: bool, relay: Relay, run_dag: Callable[[DAG], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the server is up or down."""
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", "airflow_provider_smtpcm.email_backend.send_email")
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "smtpcm_default")
    monkeypatch.setattr("airflow_provider_smtpcm.email_backend.ALERT_RETRY_FOR", 0.0)
    if down:
        take_down(relay, monkeypatch)
    with DAG(f"email_on_failure_{down}", schedule=None) as dag:

        @task(email=TO, email_on_failure=True)
        def load() -> None:
            raise ValueError("it broke")

        load()

    run = run_dag(dag)
    assert str(run.get_task_instance("load").state) == "failed"
    if down or not IS_HONOURED:
        assert relay.messages == []
        return
    (received,) = relay.messages
    assert received.recipients == tuple(TO)
    assert "load" in received.message["Subject"]
    assert "it broke" in received.message.get_body(("html",)).get_content()  # type: ignore[union-attr]


def test_an_alert_of_airflow_that_may_have_been_delivered_is_sent_once(
    run_dag: Callable[[DAG], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.1 calls the backend twice."""
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", "airflow_provider_smtpcm.email_backend.send_email")
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "smtpcm_default")
    with Server(lambda about: STORE_AND_HANG_UP if about == MESSAGE else None) as server:
        extra = {"ssl_mode": "none", "from_address": "airflow@corp.example"}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
        with DAG("email_in_doubt", schedule=None) as dag:

            @task(email=TO, email_on_failure=True)
            def load() -> None:
                raise ValueError("it broke")

            load()

        run = run_dag(dag)
        assert str(run.get_task_instance("load").state) == "failed"
        assert len(server.stored) == (1 if IS_HONOURED else 0)
