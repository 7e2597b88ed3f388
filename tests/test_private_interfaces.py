"""Interfaces of Airflow and Jinja that the package uses though they are not public: all are listed and tested.

The list is docs/contributing/private-interfaces.md, a table for each library; these tests compare it with the code.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow import __version__
from jinja2.sandbox import SandboxedEnvironment

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_provider_smtpcm"
AIRFLOW = tuple(map(int, __version__.split(".")[:2]))
#: What Airflow documents beyond `airflow.sdk` itself.
PUBLIC = {
    "airflow.sdk.exceptions",
    "airflow.sdk.bases.decorator.DecoratedOperator",
    "airflow.sdk.bases.decorator.TaskDecorator",
    "airflow.sdk.bases.decorator.task_decorator_factory",
    # README_API.md of the provider for SQL, and its stubs.
    "airflow.providers.common.sql.hooks.sql.DbApiHook",
    "airflow.providers.common.sql.hooks.lineage.send_sql_hook_lineage",
}
#: What was public in Airflow 3.1, and may be asked for only where the newer name is missing.
PUBLIC_IN_3_1 = {"airflow.configuration.conf", "airflow.exceptions", "airflow.lineage.hook"}
#: Names of `airflow.sdk` that Airflow 3.1 or 3.2 lacks.
LATER = {"conf", "lineage"}


@dataclass(frozen=True, slots=True)
class Interface:
    """A row of a table; the owner is its heading."""

    name: str
    owner: str
    modules: tuple[str, ...]
    purpose: str

    @property
    def spelled(self) -> str:
        """The name as the code has it: what an import names, or the last identifier."""
        last = re.findall(r"`([^`]+)`", self.name)[-1]
        return last if last in ("airflow.", "airflow@airflow") or is_imported(last) else re.findall(r"\w+", last)[-1]

    def __str__(self) -> str:
        return self.name.replace("`", "")


def is_imported(name: str) -> bool:
    """Return whether the code imports it by this name."""
    return name == "wtforms" or re.fullmatch(r"airflow(\.\w+)+", name) is not None


def interfaces() -> Iterator[Interface]:
    """Yield the rows."""
    page = (ROOT / "docs/contributing/private-interfaces.md").read_text(encoding="utf-8")
    owner = ""
    for line in page.splitlines():
        if line.startswith("## "):
            owner = line.removeprefix("## ")
        elif line.startswith("| `"):
            name, modules, purpose = (cell.strip() for cell in line.strip("|").split("|"))
            yield Interface(name, owner, tuple(re.findall(r"`([^`]+)`", modules)), purpose)


INTERFACES = list(interfaces())
CHECKS: dict[str, Callable[[], None]] = {}


def check(interface: Interface) -> None:
    """Run the check of an interface; its failure has the row, the owner and the purpose."""
    try:
        CHECKS[str(interface)]()
    except Exception as error:  # noqa: BLE001 - however it shows
        pytest.fail(
            f"{interface.owner} changed this: {interface}, used by {', '.join(interface.modules)}, for "
            f"{interface.purpose} ({type(error).__name__}: {error})"
        )


# --- The list and the code


def spelled_by(tree: ast.AST) -> Iterator[str]:
    """Yield every identifier and text of a module that could be the name of an interface."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=str(word)):
                yield word
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.alias(name=word):
                yield word
            case ast.Constant(value=str(word)):
                yield word


