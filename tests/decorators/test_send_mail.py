"""`@task.send_mail`: what a function returns is the mail, or the body of it, and data; the rest is the operator's."""

from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pandas as pd
import pytest
from airflow.sdk import DAG, task

from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.tasks import context
from tests.operators.test_send_mail_tries import A, B, Kept, attempt, failure, ids, retried, until
from tests.smtp.server import Server

RunDag = Callable[[DAG], Any]
Behind = Callable[..., None]


def made(returned: object, **fields: Any) -> Any:
    """A task whose function `report` returns this; with the minimum that a mail needs, unless given otherwise."""
    least = {"from_address": "etl@corp.example", "to": "a@corp.example", "retry_for": 0}

    @task.send_mail(**{name: value for name, value in {**least, **fields}.items() if value is not None})
    def report() -> Any:
        return returned

    with DAG("d", schedule=None):
        return report().operator


def complaint(returned: object, **fields: Any) -> str:
    """The error with which the task fails permanently."""
    with pytest.raises(AirflowFailException) as caught:
        made(returned, **fields).execute(context())
    return str(caught.value)


# --- Parsing.


def test_a_misspelt_argument_is_not_swallowed() -> None:
    """It fails when the DAG is parsed."""
    with pytest.raises(TypeError, match="subjekt"):
        made("text", subjekt="x")


def test_an_asynchronous_function_is_refused_when_the_dag_is_parsed() -> None:
    """It would return something else than it says."""

    @task.send_mail
    async def report() -> str:
        return "text"

    with DAG("d", schedule=None), pytest.raises(TypeError, match=r"report\(\) is asynchronous"):
        report()


# --- What a function may not return.


def test_octets_are_a_complete_message_and_no_text(relay: Relay) -> None:
    """The error says how such a message begins."""
    assert "A message begins with its header" in complaint(b"Three rows.")


@pytest.mark.parametrize("returned", [b"", EmailMessage(), {"message": ""}, {"message": None}, {"message": b""}])
def test_an_empty_message_is_an_error_and_no_empty_mail(returned: object, relay: Relay) -> None:
    """The subject and the recipients of the decorator would otherwise be sent without any content."""
    assert "'message' is empty: its template, task or function gave nothing." in complaint(returned)
    assert relay.messages == []


@pytest.mark.parametrize(
    ("returned", "kind", "remedy"),
    [
        (None, "None", "raise AirflowSkipException"),
        (17, "int", "a dict of the mail's fields"),
        (1.5, "float", "Return the text as a str"),
        ([Mail(to="a@corp.example")], "list", "MailMergeOperator"),
        ((text for text in ("a", "b")), "generator", "MailMergeOperator"),
    ],
)
def test_what_is_no_mail_is_an_error_that_names_the_function_the_type_and_the_remedy(
    returned: object, kind: str, remedy: str, relay: Relay
) -> None:
    """Without a retry, and nothing is sent."""
    said = complaint(returned)
    assert f"report() returned {'' if returned is None else 'an object of type '}{kind}." in said
    assert remedy in said
    assert relay.messages == []


@pytest.mark.parametrize("name", ["text_file", "html_file", "smtpcm_conn_id", "on_refused", "body"])
def test_a_dict_holds_the_fields_of_a_mail_and_nothing_else(name: str, relay: Relay) -> None:
    """A file that it named would be a template, and what a function returns is data."""
    said = complaint({name: "x"})
    assert f"report() returned a dict with fields that it cannot set: '{name}'." in said
    assert "from_address, to, cc" in said
    assert relay.messages == []


def test_a_data_frame_is_no_html(relay: Relay) -> None:
    """Converted to text, it would not look as intended."""
    said = complaint({"html": pd.DataFrame({"a": [1]})})
    assert "report() returned a dict whose 'html' is an object of type DataFrame." in said
    assert relay.messages == []


@pytest.mark.parametrize(
    ("returned", "fields", "names"),
    [
        ("text", {"text": "another"}, "'text'"),
        ({"to": "b@corp.example"}, {}, "'to'"),
        ({"subject": "a", "html": "b"}, {"subject": "c", "html": "d"}, "'subject' and 'html'"),
        ({"priority": "high"}, {"priority": "low"}, "'priority'"),
        (Mail(to="b@corp.example"), {}, "'to'"),
    ],
)
def test_what_is_said_in_both_places_is_an_error(
    returned: object, fields: dict[str, Any], names: str, relay: Relay
) -> None:
    """It would be unclear which of them is meant."""
    assert f"{names}: set by @task.send_mail (or default_args), and returned by report()" in complaint(
        returned, **fields
    )
    assert relay.messages == []


