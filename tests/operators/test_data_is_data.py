"""What another task computed, and what a value fills in, is data: never a template, a separator or a path upwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task, task_group

from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import merge, subjects

RunDag = Callable[[DAG], Any]

SECRET = "correct-horse-battery"
HOSTILE = "{{ conn.db.password }}"
ROWS = [{"email": "jane@corp.example", "name": "Jane"}]


@pytest.fixture(autouse=True)
def _secret(set_connection: Callable[[str, Mapping[str, Any]], None]) -> None:
    set_connection("db", {"conn_type": "generic", "login": "etl", "password": SECRET})


@pytest.fixture
def delivered(relay: Relay, run_dag: RunDag) -> Callable[[DAG], list[str]]:
    """Runs a DAG to its success, and gives the subjects of what arrived; the secret is in none of it."""

    def run(dag: DAG) -> list[str]:
        assert str(run_dag(dag).state) == "success"
        assert not any(SECRET.encode() in received.content for received in relay.messages)
        return subjects(relay)

    return run


@task
def mails() -> list[dict[str, Any]]:
    return [{"to": "jane@corp.example", "subject": HOSTILE, "html": HOSTILE, "headers": {"X-Note": HOSTILE}}]


def send(**fields: Any) -> Any:
    """A mapped mail before it is expanded."""
    return SendMailOperator.partial(task_id="send", from_address="etl@corp.example", **fields)


# --- A task that is mapped over another's output.


def test_mappings_from_another_task_hold_no_templates(delivered: Callable[[DAG], list[str]]) -> None:
    """The pattern of the documents; the arguments of `partial` are templates as usual."""
    with DAG("expand_kwargs", schedule=None) as dag:
        send(text="{{ dag.dag_id }}", cc="{{ ['boss@corp.example'] | first }}").expand_kwargs(mails())
    assert delivered(dag) == [HOSTILE]


def test_a_template_in_partial_is_rendered_beside_them(relay: Relay, delivered: Callable[[DAG], list[str]]) -> None:
    """In each kind of field."""
    with DAG("partial", schedule=None) as dag:
        send(text="{{ dag.dag_id }}", cc="{{ 'boss' }}@corp.example").expand_kwargs(mails())
    delivered(dag)
    (received,) = relay.messages
    assert received.recipients == ("jane@corp.example", "boss@corp.example")
    assert "partial" in received.content.decode()


def test_so_are_the_defaults_of_the_dag(delivered: Callable[[DAG], list[str]]) -> None:
    """They are the author's too."""

    @task
    def people() -> list[dict[str, str]]:
        return [{"to": "jane@corp.example"}]

    with DAG("defaults", schedule=None, default_args={"subject": "From {{ dag.dag_id }}"}) as dag:
        send().expand_kwargs(people())
    assert delivered(dag) == ["From defaults"]


def test_mappings_that_override_partial_hold_no_templates(delivered: Callable[[DAG], list[str]]) -> None:
    """With `strict=False` the output has the last word, and stays data."""
    with DAG("override", schedule=None) as dag:
        send(subject="{{ dag.dag_id }}").expand_kwargs(mails(), strict=False)
    assert delivered(dag) == [HOSTILE]


def test_the_output_of_map_and_of_zip_holds_no_templates(delivered: Callable[[DAG], list[str]]) -> None:
    """They are computed as well."""

    @task
    def names() -> list[str]:
        return [HOSTILE]

    with DAG("map", schedule=None) as dag:
        named = names()
        send().expand_kwargs(named.map(lambda name: {"to": "a@corp.example", "subject": f"map {name}"}))
        SendMailOperator.partial(task_id="zip", from_address="etl@corp.example").expand_kwargs(
            named.zip(named).map(lambda pair: {"to": "a@corp.example", "subject": f"zip {pair[1]}"})
        )
        SendMailOperator.partial(task_id="concat", from_address="etl@corp.example", to="a@corp.example").expand(
            subject=named.concat(named)
        )
    assert delivered(dag) == sorted([f"map {HOSTILE}", f"zip {HOSTILE}", HOSTILE, HOSTILE])


