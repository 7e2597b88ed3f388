"""Mistakes in arguments are errors of the DAG file, unless a template, a task or a subclass may still change them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, ObjectStoragePath, Param, literal, task, task_group

from airflow_provider_smtpcm import MailMergeOperator, Priority, SendMailNotifier, SendMailOperator
from airflow_provider_smtpcm.arguments.validation import find_mail_faults
from airflow_provider_smtpcm.mail import Address, Attachment, FilePattern, Mail
from tests.arguments.dag_files import in_dag_file

RunDag = Callable[[DAG], Any]
Made = Callable[..., object]


def operator(**fields: Any) -> object:
    """A task that sends one mail."""
    return SendMailOperator(**{"task_id": "send", "to": "a@corp.example", **fields})


def merge(**fields: Any) -> object:
    """A task that sends a mail for each row."""
    return MailMergeOperator(**{"task_id": "send", "rows": [], "to": "{{ row.email }}", **fields})


def notifier(**fields: Any) -> object:
    """An alert, as in a DAG file: in a callback, what is wrong is left out of it (`tests/notifications`)."""
    with TemporaryDirectory() as folder:
        return in_dag_file(Path(folder), SendMailNotifier, {"to": "a@corp.example", **fields})


def decorated(**fields: Any) -> object:
    """A function that returns a mail."""

    @task.send_mail(**{"to": "a@corp.example", **fields})
    def send() -> str:
        return "text"

    with DAG("d", schedule=None):
        return send()


FACES = [operator, merge, notifier, decorated]


@pytest.mark.parametrize("make", FACES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"to": "dba"}, "To: there is no '@' in 'dba'. An address needs a domain: jane@corp.example."),
        ({"cc": ["a@corp.example", "dba", "{{ params.x }}"]}, "Cc: there is no '@' in 'dba'"),
        ({"bcc": "a@corp.example\nBcc: b@corp.example"}, "Bcc: 'a@corp.example\\nBcc: b@corp.example' contains"),
        ({"reply_to": [("a@corp.example", "b")]}, "Reply-To: item 1 is a row of 2 columns"),
        ({"from_address": "a@corp.example; b@corp.example"}, "From takes exactly one address, not 2 addresses"),
        ({"priority": "urgent"}, "Priority cannot be 'urgent'. Choose one of 'high', 'normal', 'low'."),
        ({"headers": {"Subject": "x"}}, "'headers' cannot set Subject. Use subject."),
        ({"text": "x", "text_file": "x.txt"}, "'text' and 'text_file' are both set. Set only one of them."),
        ({"html": "x", "html_file": "x.html"}, "'html' and 'html_file' are both set."),
        ({"retry_for": -1}, "retry_for is -1; give a number of at least 0."),
        ({"auto_generated": "no"}, "auto_generated is 'no'; give True or False."),
        ({"text": b"x"}, "Text must be text, not bytes. Pass a string; decode bytes first."),
        ({"html": b"<p>x</p>"}, "Html must be text, not bytes."),
        ({"from_address": ["a@corp.example"]}, "From takes an address as text, not list."),
    ],
)
def test_a_mistake_without_a_template_is_an_error_of_the_dag_file(
    make: Made, fields: dict[str, Any], said: str
) -> None:
    """The error names the field, what was found, and the remedy."""
    with pytest.raises(ValueError, match=re.escape(said)):
        make(**fields)


@pytest.mark.parametrize(
    ("make", "fields", "said"),
    [
        (operator, {"to": None}, "The mail has no recipient. Set 'to', 'cc' or 'bcc'."),
        (operator, {"to": []}, "no recipient"),
        (merge, {"to": " "}, "no recipient"),
        (operator, {"subject": "a\nb"}, "control character"),
        (operator, {"message_id": "4711"}, "does not have the form <left@right>"),
        (operator, {"inline_images": {"logo": "/srv/logo.png"}, "text": "x"}, "no HTML"),
        (notifier, {"inline_images": {"logo": "/srv/logo.png"}, "text_file": "x.txt"}, "no HTML"),
        (merge, {"inline_images": {"logo": "/srv/logo.png"}}, "no HTML"),
        (merge, {"row_key": "id"}, "'row_key' is the same for every row. Use a column in it: '{{ row.id }}'."),
        (merge, {"message_id": "<1@corp.example>"}, "'message_id' is the same for every row."),
        (merge, {"connections": 1000}, "connections is 1000; give an integer from 1 to 256."),
        (merge, {"ledger_window": 0}, "ledger_window is 0; give an integer of at least 1."),
    ],
)
def test_so_is_a_mistake_in_what_only_some_have(make: Made, fields: dict[str, Any], said: str) -> None:
    """Each of them by its own rules."""
    with pytest.raises(ValueError, match=re.escape(said)):
        make(**fields)


def test_all_mistakes_are_in_one_error() -> None:
    """Nobody fixes a DAG three times."""
    with pytest.raises(ValueError, match=r"^MailMergeOperator 'send' has 5 wrong arguments:\n") as caught:
        merge(to="dba", cc=["boss", "{{ row.x }}", "ceo"], priority="urgent", connections=0)
    text = str(caught.value)
    assert [part in text for part in ("'dba'", "'boss'", "'ceo'", "'urgent'", "connections is 0")] == [True] * 5
    assert text.count("\n  - ") == 5


@pytest.mark.parametrize("make", FACES, ids=lambda make: make.__name__)
def test_the_names_of_airflow_s_smtp_provider_are_told(make: Made) -> None:
    """All at once, instead of Airflow's list of what is unknown."""
    stock = {"conn_id": "x", "html_content": "x", "files": [], "from_email": "x", "mime_charset": "utf-8"}
    with pytest.raises(TypeError) as caught:
        make(**stock)
    text = str(caught.value)
    for ours in ("smtpcm_conn_id", "html", "attachments", "from_address"):
        assert f"is called '{ours}' here" in text
    assert "'mime_charset' is not needed" in text


