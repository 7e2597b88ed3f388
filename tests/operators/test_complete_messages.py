"""`SendMailOperator(message=...)` and functions that return a complete message."""

from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_smtpcm.mail import MimeMessage
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.tasks import context
from tests.operators.test_send_mail_tries import Kept, attempt, failure, ids, retried, until
from tests.smtp.dialogue import Dialogue
from tests.smtp.server import MESSAGE as MESSAGE_END
from tests.smtp.server import STORE_AND_HANG_UP, Server
from tests.smtp.test_retried_batches import at_first

RunDag = Callable[[DAG], Any]
MESSAGE = (
    b"From: etl@corp.example\r\nTo: a@corp.example\r\nBcc: b@corp.example\r\nSubject: {{ ds }}\r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@corp.example>\r\n\r\n{{ 7 * 7 }}\r\n"
)
SENT = MESSAGE.replace(b"Bcc: b@corp.example\r\n", b"")


def operator(message: Any, **fields: Any) -> SendMailOperator:
    """A task with a complete message."""
    return SendMailOperator(task_id="send", message=message, retry_for=0, **fields)


def as_email() -> EmailMessage:
    """A message of Python's `email`, without a Message-ID."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "etl@corp.example", "a@corp.example", "x"
    message.set_content("x")
    message.add_attachment(b"x", maintype="application", subtype="x", filename="x")
    return message


def test_its_octets_arrive_and_the_delivery_is_the_xcom(relay: Relay) -> None:
    """No template is rendered in it."""
    result = operator(MESSAGE).execute(context())
    (mail,) = relay.messages
    assert mail.content == SENT
    assert (result["message_id"], result["accepted"]) == ("<1@corp.example>", ["a@corp.example", "b@corp.example"])


def test_a_path_is_a_template_and_may_be_in_object_storage(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """A URL is one where the author wrote it; what another task returns is a path on the worker."""
    (tmp_path / "paths.eml").write_bytes(MESSAGE)

    @task
    def path() -> str:
        return str(tmp_path / "paths.eml")

    with DAG("paths", schedule=None) as dag:
        SendMailOperator(task_id="text", message=f"{tmp_path}/{{{{ dag.dag_id }}}}.eml")
        SendMailOperator(task_id="url", message=f"file://{tmp_path}/{{{{ dag.dag_id }}}}.eml")
        SendMailOperator(task_id="object", message=ObjectStoragePath(f"file://{tmp_path}/paths.eml"))
        SendMailOperator(task_id="output", message=path())
    assert str(run_dag(dag).state) == "success"
    assert [mail.content for mail in relay.messages] == [SENT] * 4


def test_a_url_from_another_task_is_not_opened(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """It is data."""
    (tmp_path / "data.eml").write_bytes(MESSAGE)

    @task
    def url() -> str:
        return f"file://{tmp_path}/data.eml"

    with DAG("data", schedule=None) as dag:
        SendMailOperator(task_id="send", message=url())
    assert str(run_dag(dag).state) == "failed"
    assert not relay.messages


def test_the_envelope_may_be_given(relay: Relay) -> None:
    """To, Cc and Bcc are then who receives it."""
    operator(MESSAGE, to="x@corp.example", bcc=["y@corp.example"], envelope_from="<>").execute(context())
    (mail,) = relay.messages
    assert (mail.content, mail.recipients, mail.mail_from) == (SENT, ("x@corp.example", "y@corp.example"), "")


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "x"},
        {"html": "x"},
        {"attachments": ["/x"]},
        {"from_address": "x@y.example"},
        {"priority": "high"},
        {"auto_generated": False},
        {"message_id": "<1@x>"},
    ],
)
def test_what_the_message_has_cannot_be_set_beside_it(fields: dict[str, Any], relay: Relay) -> None:
    """Nothing is silently ignored. What a template fills in is known only in the task."""
    with pytest.raises(ValueError, match=f"'{next(iter(fields))}': set beside 'message'"):
        operator(MESSAGE, **fields)
    with pytest.raises(AirflowFailException, match="'headers': set beside 'message'"):
        operator(MESSAGE, headers={"X-Run": "{{ run_id }}"}).execute(context())
    assert not relay.messages


@pytest.mark.parametrize("source", [b"no header\n", b"From: a@corp.example\n\nno recipient\n", Path("/nowhere/x.eml")])
def test_a_message_that_cannot_be_sent_fails_the_task_for_good(source: Any, relay: Relay) -> None:
    """A retry would not help."""
    with pytest.raises((AirflowFailException, Exception), match=r"header field|no recipient|/nowhere/x\.eml"):
        operator(source).execute(context())


def test_every_try_of_a_message_without_a_message_id_bears_the_same_one(relay: Relay) -> None:
    """As for any mail of a task."""
    ids = [operator(as_email()).execute(context())["message_id"] for _ in range(2)]
    assert len(set(ids)) == 1
    assert [mail.message["Message-ID"] for mail in relay.messages] == ids


def test_a_temporary_refusal_is_retried_and_an_unknown_outcome_is_not(behind: Callable[..., None]) -> None:
    """The guarantees are those of any mail."""
    script = (
        "S: 220 mail\nC: EHLO *\nS: 250 mail\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nMESSAGE"
    )
    for ending, expected in (("S: 451 later", AirflowException), ("RESET", AirflowFailException)):
        with Dialogue(f"{script}\n{ending}") as dialogue:
            behind(dialogue)
            with pytest.raises(AirflowException) as caught:
                operator(MESSAGE, to="a@corp.example").execute(context())
        assert type(caught.value) is expected
        assert dialogue.messages == [SENT]


@pytest.mark.parametrize("default", [{"to": "ops@corp.example"}, {"cc": ["x@corp.example"], "bcc": "y@corp.example"}])
def test_recipients_for_all_mails_do_not_replace_those_of_a_message(default: dict[str, Any], relay: Relay) -> None:
    """A copy for the archive in `default_args` would otherwise be the only one that is sent."""
    names = " and ".join(map(repr, default))
    with DAG("defaults", schedule=None, default_args=default):
        with pytest.raises(ValueError, match=f"{names}: set by default_args.*Set them to None here"):
            SendMailOperator(task_id="send", message=MESSAGE)
        SendMailOperator(task_id="without", message=MESSAGE, **dict.fromkeys(default)).execute(context())
        SendMailOperator(task_id="others", message=MESSAGE, **dict.fromkeys(default, "z@corp.example")).execute(
            context()
        )
    assert [mail.recipients for mail in relay.messages] == [("a@corp.example", "b@corp.example"), ("z@corp.example",)]


@pytest.mark.parametrize("address", ["y@corp.example", "{{ 'y@corp.example' }}", "{{ '' }}", ""])
def test_recipients_for_all_mails_are_found_in_the_task_too(
    address: str, relay: Relay, run_dag: Callable[[DAG], Any]
) -> None:
    """What a function returns, and what a template fills in, is known only there. Blank ones take nothing away."""
    default_args = {"bcc": address, "retries": 0}
    with DAG("returned", schedule=None, default_args=default_args) as dag:

        @task.send_mail
        def returned() -> bytes:
            return MESSAGE

        returned()
    dags = [dag]
    if address != "y@corp.example":
        with DAG("templated", schedule=None, default_args=default_args) as other:
            SendMailOperator(task_id="templated", message=MESSAGE)
        dags.append(other)
    is_blank = not address.replace("{{ '' }}", "")
    assert {str(run_dag(each).state) for each in dags} == {"success" if is_blank else "failed"}
    assert {mail.recipients for mail in relay.messages} == (
        {("a@corp.example", "b@corp.example")} if is_blank else set()
    )


def test_a_function_may_return_one(relay: Relay, run_dag: RunDag) -> None:
    """As an EmailMessage, as octets, with an envelope of its own, or in a dict with recipients."""
    with DAG("functions", schedule=None) as dag:
        for number, returned in enumerate(
            [
                as_email(),
                MESSAGE,
                MimeMessage(MESSAGE, recipients="x@corp.example"),
                {"message": MESSAGE, "to": "y@corp.example"},
            ]
        ):

            @task.send_mail(task_id=f"t{number}")
            def send(returned: Any = returned) -> Any:
                return returned

            send()
    assert str(run_dag(dag).state) == "success"
    assert sorted(mail.recipients for mail in relay.messages) == [
        ("a@corp.example",),
        ("a@corp.example", "b@corp.example"),
        ("x@corp.example",),
        ("y@corp.example",),
    ]


def test_the_dag_has_the_same_text_at_each_parse() -> None:
    """Airflow stores a version of the DAG for each change; the boundaries of Python's `email` are random."""
    texts = {str(operator(as_email()).message) for _ in range(2)}
    assert texts == {"<MimeMessage 'x' from etl@corp.example>"}