def test_a_text_beside_a_template_file_is_an_error(relay: Relay) -> None:
    """The operator's own."""
    assert "'text' and 'text_file' are both set" in complaint("text", text_file="body.txt")
    assert relay.messages == []


def test_a_mail_that_the_function_cannot_make_fails_for_good(relay: Relay) -> None:
    """The error says what is wrong with it."""

    @task.send_mail
    def report() -> Mail:
        return Mail(to="nobody", subject="Hi\r\nBcc: b@corp.example")

    with DAG("d", schedule=None), pytest.raises(AirflowFailException, match=r"(?s)nobody.*control character"):
        report().operator.execute(context())
    assert relay.messages == []


def test_what_the_function_raises_is_the_task_s_own_error(relay: Relay) -> None:
    """Airflow retries it as it retries any."""

    @task.send_mail(to="a@corp.example")
    def report() -> str:
        raise ZeroDivisionError

    with DAG("d", schedule=None), pytest.raises(ZeroDivisionError):
        report().operator.execute(context())
    assert relay.messages == []


# --- Attempts.


def test_a_later_try_of_an_accepted_mail_does_not_call_the_function_again(behind: Behind) -> None:
    """The process was killed before Airflow knew; the function may be expensive, or return something else by now."""
    store, calls = Kept(), []

    def again() -> Any:
        @task.send_mail(to=[A, B], from_address="etl@corp.example")
        def report() -> str:
            calls.append(1)
            return f"call {len(calls)}"

        with DAG("d", schedule=None):
            return report().operator

    with Server() as server:
        behind(server)
        first = attempt(again(), store, max_tries=1)
        assert attempt(again(), store, max_tries=1) == first
        assert len(server.stored) == len(calls) == 1


def test_a_text_that_changes_from_try_to_try_changes_neither_the_identity_nor_who_gets_it(behind: Behind) -> None:
    """A recipient who has the mail keeps the first version."""
    store, busy = Kept(), [True]
    fields = {"to": [A, B]}
    with Server(until(busy, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert retried(failure(made("first", **fields), store))
        busy.clear()
        result = attempt(made("second", **fields), store)
        assert (result["outcome"], result["accepted"]) == ("accepted", [A, B])
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]
        assert len(set(ids(server))) == 1


def test_who_is_refused_fails_the_task_unless_that_is_a_warning(relay: Relay) -> None:
    """As the operator has it."""
    to = "a@corp.example; bad@corp.example"
    assert "bad@corp.example" in complaint("text", to=to)
    assert made("text", to=to, on_refused="warn").execute(context())["outcome"] == "partial"


# --- What a function returns.


@pytest.mark.parametrize("text", ["{{ 7 * 7 }} {{ conn.smtpcm_default.host }}", "<h1>Hi</h1>", "17", ""])
@pytest.mark.parametrize("native", [False, True])
def test_a_str_is_the_text_as_it_is(text: str, native: bool, relay: Relay, run_dag: RunDag) -> None:
    """Whatever it looks like: no template, no HTML and no number."""
    with DAG("body", schedule=None, render_template_as_native_obj=native) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example")
        def report() -> str:
            return text

        report()
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.message.get_content_type() == "text/plain"
    assert received.message.get_content().rstrip("\r\n") == text


def test_a_dict_fills_what_the_decorator_left_empty(relay: Relay) -> None:
    """The HTML is the function's, the text the decorator's; None and an empty list say nothing."""
    made(
        {"html": "<p>{{ 1 }}</p>", "subject": "S", "cc": ["c@corp.example"], "to": None, "attachments": []},
        text="plain",
        priority="high",
    ).execute(context())
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "c@corp.example")
    assert received.message["Subject"] == "S"
    assert received.message["Importance"] == "high"
    bodies = [part.get_content().rstrip() for part in received.message.iter_parts()]
    assert bodies == ["plain", "<p>{{ 1 }}</p>"]