@pytest.mark.parametrize("make", FACES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "fields",
    [
        {"to": "{{ params.to }}", "priority": "{{ params.p }}", "text": "x", "text_file": "{{ params.file or '' }}"},
        {"to": ["{{ params.to }}", "a@corp.example", None, ("b@corp.example",)]},
        {"to": "{% if params.x %}a@corp.example{% endif %}"},
        {"to": "\n  a@corp.example\n  Bo <b@corp.example>\n", "from_address": " etl@corp.example\n"},
        {"to": "Doe, Jane <j@corp.example>; Team: a@corp.example, b@corp.example;", "cc": "['a@corp.example']"},
        {"to": Address(local_part="a", domain="corp.example"), "cc": Mail(to="b@corp.example").to, "bcc": ""},
        {"to": "jörg@bücher.example", "from_address": "", "reply_to": [], "priority": Priority.HIGH},
        {"headers": {"X-Try": 2, "X-Dag": "{{ dag.dag_id }}"}, "attachments": [Attachment(content=b"x", name="x")]},
        {"attachments": [Path("/srv/x.csv"), ObjectStoragePath("s3://bucket/x.csv"), "{{ params.x }}"]},
        {"html": "<img src='cid:logo'>", "inline_images": {"logo": ObjectStoragePath("s3://bucket/logo.png")}},
        {"headers": {"X-{{ params.name }}": "x"}, "attachments": {"{{ ds }}.csv": "/srv/x.csv"}},
        {"to": "[[ params.to ]]"},
        {"envelope_from": "<>\n", "attachments": FilePattern("/srv/*.csv"), "auto_generated": False},
        {"attachments": {"a.csv": b"x", "b.csv": "/srv/*.csv"}, "headers": {"Sender": None, "List-Unsubscribe": ""}},
    ],
)
def test_what_execution_takes_is_no_mistake(make: Made, fields: dict[str, Any]) -> None:
    """Or may take, once templates are rendered."""
    make(**fields)


@pytest.mark.parametrize("make", [operator, notifier], ids=lambda make: make.__name__)
def test_images_without_a_body_may_be_for_that_of_the_connection(make: Made) -> None:
    """Its *HTML file* may show them, and an alert has a page in HTML."""
    make(inline_images={"logo": "/srv/logo.png"})


