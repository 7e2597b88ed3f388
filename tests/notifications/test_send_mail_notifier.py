"""The notifier with a real relay: an alert is sent whatever is wrong with its templates, and never harms a task."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__
from airflow.configuration import conf
from airflow.sdk import DAG, BaseHook, task

from airflow_provider_smtpcm.errors import StoppedError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.notifications import alert_delivery, send_mail
from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.smtp import connection_pool
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.testing import Exchange, Relay
from demo.processes import free_port
from tests.arguments.dag_files import in_dag_file
from tests.notifications.shapes import SHAPES, deadline_missed, raised, task_failed, task_killed, task_succeeded
from tests.smtp.server import MESSAGE, STORE_AND_HANG_UP, Server

RunDag = Callable[[DAG], Any]
TO = "oncall@corp.example"
FAILED = task_failed(raised(ValueError("no such column {{ 7 * 7 }}")))


def notifier(**fields: Any) -> SendMailNotifier:
    """Return a notifier with only the required arguments."""
    return SendMailNotifier(**{"to": TO, "retry_for": 0, **fields})


def texts(received: Any) -> tuple[str, str]:
    """Return the plain and the HTML body."""
    bodies = [received.message.get_body((kind,)) for kind in ("plain", "html")]
    return tuple("" if body is None else body.get_content() for body in bodies)  # type: ignore[return-value]


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default connection has a port on which no server listens."""
    set_default_connection(monkeypatch, free_port())


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default connection has a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        set_default_connection(monkeypatch, server.getsockname()[1], timeout=3600)
        yield


def set_default_connection(monkeypatch: pytest.MonkeyPatch, port: int, **extra: object) -> None:
    """Set the port of the default connection."""
    settings = {"ssl_mode": "none", "from_address": "airflow@corp.example", **extra}
    connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": port, "extra": settings}
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))


# --- Wrong arguments are errors when the DAG is parsed.


@pytest.mark.parametrize("to", [None, "", []])
def test_an_alert_without_recipients_fails_when_the_dag_is_parsed(to: object) -> None:
    """Long before anything else fails."""
    with pytest.raises(ValueError, match="to is"):
        SendMailNotifier(to=to)  # type: ignore[arg-type]


def test_a_misspelled_argument_is_an_error() -> None:
    """An alert without its subject would be noticed too late."""
    with pytest.raises(TypeError, match="subjekt"):
        notifier(subjekt="x")


@pytest.mark.parametrize("seconds", [-1, "30", None])
def test_an_invalid_retry_for_fails_when_the_dag_is_parsed(seconds: object) -> None:
    """As in the operators."""
    with pytest.raises(ValueError, match="retry_for"):
        notifier(retry_for=seconds)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cc": "dba"}, "Cc: there is no '@' in 'dba'"),
        ({"priority": "urgent"}, "Choose one of 'high', 'normal', 'low'"),
        ({"text": "x", "text_file": "x.txt"}, "'text' and 'text_file' are both set"),
    ],
)
def test_what_is_wrong_without_a_template_fails_when_the_dag_is_parsed(
    fields: dict[str, Any], said: str, relay: Relay, tmp_path: Path
) -> None:
    """In a callback of the author's own the alert is due: it is sent, without what is wrong."""
    with pytest.raises(ValueError, match=re.escape(said)):
        in_dag_file(tmp_path, SendMailNotifier, {"to": TO, **fields})
    notifier(**fields)(dict(FAILED))
    (received,) = relay.messages
    assert received.recipients == (TO,)


def test_arguments_of_airflow_s_own_notifier_are_named() -> None:
    """Python's error would not say what they are called here."""
    with pytest.raises(
        TypeError, match=r"'from_email' is called 'from_address' here; 'files' is called 'attachments' here"
    ):
        notifier(from_email="etl@corp.example", files=[])


@pytest.mark.parametrize("lines", [-1, 101, 2.5, True, "10", None])
def test_an_invalid_number_of_log_lines_fails_when_the_dag_is_parsed(lines: object) -> None:
    """A page of thousands of lines is no alert."""
    with pytest.raises(ValueError, match="give an integer from 0 to 100"):
        notifier(log_lines=lines)


# --- A condition: false is silent, and anything unclear is not.


@pytest.mark.parametrize(
    "only_if",
    [True, "True", "{{ alert.task_id == 'load_orders' }}", "{{ params.get('off', '') == '' }}", " {{ 'TRUE' }}\n"],
)
def test_an_alert_whose_condition_is_true_is_sent(relay: Relay, only_if: str | bool) -> None:
    """A template or a plain value."""
    notifier(only_if=only_if)(dict(FAILED))
    assert len(relay.messages) == 1


@pytest.mark.parametrize("only_if", [False, "False", "{{ alert.task_id == 'other' }}", "{{ alert.of_dag }}"])
def test_an_alert_whose_condition_is_false_is_not_sent_and_the_log_says_so(
    relay: Relay, caplog: pytest.LogCaptureFixture, only_if: str | bool
) -> None:
    """The other templates are not rendered either."""
    caplog.set_level("INFO")
    notifier(only_if=only_if, subject="{{ nothing.at_all }}")(dict(FAILED))
    assert relay.messages == []
    assert "its condition (only_if) is false" in caplog.text
    assert "could not be rendered" not in caplog.text