def test_a_mail_is_the_whole_mail(relay: Relay) -> None:
    """With the decorator's sender, where it names none."""
    mail = Mail(
        to="Jane <b@corp.example>",
        subject="S",
        text="{{ 1 }}",
        headers=[("X-Tag", "1"), ("X-Tag", "2")],
        attachments=[Attachment(content=b"\x00", name="a.bin")],
        priority="low",
    )
    made(mail, to=None).execute(context())
    (received,) = relay.messages
    assert received.recipients == ("b@corp.example",)
    assert received.message["From"] == "etl@corp.example"
    assert received.message.get_all("X-Tag") == ["1", "2"]
    assert received.message["Importance"] == "low"
    (attachment,) = received.message.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == ("a.bin", b"\x00")


# --- In a DAG.


def test_the_decorator_s_fields_are_templates_and_other_tasks_outputs_are_data(relay: Relay, run_dag: RunDag) -> None:
    """The function has Airflow's context too; default_args say what the decorator does not."""
    defaults = {"from_address": "etl@corp.example", "cc": "c@corp.example"}
    with DAG("fields", schedule=None, default_args=defaults) as dag:

        @task
        def injected() -> str:
            return "{{ 7 * 7 }}"

        @task.send_mail(to="{{ dag.dag_id }}@corp.example", subject="{{ task.task_id }} {{ 6 * 7 }}")
        def report(told: str, literal: str, *, ti: Any = None, **rest: Any) -> str:
            return f"{told} {literal} {ti.task_id} {rest['run_id'] == ti.run_id}"

        report(injected(), "{{ 1 + 1 }}")
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.recipients == ("fields@corp.example", "c@corp.example")
    assert received.message["Subject"] == "report 42"
    assert received.message.get_content().rstrip() == "{{ 7 * 7 }} 2 report True"


def test_a_mapped_function_sends_a_mail_for_each_and_what_it_is_mapped_over_is_data(
    relay: Relay, run_dag: RunDag
) -> None:
    """Each under a Message-ID of its own."""
    with DAG("mapped", schedule=None) as dag:

        @task
        def regions() -> list[str]:
            return ["North", "{{ 7 * 7 }}"]

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example")
        def report(region: str, greeting: str) -> dict[str, str]:
            return {"subject": region, "text": greeting}

        report.partial(greeting="Hello").expand(region=regions())
        report.override(task_id="other", to="b@corp.example")("South", "Bye")
    assert str(run_dag(dag).state) == "success"
    assert sorted((message.recipients[0][0], str(message.message["Subject"])) for message in relay.messages) == [
        ("a", "North"),
        ("a", "{{ 7 * 7 }}"),
        ("b", "South"),
    ]
    assert len({message.message["Message-ID"] for message in relay.messages}) == 3


@pytest.mark.parametrize("wanted", [None, True])
def test_the_task_returns_the_delivery_and_its_parts_where_somebody_asked_for_them(
    wanted: bool | None, relay: Relay, run_dag: RunDag
) -> None:
    """That the function returns a dict asks for nothing: it is not what the task returns."""
    with DAG("outputs", schedule=None) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example", multiple_outputs=wanted)
        def report() -> dict[str, str]:
            return {"text": "x"}

        report()
    (instance,) = run_dag(dag).get_task_instances()
    message_id = relay.messages[0].message["Message-ID"]
    assert instance.xcom_pull(task_ids="report")["message_id"] == message_id
    assert instance.xcom_pull(task_ids="report", key="message_id") == (message_id if wanted else None)


def test_a_function_that_finds_nothing_to_tell_skips_its_task(relay: Relay, run_dag: RunDag) -> None:
    """By Airflow's own exception."""
    try:
        from airflow.sdk.exceptions import AirflowSkipException
    except ImportError:  # Airflow 3.1
        from airflow.exceptions import AirflowSkipException  # type: ignore[attr-defined,no-redef]

    with DAG("nothing", schedule=None) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example")
        def report() -> str:
            raise AirflowSkipException

        report()
    (instance,) = run_dag(dag).get_task_instances()
    assert str(instance.state) == "skipped"
    assert relay.messages == []


def test_the_ui_calls_it_by_its_name_and_it_is_the_operator() -> None:
    """Everything that the operator guarantees holds."""
    operator = made("text")
    assert operator.operator_name == "@task.send_mail"
    assert isinstance(operator, SendMailOperator)
    assert {*SendMailOperator.template_fields, "op_args", "op_kwargs"} == set(operator.template_fields)
