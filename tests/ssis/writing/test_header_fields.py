"""Constant header fields: whatever a package has in them, its DAG loads, and what SSIS would send is sent."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_smtpcm.ssis.model import ForeachLoop, SendMailTask, Severity
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from airflow_provider_smtpcm.ssis.writing.send_mail_task import MailConverter
from tests.ssis.writing.building import codes, handler, mail, other_task, variable, written
from tests.ssis.writing.test_loops import PATH, loop

FIELDS = {"from_line": "FromLine", "to_line": "ToLine", "cc_line": "CCLine", "subject": "Subject"}
ARGUMENTS = {"from_line": "from_address", "to_line": "to", "cc_line": "cc", "subject": "subject"}
REFUSED = [
    ("subject", "Load\nfailed"),
    ("subject", "Load failed\r\n"),
    ("from_line", "etl"),
    ("from_line", "etl@corp.example;dba@corp.example"),
    ("from_line", "etl@corp.example, dba@corp.example"),
    ("to_line", "nobody"),
    ("to_line", "a@corp.example; nobody"),
    ("to_line", "Doe, Jane jane@corp.example"),
    ("to_line", "a@"),
    ("to_line", "@corp.example"),
    ("to_line", "Ops <ops@corp.example"),
    ("to_line", "mailto:ops@corp.example"),
    ("to_line", "a@corp.example|b@corp.example"),
    ("to_line", "a@corp.example b@corp.example"),
    ("to_line", "a@-corp.example"),
    ("to_line", "\u200bops@corp.example"),
    ("to_line", f"{'x' * 65}@corp.example"),
    ("to_line", f"{'Ops ' * 20_000}ops@corp.example"),
    ("cc_line", "ops"),
]
ACCEPTED = [
    ("subject", "Load\tfailed", "Load failed"),
    ("subject", "Bell \a", "Bell  "),
    ("subject", "a\xa0b ü", "a\xa0b ü"),
    ("from_line", "ETL: prod <etl@corp.example>", '"ETL: prod" <etl@corp.example>'),
    ("from_line", '"ETL Job" etl@corp.example', "ETL Job <etl@corp.example>"),
    ("from_line", "ETL etl@corp.example", "ETL <etl@corp.example>"),
    ("from_line", "Doe, Jane jane@corp.example", '"Doe, Jane" <jane@corp.example>'),
    ("to_line", "a@corp.example (Anna); b@corp.example", "a@corp.example; b@corp.example"),
    ("to_line", "a..b@corp.example; c.@corp.example", '"a..b"@corp.example; "c."@corp.example'),
    ("to_line", "ops@corp.example.", "ops@corp.example"),
    ("to_line", "Ops (IT) ops@corp.example", '"Ops (IT)" <ops@corp.example>'),
    ("to_line", '"Ops; Team" <ops@corp.example>', '"Ops; Team" <ops@corp.example>'),
    ("to_line", "a@corp.example;\tb@corp.example", "a@corp.example; b@corp.example"),
    ("cc_line", "Ops ops@corp.example", "Ops <ops@corp.example>"),
]


def task(field: str, value: str, *, is_expression: bool, path: tuple[str, ...] = ("Package",)) -> SendMailTask:
    """Return a mail with this value, or with an expression that is this literal."""
    if not is_expression:
        return mail("Send", path, **{field: value})
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return mail("Send", path, expressions={FIELDS[field]: f'"{escaped}"'})


def write(make: Callable[..., SendMailTask], kind: str) -> DagModule:
    """Return the module in which the mail is a task, an alert or a merge."""
    options = ConversionOptions(placeholders_pass=True)
    if kind == "alert":
        alert = handler("OnError", make(path=("Package", "h")))
        return written(other_task("Load"), handlers=[alert], options=options)
    if kind == "merge":
        items = ForeachLoop(enumerator="Item", mappings=((0, "User::Address"),), items=(("a",), ("b",)))
        each = loop(make(path=PATH), over=items)
        module = written(each, variables=[variable("Address")], options=options)
        assert "MailMergeOperator(" in module.source
        return module
    return written(make(), options=options)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[DagModule], DAG]:
    """Imports a module as Airflow does."""
    monkeypatch.chdir(tmp_path)

    def load_module(module: DagModule) -> DAG:
        file = tmp_path / module.file_name
        file.write_text(module.source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("dag_module", file)
        assert spec is not None
        assert spec.loader is not None
        loaded: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        assert isinstance(loaded.dag, DAG)
        return loaded.dag

    return load_module


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of the mail that was converted last."""
    found: dict[str, Any] = {}
    convert = MailConverter.__init__

    def convert_and_keep(self: MailConverter, *args: Any) -> None:
        convert(self, *args)
        found.update({argument.name: argument.value for argument in self.arguments})

    monkeypatch.setattr(MailConverter, "__init__", convert_and_keep)
    return found