def test_an_output_in_a_list_of_the_dag_file_is_data_beside_its_templates(
    delivered: Callable[[DAG], list[str]],
) -> None:
    """A literal list is the author's; an output in it is not."""

    @task
    def computed() -> str:
        return HOSTILE

    with DAG("literal", schedule=None) as dag:
        send().expand_kwargs(
            [
                {"to": "a@corp.example", "subject": "{{ dag.dag_id }}"},
                {"to": "b@corp.example", "subject": computed()},
            ]
        )
    assert delivered(dag) == sorted(["literal", HOSTILE])


def test_a_whole_mapping_in_such_a_list_may_be_an_output(delivered: Callable[[DAG], list[str]]) -> None:
    """Then all of it is data."""

    @task
    def computed() -> dict[str, str]:
        return {"to": "b@corp.example", "subject": HOSTILE}

    with DAG("mapping", schedule=None) as dag:
        send().expand_kwargs([{"to": "a@corp.example", "subject": "{{ dag.dag_id }}"}, computed()])
    assert delivered(dag) == sorted(["mapping", HOSTILE])


def test_lists_of_the_dag_file_hold_templates(delivered: Callable[[DAG], list[str]]) -> None:
    """By `expand`, and beside outputs."""

    @task
    def computed() -> list[str]:
        return [HOSTILE]

    with DAG("lists", schedule=None) as dag:
        send(text="x").expand(to=["{{ 'a' }}@corp.example"], subject=["{{ dag.dag_id }}"])
        SendMailOperator.partial(task_id="both", from_address="etl@corp.example").expand(
            to=["{{ 'b' }}@corp.example"], subject=computed()
        )
    assert delivered(dag) == sorted(["lists", HOSTILE])


def test_a_mapped_group_s_argument_is_data(delivered: Callable[[DAG], list[str]]) -> None:
    """By `expand` and by `expand_kwargs` of the group."""

    @task
    def computed() -> list[str]:
        return [HOSTILE]

    @task
    def mappings() -> list[dict[str, str]]:
        return [{"subject": HOSTILE}]

    with DAG("group", schedule=None) as dag:

        @task_group
        def one(subject: str) -> None:
            SendMailOperator(task_id="send", from_address="etl@corp.example", to="a@corp.example", subject=subject)

        @task_group
        def two(subject: str) -> None:
            SendMailOperator(task_id="send", from_address="etl@corp.example", to="a@corp.example", subject=subject)

        one.expand(subject=computed())
        two.expand_kwargs(mappings())
    assert delivered(dag) == [HOSTILE, HOSTILE]


def test_a_merge_that_is_mapped_over_mappings_takes_them_as_data(delivered: Callable[[DAG], list[str]]) -> None:
    """Its own templates are in `partial`."""

    @task
    def merges() -> list[dict[str, Any]]:
        return [{"rows": ROWS, "subject": HOSTILE, "text_file": None}, {"rows": ROWS, "subject": "{{ row.name }}"}]

    with DAG("merge_kwargs", schedule=None) as dag:
        MailMergeOperator.partial(
            task_id="send", from_address="etl@corp.example", to="{{ row.email }}", text="{{ row.name }} {{ ds }}"
        ).expand_kwargs(merges())
    assert delivered(dag) == [HOSTILE, "{{ row.name }}"]


def test_a_merge_that_is_mapped_over_lists_of_the_dag_file_has_templates_in_them(
    delivered: Callable[[DAG], list[str]],
) -> None:
    """Those are over rows."""
    with DAG("merge_lists", schedule=None) as dag:
        MailMergeOperator.partial(
            task_id="send", from_address="etl@corp.example", to="{{ row.email }}", rows=ROWS
        ).expand(subject=["1 {{ row.name }}", "2 {{ row.name }}"])
    assert delivered(dag) == ["1 Jane", "2 Jane"]


def test_the_arguments_of_a_decorated_function_are_data(delivered: Callable[[DAG], list[str]]) -> None:
    """A function that returns its input reveals no secret; the arguments of `partial` are templates."""

    @task
    def arguments() -> list[dict[str, str]]:
        return [{"name": HOSTILE}]

    with DAG("function", schedule=None) as dag:

        @task.send_mail(from_address="etl@corp.example", to="{{ 'a' }}@corp.example", text="{{ dag.dag_id }}")
        def report(name: str, prefix: str) -> dict[str, str]:
            return {"subject": f"{prefix} {name}"}

        report.partial(prefix="{{ dag.dag_id }}").expand_kwargs(arguments())
    assert delivered(dag) == [f"function {HOSTILE}"]


