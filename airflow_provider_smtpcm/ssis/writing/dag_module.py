"""Writes a package as a module of Python that holds its DAG."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from airflow_provider_smtpcm.ssis.model import Finding, Package, Project, Severity
from airflow_provider_smtpcm.ssis.output import clean, on_one_line
from airflow_provider_smtpcm.ssis.writing.connections import Connections
from airflow_provider_smtpcm.ssis.writing.field_writer import PathMap, Shared
from airflow_provider_smtpcm.ssis.writing.flow import Flow, sends_mail
from airflow_provider_smtpcm.ssis.writing.handlers import EXECUTE, Callbacks, Handlers
from airflow_provider_smtpcm.ssis.writing.outcome import Findings, MailRecord, Options, WrittenModule
from airflow_provider_smtpcm.ssis.writing.precedence import Node
from airflow_provider_smtpcm.ssis.writing.source import (
    Argument,
    Call,
    ManagedCall,
    Raw,
    Source,
    Unique,
    dag_id_of,
    docstring,
    variables,
)
from airflow_provider_smtpcm.ssis.writing.symbols import Names

_EMPTY = "from airflow.providers.standard.operators.empty import EmptyOperator"
_PACKAGE = "airflow_provider_smtpcm"
_OURS = {
    "SendMailNotifier": f"from {_PACKAGE}.notifications.send_mail import SendMailNotifier",
    "OnlyIfOperator": f"from {_PACKAGE}.operators.only_if import OnlyIfOperator",
    "SendMailOperator": f"from {_PACKAGE}.operators.send_mail import SendMailOperator",
    "ssis": f"from {_PACKAGE}.ssis import macros",
    "read_message_file": f"from {_PACKAGE}.ssis.message_file import read_message_file",
}
_LISTED = 60
_PLACES = 4


# A DAG's file that is called so hides Python's own module from whoever runs a file beside it.
_SHADOWS = {*sys.stdlib_module_names, "airflow", _PACKAGE}


def _file_of(dag_id: str) -> str:
    return f"{dag_id}_package" if dag_id in _SHADOWS else dag_id


class ModuleNames:
    """The ids of the DAGs of one import, which are the names of their files: each is given once, in any case."""

    def __init__(self) -> None:
        self._unique = Unique({_file_of(name) for name in _SHADOWS})

    def give(self, package: Package, project: Project | None = None) -> str:
        """The id of the package's DAG: its name; or, where that is taken, with the project's before it or a number."""
        plain = dag_id_of(package.name)
        if project is None or self._unique.is_free(plain):
            return self._unique.give(plain)
        return self._unique.give(dag_id_of(f"{project.name}_{package.name}"))


def write_package(
    package: Package,
    connections: Connections,
    options: Options,
    *,
    names: ModuleNames | None = None,
    project: Project | None = None,
) -> WrittenModule:
    """The module of a package.

    Args:
        package: from the reader.
        connections: of the whole import; gets the connection managers of the package.
        options: what a person decided.
        names: of the whole import, so that no two packages write one file.
        project: that the package belongs to, for its parameters.
    """
    findings = Findings()
    shared = Shared(
        names=Names(package=package, project=project, findings=findings),
        connections=connections,
        paths=PathMap(options.path_map),
        findings=findings,
    )
    scope = shared.root_scope = shared.names.root()
    for connection in package.connection_managers:
        shared.connection_id(connection)
    if not sends_mail(package.root):
        mails = _with_rest((), package)
        return WrittenModule(
            file_name="", dag_id="", source="", findings=(*package.findings, *findings.all()), mails=mails
        )
    dag_id = (names or ModuleNames()).give(package, project)
    if dag_id != dag_id_of(package.name):
        findings.note(
            "dag-id-taken",
            "Package",
            f"Another package has the name '{package.name}', and was read before; this DAG is '{dag_id}'.",
            "Which of them has the name depends on what is imported together: import both again, or neither.",
        )
    unique = variables()
    handlers = Handlers(shared, unique)
    flow = Flow(shared, unique, handlers)
    callbacks = handlers.of(package.root, scope, Callbacks())
    if callbacks.own.pop(EXECUTE, None):
        findings.decision(
            "callback-without-place",
            "Package",
            "A DAG has no callback for its start, so the alert of OnPreExecute is defined and not called.",
            "Send it from a first task, if it is needed.",
        )
    nodes = flow.level(package.root, scope, callbacks, may_not_run=False)
    if flow.goes_on_after_failures:
        rule = Argument(name="trigger_rule", value="none_failed")
        end = flow.task("EmptyOperator", "package_end", "package_end", (rule,))
        before = [name for node in nodes for name in node.tasks()]
        comment = "What failed lets the run fail, as it lets the package fail, whatever came after it."
        nodes.append(Node(name=unique.give("package_end"), call=end, comment=comment, before=before))
    all_findings = (*package.findings, *findings.all())
    source = Source()
    source.lines += docstring(_header(package, all_findings))
    source.blank()
    _imports(source, flow.operators, shared.macros, bool(handlers.notifiers), _has_groups(nodes))
    for notifier in handlers.notifiers:
        source.blank()
        source.comment(notifier.comment)
        source.statement(f"{notifier.name} = ", notifier.call)
    source.blank()
    dag = Node(name="dag", call=_dag(package, dag_id, shared, callbacks), inside=nodes)
    _write_group(source, dag, {"dag", *_used(nodes)}, 0)
    return WrittenModule(
        file_name=f"{_file_of(dag_id)}.py",
        dag_id=dag_id,
        source=source.text(),
        findings=all_findings,
        mails=_with_rest((*flow.mails, *handlers.mails), package),
        connections=tuple(shared.used_connections),
    )


def _header(package: Package, findings: Sequence[Finding]) -> Iterable[str]:
    name = PurePosixPath(PureWindowsPath(package.path.rpartition("!")[2]).name).name
    yield f"Mail of the SSIS package {on_one_line(name or package.name)}."
    yield (
        "Each Send Mail task is a SendMailOperator, each mail of an event handler a SendMailNotifier. Tasks that send "
        "no mail are empty: they keep the order until something takes their place."
    )
    decisions = _together(one for one in findings if one.severity is not Severity.NOTE)
    if decisions:
        lines = [f"* {one}" for one in decisions[:_LISTED]]
        more = [f"* and {len(decisions) - _LISTED} more, in the report."] if len(decisions) > _LISTED else []
        yield "\n".join(["To be looked at:", *lines, *more])


def _together(findings: Iterable[Finding]) -> list[str]:
    """One line for all that say the same."""
    places: dict[str, list[str]] = {}
    for one in findings:
        places.setdefault(f"{one.text} {one.remedy}".strip(), []).append(one.where)
    lines = []
    for text, found in places.items():
        more = f" and {len(found) - _PLACES} more" if len(found) > _PLACES else ""
        lines.append(on_one_line(f"{', '.join(found[:_PLACES])}{more}: {text}"))
    return lines


def _imports(source: Source, operators: set[str], macros: set[str], notifies: bool, groups: bool) -> None:  # noqa: FBT001
    if "EmptyOperator" in operators:
        source.lines.append(_EMPTY)
    source.lines.append("from airflow.sdk import DAG, TaskGroup" if groups else "from airflow.sdk import DAG")
    used = operators | macros | ({"SendMailNotifier"} if notifies else set())
    # In one block with Airflow's: where DAGs are written, both are other people's.
    source.lines += [line for name, line in _OURS.items() if name in used]


def _dag(package: Package, dag_id: str, shared: Shared, callbacks: Callbacks) -> Call:
    arguments = [Argument(name="dag_id", value=dag_id)]
    if package.name != dag_id:
        arguments.append(Argument(name="dag_display_name", value=on_one_line(package.name)))
    if package.root.description.strip():
        arguments.append(Argument(name="description", value=clean(package.root.description)))
    arguments += [Argument(name="schedule", value=None), Argument(name="catchup", value=False)]
    if shared.names.params.defaults:
        arguments.append(Argument(name="params", value=shared.names.params.defaults))
    arguments += callbacks.arguments(tasks=True)
    arguments += Callbacks(own=callbacks.own).arguments(tasks=False)
    if shared.macros:
        known = {"ssis": Raw("macros"), "read_message_file": Raw("read_message_file")}
        used = {name: known[name] for name in sorted(shared.macros)}
        arguments.append(Argument(name="user_defined_macros", value=used))
    arguments.append(Argument(name="tags", value=["ssis"]))
    return Call(name="DAG", arguments=arguments)


def _used(nodes: Sequence[Node]) -> Iterable[str]:
    """The variables that arrows need."""
    for node in nodes:
        yield from node.before
        if node.before:
            yield node.name
        yield from _used(node.inside or ())


def _write(source: Source, nodes: Sequence[Node], used: set[str], depth: int) -> None:
    for node in nodes:
        if node.inside is not None:
            _write_group(source, node, used, depth)
            source.blank()
            continue
        if node.comment:
            source.comment(node.comment, depth)
        if node.call is not None:
            source.statement(f"{node.name} = " if node.name in used else "", node.call, depth=depth)
    if any(node.before for node in nodes):
        source.blank()
        for node in nodes:
            if node.before:
                source.arrow(node.before, node.name, depth)


def _write_group(source: Source, node: Node, used: set[str], depth: int) -> None:
    """A `with` statement: one of several, where each is alone in the one around it."""
    chain = [node]
    while (inside := chain[-1].inside) and len(inside) == 1 and inside[0].inside is not None:
        chain += inside
    items = [
        ManagedCall(
            call=one.call or Call(name="TaskGroup"), name=one.name if one.name in used else "", comment=one.comment
        )
        for one in chain
    ]
    source.managed(items, depth)
    _write(source, chain[-1].inside or [], used, depth + 1)


def _has_groups(nodes: Sequence[Node]) -> bool:
    return any(node.inside is not None for node in nodes)


def _with_rest(mails: Sequence[MailRecord], package: Package) -> tuple[MailRecord, ...]:
    """With those that are in no DAG, in the order of the package."""
    known = {(one.where, one.event): one for one in mails}
    found = []
    for task, handler in package.walk_mail_tasks():
        where, event = "\\".join(task.path), "" if handler is None else handler.event_name
        because = task.disabled_because or (where if task.disabled else "")
        found.append(known.get((where, event)) or MailRecord(where=where, event=event, disabled_because=because))
    return tuple(found)
