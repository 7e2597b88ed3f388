"""The envelope sender, and the headers of automatic mail, are the same in every face."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_smtpcm.email_backend import send_email
from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.notifications.shapes import raised, task_failed
from tests.operators.merges import merge
from tests.operators.tasks import context

RunDag = Callable[[DAG], Any]
ROWS = [{"id": "4711", "email": "jane@corp.example", "name": "Jane"}]


def send_by_operator(**fields: Any) -> None:
    least = {"task_id": "send", "from_address": "etl@corp.example", "to": "a@corp.example", "retry_for": 0}
    SendMailOperator(**{**least, **fields}).execute(context())


def send_by_merge(**fields: Any) -> None:
    merge(rows=ROWS, **fields).execute(context())


def send_by_notifier(**fields: Any) -> None:
    least = {"to": "a@corp.example", "from_address": "etl@corp.example", "retry_for": 0}
    SendMailNotifier(**{**least, **fields})(task_failed(raised(ValueError("no such column"))))


def send_by_backend(**fields: Any) -> None:
    send_email("a@corp.example", "Failed", "<p>x</p>", from_email="etl@corp.example", **fields)


BY_ARGUMENTS = [send_by_operator, send_by_merge, send_by_notifier]
EVERY_FACE = [*BY_ARGUMENTS, send_by_backend]


@pytest.mark.parametrize("send", EVERY_FACE)
def test_every_mail_says_that_a_program_wrote_it(send: Callable[..., None], relay: Relay) -> None:
    """Non-delivery reports still come: Exchange's "All" would suppress them too."""
    send()
    (mail,) = relay.messages
    assert mail.message["Auto-Submitted"] == "auto-generated"
    assert mail.message["X-Auto-Response-Suppress"] == "OOF, AutoReply"


@pytest.mark.parametrize("send", BY_ARGUMENTS)
def test_a_mail_may_hide_it_from_a_ticket_system(send: Callable[..., None], relay: Relay) -> None:
    """Which would hold the mail back."""
    send(auto_generated=False)
    (mail,) = relay.messages
    assert mail.message["Auto-Submitted"] is mail.message["X-Auto-Response-Suppress"] is None


@pytest.mark.parametrize("send", EVERY_FACE)
def test_a_header_of_ones_own_takes_the_place_of_its_default(send: Callable[..., None], relay: Relay) -> None:
    """And an empty one is left out."""
    name = "custom_headers" if send is send_by_backend else "headers"
    send(**{name: {"auto-submitted": "auto-replied", "X-Auto-Response-Suppress": ""}})
    (mail,) = relay.messages
    assert mail.message.get_all("Auto-Submitted") == ["auto-replied"]
    assert mail.message["X-Auto-Response-Suppress"] is None