@pytest.mark.parametrize(
    ("only_if", "problem"),
    [
        ("{{ complete_me.only_if }}", "could not be rendered (UndefinedError"),
        ("{{ 1 + }}", "could not be rendered (TemplateSyntaxError"),
        ("{{ 'perhaps' }}", "is neither True nor False, but 'perhaps'"),
        ("", "is neither True nor False, but ''"),
        ("{{ 'password=hunter2' }}", "is neither True nor False, but 'password=***"),
    ],
)
def test_an_alert_whose_condition_is_broken_is_sent_with_a_warning(
    relay: Relay, caplog: pytest.LogCaptureFixture, only_if: str, problem: str
) -> None:
    """A mistake in the condition must not hide a failure; the mail itself is the author's."""
    notifier(only_if=only_if, subject="Mine", text="words")(dict(FAILED))
    (received,) = relay.messages
    assert (received.message["Subject"], texts(received)[0].strip()) == ("Mine", "words")
    assert problem in caplog.text


def test_a_condition_of_a_dag_with_native_objects_is_a_boolean(relay: Relay) -> None:
    """Jinja returns a Python object there."""
    with DAG("warehouse_load", schedule=None, render_template_as_native_obj=True) as dag:
        pass
    notifier(only_if="{{ 1 == 2 }}")({**FAILED, "dag": dag})
    assert relay.messages == []
    notifier(only_if="{{ 1 == 1 }}")({**FAILED, "dag": dag})
    assert len(relay.messages) == 1


# --- Errors are logged, with their remedies, and never raised.


def test_a_server_that_is_down_is_logged_and_not_raised(closed_port: None, caplog: pytest.LogCaptureFixture) -> None:
    """The task's state has been decided."""
    notifier()(dict(FAILED))
    (record,) = [record for record in caplog.records if record.levelname == "ERROR" and "smtpcm" in record.name]
    assert "The alert did not reach every recipient (not_sent)" in record.getMessage()
    assert "Cannot connect" in record.getMessage()