def test_what_airflow_resolves_is_no_mistake() -> None:
    """Outputs of tasks, parameters, arguments of task groups, literals, functions, and syntax of one's own."""
    with DAG("d", schedule=None, params={"to": Param("dba")}) as dag:

        @task
        def who() -> str:
            return "a@corp.example"

        @task_group
        def group(to: Any) -> None:
            SendMailOperator(task_id="in_group", to=to)

        group(who())
        SendMailOperator(task_id="xcom", to=who(), cc=[who(), "b@corp.example"], priority=who())
        SendMailOperator(task_id="param", to=dag.param("to"))
        SendMailOperator(task_id="literal", to=literal("a@corp.example"), subject=literal("{{ braces }}"))
        SendMailOperator(task_id="function", to=lambda **_: "a@corp.example")  # type: ignore[arg-type]
        SendMailOperator(task_id="outlet", to="a@corp.example", outlets=[Asset("x")])
        SendMailOperator.partial(task_id="mapped", subject="x").expand(to=["a@corp.example"])
        SendMailOperator.partial(task_id="more", subject="x").expand_kwargs([{"to": "a@corp.example"}])
        MailMergeOperator(task_id="merge", rows=who(), to=who())
    with DAG("own", schedule=None, jinja_environment_kwargs={"variable_start_string": "(("}):
        SendMailOperator(task_id="send", to="(( params.to ))")
    with DAG("defaults", schedule=None, default_args={"to": "a@corp.example", "conn_id": "smtp_default"}):
        SendMailOperator(task_id="send")


def test_a_subclass_may_complete_what_it_got() -> None:
    """Its `execute` or its constructor may know the recipient."""

    class Mine(SendMailOperator):
        def execute(self, context: Any) -> dict[str, object]:
            self.to = "a@corp.example"
            return super().execute(context)

    Mine(task_id="send", cc="dba")


def test_a_mapped_task_has_its_mistakes_in_its_own_try(run_dag: RunDag) -> None:
    """What another task computed is no mistake of the DAG file, and the others are run."""
    with DAG("mapped", schedule=None) as dag:
        SendMailOperator.partial(task_id="send", retries=0).expand(to=["dba", "nobody"])
    run = run_dag(dag)
    assert [str(instance.state) for instance in run.get_task_instances()] == ["failed", "failed"]


def test_the_faults_of_a_mail_are_those_that_the_mail_finds_itself() -> None:
    """Whatever looks right at a glance is right for `Mail` too."""
    right = ["jane@corp.example", "Jane Doe <jane.doe+x@corp-1.example>", "a@b, c@d", "a@b; c@d", " a@b ", "a_b@c_d.e"]
    for text in right:
        Mail(to=text)
        assert find_mail_faults({"to": text}, is_complete=True) == []
    wrong = [
        "jane",
        "jane@",
        "a b@c",
        "<a@b",
        "a@b>",
        "Jane <a@b",
        "a@-b",
        "a@b-",
        "a@b..c",
        ".a@b",
        "a@b c@d",
        "a,b@c",
    ]
    for text in wrong:
        assert len(find_mail_faults({"to": text}, is_complete=True)) == 1, text


@pytest.mark.parametrize("name", ["SendMailOperator", "MailMergeOperator", "SendMailNotifier"])
def test_a_dag_without_mistakes_loads_nothing_to_be_checked(name: str) -> None:
    """Each parse is a fresh process: addresses as nearly everybody writes them need no parser."""
    code = f"""
import json, sys
from airflow.sdk import BaseHook, BaseNotifier, BaseOperator
from airflow_provider_smtpcm import {name}
before = set(sys.modules)
fields = dict(
    from_address="ETL <etl@corp.example>", to="a@corp.example; Bo <b@corp.example>",
    cc=["c@corp.example", "{{{{ x }}}}"],
    subject="Load of {{{{ ds }}}}", text="x", priority="high", attachments="/srv/x.csv",
)
if "Operator" in "{name}":
    fields["task_id"] = "send"
if "Merge" in "{name}":
    fields["rows"] = "/srv/rows.csv"
{name}(**fields)
print(json.dumps(sorted(name for name in set(sys.modules) - before if name.startswith("airflow_provider_smtpcm"))))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert json.loads(run.stdout.strip().splitlines()[-1]) == []
