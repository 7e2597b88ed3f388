"""The operator in a DAG: what the author writes is templated, and the task's state shows the mail's outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_smtpcm.mail.files import UnchangedFile
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.tasks import context, time_limit
from tests.smtp.dialogue import Dialogue
from tests.smtp.files import overwrite

RunDag = Callable[[DAG], Any]
HELLO = "S: 220 mail ESMTP\nC: EHLO *\nS: 250-mail\nS: 250 8BITMIME"
TO_DATA = f"{HELLO}\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go on\nMESSAGE"


def operator(**fields: Any) -> SendMailOperator:
    """A task with the least that a mail needs."""
    least = {"task_id": "send", "from_address": "etl@corp.example", "to": "a@corp.example", "retry_for": 0}
    return SendMailOperator(**{**least, **fields})


@pytest.mark.parametrize(("option", "value"), [("on_refused", "ignore"), ("on_unknown", "resend")])
def test_an_option_that_does_not_exist_fails_when_the_dag_is_parsed(option: str, value: str) -> None:
    """Long before the task runs."""
    with pytest.raises(ValueError, match=option):
        operator(**{option: value})


def test_a_misspelt_argument_is_not_swallowed() -> None:
    """Airflow's own rule, kept."""
    with pytest.raises(TypeError, match="subjekt"):
        operator(subjekt="x")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"to": None}, "recipient"),
        ({"to": "nobody"}, "nobody"),
        ({"to": "a@corp.example\r\nBcc: b@corp.example"}, "control character"),
        ({"subject": "Hi\r\nBcc: b@corp.example"}, "control character"),
        ({"from_address": None}, "'From address' on the connection"),
        ({"text": "x", "text_file": "body.txt"}, "both set"),
        ({"html": "x", "html_file": "body.html"}, "both set"),
        ({"text_file": "nowhere.txt"}, "nowhere.txt"),
        ({"text_file": 5}, "'text_file' has to be the path of a file, not int"),
        ({"text": b"x"}, "'text' has to be text, not bytes. Decode it"),
        ({"html": bytearray(b"<p>")}, "'html' has to be text, not bytearray"),
        ({"attachments": ["/nowhere/report.html"]}, "/nowhere/report.html"),
        ({"priority": "urgent"}, "priority"),
        ({"smtpcm_conn_id": "no_such_connection"}, "no_such_connection"),
    ],
)
def test_a_mail_that_cannot_be_is_refused_without_a_retry(fields: dict[str, Any], complaint: str, relay: Relay) -> None:
    """One clear error, without the traces of the libraries below; nothing is sent."""
    send = operator()
    for name, value in fields.items():  # as templates come out
        setattr(send, name, value)
    with pytest.raises(AirflowException, match=f"(?i){complaint}") as caught:
        send.execute(context())
    if complaint != "no_such_connection":
        assert isinstance(caught.value, AirflowFailException)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    assert relay.messages == []


@pytest.mark.parametrize(
    ("steps", "retried"),
    [
        ("S: 421 too busy", True),
        ("HANG", True),
        ("S: 554 go away", False),
        (f"{HELLO}\nC: MAIL *\nS: 451 later\nC: QUIT\nS: 221 bye", True),
        (f"{HELLO}\nC: MAIL *\nS: 550 never\nC: QUIT\nS: 221 bye", False),
        (f"{TO_DATA}\nS: 451 later\nC: QUIT\nS: 221 bye", True),
        (f"{TO_DATA}\nS: 554 never\nC: QUIT\nS: 221 bye", False),
        (f"{TO_DATA}\nRESET", False),
        (f"{TO_DATA}\nHANG", False),
    ],
)
def test_airflow_retries_only_what_may_succeed_and_cannot_arrive_twice(
    steps: str, retried: bool, behind: Callable[..., None]
) -> None:
    """AirflowFailException is never retried."""
    with Dialogue(steps) as dialogue:
        behind(dialogue)
        with pytest.raises(AirflowException) as caught:
            operator().execute(context())
    assert isinstance(caught.value, AirflowFailException) is not retried