def imported_by(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the full name of each import, and whether it is a fallback for an ImportError."""
    fallbacks = {
        id(node)
        for handler in ast.walk(tree)
        if isinstance(handler, ast.ExceptHandler) and ast.unparse(handler.type or handler) == "ImportError"
        for node in ast.walk(handler)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", id(node) in fallbacks) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in fallbacks) for alias in node.names)


def within(name: str, places: set[str]) -> bool:
    """Return whether a name is one of these, or in one of these modules."""
    return any(f"{name}.".startswith(f"{place}.") for place in places)


MODULES = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each module."""
    return {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


@cache
def module_words() -> dict[str, set[str]]:
    """What each module spells."""
    return {module: set(spelled_by(tree)) for module, tree in trees().items()}


@cache
def module_imports() -> dict[str, list[tuple[str, bool]]]:
    """What each module imports."""
    return {module: list(imported_by(tree)) for module, tree in trees().items()}


def unlisted_imports(module: str, imports: list[tuple[str, bool]]) -> list[str]:
    """Return what a module imports of Airflow that is neither public nor listed for it."""
    listed = {row.spelled for row in INTERFACES if module in row.modules}
    return [
        name
        for name, is_fallback in imports
        if name.partition(".")[0] == "airflow"
        and not re.fullmatch(r"airflow\.sdk\.[A-Za-z]\w*", name)
        and not within(name, PUBLIC)
        and not (is_fallback and within(name, PUBLIC_IN_3_1))
        and not within(name, listed)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_imports_of_airflow_is_public_or_listed(module: str) -> None:
    """A new private import needs a row, and a check."""
    assert unlisted_imports(module, module_imports()[module]) == []


@pytest.mark.parametrize(
    "source",
    [
        "from airflow.sdk._shared.secrets_masker import redact",
        "from airflow.models import DagRun",
        "import airflow.utils.email",
        "from airflow.configuration import conf",
        "from airflow.sdk.log import redact",
    ],
)
def test_an_import_that_is_neither_would_be_noticed(source: str) -> None:
    """So would a name of Airflow 3.1 that is tried first, and one that is listed for another module."""
    assert unlisted_imports("check/page", list(imported_by(ast.parse(source)))) != []


def test_imports_from_the_sdk_are_in_its_all() -> None:
    """Some names joined it after Airflow 3.1."""
    import airflow.sdk

    asked = {name for names in module_imports().values() for name, _ in names if name.count(".") == 2}
    ours = {name.rpartition(".")[2] for name in asked if name.startswith("airflow.sdk.")} - {"exceptions"}
    assert ours - set(airflow.sdk.__all__) <= (LATER if AIRFLOW < (3, 3) else set())


@pytest.mark.parametrize("interface", INTERFACES, ids=str)
def test_an_interface_is_used_in_exactly_the_listed_modules(interface: Interface) -> None:
    """A row is removed with its last use, and a module is added with its first."""
    word = interface.spelled
    if is_imported(word):
        users = {module for module, names in module_imports().items() if any(within(name, {word}) for name, _ in names)}
    else:
        users = {module for module, words in module_words().items() if word in words}
    assert users == set(interface.modules)


def test_every_private_attribute_of_another_library_is_listed() -> None:
    """A private attribute of this package is defined in some module of it."""
    listed = {(module, row.spelled) for row in INTERFACES for module in row.modules}
    defined = {
        (module, node.name)
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    asked = {
        (module, node.attr)
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]", node.attr)
        and ast.unparse(node.value) not in ("self", "cls", "super()")
    }
    ours = {(module, name) for module, name in asked if any(name == own and at != module for at, own in defined)}
    assert asked - ours - listed == set()


# --- The interfaces


def test_every_interface_has_its_check() -> None:
    """And every check its interface."""
    assert sorted(CHECKS) == sorted(map(str, INTERFACES))


@pytest.mark.parametrize("interface", INTERFACES, ids=str)
def test_an_interface_has_not_changed(interface: Interface) -> None:
    """Or the failure names what changed, and where that matters."""
    check(interface)


def test_a_failure_names_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the modules that use it, and the purpose."""
    monkeypatch.delattr("airflow.sdk.log.redact")
    (interface,) = (row for row in INTERFACES if str(row) == "airflow.sdk.log.redact")
    with pytest.raises(pytest.fail.Exception) as caught:
        check(interface)
    assert str(caught.value).startswith(
        "Airflow changed this: airflow.sdk.log.redact, used by notifications/redaction, for masking in an alert what "
        "Airflow knows to be secret (ImportError"
    )


def checks(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the check of an interface."""

    def mark(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS[name] = function
        return function

    return mark


@checks("airflow.sdk.log.redact")
def _redact() -> None:
    from airflow.sdk.log import mask_secret, redact

    mask_secret("private-interface-secret")
    assert redact("PWD=private-interface-secret;") == "PWD=***;"


@checks("airflow.sdk.bases.decorator.determine_kwargs")
@checks("airflow.utils.operator_helpers.determine_kwargs")
def _determine_kwargs() -> None:
    from airflow_provider_smtpcm.decorators.send_mail import determine_kwargs

    def function(first: str, ds: str, *, params: dict[str, str]) -> None: ...

    context = {"ds": "2026-01-31", "params": {}, "ti": None}
    assert determine_kwargs(function, ["given"], context) == {"ds": "2026-01-31", "params": {}}


@checks("airflow.models.Connection")
def _connection() -> None:
    from airflow.models import Connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_PRIVATE_INTERFACE", "smtpcm://mail.corp.example:25")
        found = Connection.get_connection_from_secrets("private_interface")  # noqa: AIR311 - it is what is tried
    made = Connection(uri="smtpcm://mail.corp.example:25")  # noqa: AIR311 - as above
    text = '{"conn_type": "smtpcm", "host": "mail.corp.example", "port": 25}'
    read = Connection.from_json(text)  # noqa: AIR311 - as above
    for connection in (found, made, read):
        assert (connection.conn_type, connection.host, connection.port) == ("smtpcm", "mail.corp.example", 25)


@checks("airflow.utils.session.create_session")
def _create_session() -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        assert callable(session.query(Connection).filter_by(conn_type="smtp").all)  # noqa: AIR311 - as above
        assert callable(session.expunge_all)


@checks("airflow.utils.cli")
def _airflow_cli() -> None:
    from airflow.utils.cli import get_bagged_dag, get_db_dag, suppress_logs_and_warning

    for function in (get_bagged_dag, get_db_dag):
        assert list(inspect.signature(function).parameters)[:2] == ["bundle_names", "dag_id"]
    called = []
    suppress_logs_and_warning(called.append)(Namespace(verbose=False))
    assert len(called) == 1


@checks("airflow.cli.commands.task_command")
def _task_command() -> None:
    from airflow.cli.commands.task_command import _get_dag_run

    asked = {"dag", "create_if_necessary", "logical_date_or_run_id", "session"}
    assert set(inspect.signature(_get_dag_run).parameters) == asked


@checks("airflow.api_fastapi.execution_api.datamodels.taskinstance")
@checks("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance")
@checks("airflow.sdk.execution_time.supervisor")
@checks("_api_client")
def _context_of_a_task() -> None:
    from airflow.sdk import DAG

    from airflow_provider_smtpcm import preview
    from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator

    with DAG("private_interface", schedule=None) as dag:
        OnlyIfOperator(task_id="any", condition="{{ run_id }}")
    run = SimpleNamespace(
        dag_id=dag.dag_id, run_id="r", run_type="manual", state="running", run_after="2026-01-31T00:00:00Z"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow.utils.cli.get_bagged_dag", lambda *_: dag)
        patch.setattr("airflow.utils.cli.get_db_dag", lambda *_: None)
        patch.setattr("airflow.cli.commands.task_command._get_dag_run", lambda **_: (run, True))
        patch.setenv("AIRFLOW_VAR_PRIVATE_INTERFACE", "x")
        given = {"run_id": None, "logical_date": None, "conf": {"y": "z"}, "map_index": -1}
        with preview._task_context("private_interface", "any", **given) as context:
            context["task"].render_template_fields(context)
            assert (context["ti"].task.condition, context["dag_run"].conf) == ("r", {"y": "z"})
            assert context["var"]["value"].private_interface == "x"


@checks("airflow.cli.cli_config")
def _cli_config() -> None:
    import argparse

    from airflow_provider_smtpcm.cli import get_commands

    (group,) = get_commands()
    assert group.name == "smtpcm"
    for command in group.subcommands:
        parser = argparse.ArgumentParser()
        for argument in command.args:
            argument.add_to_parser(parser)
        assert callable(command.func)


@checks("NoOpCollector")
def _no_op_collector() -> None:
    from airflow_provider_smtpcm.operators import _lineage as lineage

    assert lineage._find_collector() is None  # no plugin of the tests reads lineage


@checks("_do_render_template_fields")
def _do_render_template_fields() -> None:
    from airflow.sdk import BaseOperator

    told: list[Any] = []

    class Task(BaseOperator):
        template_fields = ("subject",)
        subject = "{{ 6 * 7 }}"

        def _do_render_template_fields(
            self, parent: Any, template_fields: Any, context: Any, jinja_env: Any, seen_oids: set[int]
        ) -> None:
            told.append((parent is self, tuple(template_fields)))
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    task = Task(task_id="any")
    task.render_template_fields({})
    assert (task.subject, told) == ("42", [(True, ("subject",))])
    # A mapped task renders what it was mapped into by the same method.
    mapped = inspect.getsource(type(Task.partial(task_id="mapped").expand(doc=["x"])))
    assert "._do_render_template_fields(" in mapped


@checks("partial_kwargs")
@checks("expand_input")
@checks("op_kwargs_expand_input")
def _mapped() -> None:
    from airflow.sdk import DAG

    from airflow_provider_smtpcm.decorators.send_mail import send_mail_task
    from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator

    with DAG("private_interface", schedule=None) as dag:
        OnlyIfOperator.partial(task_id="plain", doc="x").expand(condition=["a", "b"])
        send_mail_task(_function, to="a@corp.example").expand(text=["a", "b"])
    plain, decorated = map(dag.task_dict.get, ("plain", "_function"))
    assert (plain.partial_kwargs["doc"], plain.expand_input.value) == ("x", {"condition": ["a", "b"]})
    assert decorated.partial_kwargs["to"] == "a@corp.example"
    assert decorated.op_kwargs_expand_input.value == {"text": ["a", "b"]}


def _function(text: str) -> str:
    return text


@checks("should_retry of _ti_context_from_server")
def _should_retry() -> None:
    from airflow.sdk.execution_time import task_runner

    assert "ti._ti_context_from_server.should_retry" in inspect.getsource(task_runner)
    assert "_ti_context_from_server" in task_runner.RuntimeTaskInstance.__private_attributes__


@checks("_run_task_state_change_callbacks")
@checks("_execute_callbacks")
def _callback_runners() -> None:
    from airflow.dag_processing import processor
    from airflow.sdk.execution_time import task_runner

    for kind in ("on_execute_callback", "on_success_callback", "on_retry_callback", "on_failure_callback"):
        assert f'_run_task_state_change_callbacks(task, "{kind}"' in inspect.getsource(task_runner)
    source = inspect.getsource(processor._execute_callbacks)
    assert "_execute_task_callbacks(" in source
    assert "_execute_dag_callbacks(" in source


@checks("iter_references")
def _iter_references() -> None:
    from airflow.sdk import DAG, literal

    from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator

    with DAG("private_interface", schedule=None) as dag:
        task = OnlyIfOperator(task_id="any", condition=True)
    for value in (task.output, task.output["x"], task.output.map(str), dag.param("x", default=1), literal("{{")):
        assert hasattr(type(value), "iter_references"), type(value)
    assert not hasattr(str, "iter_references")


@checks("iter_mapped_task_groups")
def _iter_mapped_task_groups() -> None:
    from airflow.sdk import DAG, TaskGroup, task_group

    from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator

    with DAG("private_interface", schedule=None) as dag:

        @task_group
        def loop(item: str) -> None:
            OnlyIfOperator(task_id="inside", condition=item)

        loop.expand(item=["a", "b"])
        with TaskGroup("group"):
            OnlyIfOperator(task_id="outside", condition=True)
    inside, outside = map(dag.task_dict.get, ("loop.inside", "group.outside"))
    assert [group.group_id for group in inside.iter_mapped_task_groups()] == ["loop"]
    assert not list(outside.iter_mapped_task_groups())
    assert not inside.is_mapped


@checks("get_template_env")
def _get_template_env() -> None:
    from airflow.sdk import DAG, BaseNotifier, BaseOperator

    dag = DAG("private_interface", schedule=None, user_defined_macros={"ours": 1})
    environments = (
        BaseOperator(task_id="any", dag=dag).get_template_env(),
        BaseNotifier().get_template_env(dag=dag),
    )
    assert [environment.globals["ours"] for environment in environments] == [1, 1]
    assert isinstance(BaseNotifier().get_template_env(), jinja2.Environment)


@checks("overwrite_rtif_after_execution")
def _overwrite_rtif() -> None:
    from airflow.sdk import BaseOperator
    from airflow.sdk.execution_time import task_runner

    assert BaseOperator.overwrite_rtif_after_execution is False
    assert "overwrite_rtif_after_execution" in inspect.getsource(task_runner)


@checks("__module__ that begins with airflow.")
def _module() -> None:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    for kind in (LazyXComSequence, ObjectStoragePath, type(ObjectStoragePath("file:///tmp"))):
        assert kind.__module__.startswith("airflow."), kind.__module__


@checks("get_task_states")
def _get_task_states() -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    assert {"dag_id", "run_ids"} <= set(inspect.signature(RuntimeTaskInstance.get_task_states).parameters)


@checks("error_detail")
def _error_detail() -> None:
    import json

    import structlog
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import process_log_messages_from_subprocess
    from airflow.sdk.log import logging_processors

    file = io.BytesIO()
    log = structlog.wrap_logger(structlog.BytesLogger(file), processors=logging_processors(json_output=True)).bind()
    written = process_log_messages_from_subprocess((log,))
    next(written)
    sent = {"event": "Task failed with exception", "level": "error", "timestamp": "2026-11-25T01:09:12.500000Z"}
    written.send(json.dumps(sent | {"exception": [{"exc_type": "ValueError", "exc_value": "it broke"}]}).encode())
    entry = json.loads(file.getvalue())
    assert (entry["event"], entry["level"]) == (sent["event"], "error")
    assert entry["timestamp"].startswith("2026-11-25T01:09:12")
    assert entry["error_detail"] == [{"exc_type": "ValueError", "exc_value": "it broke"}]
    source = inspect.getsource(task_runner)
    assert '"Task failed with exception"' in source
    assert 'log.error("Task exited", exit_code=' in source


@checks("__await__")
def _await() -> None:
    from airflow.sdk import BaseNotifier

    assert list(inspect.signature(BaseNotifier.__await__).parameters) == ["self"]
    assert list(inspect.signature(BaseNotifier.async_notify).parameters) == ["self", "context"]
    assert hasattr(BaseNotifier(context={"reason": "x"}), "context")  # type: ignore[typeddict-unknown-key]


@checks("airflow@airflow")
def _unset_from_address() -> None:
    from airflow.sdk.execution_time import task_runner

    if AIRFLOW >= (3, 2):
        assert '"airflow@airflow"' in inspect.getsource(task_runner)


@checks("wtforms")
def _wtforms() -> None:
    if AIRFLOW >= (3, 2):  # newer versions read the form from the provider info
        return
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    widget: Any = HookMetaService.MockStringField("Label", validators=[], description="Help", default="")
    assert isinstance(widget.param.schema, dict)


def filled_in(environment: jinja2.Environment, source: str, **variables: Any) -> str:
    """Render a template as `merge.templates` does."""
    template = environment.from_string(source)
    context = environment.context_class(environment, variables, template.name, template.blocks)
    return "".join(template.root_render_func(context))


@checks("root_render_func")
@checks("context_class")
def _root_render_func() -> None:
    assert filled_in(SandboxedEnvironment(), "{{ a }}-{{ b }}", a=1, b=2) == "1-2"


@checks("escape in a compiled template's __globals__")
def _globals_of_a_template() -> None:
    environment = SandboxedEnvironment(autoescape=True)
    template = environment.from_string("{{ a }}")
    names: Any = template.root_render_func.__globals__
    assert names["escape"]("<") == "&lt;"
    names["escape"] = lambda value: f"escaped {value}"
    context = environment.context_class(environment, {"a": "<"}, template.name, template.blocks)
    assert "".join(template.root_render_func(context)) == "escaped <"


@checks("str_join and markup_join in a compiled template")
@checks("Environment.concat")
def _joining() -> None:
    from airflow_provider_smtpcm.arguments.templates import FieldEnvironments

    environments = FieldEnvironments(SandboxedEnvironment())
    constructs = (
        "{{ 'a@x; ' ~ b }}",
        "{% set c %}a@x; {{ b }}{% endset %}{{ c }}",
        "{% macro m() %}a@x; {{ b }}{% endmacro %}{{ m() }}",
    )
    masks = {environments.compile("to", source)({"b": "v"}).mask for source in constructs}
    assert masks == {"a@x; \0"}


@checks("Environment.getattr and Environment.getitem")
def _getattr() -> None:
    environment: Any = SandboxedEnvironment().overlay()
    environment.getattr = lambda value, name: f"attribute {name} of {value}"
    environment.getitem = lambda value, name: f"item {name} of {value}"
    assert filled_in(environment, "{{ row.x }}, {{ row['x'] }}", row="row") == "attribute x of row, item x of row"


@checks("_undefined_message")
def _undefined_message() -> None:
    class Missing(jinja2.StrictUndefined):
        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            return f"{self._undefined_name!r} of {self._undefined_obj!r}"

    with pytest.raises(jinja2.UndefinedError, match="'x' of 'a row'"):
        filled_in(SandboxedEnvironment(undefined=Missing), "{{ row.x }}", row="a row")


@checks("vars of a SandboxedEnvironment")
def _vars_of_an_environment() -> None:
    from jinja2.nativetypes import NativeEnvironment

    native = NativeEnvironment()
    native.globals["ours"] = "1e3"
    text = SandboxedEnvironment()
    vars(text).update(vars(native))
    assert text.overlay().from_string("{{ ours }}").render() == "1e3"


@checks("_getparams")
def _getparams() -> None:
    from aiosmtpd.smtp import SMTP

    assert SMTP._getparams(SimpleNamespace(), ["SIZE=1", "SMTPUTF8"]) == {"SIZE": "1", "SMTPUTF8": True}  # type: ignore[arg-type]


@checks("upper and split of an _AccountName")
def _account_name() -> None:
    import hmac

    from spnego._context import split_username
    from spnego._ntlm_raw.crypto import ntowfv2

    from airflow_provider_smtpcm.smtp.auth.ntlm import _AccountName

    expected = hmac.new(b"hash", "GROßCORP".encode("utf-16-le"), "md5").digest()
    for account in ("CORP\\groß", "groß"):
        _, user = split_username(_AccountName(account))
        assert ntowfv2(user or "", b"hash", "CORP") == expected


@checks("SSLContext._msg_callback")
def _msg_callback() -> None:
    import ssl

    seen: list[tuple[str, int, int]] = []
    context = ssl.create_default_context()

    def note(_: object, direction: str, version: int, content_type: int, kind: int, data: bytes) -> None:
        if content_type == 22:
            seen.append((direction, kind, data[0]))

    context._msg_callback = note  # type: ignore[attr-defined]
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(received, sent, server_hostname="localhost").do_handshake()
    assert seen == [("write", 1, 1)]  # ClientHello


def _make_kerberos_context() -> Any:
    """A context of pyspnego whose tokens come from a context of ours."""
    import spnego

    context: Any = spnego.client(
        "alice@CORP.EXAMPLE", hostname="mail.corp.example", protocol="kerberos", _gssapi_credential=7
    )
    assert (context._credential, context._context, context._is_wrapped) == (7, None, False)
    context._context = SimpleNamespace(step=lambda _: b"our token", actual_flags=0, complete=False)
    return context


@checks("_context and _credential of a Kerberos context")
@checks("_is_wrapped of a Kerberos context")
def _kerberos_context() -> None:
    pytest.importorskip("gssapi")
    assert _make_kerberos_context().step() == b"our token"


@checks("spnego.client with _negotiate_contexts")
def _negotiate_contexts() -> None:
    pytest.importorskip("gssapi")
    import spnego
    from spnego._context import GSSMech
    from spnego._spnego import NegTokenInit, unpack_token

    kerberos = _make_kerberos_context()
    kerberos._is_wrapped = True
    options = spnego.NegotiateOptions.use_negotiate
    outer = spnego.client(protocol="negotiate", options=options, _negotiate_contexts={GSSMech.kerberos: kerberos})
    token = unpack_token(outer.step() or b"")
    assert isinstance(token, NegTokenInit)
    assert (token.mech_types, token.mech_token) == ([GSSMech.kerberos.value], b"our token")