def test_a_silent_server_does_not_block_the_alert(
    silent_server: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the connection's own timeout is: here it is an hour, longer than the test's."""
    monkeypatch.setattr(alert_delivery, "LAST_ATTEMPT_SECONDS", 0.5)
    notifier()(dict(FAILED))
    assert "the time for a last attempt ran out" in caplog.text


def test_several_alerts_to_a_silent_server_wait_for_it_once(
    silent_server: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG processor runs the callbacks of all DAGs of a file, and is killed if they take too long together."""
    monkeypatch.setattr(alert_delivery, "SHORT_ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(alert_delivery, "LAST_ATTEMPT_SECONDS", 0.5)
    notifier()(dict(FAILED))
    assert "single attempt" not in caplog.text
    monkeypatch.setattr(alert_delivery, "LAST_ATTEMPT_SECONDS", 3600)  # longer than the test's own timeout
    for _ in range(2):
        notifier(retry_for=3600)(dict(FAILED))
    assert caplog.text.count("this alert gets a single attempt of at most 0.2 seconds") == 2
    assert caplog.text.count("the time for a single attempt ran out (0.2 seconds, as the server recently") == 2


def test_a_server_that_is_reachable_again_has_its_full_time_again(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """The next alert is sent immediately, and clears the record."""
    manager = alert_delivery.get_hook("smtpcm_default").connection_manager
    alert_delivery._unreachable_since[manager.host, manager.port] = time.monotonic()
    for _ in range(2):
        notifier()(dict(FAILED))
    assert len(relay.messages) == 2
    assert caplog.text.count("this alert gets a single attempt") == 1


def test_a_server_is_not_considered_unreachable_for_long(
    closed_port: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer runs for weeks; short attempts do not extend the time."""
    notifier()(dict(FAILED))
    (server,) = alert_delivery._unreachable_since
    almost = time.monotonic() - alert_delivery.UNREACHABLE_TTL + 5
    monkeypatch.setitem(alert_delivery._unreachable_since, server, almost)
    notifier()(dict(FAILED))
    assert alert_delivery._unreachable_since == {server: almost}
    monkeypatch.setitem(alert_delivery._unreachable_since, server, almost - 5)
    notifier()(dict(FAILED))
    assert caplog.text.count("this alert gets a single attempt") == 1


def test_the_longest_wait_is_shorter_than_the_dag_processor_s_timeout() -> None:
    """Airflow kills the process that parses a DAG file and runs its callbacks, and the alert with it."""
    timeout = conf.getint("dag_processor", "dag_file_processor_timeout")
    longest = alert_delivery.ALERT_RETRY_FOR + alert_delivery.LAST_ATTEMPT_SECONDS + connection_pool._CANCEL_SECONDS
    assert timeout - 10 >= longest
    assert timeout >= longest + 3 * alert_delivery.SHORT_ATTEMPT_SECONDS  # four alerts of one file


def test_an_alert_that_is_sent_again_without_its_files_has_no_time_of_its_own(silent_server: None) -> None:
    """Both share the time of one alert, which has passed here; the connection's timeout is an hour."""
    mail = Mail(from_address="airflow@corp.example", to=TO, message_id="<1@corp.example>")
    with pytest.raises(StoppedError, match="the time for a last attempt ran out"):
        alert_delivery.send_alert(
            alert_delivery.get_hook("smtpcm_default"), SendRequest(0, mail), 30, started_at=time.monotonic() - 3600
        )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"smtpcm_conn_id": "no_such_connection"}, "Define the connection wherever callbacks"),
        ({"to": "{{ no.such.thing }}"}, "'to' could not be rendered"),
        ({"smtpcm_conn_id": "{{ 1 / 0 }}"}, "'smtpcm_conn_id' could not be rendered"),
        ({"to": "{{ 'nobody' }}"}, "nobody"),
        ({"to": "{{ none }}"}, "The alert has no recipient. Fill in 'to'."),
        ({"to": "bad@corp.example"}, "550 5.1.1"),
    ],
)
def test_an_alert_that_cannot_be_sent_is_logged_with_its_remedy(
    fields: dict[str, Any], said: str, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no other way to report it."""
    notifier(**fields)(dict(FAILED))
    assert said in caplog.text
    assert relay.messages == []


def test_an_invalid_connection_is_reported_by_its_form_labels(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With all its faults."""
    connection = {**relay.airflow_connection(), "login": "alice", "password": "secret password"}
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    notifier()(dict(FAILED))
    assert "Connection 'smtpcm_default' cannot be used" in caplog.text
    assert "secret password" not in caplog.text


def test_an_error_in_the_notifier_itself_is_logged_and_not_raised(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would hide why the task failed."""
    monkeypatch.setattr(send_mail, "read_event", lambda *_, **__: 1 / 0)
    notifier()(dict(FAILED))
    assert "ZeroDivisionError" in caplog.text


def test_without_airflows_masker_an_alert_withholds_only_what_would_be_masked(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a future Airflow that has moved the masker; one warning is logged."""
    notifier(subject="{{ alert.task_id }}", attachments=[__file__])(dict(FAILED))
    monkeypatch.delattr("airflow.sdk.log.redact")
    notifier(subject="{{ alert.task_id }}", attachments=[__file__])(dict(FAILED))
    masked, withheld = relay.messages
    assert masked.message["Subject"] == withheld.message["Subject"] == "load_orders"
    assert [part.get_filename() for part in withheld.message.iter_attachments()] == [Path(__file__).name]
    said, facts = str(FAILED["exception"]), texts(masked)[0].partition("Traceback")[0]
    told = facts.replace(said, "(withheld: Airflow's secrets masker could not be used)")
    assert texts(withheld)[0].startswith(told.rstrip())
    assert said not in "".join(texts(withheld))
    (record,) = [record for record in caplog.records if record.levelname == "WARNING" and "smtpcm" in record.name]
    assert "cannot import name 'redact' from 'airflow.sdk.log'" in record.getMessage()


def test_some_refused_recipients_are_logged_and_the_others_get_it(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """One wrong address does not stop an alert."""
    notifier(to=["bad@corp.example", TO])(dict(FAILED))
    (received,) = relay.messages
    assert received.recipients == (TO,)
    assert "bad@corp.example" in caplog.text


# --- A broken template or a missing part: the default page is sent, and says so.


@pytest.mark.parametrize("field", ["subject", "text", "html"])
@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ ", "TemplateSyntaxError, line 1"),
        ("{{ ti.no_such_attribute.deeper }}", "UndefinedError"),
        ("{{ no_such_variable.deeper }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 'x' | no_such_filter }}", "TemplateAssertionError"),
        ("{{ params.x.y.z }}", "UndefinedError"),
    ],
)
def test_a_broken_template_sends_the_default_mail_which_names_it(
    field: str, template: str, fault: str, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the remedy."""
    notifier(**{field: template})(dict(FAILED))
    (received,) = relay.messages
    text, html = texts(received)
    assert f"NOTE: The notifier's '{field}' could not be rendered ({fault}" in text
    assert "could not be rendered" in html
    assert "ValueError: no such column" in text
    assert received.message["Subject"].startswith("[Airflow] Failed: warehouse_load.load_orders")
    (record,) = [record for record in caplog.records if record.levelname == "WARNING" and "smtpcm" in record.name]
    assert f"'{field}' could not be rendered" in record.getMessage()
    assert "Fix the template" in record.getMessage()


@pytest.mark.parametrize("field", ["cc", "bcc", "reply_to", "from_address", "attachments", "priority", "headers"])
def test_any_other_broken_field_is_left_out_with_a_notice(field: str, relay: Relay) -> None:
    """The other fields are used."""
    broken: Any = {"X-Run": "{{ 1 / 0 }}"} if field == "headers" else "{{ 1 / 0 }}"
    notifier(subject="Mine", **{field: broken})(dict(FAILED))
    (received,) = relay.messages
    assert received.recipients == (TO,)
    assert received.message["Subject"] == "Mine"
    assert f"The notifier's '{field}' could not be rendered (ZeroDivisionError" in texts(received)[0]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"text_file": "/nowhere/body.txt"}, "no file '/nowhere/body.txt'"),
        ({"text": "x", "text_file": "{{ 'body.txt' }}"}, "'text' and 'text_file' are both set"),
        ({"attachments": ["/nowhere/load.log"]}, "/nowhere/load.log"),
        ({"cc": "{{ 'nobody' }}"}, "nobody"),
        ({"priority": "{{ 'urgent' }}"}, "urgent"),
        ({"headers": {"Subject": "{{ 'x' }}"}}, "Use subject"),
        ({"headers": "{{ ['X-Report'] }}"}, "'headers' has to be a mapping, not list"),
        ({"from_address": "{{ 'a@b@c' }}"}, "a@b@c"),
        ({"html": "<img src='cid:logo'>"}, "cid:logo"),
        ({"text": b"x"}, "'text' has to be text, not bytes"),
        ({"attachments": {"rows.csv": 1}}, "The path of an attachment is not text but int"),
        ({"text": "{{ 'a\\0b' }}"}, "Text contains the control character U+0000"),
        ({"headers": {"Errors-To": "nobody"}}, "Errors-To"),
        ({"auto_generated": "no"}, "auto_generated cannot be 'no'"),
        ({"auto_generated": None}, "auto_generated cannot be None"),
    ],
)
def test_a_part_that_cannot_be_mailed_is_left_out_with_a_notice(
    fields: dict[str, Any], fault: str, relay: Relay
) -> None:
    """A missing attachment is often the file that the failed task should have written."""
    notifier(**fields)(dict(FAILED))
    (received,) = relay.messages
    text, html = texts(received)
    assert fault in " ".join(text.split())
    assert "ValueError: no such column" in text
    assert "could not be rendered" in html or "left out of this mail" in html


@pytest.mark.parametrize("html", [None, "<p>{{ exception }}</p>", "<p>{{ exception | safe }}</p>"])
def test_an_exception_that_seems_to_refer_to_an_image_is_sent(html: str | None, relay: Relay) -> None:
    """Nothing that an exception says may lose the alert."""
    said = "no customer with key=cid:4711 <img src='cid:4711'> url(cid:4711)"
    notifier(html=html)(task_failed(raised(KeyError(said))))
    (received,) = relay.messages
    assert "key=cid:4711" in texts(received)[1]
    assert ("left out of this mail" in texts(received)[1]) == (html is not None and "safe" in html)


@pytest.mark.parametrize("name", ["cc", "bcc", "reply_to"])
@pytest.mark.parametrize("value", ["{{ 'dba' }}", "{{ none }}", "{{ 'dba\\nops' }}", "{{ 1 / 0 }}"])
def test_a_faulty_address_leaves_out_itself_alone(
    name: str, value: str, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender, the words and the files stay the author's; the log names what was left out, and nothing else."""
    notifier(
        subject="Mine", text="own words", from_address="ETL <etl@corp.example>", attachments=[__file__], **{name: value}
    )(dict(FAILED))
    (received,) = relay.messages
    (envelope, message) = (received.recipients, received.message)
    assert (envelope, message["From"], message["To"]) == ((TO,), "ETL <etl@corp.example>", TO)
    assert (message["Cc"], message["Bcc"], message["Reply-To"]) == (None, None, None)
    assert (message["Subject"], texts(received)[0].strip()) == ("Mine", "own words")
    assert len(list(message.iter_attachments())) == 1
    said = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(said) == {"{{ none }}": 0, "{{ 'dba\\nops' }}": 2}.get(value, 1)
    assert all(name in line.lower().replace("-", "_") and "etl@corp" not in line for line in said)


@pytest.mark.parametrize(
    "to",
    [
        ["{{ 'dba' }}", TO],
        ["{{ no.such.thing }}", TO],
        f"{TO}; {{{{ no.such.thing }}}}",
        f"{{{{ 'dba' }}}}, {TO}",
        "{{ ['dba', 'oncall@corp.example'] }}",
        "{{ \"['dba', 'oncall@corp.example']\" }}",
        "{{ 'dba; ' ~ 'oncall@corp.example' }}",
        [None, TO, "{{ none }}"],
    ],
)
def test_a_faulty_recipient_leaves_the_others(to: Any, relay: Relay) -> None:
    """Whatever is wrong with it, and wherever it stands."""
    notifier(to=to, text="own words")(dict(FAILED))
    (received,) = relay.messages
    assert received.recipients == (TO,)
    assert texts(received)[0].strip() == "own words"


def test_an_alert_goes_out_if_a_single_address_can_be_made_out(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a copy's, from itself: no other address of the alert and its connection is one."""
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
    notifier(to="{{ 'dba' }}", cc=TO, from_address="{{ 'etl' }}", text="own words")(dict(FAILED))
    (received,) = relay.messages
    assert (received.recipients, received.message["From"]) == ((TO,), TO)
    assert f"There is no valid From address, so this mail is from {TO}" in caplog.text


def test_a_faulty_sender_leaves_the_connection_s(relay: Relay) -> None:
    """An alert from the wrong mailbox is better than none."""
    notifier(from_address="{{ 'etl' }}", cc="second@corp.example")(dict(FAILED))
    (received,) = relay.messages
    assert received.message["From"] == "airflow@corp.example"
    assert received.recipients == (TO, "second@corp.example")
    assert "From: there is no '@' in 'etl'" in texts(received)[0]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("template", ["{{ params.team }}", "{{ params.team | list }}", "{{ params.team ~ '' }}"])
def test_a_list_is_a_list_of_recipients_in_any_dag(native: bool, template: str, relay: Relay) -> None:
    """Rendered natively, or as the text of a list."""
    with DAG("lists", schedule=None, render_template_as_native_obj=native) as dag:
        pass
    team = ["a@corp.example", "Bo <b@corp.example>"]
    notifier(to=template)({**FAILED, "dag": dag, "params": {"team": team}})
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example")


def test_an_attachment_that_the_server_refuses_is_left_out(relay: Relay, tmp_path: Path) -> None:
    """It is too large; the alert alone is not."""
    log = tmp_path / "load.log"
    log.write_bytes(b"x" * 300_000)
    notifier(attachments=[str(log)])(dict(FAILED))
    (received,) = relay.messages
    assert "The files were left out of this mail" in texts(received)[0]
    assert list(received.message.iter_attachments()) == []


@pytest.mark.parametrize("of_the_connection", [False, True])
def test_an_envelope_sender_that_the_server_refuses_does_not_lose_the_alert(
    of_the_connection: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An Exchange answers 5.7.60 to a sender as whom the account may not send; the From address remains."""
    exchange = Exchange(senders={r"CORP\alice": ["airflow@corp.example"]})
    with Relay(ssl_mode="none", users={r"CORP\alice": "secret"}, personality=exchange) as server:
        envelope = {"envelope_from": "bounces@corp.example"}
        defaults = {"from_address": "airflow@corp.example", **(envelope if of_the_connection else {})}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(server.airflow_connection(**defaults)))
        notifier(**({} if of_the_connection else envelope))(dict(FAILED))
        (received,) = server.wait_for_messages(1)
    assert received.mail_from == "airflow@corp.example"
    assert "5.7.60" in caplog.text
    assert "without its own envelope sender" in caplog.text


@pytest.mark.parametrize("reply", ["554 5.7.1 Attachments of this type are not accepted", "552 Message too big"])
def test_files_that_the_server_refuses_are_sent_once(
    reply: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not once more with another envelope sender: that could take the time that the alert without them needs."""
    log = tmp_path / "load.log"
    log.write_bytes(b"x" * 300_000)
    messages: list[str] = []

    def refuse_the_first(about: str) -> str | None:
        if about == MESSAGE:
            messages.append(about)
        return reply if about == MESSAGE and len(messages) == 1 else None

    with Server(refuse_the_first) as server:
        set_default_connection(monkeypatch, server.port, envelope_from="bounces@corp.example")
        notifier(attachments=[str(log)])(dict(FAILED))
    (stored,) = server.stored
    assert stored.sender == "bounces@corp.example"
    assert b"The files were left out of this mail" in stored.message


@pytest.mark.parametrize("about", ["MAIL FROM:<bounces@corp.example>", MESSAGE])
def test_a_refused_envelope_sender_does_not_lose_the_files(
    about: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server names the sender as the reason, before the message or after it."""
    log = tmp_path / "load.log"
    log.write_bytes(b"the last line\n")
    refused: list[str] = []

    def refuse_the_sender(line: str) -> str | None:
        if refused or not line.startswith(about):
            return None
        refused.append(line)
        return "550 5.7.60 SMTP; Client does not have permissions to send as this sender"

    with Server(refuse_the_sender) as server:
        set_default_connection(monkeypatch, server.port, envelope_from="bounces@corp.example")
        notifier(attachments=[str(log)])(dict(FAILED))
    (stored,) = server.stored
    assert stored.sender == "airflow@corp.example"
    assert b'filename="load.log"' in stored.message or b"filename=load.log" in stored.message


def test_a_refusal_is_reported_even_if_no_time_is_left_for_another_envelope_sender(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It arrives after the time limit, within the seconds that a mail in flight has for its final reply."""
    monkeypatch.setattr(alert_delivery, "LAST_ATTEMPT_SECONDS", 0.5)

    def refuse_late(about: str) -> str | None:
        if about != MESSAGE:
            return None
        time.sleep(1)
        return "550 5.7.60 SMTP; Client does not have permissions to send as this sender"

    with Server(refuse_late) as server:
        set_default_connection(monkeypatch, server.port, envelope_from="bounces@corp.example")
        notifier()(dict(FAILED))
    assert server.stored == []
    (error,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert error.startswith("The alert did not reach every recipient (refused): ")
    assert "5.7.60" in error


def test_an_alert_of_unknown_outcome_is_not_sent_with_another_envelope_sender(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one that some recipients have: it would arrive twice."""
    with Server(lambda about: STORE_AND_HANG_UP if about == MESSAGE else None) as server:
        set_default_connection(monkeypatch, server.port, envelope_from="bounces@corp.example")
        notifier()(dict(FAILED))
    assert len(server.stored) == 1
    with Server(lambda about: "550 5.1.1 No such user" if "second@" in about else None) as server:
        set_default_connection(monkeypatch, server.port, envelope_from="bounces@corp.example")
        notifier(cc="second@corp.example")(dict(FAILED))
    assert [stored.recipients for stored in server.stored] == [(TO,)]
    assert "sent again" not in caplog.text


def test_an_address_that_the_server_cannot_take_does_not_lose_the_alert_for_the_others(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """A server without SMTPUTF8 does not accept it (RFC 6531)."""
    notifier(to=f"jörg@corp.example, {TO}")(dict(FAILED))
    (received,) = relay.messages
    assert received.recipients == (TO,)
    assert "sent again without the addresses with letters outside ASCII" in caplog.text


def test_a_dag_whose_templates_cannot_be_used_has_its_alert(relay: Relay) -> None:
    """Its Jinja extension is installed on the workers alone."""
    with DAG("no_such_extension", schedule=None, jinja_environment_kwargs={"extensions": ["no.such.Extension"]}) as dag:
        pass
    notifier(subject="{{ alert.dag_id }}")({**FAILED, "dag": dag})
    (received,) = relay.messages
    assert received.message["Subject"] == "warehouse_load"


# --- The mail.


@pytest.mark.parametrize("shape", SHAPES)
def test_every_context_of_airflow_makes_a_mail(shape: str, relay: Relay) -> None:
    """With text and HTML, and a subject of its own."""
    notifier()(dict(SHAPES[shape]))
    (received,) = relay.messages
    assert received.message["Subject"].startswith("[Airflow] ")
    assert all(texts(received))


def test_automatic_replies_are_suppressed(relay: Relay) -> None:
    """Of Exchange's out-of-office assistant, and of everything that follows RFC 3834."""
    notifier()(dict(FAILED))
    (received,) = relay.messages
    assert received.message["Auto-Submitted"] == "auto-generated"
    assert received.message["X-Auto-Response-Suppress"] == "OOF, AutoReply"


def test_the_default_headers_can_be_changed(relay: Relay) -> None:
    """In any case of letters; an empty value removes one."""
    notifier(headers={"x-auto-response-suppress": "OOF", "Auto-Submitted": "auto-notified"})(dict(FAILED))
    notifier(headers={"X-Auto-Response-Suppress": ""})(dict(FAILED))
    first, second = (received.message for received in relay.messages)
    assert (first["X-Auto-Response-Suppress"], first["Auto-Submitted"]) == ("OOF", "auto-notified")
    assert second["X-Auto-Response-Suppress"] is None


def test_every_field_is_templated(relay: Relay, tmp_path: Path) -> None:
    """With the callback's context, and with `alert`."""
    (tmp_path / "load.log").write_text("line\n")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    context = {**FAILED, "params": {"who": TO, "folder": str(tmp_path), "conn": "smtpcm_default", "high": "high"}}
    notifier(
        smtpcm_conn_id="{{ params.conn }}",
        from_address="ETL <{{ 'etl' }}@corp.example>",
        to=["{{ params.who }}", "second@corp.example"],
        cc="{{ 'cc' }}@corp.example",
        bcc="{{ 'bcc' }}@corp.example",
        reply_to="{{ 'reply' }}@corp.example",
        subject="{{ alert.kind }} of {{ ti.task_id }}",
        text="{{ exception }}, {{ alert.duration }}",
        html="<p>{{ alert.name }}</p><img src='cid:logo'>",
        attachments="{{ params.folder }}/load.log",
        inline_images={"logo": "{{ params.folder }}/logo.png"},
        priority="{{ params.high }}",
        headers={"X-Dag": "{{ alert.dag_id }}"},
    )(context)
    (received,) = relay.messages
    message = received.message
    assert received.recipients == (TO, "second@corp.example", "cc@corp.example", "bcc@corp.example")
    assert (message["From"], message["Reply-To"]) == ("ETL <etl@corp.example>", "reply@corp.example")
    assert (message["Subject"], message["X-Dag"]) == ("failure of load_orders", "warehouse_load")
    assert message["Importance"] == "high"
    text, html = texts(received)
    assert text.strip() == "no such column {{ 7 * 7 }}, 7 min 12 s"  # values are not templates
    assert "warehouse_load.load_orders [dbo.Orders]" in html
    assert [part.get_filename() for part in message.walk() if part.get_filename()] == ["logo.png", "load.log"]


def test_body_files_are_read_by_path(relay: Relay, tmp_path: Path) -> None:
    """And rendered."""
    (tmp_path / "body.txt").write_text("\ufeffGrüße: {{ alert.name }}", encoding="utf-8")
    notifier(text_file=str(tmp_path / "body.txt"))(dict(FAILED))
    (received,) = relay.messages
    text, html = texts(received)
    assert (text.strip(), html) == ("Grüße: warehouse_load.load_orders [dbo.Orders]", "")


def test_a_broken_header_removes_no_recipient(relay: Relay) -> None:
    """Nor the sender."""
    fields = {"cc": "second@corp.example", "bcc": "third@corp.example", "from_address": "etl@corp.example"}
    notifier(headers={"X-Why": "{{ exception }}"}, **fields)(task_failed(raised(ValueError("two\nlines"))))
    (received,) = relay.messages
    assert received.recipients == (TO, "second@corp.example", "third@corp.example")
    assert received.message["From"] == "etl@corp.example"
    assert "X-Why" in texts(received)[0]


def test_a_subject_of_the_author_is_one_line_whatever_the_exception_contains(relay: Relay) -> None:
    """The text of an exception has several lines, and may be megabytes; the rest of the mail is still the author's."""
    said = raised(ValueError("first\r\nBcc: eve@corp.example\x1b[0m\x00" + "y" * 200_000))
    notifier(subject="Failed: {{ exception }}", text="own words")(task_failed(said))
    (received,) = relay.messages
    subject = received.message["Subject"]
    assert subject.startswith("Failed: first Bcc: eve@corp.example")
    assert len(subject) <= 500
    assert texts(received)[0].strip() == "own words"
    assert received.recipients == (TO,)


def test_a_callback_without_a_context_sends_a_mail(relay: Relay) -> None:
    """With the little that is known."""
    notifier()(None)
    (received,) = relay.messages
    assert received.message["Subject"] == "[Airflow] Failed: an unknown DAG"


def test_a_shared_notifier_reports_each_task_by_itself(relay: Relay) -> None:
    """`default_args` share it, and the DAG processor calls it repeatedly."""
    shared = notifier(subject="{{ ti.task_id }}")
    for task_id in ("first", "second"):
        shared(task_failed(ValueError(), task_id=task_id))
    assert [received.message["Subject"] for received in relay.messages] == ["first", "second"]


def test_the_context_is_not_changed(relay: Relay) -> None:
    """The next callback gets the same one."""
    context = dict(FAILED)
    notifier(subject="x", text="y")(context)
    assert context.keys() == FAILED.keys()


def test_values_in_html_are_escaped(relay: Relay, tmp_path: Path) -> None:
    """The text of an exception is data: no link and no image of it gets into the mail. `safe` opts out."""
    page = "<p>{{ alert.exception.message }}</p>{{ '<hr>' | safe }}"
    (tmp_path / "page.html").write_text(page)
    failed = task_failed(raised(ValueError("<a href='//evil.example'><img src='//evil.example/x'>")))
    notifier(html=page)(failed)
    notifier(html_file=str(tmp_path / "page.html"))(failed)
    for received in relay.messages:
        html = texts(received)[1].strip()
        assert html == "<p>&lt;a href=&#39;//evil.example&#39;&gt;&lt;img src=&#39;//evil.example/x&#39;&gt;</p><hr>"
    assert len(relay.messages) == 2


def test_a_value_adds_no_recipient_to_an_alert(relay: Relay) -> None:
    """As in any other mail."""
    failed = task_failed(raised(ValueError('x" <m@evil.example>; "')))
    notifier(to='"{{ alert.exception.message }}" <oncall@corp.example>')(failed)
    (received,) = relay.messages
    assert received.recipients == ("oncall@corp.example",)


def test_a_native_dag_s_templates_give_text(relay: Relay) -> None:
    """A subject that looks like a number stays text."""
    with DAG("native", schedule=None, render_template_as_native_obj=True) as dag:
        pass
    notifier(to="{{ ['a@corp.example', 'b@corp.example'] }}", subject="{{ 42 }}", text="{{ 1.5 }}")(
        {**FAILED, "dag": dag}
    )
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example")
    assert (received.message["Subject"], texts(received)[0].strip()) == ("42", "1.5")


def test_an_event_that_is_reported_twice_has_one_message_id(relay: Relay) -> None:
    """Exchange then delivers it once; other events, and alerts to other recipients, have other Message-IDs."""
    killed = task_killed({"load_orders": "failed"})
    for context in (killed, killed, task_killed({"load_orders": "failed"}, try_number=3), task_succeeded()):
        notifier()(dict(context))
    notifier(to="second@corp.example")(dict(killed))
    ids = [received.message["Message-ID"] for received in relay.messages]
    assert len(ids) == 5
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


OTHER_ALERTS: list[dict[str, Any]] = [
    {"subject": "another"},
    {"text": "another"},
    {"attachments": {"d.txt": b"x"}},
    {"attachments": {"d.txt": b"y"}},
    {"headers": {"X-Report": "a"}},
]


def test_two_alerts_about_one_event_have_two_message_ids(relay: Relay) -> None:
    """Or Exchange would drop the second; both are to the same recipients."""
    for fields in ({}, *OTHER_ALERTS) * 2:
        notifier(**fields)(dict(task_succeeded()))
    ids = [received.message["Message-ID"] for received in relay.messages]
    assert len(set(ids)) == 1 + len(OTHER_ALERTS)
    assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]  # as when an event is reported twice


# --- Under Airflow's own task runner, and as Deadline Alerts call it.


def test_callbacks_mail_a_retry_a_failure_and_a_success(relay: Relay, run_dag: RunDag) -> None:
    """As DAGs have them; the second try is the last."""
    alert = notifier()
    with DAG("alerts_of_tasks", schedule=None) as dag:

        @task(retries=1, retry_delay=timedelta(0), on_retry_callback=alert, on_failure_callback=alert)
        def load() -> None:
            raise ValueError("it broke {{ 7 * 7 }}")

        @task(on_success_callback=alert)
        def fine() -> None:
            pass

        fine() >> load()

    assert str(run_dag(dag).state) == "failed"
    succeeded, retried, failed = (received.message["Subject"] for received in relay.messages)
    text, html = texts(relay.messages[-1])
    # Before 3.3, dag.test() passes no exception; Airflow's own task runner does.
    why = " – ValueError: it broke {{ 7 * 7 }}" if "ValueError" in text else ""
    assert why or __version__ < "3.3"
    assert succeeded == "[Airflow] Succeeded: alerts_of_tasks.fine"
    assert retried == f"[Airflow] Will retry: alerts_of_tasks.load, try 1 of 2{why}"
    assert failed == f"[Airflow] Failed: alerts_of_tasks.load, try 2 of 2{why}"
    assert not why or 'raise ValueError("it broke {{ 7 * 7 }}")' in text
    assert not why or re.search(r"  … \d+ frames of Airflow left out\s+File .*, in load\s", text)
    assert "site-packages/airflow" not in text
    assert "/dags/alerts_of_tasks/runs/" in html
    assert "/tasks/load?try_number=2" in html


def test_the_callback_of_a_dag_has_the_dag_s_macros_in_a_test_run(relay: Relay, run_dag: RunDag) -> None:
    """`dag.test()` passes it the serialized DAG, which has none; the DAG processor passes the DAG itself."""
    from airflow_provider_smtpcm.ssis import macros

    alert = notifier(subject="{{ ssis.text(7, 9) }} rows, {{ 'x' | twice }}")
    with DAG(
        "alert_of_dag",
        schedule=None,
        on_success_callback=alert,
        on_failure_callback=[alert],
        user_defined_macros={"ssis": macros},
        user_defined_filters={"twice": lambda text: text * 2},
    ) as dag:

        @task
        def count() -> None:
            pass

        count()

    run_dag(dag)
    (received,) = relay.messages
    assert received.message["Subject"] == "7 rows, xx"


def test_a_server_that_is_down_changes_nothing_for_the_task(closed_port: None, run_dag: RunDag) -> None:
    """Neither its state, nor that of its run."""
    with DAG("server_down", schedule=None) as dag:

        @task(on_success_callback=notifier())
        def fine() -> int:
            return 1

        fine()

    run = run_dag(dag)
    assert str(run.state) == "success"
    assert str(run.get_task_instance("fine").state) == "success"


def test_a_deadline_alert_does_not_block_the_event_loop(relay: Relay) -> None:
    """The triggerer makes the notifier with the context, and awaits it."""

    async def trigger() -> int:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)

        beating = asyncio.create_task(beat())
        await notifier(context=deadline_missed())
        beating.cancel()
        return beats

    assert asyncio.run(trigger()) > 1
    (received,) = relay.messages
    assert received.message["Subject"] == "[Airflow] Deadline missed: warehouse_load, due 2026-11-25 03:00:00 UTC"


def test_a_deadline_alert_s_connection_is_looked_up_in_the_event_loop(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another thread asks for it, Airflow 3.1's triggerer ends, with all its triggers."""
    threads = []
    look_up = BaseHook.aget_connection

    async def noted(conn_id: str) -> object:
        threads.append(threading.get_ident())
        return await look_up(conn_id)

    async def trigger() -> None:
        await notifier(context=deadline_missed())

    monkeypatch.setattr(BaseHook, "aget_connection", staticmethod(noted))
    asyncio.run(trigger())
    assert threads == [threading.get_ident()]
    assert len(relay.messages) == 1


def test_a_deadline_alert_never_raises_into_the_triggerer(closed_port: None) -> None:
    """It would be logged there as a broken callback."""

    async def trigger() -> None:
        await notifier(context=deadline_missed())

    asyncio.run(trigger())


def test_a_deadline_alert_can_be_called_by_the_executor(relay: Relay) -> None:
    """A SyncCallback makes the notifier with the context and calls it with the context."""
    context = deadline_missed()
    notifier(context=context)(context)
    assert len(relay.messages) == 1


def test_airflow_accepts_it_as_the_callback_of_a_deadline() -> None:
    """It has to be awaitable, and its arguments have to be JSON."""
    from airflow.sdk.definitions.deadline import AsyncCallback

    callback = AsyncCallback(SendMailNotifier, kwargs={"to": [TO], "subject": "{{ deadline.deadline_time }}"})
    assert callback.path == "airflow_provider_smtpcm.notifications.send_mail.SendMailNotifier"
    assert json.loads(json.dumps(callback.kwargs)) == callback.kwargs


def test_a_server_that_is_down_is_retried_within_the_time(
    closed_port: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is being restarted."""
    port = json.loads(os.environ["AIRFLOW_CONN_SMTPCM_DEFAULT"])["port"]
    relay = Relay(ssl_mode="none", port=port)
    starter = threading.Timer(1, relay.start)
    starter.start()
    try:
        notifier(retry_for=30)(dict(FAILED))
        starter.join()
        assert len(relay.messages) == 1
    finally:
        starter.join()
        relay.stop()


@pytest.mark.parametrize("retry_for", [math.inf, 1e300, 20])
def test_no_thread_waits_for_the_end_of_the_time(retry_for: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is; a thread cannot wait for more than three hundred years."""
    started: list[type[threading.Thread]] = []
    start = threading.Thread.start

    def watched(thread: threading.Thread) -> None:
        started.append(type(thread))
        start(thread)

    with Relay(ssl_mode="none") as relay:
        set_default_connection(monkeypatch, relay.port)
        monkeypatch.setattr(threading.Thread, "start", watched)
        notifier(retry_for=retry_for)(dict(FAILED))
        assert len(relay.messages) == 1
    assert threading.Timer not in started


def test_importing_it_imports_no_mail_library() -> None:
    """`tests/test_floors.py` checks this for the operator; a DAG file imports the notifier as well."""
    code = (
        "import sys; from airflow.sdk import BaseHook, BaseNotifier, BaseOperator; before = set(sys.modules)\n"
        "import airflow_provider_smtpcm.notifications.send_mail\n"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} & "
        "{'spnego', 'smtplib', 'cryptography', 'jinja2', 'ssl'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert run.stdout.strip().splitlines()[-1] == "[]"