def test_what_a_decorated_function_returns_is_data(delivered: Callable[[DAG], list[str]]) -> None:
    """In each of its shapes."""
    with DAG("returned", schedule=None) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example")
        def report() -> dict[str, Any]:
            return {"subject": HOSTILE, "html": HOSTILE, "headers": {"X-Note": HOSTILE}}

        report()
    assert delivered(dag) == [HOSTILE]


def test_a_condition_from_another_task_is_data(run_dag: RunDag) -> None:
    """The condition of an imported DAG is no template where a task computed it."""

    @task
    def conditions() -> list[dict[str, str]]:
        return [{"condition": "{{ true }}"}]

    with DAG("condition", schedule=None) as dag:
        OnlyIfOperator.partial(task_id="only_if").expand_kwargs(conditions())
    run = run_dag(dag)
    assert str(run.state) == "failed"


def test_default_arguments_of_another_task_are_data(delivered: Callable[[DAG], list[str]]) -> None:
    """By `expand` and by `expand_kwargs`."""

    @task
    def defaults() -> list[dict[str, str]]:
        return [{"subject": HOSTILE}]

    @task
    def mappings() -> list[dict[str, Any]]:
        return [{"default_args": {"subject": HOSTILE}}]

    with DAG("default_args", schedule=None) as dag:
        send(to="{{ 'a' }}@corp.example").expand(default_args=defaults())
        SendMailOperator.partial(task_id="kwargs", from_address="etl@corp.example", to="a@corp.example").expand_kwargs(
            mappings()
        )
    assert delivered(dag) == [HOSTILE, HOSTILE]


def test_arguments_of_a_function_that_override_partial_are_data(delivered: Callable[[DAG], list[str]]) -> None:
    """With `strict=False` the output has the last word there too."""

    @task
    def arguments() -> list[dict[str, str]]:
        return [{"name": HOSTILE}]

    with DAG("function_override", schedule=None) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example")
        def report(name: str, prefix: str) -> dict[str, str]:
            return {"subject": f"{prefix} {name}"}

        report.partial(name="{{ ds }}", prefix="{{ dag.dag_id }}").expand_kwargs(arguments(), strict=False)
    assert delivered(dag) == [f"function_override {HOSTILE}"]


def test_defaults_of_the_dag_for_a_function_are_templates(delivered: Callable[[DAG], list[str]]) -> None:
    """They are the author's, beside arguments that another task brought."""

    @task
    def arguments() -> list[dict[str, str]]:
        return [{"name": HOSTILE}]

    with DAG("function_defaults", schedule=None, default_args={"prefix": "{{ dag.dag_id }}"}) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example")
        def report(name: str, prefix: str = "") -> dict[str, str]:
            return {"subject": f"{prefix} {name}"}

        report.expand_kwargs(arguments())
    assert delivered(dag) == [f"function_defaults {HOSTILE}"]


class MonthlyMail(SendMailOperator):
    """Writes an argument into a template."""

    template_fields = (*SendMailOperator.template_fields, "month")

    def __init__(self, *, month: str, **fields: Any) -> None:
        super().__init__(subject=f"{month} by {{{{ dag.dag_id }}}}", **fields)
        self.month = month


def test_what_a_subclass_makes_of_an_output_is_data(delivered: Callable[[DAG], list[str]]) -> None:
    """Where the output looks like a template; the subclass's own template is one otherwise."""

    @task
    def months() -> list[str]:
        return ["May", HOSTILE]

    with DAG("subclass", schedule=None) as dag:
        MonthlyMail.partial(task_id="send", from_address="etl@corp.example", to="{{ 'a' }}@corp.example").expand(
            month=months()
        )
    assert delivered(dag) == ["May by subclass", f"{HOSTILE} by {{{{ dag.dag_id }}}}"]


def test_a_tuple_in_partial_holds_templates_and_outputs(relay: Relay, delivered: Callable[[DAG], list[str]]) -> None:
    """A merge keeps it as a list."""

    @task
    def boss() -> str:
        return "boss@corp.example"

    @task
    def subjects_of_merges() -> list[dict[str, str]]:
        return [{"subject": HOSTILE}]

    with DAG("tuple", schedule=None) as dag:
        MailMergeOperator.partial(
            task_id="merge", rows=ROWS, from_address="etl@corp.example", to=("{{ row.email }}", boss())
        ).expand_kwargs(subjects_of_merges())
    assert delivered(dag) == [HOSTILE]
    assert relay.messages[0].recipients == ("jane@corp.example", "boss@corp.example")