@pytest.mark.parametrize("kind", ["task", "alert", "merge"])
@pytest.mark.parametrize("is_expression", [False, True], ids=["value", "expression"])
@pytest.mark.parametrize(("field", "value"), REFUSED, ids=range(len(REFUSED)))
def test_a_field_that_no_mail_can_have_is_a_decision_and_the_dag_loads(
    load: Callable[[DagModule], DAG],
    arguments: dict[str, Any],
    field: str,
    value: str,
    *,
    is_expression: bool,
    kind: str,
) -> None:
    """The operator would refuse it when the DAG is parsed, so one wrong address would stop all mails of its package."""
    module = write(lambda **more: task(field, value, is_expression=is_expression, **more), kind)
    load(module)
    if kind == "alert" and field == "subject":  # the notifier replaces line breaks
        assert "expression-to-complete" not in codes(module.findings)
        return
    [finding] = [one for one in module.findings if one.code == "expression-to-complete"]
    assert finding.severity is Severity.DECISION
    assert arguments[ARGUMENTS[field]] == f"{{{{ complete_me.{ARGUMENTS[field]} }}}}"


@pytest.mark.parametrize("kind", ["task", "alert", "merge"])
@pytest.mark.parametrize("is_expression", [False, True], ids=["value", "expression"])
@pytest.mark.parametrize(("field", "value", "expected"), ACCEPTED, ids=range(len(ACCEPTED)))
def test_a_field_that_only_dotnet_accepts_is_sent_as_dotnet_reads_it(
    load: Callable[[DagModule], DAG],
    arguments: dict[str, Any],
    field: str,
    value: str,
    expected: str,
    *,
    is_expression: bool,
    kind: str,
) -> None:
    """SSIS sends the mail, so nothing is asked."""
    module = write(lambda **more: task(field, value, is_expression=is_expression, **more), kind)
    load(module)
    assert "expression-to-complete" not in codes(module.findings)
    assert arguments[ARGUMENTS[field]] == expected


@pytest.mark.parametrize("kind", ["task", "alert", "merge"])
@pytest.mark.parametrize("text", ["", " ; "])
def test_an_expression_for_no_recipient_is_no_recipient(
    load: Callable[[DagModule], DAG], arguments: dict[str, Any], text: str, kind: str
) -> None:
    """As with an empty value."""
    module = write(lambda **more: task("to_line", text, is_expression=True, **more), kind)
    load(module)
    assert "no-recipient" in codes(module.findings)
    assert arguments["to"] == "{{ complete_me.to }}"


def test_an_expression_for_no_sender_is_no_sender(load: Callable[[DagModule], DAG], arguments: dict[str, Any]) -> None:
    """As with an empty value."""
    module = write(lambda: task("from_line", "", is_expression=True), "task")
    load(module)
    assert "no-sender" in codes(module.findings)
    assert "from_address" not in arguments


@pytest.mark.parametrize("name", ["self", "tg_factory"])
def test_a_variable_with_the_name_of_an_argument_of_airflow_does_not_keep_the_dag_from_loading(
    load: Callable[[DagModule], DAG], name: str
) -> None:
    """The loop is a task group, whose arguments are the variables."""
    items = ForeachLoop(enumerator="Item", mappings=((0, f"User::{name}"),), items=(("a",), ("b",)))
    inside = (mail("One", PATH, expressions={"Subject": f"@[User::{name}]"}), mail("Two", PATH))
    module = written(loop(*inside, over=items), variables=[variable(name)])
    load(module)
    assert f'"{name}_2": "a"' in module.source