@pytest.mark.parametrize("send", EVERY_FACE)
def test_the_connection_may_name_the_envelope_sender(
    send: Callable[..., None], relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every mail that names none; From stays."""
    connection = relay.airflow_connection(envelope_from="bounces@corp.example")
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    send()
    (mail,) = relay.messages
    assert (mail.mail_from, mail.message["From"]) == ("bounces@corp.example", "etl@corp.example")


@pytest.mark.parametrize("send", BY_ARGUMENTS)
@pytest.mark.parametrize(("given", "sent"), [("Bounces <b@corp.example>", "b@corp.example"), ("<>", "")])
def test_an_argument_comes_before_that_of_the_connection(
    send: Callable[..., None], given: str, sent: str, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`<>` is a null return path: nothing is reported to it."""
    connection = relay.airflow_connection(envelope_from="bounces@corp.example")
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    send(envelope_from=given)
    assert [mail.mail_from for mail in relay.messages] == [sent]


@pytest.mark.parametrize("send", BY_ARGUMENTS)
@pytest.mark.parametrize(("given", "sender"), [("\n<>\n", ""), ("\n \n", "etl@corp.example")])
def test_line_breaks_around_it_are_none_of_it(send: Callable[..., None], given: str, sender: str, relay: Relay) -> None:
    """As those around any other address, from a file or a variable."""
    send(envelope_from=given)
    (mail,) = relay.messages
    assert mail.mail_from == sender


def test_in_a_merge_each_row_may_have_its_own(relay: Relay) -> None:
    """So that a bounce names its row (variable envelope return paths)."""
    send_by_merge(envelope_from="bounces+{{ row.id }}@corp.example")
    assert [mail.mail_from for mail in relay.messages] == ["bounces+4711@corp.example"]


def test_it_is_a_template(relay: Relay, run_dag: RunDag) -> None:
    """Like every address; what a function returns may name it too."""
    with DAG("templated", schedule=None, default_args={"from_address": "etl@corp.example"}) as dag:
        SendMailOperator(task_id="send", to="a@corp.example", envelope_from="{{ dag.dag_id }}@corp.example")

        @task.send_mail(to="b@corp.example")
        def returned() -> dict[str, object]:
            return {"text": "x", "envelope_from": "<>", "auto_generated": False}

        returned()
    assert str(run_dag(dag).state) == "success"
    assert sorted(mail.mail_from for mail in relay.messages) == ["", "templated@corp.example"]
    assert {mail.message["Auto-Submitted"] for mail in relay.messages} == {None, "auto-generated"}


@pytest.mark.parametrize("given", ["nobody", "a@corp.example; b@corp.example", "a@corp.example>\r\nRCPT TO:<b@x"])
def test_what_is_no_address_is_refused(given: str, relay: Relay) -> None:
    """Before anything is sent: when the DAG is parsed, or when a template is rendered."""
    for send in (send_by_operator, send_by_merge):
        with pytest.raises(ValueError, match="Envelope sender"):
            send(envelope_from=given)
    with pytest.raises(AirflowFailException, match="Envelope sender"):
        send_by_merge(envelope_from=f"{{{{ {given!r} }}}}")
    assert not relay.messages


def test_an_alert_with_a_broken_envelope_sender_is_sent_without_it(relay: Relay) -> None:
    """A fault in the notifier must not hide one of the task."""
    send_by_notifier(envelope_from="nobody")
    (mail,) = relay.messages
    assert mail.mail_from == mail.message["From"] == "etl@corp.example"


@pytest.mark.parametrize(
    "fields",
    [
        {"envelope_from": "jürgen@corp.example"},
        {"reply_to": "jürgen@corp.example"},
        {"headers": {"Sender": "jürgen@corp.example", "X-Run": "ü"}},
        {"from_address": "jürgen@corp.example"},
        {"to": ["a@corp.example", "jürgen@corp.example"]},
        {"cc": "jürgen@corp.example", "attachments": [__file__]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_an_alert_is_sent_without_addresses_that_the_server_does_not_take(fields: dict[str, Any], relay: Relay) -> None:
    """The server has no SMTPUTF8; the others get the alert, and everything else in it."""
    send_by_notifier(**{"subject": "Mine", "text": "Mine", **fields})
    (mail,) = relay.messages
    assert mail.recipients == ("a@corp.example",)
    assert mail.message["Subject"] == "Mine"
    assert mail.message["X-Run"] == fields.get("headers", {}).get("X-Run")
    assert b"J\xc3\xbcrgen".lower() not in mail.content.lower()


def test_so_is_a_mail_of_the_email_backend(relay: Relay) -> None:
    """And an error is raised where no other recipient is left."""
    send_by_backend(cc="jürgen@corp.example", custom_headers={"Sender": "jürgen@corp.example"})
    (mail,) = relay.messages
    assert (mail.recipients, mail.message["Cc"], mail.message["Sender"]) == (("a@corp.example",), None, None)
    with pytest.raises(AirflowFailException, match="SMTPUTF8"):
        send_email("jürgen@corp.example", "Failed", "<p>x</p>", from_email="etl@corp.example")