def test_the_fields_of_a_mapped_task_are_rendered_without_a_run() -> None:
    """As a DAG's own tests do it."""
    with DAG("by_hand", schedule=None) as dag:
        send().expand_kwargs([{"to": "{{ name }}@corp.example"}])
    task_of_one = dag.get_task("send").unmap({"to": "{{ name }}@corp.example"})
    task_of_one.render_template_fields({"name": "a"})
    assert task_of_one.to == "a@corp.example"


def test_the_configuration_of_a_run_is_data(relay: Relay, delivered: Callable[[DAG], list[str]]) -> None:
    """A parameter is filled in once, and what it holds is not rendered again."""
    with DAG("config", schedule=None, params={"subject": HOSTILE}) as dag:
        SendMailOperator(
            task_id="send", from_address="etl@corp.example", to="a@corp.example", subject="{{ params.subject }}"
        )
        merge(task_id="merge", rows=ROWS, subject="For {{ params.subject }}")
    assert delivered(dag) == [f"For {HOSTILE}", HOSTILE]


def test_rows_of_a_file_are_data(tmp_path: Path, delivered: Callable[[DAG], list[str]]) -> None:
    """JSON Lines, in each type of value."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"email": "jane@corp.example", "name": ["{{ conn.db.password }}", {"a": "{{ 1 }}"}]}\n')
    with DAG("json_lines", schedule=None) as dag:
        merge(rows=str(rows), html="{{ row.name }}", text="{{ row.name[1].a }}")
    assert delivered(dag) == ["For ['{{ conn.db.password }}', {'a': '{{ 1 }}'}]"]


# --- A value that is filled in.


def sent(relay: Relay, run_dag: RunDag, state: str = "success", **fields: Any) -> list[tuple[str, ...]]:
    """The recipients of each mail of a merge over one row."""
    with DAG("value", schedule=None) as dag:
        merge(**{"on_error": "fail", **fields})
    assert str(run_dag(dag).state) == state
    return [received.recipients for received in relay.messages]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Statements, and a secret beside their folder."""
    (tmp_path / "statements").mkdir()
    (tmp_path / "terms.pdf").write_bytes(b"terms")
    (tmp_path / "statements" / "4711.pdf").write_bytes(b"4711")
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path