def test_a_retry_goes_only_to_those_who_lack_the_message(behind: Callable[..., None]) -> None:
    """With the same octets, by the ledger; once all have it, nothing is sent."""
    store, busy = Kept(), [True]
    with Server(until(busy, "451 later", "RCPT TO:<b@")) as server:
        behind(server)
        assert retried(failure(operator(MESSAGE), store))
        busy.clear()
        assert attempt(operator(MESSAGE), store)["accepted"] == ["a@corp.example", "b@corp.example"]
        assert [stored.recipients for stored in server.stored] == [("a@corp.example",), ("b@corp.example",)]
        assert ids(server) == ["<1@corp.example>"] * 2


def test_an_unknown_outcome_is_recorded_and_nothing_is_sent_again(behind: Callable[..., None]) -> None:
    """Also by a cleared task."""
    store = Kept()
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE_END)) as server:
        behind(server)
        for _ in range(2):
            assert not retried(failure(operator(MESSAGE), store))
        assert len(server.stored) == 1


def test_a_blank_envelope_sender_leaves_that_of_the_message(relay: Relay) -> None:
    """A template may render to nothing."""
    message = MimeMessage(b"From: a@corp.example\r\nTo: b@corp.example\r\n\r\nText\r\n", envelope_from="<>")
    task_with_message = SendMailOperator(task_id="send", message=message, envelope_from="{{ '' }}")
    task_with_message.render_for_preview(context()).execute(context())
    assert [mail.mail_from for mail in relay.messages] == [""]


@pytest.mark.parametrize("native", [False, True])
def test_a_message_that_turns_out_empty_is_an_error_and_no_empty_mail(
    native: bool, relay: Relay, run_dag: Callable[[DAG], Any]
) -> None:
    """From a template, or from a task without a result."""
    with DAG("empty", schedule=None, render_template_as_native_obj=native, default_args={"retries": 0}) as dag:

        @task
        def nothing() -> None:
            """Returns no message."""

        SendMailOperator(task_id="templated", to="b@corp.example", message="{{ '' }}")
        SendMailOperator(task_id="none", to="b@corp.example", message="{{ none }}")
        SendMailOperator(task_id="computed", to="b@corp.example", message=nothing())
    states = {instance.task_id: str(instance.state) for instance in run_dag(dag).get_task_instances()}
    assert states == {"nothing": "success", "templated": "failed", "none": "failed", "computed": "failed"}
    assert not relay.messages