def test_an_unknown_outcome_is_retried_where_somebody_asked_for_it(behind: Callable[..., None]) -> None:
    """Under the same Message-ID, by which a server can recognize the copy."""
    seen = []
    for _ in range(2):
        with Dialogue(f"{TO_DATA}\nRESET") as dialogue:
            behind(dialogue)
            with pytest.raises(AirflowException) as caught:
                operator(on_unknown="retry").execute(context())
        assert not isinstance(caught.value, AirflowFailException)
        seen += [line for line in dialogue.messages[0].split(b"\r\n") if line.startswith(b"Message-ID:")]
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_some_refused_recipients_fail_the_task_and_name_both_groups(relay: Relay) -> None:
    """Without a retry, which would mail the others again."""
    with pytest.raises(AirflowFailException, match=r"(?s)good@corp\.example.*bad@corp\.example.*550 5\.1\.1"):
        operator(to="good@corp.example; bad@corp.example").execute(context())
    assert len(relay.messages) == 1


def test_some_refused_recipients_may_be_a_warning(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """If the author chose that; the XCom says who."""
    result = operator(to="good@corp.example; bad@corp.example", on_refused="warn").execute(context())
    assert result["outcome"] == "partial"
    assert result["accepted"] == ["good@corp.example"]
    assert list(result["refused"]) == ["bad@corp.example"]  # type: ignore[call-overload]
    assert any(record.levelname == "WARNING" and "bad@corp.example" in record.getMessage() for record in caplog.records)
    assert len(relay.messages) == 1


def test_all_refused_recipients_fail_the_task_even_where_some_may_be_a_warning(relay: Relay) -> None:
    """No one got it."""
    with pytest.raises(AirflowFailException, match="550"):
        operator(to="bad@corp.example", on_refused="warn").execute(context())


def test_every_try_of_the_same_mail_bears_the_same_message_id(relay: Relay) -> None:
    """And no other mail does."""
    places = [{}, {}, {"map_index": 0}, {"run_id": "s"}, {"dag_id": "e"}, {"task_id": "t"}]
    ids = [operator().execute(context(**place))["message_id"] for place in places]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5
    assert [message.message["Message-ID"] for message in relay.messages] == ids
    assert all(str(message_id).endswith("@corp.example>") for message_id in ids)


def test_no_secret_reaches_a_log_an_error_or_the_xcom(
    run_dag: RunDag,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """At DEBUG, where libraries tell everything; Airflow does not mask what a task prints outside of its own log."""
    secrets = ("correct horse battery", "wrong horse battery", "TlRMTVNTUAAD", "NTLMSSP")
    caplog.set_level("DEBUG")
    with Relay(users={r"CORP\alice": secrets[0]}) as relay:
        for password, state in ((secrets[0], "success"), (secrets[1], "failed")):
            connection = json.dumps({**relay.airflow_connection(), "password": password})
            monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", connection)
            with DAG(f"secrets_{state}", schedule=None) as dag:
                operator()
            run = run_dag(dag)
            assert str(run.state) == state
            assert secrets[0] not in str(run.get_task_instance("send").xcom_pull(task_ids="send"))
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "SendMailTaskBegin" in printed
    assert "535 5.7.3" in printed
    assert [secret for secret in secrets if secret in printed] == []


def test_it_logs_as_ssis_does(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """Begin, info and end."""
    caplog.set_level("INFO")
    operator(subject="Done").execute(context())
    words = [record.getMessage().split(":")[0] for record in caplog.records if "SendMailTask" in record.getMessage()]
    assert words == ["SendMailTaskBegin", "SendMailTaskInfo", "SendMailTaskEnd"]


def test_no_field_is_taken_for_a_template_file(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """An attachment or a subject may well end in .html."""
    report = tmp_path / "report.html"
    report.write_text("<p>{{ not_ours }}</p>")
    with DAG("attach_html", schedule=None) as dag:
        operator(subject="see report.html", text="index.html", attachments=[str(report)])
    assert str(run_dag(dag).state) == "success"
    (message,) = relay.messages
    (attachment,) = message.message.iter_attachments()
    assert (message.message["Subject"], attachment.get_filename()) == ("see report.html", "report.html")
    assert attachment.get_content() == "<p>{{ not_ours }}</p>"


def test_everything_that_a_person_writes_is_templated(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """The connection id too."""
    (tmp_path / "loads.csv").write_text("a,b\n")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    values = {
        "conn": "smtpcm_default",
        "from": "etl@corp.example",
        "to": "a@corp.example",
        "word": "Fertig",
        "folder": str(tmp_path),
        "priority": "High",
    }
    with DAG("templates", schedule=None, params=values) as dag:
        operator(
            smtpcm_conn_id="{{ params.conn }}",
            from_address="{{ params.word }} <{{ params.from }}>",
            to=["{{ params.to }}", "b@corp.example"],
            cc="c@corp.example; {{ params.to }}",
            bcc="d@corp.example",
            reply_to="{{ params.from }}",
            subject="{{ params.word }} in {{ dag.dag_id }}",
            text="{{ params.word }}: {{ task.task_id }}",
            html="<b>{{ params.word }}</b><img src='cid:logo'>",
            attachments="{{ params.folder }}/loads.csv|",
            inline_images={"logo": "{{ params.folder }}/logo.png"},
            priority="{{ params.priority }}",
            headers={"X-Run": "{{ params.word }}"},
        )
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    message = received.message
    assert received.recipients == ("a@corp.example", "b@corp.example", "c@corp.example", "d@corp.example")
    assert (message["From"], message["Subject"]) == ("Fertig <etl@corp.example>", "Fertig in templates")
    assert (message["Reply-To"], message["X-Run"], message["Importance"]) == ("etl@corp.example", "Fertig", "high")
    assert message["Bcc"] is None
    assert message.get_body(("plain",)).get_content().strip() == "Fertig: send"  # type: ignore[union-attr]
    assert "<b>Fertig</b>" in message.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert [part.get_filename() for part in message.walk() if part.get_filename()] == ["logo.png", "loads.csv"]


def test_body_files_are_found_and_rendered(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """In template_searchpath or by path, with a byte order mark or another encoding."""
    (tmp_path / "body.txt").write_bytes("\ufeffGrüße aus {{ dag.dag_id }}".encode())
    page = tmp_path / "page.html"
    page.write_bytes("<p>Größe: {{ params.size }}</p>".encode("cp1252"))
    with DAG("files", schedule=None, template_searchpath=[str(tmp_path)], params={"size": 3}) as dag:
        first = operator(task_id="first", text_file="body.txt")
        second = operator(task_id="second", html_file=str(page), encoding="cp1252")
        first >> second
    assert str(run_dag(dag).state) == "success"
    text, html = (received.message for received in relay.messages)
    assert text.get_body().get_content().strip() == "Grüße aus files"  # type: ignore[union-attr]
    assert "<p>Größe: 3</p>" in html.get_body().get_content()  # type: ignore[union-attr]


def test_the_two_body_files_may_have_different_encodings(relay: Relay, tmp_path: Path) -> None:
    """A byte order mark says which; so does what an HTML file declares."""
    text, page = tmp_path / "body.txt", tmp_path / "page.html"
    for text_encoding, page_encoding, declared, fallback in (
        ("utf-16", "cp1252", "windows-1252", "utf-8"),
        ("cp1252", "utf-8", "utf-8", "cp1252"),
        ("utf-8-sig", "utf-8", "windows-1252", "utf-8-sig"),
    ):
        text.write_bytes("Größe in Text".encode(text_encoding))
        page.write_bytes(f'<meta charset="{declared}">Größe in HTML'.encode(page_encoding))
        with DAG("encodings", schedule=None):
            send = operator(text_file=str(text), html_file=str(page), encoding=fallback)
        send.execute(context())
        message = relay.messages[-1].message
        assert message.get_body(("plain",)).get_content().strip() == "Größe in Text"  # type: ignore[union-attr]
        assert "Größe in HTML" in message.get_body(("html",)).get_content()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["text_file", "html_file"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("content", ["Size: 3", "Größe: 日本"])
def test_a_body_file_in_utf_16_without_a_mark_is_refused_with_what_to_do(
    relay: Relay, tmp_path: Path, name: str, encoding: str, content: str
) -> None:
    """Rather than sent with a NUL after each letter. Where the encoding is said, it is read."""
    page = tmp_path / "page"
    page.write_bytes(content.encode(encoding))
    with DAG("utf_16", schedule=None):
        guessed = operator(task_id="guessed", **{name: str(page)})
        told = operator(task_id="told", encoding=encoding, **{name: str(page)})
    with pytest.raises(AirflowFailException, match=rf"(?s){name}.*page.*UTF-16 without a byte order mark.*'utf-16-le'"):
        guessed.execute(context())
    told.execute(context())
    (received,) = relay.messages
    assert received.message.get_content().strip() == content


def test_a_body_file_is_text_even_where_templates_give_objects(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """A file that looks like a number is not one."""
    (tmp_path / "body.txt").write_text("1e3")
    with DAG(
        "native_file", schedule=None, render_template_as_native_obj=True, template_searchpath=[str(tmp_path)]
    ) as dag:
        operator(text_file="body.txt", headers={"X-Count": "{{ 5 }}"})
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.message.get_content().strip() == "1e3"
    assert received.message["X-Count"] == "5"


def test_a_body_file_that_is_no_template_names_its_line_and_is_not_retried(relay: Relay, tmp_path: Path) -> None:
    """CSS and Jinja share some brackets."""
    page = tmp_path / "page.html"
    page.write_text("<html>\n<style>a{#x}</style>")
    with DAG("no_template", schedule=None):
        send = operator(html_file=str(page))
    with pytest.raises(AirflowFailException, match=r"(?s)html_file.*page\.html.*line 2.*raw"):
        send.execute(context())


def test_a_blank_sender_is_the_connections_and_keeps_the_message_id(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template may render to nothing."""
    connection = relay.airflow_connection(from_address="robot@corp.example")
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    ids = {operator(from_address=blank).execute(context())["message_id"] for blank in (" ", "", None)}
    assert len(ids) == 1


def test_a_time_limit_after_the_final_dot_is_not_retried(behind: Callable[..., None]) -> None:
    """Airflow retries a task that ran into its time limit; this mail may have been delivered."""
    with Dialogue(f"{TO_DATA}\nHANG") as dialogue:
        behind(dialogue, final_reply_timeout=3600)
        limit = time_limit(lambda: dialogue.messages)
        with pytest.raises(AirflowFailException, match="may have been delivered"), limit:
            operator().execute(context())


def test_a_body_file_in_another_encoding_says_which_setting_to_change(relay: Relay, tmp_path: Path) -> None:
    """Rather than sending question marks."""
    page = tmp_path / "page.html"
    page.write_bytes("Größe".encode("cp1252"))
    with DAG("encoding", schedule=None):
        send = operator(html_file=str(page))
    with pytest.raises(AirflowFailException, match="'encoding'"):
        send.execute(context())


def test_a_body_file_that_is_written_to_while_it_is_read_is_read_again_by_the_next_try(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than a text of which one half is new."""
    page = tmp_path / "page.html"
    page.write_text("<p>old</p>")

    class Disturbed(UnchangedFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            overwrite(path, b"<p>new</p>")

    with DAG("disturbed", schedule=None):
        send = operator(html_file=str(page))
    with monkeypatch.context() as disturb:
        disturb.setattr("airflow_provider_smtpcm.mail.files.UnchangedFile", Disturbed)
        with pytest.raises(AirflowException, match=r"page\.html.*it was written to while it was read") as caught:
            send.execute(context())
    assert not isinstance(caught.value, AirflowFailException)
    assert relay.messages == []
    send.execute(context())
    assert "<p>new</p>" in str(relay.messages[0].message)


@pytest.mark.parametrize("native", [False, True])
def test_a_list_is_taken_in_any_dag_and_in_any_field_for_several(
    native: bool, relay: Relay, run_dag: RunDag, tmp_path: Path
) -> None:
    """The value of an expression, or its text."""
    (tmp_path / "a.csv").write_text("x")
    params = {"to": ["a@corp.example", "b@corp.example"], "files": [str(tmp_path / "a.csv")], "headers": {"X-Run": "7"}}
    with DAG(f"lists_{native}", schedule=None, render_template_as_native_obj=native, params=params) as dag:
        operator(
            to="{{ params.to }}",
            cc="{{ params.to | string }}",
            bcc="{{ none }}",
            reply_to="{{ [params.to[0], 'c@corp.example'] }}",
            attachments="{{ params.files }}",
            headers="{{ params.headers }}",
            subject="{{ params.to }}",
        )
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    message = received.message
    assert received.recipients == ("a@corp.example", "b@corp.example")
    assert (message["Cc"], message["Reply-To"]) == ("a@corp.example, b@corp.example", "a@corp.example, c@corp.example")
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.csv"]
    assert (message["X-Run"], message["Subject"]) == ("7", str(params["to"]))


def test_a_list_within_a_text_is_explained(relay: Relay, run_dag: RunDag) -> None:
    """It is part of the text there."""
    params = {"to": ["a@corp.example", "b@corp.example"]}
    with DAG("list_in_text", schedule=None, params=params) as dag:
        operator(to="{{ params.to }}; c@corp.example")
    assert str(run_dag(dag).state) == "failed"
    assert relay.messages == []


def test_native_rendering_gives_lists_and_numbers(relay: Relay, run_dag: RunDag) -> None:
    """A list is used as it is, and a number as its text."""
    params = {"to": ["a@corp.example", "b@corp.example"]}
    with DAG("native", schedule=None, render_template_as_native_obj=True, params=params) as dag:
        operator(to="{{ params.to }}", subject="{{ 40 + 2 }}", text="{{ 1.5 }}")
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example")
    assert received.message["Subject"] == "42"


def test_native_rendering_leaves_text_text_and_none_none(relay: Relay, run_dag: RunDag) -> None:
    """Text that looks like a number, or like a list, is sent as it is; None is an empty field."""
    params = {"number": "1_000", "list": "['a', 'b']", "nothing": None}
    with DAG("native_text", schedule=None, render_template_as_native_obj=True, params=params) as dag:
        operator(
            cc="{{ params.nothing }}",
            subject="{{ params.number }}",
            text="{{ params.list }}",
            html="{{ params.nothing }}",
        )
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.message["Subject"] == "1_000"
    assert received.message.get_content_type() == "text/plain"
    assert received.message.get_content().strip() == "['a', 'b']"


def test_a_field_may_be_a_function_which_airflow_calls(relay: Relay, run_dag: RunDag) -> None:
    """What it returns is data."""
    with DAG("function", schedule=None) as dag:
        operator(subject=lambda context, jinja_env: f"{context['dag'].dag_id} {{{{ ds }}}}")  # noqa: ARG005
    assert str(run_dag(dag).state) == "success"
    assert relay.messages[0].message["Subject"] == "function {{ ds }}"


def test_the_delivery_is_the_xcom_and_mapped_mails_have_ids_of_their_own(relay: Relay, run_dag: RunDag) -> None:
    """One mapped task for each recipient."""
    with DAG("mapped", schedule=None) as dag:

        @task
        def check(deliveries: list[dict[str, Any]]) -> None:
            assert [delivery["outcome"] for delivery in deliveries] == ["accepted", "accepted"]
            assert len({delivery["message_id"] for delivery in deliveries}) == 2

        sent = SendMailOperator.partial(task_id="send", from_address="etl@corp.example").expand(
            to=["a@corp.example", "b@corp.example"]
        )
        check(sent.output)
    assert str(run_dag(dag).state) == "success"
    assert sorted(message.recipients for message in relay.messages) == [("a@corp.example",), ("b@corp.example",)]


def test_an_attachment_without_content_is_logged(
    relay: Relay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And sent: an empty file may be meant."""
    (tmp_path / "empty.csv").touch()
    (tmp_path / "full.csv").write_text("x")
    operator(attachments=[str(tmp_path / "empty.csv"), str(tmp_path / "full.csv")]).execute(context())
    (line,) = [line for line in caplog.messages if "is empty (0 octets)" in line]
    assert "empty.csv" in line
    assert len(list(relay.messages[0].message.iter_attachments())) == 2