def test_a_value_adds_no_attachment(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """A separator in it belongs to a name of a file, which is missing."""
    hostile = f"4711.pdf|{folder}/secret|{folder}/statements/4711"
    both = [
        {"email": "a@corp.example", "name": "A", "id": "4711"},
        {"email": "m@evil.example", "name": "M", "id": hostile},
    ]
    attachments = f"{folder}/terms.pdf|{folder}/statements/{{{{ row.id }}}}.pdf"
    assert sent(relay, run_dag, "failed", rows=both, attachments=attachments) == [("a@corp.example",)]
    files = [part.get_filename() for part in relay.messages[0].message.iter_attachments()]
    assert files == ["terms.pdf", "4711.pdf"]


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("hostile", ["../secret", "..", "x/../../secret", "..\\secret", "4711.pdf\0"])
def test_a_value_leads_no_path_out_of_its_folder(
    hostile: str, as_list: bool, folder: Path, relay: Relay, run_dag: RunDag
) -> None:
    """Neither in a text nor in a list."""
    rows = [{"email": "m@evil.example", "name": "M", "id": hostile}]
    written = f"{folder}/statements/{{{{ row.id }}}}"
    assert sent(relay, run_dag, "failed", rows=rows, attachments=[written] if as_list else written) == []


def test_a_value_that_is_a_field_alone_may_name_any_file(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """That is what its author let it do."""
    rows = [{"email": "a@corp.example", "name": "A", "path": f"{folder}/statements/../terms.pdf|{folder}/terms.pdf"}]
    assert sent(relay, run_dag, rows=rows, attachments="{{ row.path }}") == [("a@corp.example",)]


NAMED = '"{{ row.name }}" <{{ row.email }}>'


@pytest.mark.parametrize("written", [NAMED, "{{ row.name }} <{{ row.email }}>", [NAMED], f"boss@corp.example; {NAMED}"])
def test_a_name_adds_no_recipient(written: Any, relay: Relay, run_dag: RunDag) -> None:
    """It is shown as it is, quotation marks and all."""
    hostile = 'Jane" <m@evil.example>; "x'
    (recipients,) = sent(relay, run_dag, rows=[{"email": "jane@corp.example", "name": hostile}], to=written)
    assert recipients in (("jane@corp.example",), ("boss@corp.example", "jane@corp.example"))
    names = [address.display_name for address in relay.messages[0].message["To"].addresses]
    assert names[-1] == hostile


@pytest.mark.parametrize(
    "written",
    [NAMED, "boss@corp.example; {{ row.email }}", ["{{ row.email }}", "boss@corp.example"], "<{{ row.email }}>"],
)
def test_an_address_adds_no_recipient(written: Any, relay: Relay, run_dag: RunDag) -> None:
    """If a value stands for one address, several are a fault of the row."""
    for hostile in ("jane@corp.example; m@evil.example", "jane@corp.example>, <m@evil.example"):
        assert sent(relay, run_dag, "failed", rows=[{"email": hostile, "name": "Jane"}], to=written) == []


def test_a_value_that_is_a_field_alone_may_name_several_recipients(relay: Relay, run_dag: RunDag) -> None:
    """A column may hold a list of addresses."""
    rows = [{"email": "jane@corp.example; jim@corp.example", "name": "Jane"}]
    assert sent(relay, run_dag, rows=rows, to="{{ row.email }}") == [("jane@corp.example", "jim@corp.example")]


# Each gives the boss and the value, by other means than text beside a value.
BESIDE = {
    "set": "{% set all %}boss@corp.example; {{ VALUE }}{% endset %}{{ all }}",
    "set and filter": "{% set all %} boss@corp.example; {{ VALUE }} {% endset %}{{ all | trim | lower }}",
    "macro": "{% macro both(a) %}boss@corp.example; {{ a }}{% endmacro %}{{ both(VALUE) }}",
    "argument of a macro": "{% macro both(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ both('boss@corp.example; ', VALUE) }}",
    "call": "{% macro all() %}boss@corp.example; {{ caller() }}{% endmacro %}{% call all() %}{{ VALUE }}{% endcall %}",
    "filter": "{% filter lower %}Boss@corp.example; {{ VALUE }}{% endfilter %}",
    "include": "{% include 'both.txt' %}",
    "import": "{% from 'macros.txt' import both %}{{ both(VALUE) }}",
    "extends": "{% extends 'base.txt' %}{% block value %}{{ VALUE }}{% endblock %}",
    "tilde": "{{ 'boss@corp.example; ' ~ VALUE }}",
    "plus": "{{ 'boss@corp.example; ' + VALUE }}",
    "percent": "{{ 'boss@corp.example; %s' % VALUE }}",
    "format": "{{ 'boss@corp.example; %s' | format(VALUE) }}",
    "join": "{{ ['boss@corp.example', VALUE] | join('; ') }}",
    "default": "{{ params.get('none') or 'boss@corp.example; ' ~ VALUE }}",
    "loop": "{% for a in ['boss@corp.example', VALUE] %}{{ a }}{{ '; ' if not loop.last }}{% endfor %}",
}


@pytest.mark.parametrize(("construct", "native"), [*((name, False) for name in BESIDE), ("set", True), ("tilde", True)])
def test_what_the_author_wrote_separates_in_every_construct_and_no_value_does(
    construct: str, native: bool, tmp_path: Path, relay: Relay, run_dag: RunDag
) -> None:
    """In a mail and in a merge."""
    written = BESIDE[construct]
    (tmp_path / "base.txt").write_text("boss@corp.example; {% block value %}{% endblock %}")
    (tmp_path / "macros.txt").write_text("{% macro both(a) %}{{ 'boss@corp.example; ' ~ a }}{% endmacro %}")
    both = ("boss@corp.example", "jane@corp.example")
    for value, state, expected in (
        ("jane@corp.example", "success", [both, both]),
        ("jane@corp.example; m@evil.example", "failed", [both, both]),  # nothing was added
    ):
        with DAG(
            "beside",
            schedule=None,
            params={"value": value},
            template_searchpath=[str(tmp_path)],
            render_template_as_native_obj=native,
        ) as dag:
            (tmp_path / "both.txt").write_text("boss@corp.example; {{ params.value }}")
            to = written.replace("VALUE", "params.value")
            SendMailOperator(task_id="send", from_address="etl@corp.example", to=to)
            merge(task_id="merge", rows=[{"value": value}], to=written.replace("VALUE", "row.value"), subject="x")
        assert str(run_dag(dag).state) == state
        assert [received.recipients for received in relay.messages] == expected


@pytest.mark.parametrize(
    "written",
    [
        "{% set path %}/statements/{{ VALUE }}.pdf{% endset %}{{ path }}",
        "{{ '/statements/' ~ VALUE ~ '.pdf' }}",
        "{{ '/statements/%s.pdf' | format(VALUE) }}",
        "{{ '/statements/{}.pdf'.format(VALUE) }}",
        "{{ ('/statements/' ~ VALUE ~ '.PDF') | replace('PDF', 'pdf') }}",
        "{% filter trim %}/statements/{{ VALUE }}.pdf{% endfilter %}",
    ],
)
def test_no_construct_lets_a_value_lead_out_of_its_folder(
    written: str, folder: Path, relay: Relay, run_dag: RunDag
) -> None:
    """The file in the folder is attached, and no other."""
    source = written.replace("/statements", f"{folder}/statements").replace("VALUE", "row.id")
    for value, state in (("4711", "success"), ("../terms", "failed")):
        assert len(sent(relay, run_dag, state, rows=[{**ROWS[0], "id": value}], attachments=source)) == 1


def test_safe_lets_a_value_beside_a_separator_separate(relay: Relay, run_dag: RunDag) -> None:
    """As it lets a value be HTML: the author has asked for it."""
    written = "{% set all %}boss@corp.example; {{ row.email }}{% endset %}{{ all | safe }}"
    rows = [{"email": "jane@corp.example; jim@corp.example", "name": "Jane"}]
    assert sent(relay, run_dag, rows=rows, to=written) == [
        ("boss@corp.example", "jane@corp.example", "jim@corp.example")
    ]


def test_a_whole_value_may_pass_filters_and_have_a_default(relay: Relay, run_dag: RunDag) -> None:
    """It is one value alone all the same, and may hold several recipients."""
    rows = [{"email": "jane@corp.example / jim@corp.example", "name": "Jane"}]
    written = "{{ row['email'] | replace(' / ', '; ') | default('boss@corp.example; jane@corp.example', true) }}"
    both = ("jane@corp.example", "jim@corp.example")
    assert sent(relay, run_dag, rows=rows, to=written) == [both]
    assert sent(relay, run_dag, rows=[{**rows[0], "email": ""}], to=written)[-1] == (
        "boss@corp.example",
        "jane@corp.example",
    )


def test_a_list_of_any_class_is_a_list(relay: Relay, run_dag: RunDag) -> None:
    """Each item of it is one address."""

    class Addresses(list[str]):
        pass

    with DAG("list", schedule=None, params={"name": 'Jane" <m@evil.example>; "'}) as dag:
        SendMailOperator(
            task_id="send",
            from_address="etl@corp.example",
            to=Addresses(['"{{ params.name }}" <jane@corp.example>']),
        )
    assert str(run_dag(dag).state) == "success"
    assert relay.messages[0].recipients == ("jane@corp.example",)


def test_what_a_dag_does_to_all_values_leaves_the_author_s_text(relay: Relay, run_dag: RunDag) -> None:
    """By `finalize`, which Jinja calls for each."""
    with DAG(
        "finalize",
        schedule=None,
        params={"name": 'Jane" <m@evil.example>; "'},
        jinja_environment_kwargs={"finalize": lambda value: str(value).strip()},
    ) as dag:
        SendMailOperator(
            task_id="send",
            from_address="etl@corp.example",
            to='boss@corp.example; "{{ params.name }}" <jane@corp.example>',
        )
    assert str(run_dag(dag).state) == "success"
    assert relay.messages[0].recipients == ("boss@corp.example", "jane@corp.example")


def test_a_mail_s_own_templates_follow_the_same_rules(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """In `SendMailOperator`, whose values come from the run's configuration."""
    params = {"name": 'Jane" <m@evil.example>, "', "id": f"4711.pdf|{folder}/secret"}
    with DAG("send_name", schedule=None, params=params) as dag:
        SendMailOperator(
            task_id="send",
            from_address='"{{ params.name }}" <etl@corp.example>',
            to=['"{{ params.name }}" <jane@corp.example>', "{{ 'boss@corp.example' }}"],
            text="x",
        )
    assert str(run_dag(dag).state) == "success"
    assert [received.recipients for received in relay.messages] == [("jane@corp.example", "boss@corp.example")]
    with DAG("send_file", schedule=None, params=params) as dag:
        SendMailOperator(
            task_id="send",
            from_address="etl@corp.example",
            to="a@corp.example",
            attachments=f"{folder}/terms.pdf|{folder}/statements/{{{{ params.id }}}}",
        )
    assert str(run_dag(dag).state) == "failed"
    assert len(relay.messages) == 1


@pytest.mark.parametrize("field", ["rows", "report_file"])
def test_no_other_path_leads_out_of_its_folder(field: str, folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """The rows, and the report."""
    (folder / "rows.csv").write_text("email,name\njane@corp.example,Jane\n")
    path = f"{folder}/statements/{{{{ params.step }}}}/rows.csv"
    with DAG("paths", schedule=None, params={"step": ".."}) as dag:
        merge(**{field: path})
    assert str(run_dag(dag).state) == "failed"
    assert not relay.messages
    assert list(folder.glob("**/*.jsonl")) == []


def test_a_path_of_airflow_s_leads_nowhere_else_either(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """It is a template as well."""
    path = ObjectStoragePath(f"file://{folder}/statements/{{{{ params.id }}}}")
    with DAG("storage", schedule=None, params={"id": "../secret"}) as dag:
        SendMailOperator(task_id="send", from_address="etl@corp.example", to="a@corp.example", attachments=[path])
    assert str(run_dag(dag).state) == "failed"
    assert not relay.messages


# --- A template file that a value chose.


def test_a_value_runs_no_template_outside_of_the_author_s_folders(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """Whether it is alone or after a name; a file in the template folder is a template."""
    (folder / "upload.txt").write_text(HOSTILE)
    templates = folder / "templates"
    templates.mkdir()
    (templates / "en.txt").write_text("Dear {{ row.name }}")
    for row_file, text_file in (
        (f"{folder}/upload.txt", "{{ row.file }}"),
        ("../upload", f"{templates}/{{{{ row.file }}}}.txt"),
        ("../upload", "{{ row.file }}.txt"),
    ):
        with DAG("templates", schedule=None, template_searchpath=[str(templates)]) as dag:
            merge(rows=[{**ROWS[0], "file": row_file}], text_file=text_file)
        assert str(run_dag(dag).state) == "failed"
        assert not relay.messages
    for text_file in ("{{ row.file }}.txt", f"{templates}/{{{{ row.file }}}}.txt"):
        with DAG("templates", schedule=None, template_searchpath=[str(templates)]) as dag:
            merge(rows=[{**ROWS[0], "file": "en"}], text_file=text_file)
        assert str(run_dag(dag).state) == "success"
    assert all("Dear Jane" in received.content.decode() for received in relay.messages)


def test_a_template_file_that_another_task_chose_is_not_run(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """Its text may go out as it is, where it is no template."""
    (folder / "upload.txt").write_text(HOSTILE)
    (folder / "plain.txt").write_text("Well.")

    @task
    def chosen(name: str) -> str:
        return f"{folder}/{name}"

    for name, state in (("upload.txt", "failed"), ("plain.txt", "success")):
        with DAG("chosen", schedule=None) as dag:
            SendMailOperator(
                task_id="send", from_address="etl@corp.example", to="a@corp.example", text_file=chosen(name)
            )
        assert str(run_dag(dag).state) == state
    assert len(relay.messages) == 1


@pytest.mark.parametrize("written", ["{{ params.file }}", "{% if true %}{{ params.file }}{% endif %}"])
def test_a_notifier_runs_no_template_that_a_value_chose(
    written: str, folder: Path, relay: Relay, run_dag: RunDag
) -> None:
    """The default page is sent instead."""
    (folder / "upload.txt").write_text(HOSTILE)
    with DAG("notifier", schedule=None, params={"file": f"{folder}/upload.txt"}) as dag:

        @task(
            on_failure_callback=SendMailNotifier(
                from_address="etl@corp.example", to="a@corp.example", text_file=written
            )
        )
        def broken() -> None:
            raise ValueError

        broken()
    assert str(run_dag(dag).state) == "failed"
    (received,) = relay.messages
    assert SECRET not in received.content.decode()
    assert "was chosen by a value" in received.content.decode().replace("=\r\n", "")


def test_a_value_may_name_a_template_by_its_whole_path(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """Where it is in the folder for templates, as `{{ dag.folder }}/mail.html` is; a path is no HTML."""
    (folder / "a&b.html").write_text("<p>{{ dag.dag_id }}</p>")
    with DAG(
        "whole_path", schedule=None, template_searchpath=[str(folder)], params={"file": f"{folder}/a&b.html"}
    ) as dag:
        SendMailOperator(
            task_id="send", from_address="etl@corp.example", to="a@corp.example", html_file="{{ params.file }}"
        )
    assert str(run_dag(dag).state) == "success"
    assert "<p>whole_path</p>" in relay.messages[0].content.decode()


# --- HTML.


def test_html_is_escaped_by_one_rule(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """In a field, in a file, in a decorated task and in a merge; `safe` opts out."""
    markup = "<a href='//evil.example'>&</a>"
    (folder / "page.html").write_text("<p>{{ params.x }}</p>{{ params.x | safe }}")
    template = "<p>{{ params.x }}</p>{{ params.x | safe }}"
    html: dict[str, dict[str, str]] = {"field": {"html": template}, "file": {"html_file": f"{folder}/page.html"}}
    with DAG("html", schedule=None, params={"x": markup}) as dag:
        for name, fields in html.items():
            SendMailOperator(task_id=name, from_address="etl@corp.example", to="a@corp.example", **fields)
            merge(task_id=f"{name}_merged", rows=ROWS, **fields)

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example", html=template)
        def decorated() -> dict[str, str]:
            return {"subject": "<b>"}

        decorated()
    assert str(run_dag(dag).state) == "success"
    assert len(relay.messages) == 5
    for received in relay.messages:
        page = received.message.get_body(("html",)).get_content().strip()
        assert page == f"<p>&lt;a href=&#39;//evil.example&#39;&gt;&amp;&lt;/a&gt;</p>{markup}"


@pytest.mark.parametrize("html", ["{{ params.x }}", " {{ params.x }} ", "{{ params.x ~ '' }}", "{{ [params.x] }}"])
def test_a_dag_with_native_objects_escapes_html_too(html: str, relay: Relay, run_dag: RunDag) -> None:
    """Also where the template is a value alone; None is no HTML."""
    with DAG("native", schedule=None, render_template_as_native_obj=True, params={"x": "<b>&</b>"}) as dag:
        SendMailOperator(task_id="send", from_address="etl@corp.example", to="a@corp.example", html=html)
        merge(task_id="merge", rows=ROWS, html=html)
        SendMailOperator(
            task_id="none",
            from_address="etl@corp.example",
            to="a@corp.example",
            cc="{{ none }}",
            text="No page.",
            html="{{ none }}",
        )
    assert str(run_dag(dag).state) == "success"
    pages = [received.message.get_body(("html",)) for received in relay.messages]
    assert pages.count(None) == 1
    for page in filter(None, pages):
        assert "&lt;b&gt;&amp;&lt;/b&gt;" in page.get_content()


def test_a_cache_of_compiled_templates_does_not_undo_the_escaping(
    tmp_path: Path, relay: Relay, run_dag: RunDag
) -> None:
    """A text that includes the same file is compiled without."""
    from jinja2 import FileSystemBytecodeCache

    (tmp_path / "part.txt").write_text("{{ params.x }}")
    with DAG(
        "cache",
        schedule=None,
        params={"x": "<b>"},
        template_searchpath=[str(tmp_path)],
        jinja_environment_kwargs={"bytecode_cache": FileSystemBytecodeCache(str(tmp_path))},
    ) as dag:
        text, html = (
            SendMailOperator(
                task_id=body,
                from_address="etl@corp.example",
                to="a@corp.example",
                **{body: "{% include 'part.txt' %}"},  # type: ignore[arg-type]
            )
            for body in ("text", "html")
        )
        text >> html
    assert str(run_dag(dag).state) == "success"
    assert relay.messages[1].message.get_body(("html",)).get_content().strip() == "&lt;b&gt;"
