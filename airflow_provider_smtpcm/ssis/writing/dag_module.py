"""Writes an SSIS package as a Python module with one DAG."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import DatabaseConnection, Finding, Package, Project, Severity, SmtpConnection
from airflow_provider_smtpcm.ssis.windows_paths import PathMap
from airflow_provider_smtpcm.ssis.writing.alerts import ON_EXECUTE
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry, SmtpConverter
from airflow_provider_smtpcm.ssis.writing.control_flow import ControlFlowWriter
from airflow_provider_smtpcm.ssis.writing.conversion import (
    ConversionOptions,
    DagModule,
    MailRecord,
    WritingContext,
)
from airflow_provider_smtpcm.ssis.writing.database_connections import DatabaseConverter
from airflow_provider_smtpcm.ssis.writing.event_handlers import Callbacks, EventHandlerWriter, report_mails_left_out
from airflow_provider_smtpcm.ssis.writing.flow import sends_mail
from airflow_provider_smtpcm.ssis.writing.precedence import DagNode, MappedGroup
from airflow_provider_smtpcm.ssis.writing.python_source import (
    FunctionCall,
    Raw,
    Source,
    UniqueNames,
    WithItem,
    docstring_lines,
    keywords,
    make_dag_id,
)
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize, sanitize_line
from airflow_provider_smtpcm.ssis.writing.simplify import leave_out_unreachable, settle_properties
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable
from airflow_provider_smtpcm.ssis.writing.templates import mark_passwords

_PROVIDER = "airflow_provider_smtpcm"
_EMPTY_OPERATOR_IMPORT = "from airflow.providers.standard.operators.empty import EmptyOperator"
# The modules of this package that a DAG module may import, and the names that it uses of each; both sorted.
_PROVIDER_IMPORTS = {
    "notifications.send_mail": ("SendMailNotifier",),
    "operators.mail_merge": ("MailMergeOperator",),
    "operators.only_if": ("OnlyIfOperator",),
    "operators.send_mail": ("SendMailOperator",),
    "operators.ssis": ("ExpressionOperator", "ListFilesOperator", "PlaceholderOperator"),
    "ssis": ("macros",),
    "ssis.live_values": ("TypedTemplate",),
    "ssis.macros": ("read_message_file",),
    "ssis.sql_results": ("fetch_results", "full_result_set", "no_result_set", "result_rows", "single_row"),
}
_IMPORT_WIDTH = 88
_SQL_OPERATOR_IMPORT = "from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator"
# Maximum decisions in the docstring; the report has all of them.
_MAX_DECISIONS = 60
# Maximum places that are named for each decision.
_MAX_PLACES = 4
# A DAG file of this name would shadow the real module for every script in the DAGs folder.
_RESERVED_MODULE_NAMES = {*sys.stdlib_module_names, "airflow", _PROVIDER}


def _file_stem(dag_id: str) -> str:
    return f"{dag_id}_package" if dag_id in _RESERVED_MODULE_NAMES else dag_id


class DagIds:
    """Allocates the DAG ids of one import; they are also file names, so they are unique regardless of case."""

    def __init__(self) -> None:
        self._file_stems = UniqueNames({_file_stem(name) for name in _RESERVED_MODULE_NAMES})

    def allocate(self, package: Package, project: Project | None = None) -> str:
        """Return the DAG id of a package: the name of its file; if taken, prefixed with the project or numbered."""
        dag_id = make_dag_id(package.file_stem)
        if project is None or self._file_stems.is_free(dag_id):
            return self._file_stems.allocate(dag_id)
        return self._file_stems.allocate(make_dag_id(f"{project.name}_{package.file_stem}"))


def write_package(
    package: Package,
    connections: ConnectionRegistry,
    options: ConversionOptions,
    *,
    dag_ids: DagIds | None = None,
    project: Project | None = None,
    paths: PathMap | None = None,
) -> DagModule:
    """Return the DAG module of a package; its source is empty if the package sends no mail.

    Args:
        connections: the connections of the whole import; every connection manager of the package is registered there.
        options: the options of the import.
        dag_ids: the DAG ids of the whole import, so that no two packages get the same file; None for a single package.
        project: the package's project, for its parameters.
        paths: the path map of the whole import, which collects the unused prefixes; None for a single package.
    """
    findings = Findings(options.answers)
    for finding in package.findings:
        findings.add(finding)
    original, package = package, leave_out_unreachable(package, findings)
    dag_id = (dag_ids or DagIds()).allocate(package, project) if sends_mail(package.root) else ""
    symbols = _create_symbols(package, project, findings, dag_id)
    package = symbols.package
    scope = symbols.root_scope()
    databases: dict[str, None] = {}

    def get_conn_id(connection: SmtpConnection | DatabaseConnection) -> str:
        if isinstance(connection, SmtpConnection):
            return connections.register(SmtpConverter(connection, symbols, scope, options))
        conn_id = connections.register(DatabaseConverter(connection, symbols, scope, options))
        databases[conn_id] = None
        return conn_id

    context = WritingContext(
        symbols=symbols,
        findings=findings,
        paths=paths or PathMap(options.path_map),
        placeholders_pass=options.placeholders_pass,
        get_conn_id=get_conn_id,
    )
    for connection in package.connection_managers:
        context.get_conn_id(connection)
    if not dag_id:
        report_mails_left_out(package, findings, ())
        return DagModule(
            file_name="",
            dag_id="",
            source="",
            findings=findings.all(),
            mails=_in_package_order((), original),
        )
    if dag_id != make_dag_id(package.file_stem):
        findings.note(
            "dag-id-taken",
            "Package",
            f"Another package named {package.file_stem!r} was read before, so the id of this DAG is {dag_id!r}.",
            "Which of them gets the name depends on what is imported together: always import both, or always only one.",
        )
    if package.name != package.file_stem:
        findings.note(
            "package-name-differs",
            "Package",
            f"The package's own name, {package.name!r}, is not that of its file. The DAG is named after the file, as "
            "in the catalog and for dtexec; System::PackageName is the package's own name, as in SSIS.",
        )
    variable_names = UniqueNames.for_variables()
    handlers = EventHandlerWriter(context, variable_names)
    writer = ControlFlowWriter(context, variable_names, handlers)
    callbacks = handlers.convert_callbacks(package.root, scope, Callbacks())
    at_start = callbacks.own.pop(ON_EXECUTE, ())
    remedy = "If it is needed, send it from the DAG's first task."
    handlers.report_without_place(at_start, package.root, "A DAG has no callback for its start", remedy)
    nodes = writer.convert(package.root, scope, callbacks, may_be_skipped=False)
    if writer.runs_after_failures:
        nodes.append(_end_of_package(writer, nodes))
    handlers.report_unplaced()
    report_mails_left_out(package, findings, handlers.mails)
    all_findings = findings.all()
    dag = DagNode(variable="dag", call=_dag_call(package, dag_id, context, callbacks), children=nodes)
    return DagModule(
        file_name=f"{_file_stem(dag_id)}.py",
        dag_id=dag_id,
        source=_module_source(
            _docstring(package, all_findings, writer),
            dag,
            writer,
            handlers,
        ),
        findings=all_findings,
        mails=_in_package_order((*writer.mails, *handlers.mails), original),
        connections=tuple(context.used_connections),
        databases=tuple(databases),
    )


def _create_symbols(package: Package, project: Project | None, findings: Findings, dag_id: str) -> SymbolTable:
    """Return the symbols of a package, in which the values of expressions have replaced those of some properties."""
    symbols = SymbolTable(package=package, project=project, findings=findings, dag_id=dag_id)
    if dag_id and (settled := settle_properties(package, symbols)) is not package:
        symbols = SymbolTable(package=settled, project=project, findings=findings, dag_id=dag_id)
    mark_passwords(symbols)
    return symbols


def _module_source(
    docstring: Iterable[str], dag: DagNode, writer: ControlFlowWriter, handlers: EventHandlerWriter
) -> str:
    nodes = dag.children or []
    source = Source()
    source.lines += docstring_lines(docstring)
    source.blank()
    _write_imports(source, writer, handlers, nodes)
    for notifier in handlers.notifiers:
        source.blank()
        source.comment(notifier.comment)
        source.statement(f"{notifier.name} = ", notifier.call)
    source.blank()
    _write_group(source, dag, {"dag", *_used_variables(nodes)}, 0)
    return source.text()


def _end_of_package(writer: ControlFlowWriter, nodes: Sequence[DagNode]) -> DagNode:
    """Return a task that fails if any executable failed.

    Airflow derives the state of a run from its leaf tasks: a failure mail that is sent would make the run a success.
    """
    return DagNode(
        call=writer.create_task("EmptyOperator", "package_end", "package_end", keywords(trigger_rule="none_failed")),
        upstream=[variable for node in nodes for variable in node.executable_variables()],
        comment="Fails the run if a task failed, even if later tasks succeeded, as in SSIS.",
        variable=writer.variable_names.allocate("package_end"),
    )


def _docstring(package: Package, findings: Sequence[Finding], writer: ControlFlowWriter) -> Iterable[str]:
    """Yield the paragraphs of the module's docstring."""
    name = PurePosixPath(PureWindowsPath(package.path.rpartition("!")[2]).name).name
    yield f"Mail of the SSIS package {sanitize_line(name or package.name)}."
    text = "Each Send Mail task is a SendMailOperator, and each mail of an event handler is a SendMailNotifier."
    if "PlaceholderOperator" in writer.operators and writer.context.placeholders_pass:
        text += " A PlaceholderOperator succeeds and does nothing (--placeholders pass); put a task with the same work "
        text += "in its place."
    elif "PlaceholderOperator" in writer.operators:
        text += " A PlaceholderOperator fails until a task with the same work takes its place."
    yield text
    decisions = _merge_findings(finding for finding in findings if finding.severity is not Severity.NOTE)
    if decisions:
        lines = [f"* {decision}" for decision in decisions[:_MAX_DECISIONS]]
        omitted = len(decisions) - _MAX_DECISIONS
        more = [f"* and {omitted} more: see the report."] if omitted > 0 else []
        yield "\n".join(["To review:", *lines, *more])


def _merge_findings(findings: Iterable[Finding]) -> list[str]:
    """Return one line for all findings with the same text, beginning with their places."""
    places_by_text: dict[str, list[str]] = {}
    for finding in findings:
        places_by_text.setdefault(f"{finding.text} {finding.remedy}".strip(), []).append(finding.where)
    lines = []
    for text, places in places_by_text.items():
        more = f" and {len(places) - _MAX_PLACES} more" if len(places) > _MAX_PLACES else ""
        lines.append(sanitize_line(f"{', '.join(places[:_MAX_PLACES])}{more}: {text}"))
    return lines


def _write_imports(
    source: Source, writer: ControlFlowWriter, handlers: EventHandlerWriter, nodes: Sequence[DagNode]
) -> None:
    if "timedelta" in writer.context.imports:
        source.lines += ["from datetime import timedelta", ""]
    if "SQLExecuteQueryOperator" in writer.operators:
        source.lines.append(_SQL_OPERATOR_IMPORT)
    if "EmptyOperator" in writer.operators:
        source.lines.append(_EMPTY_OPERATOR_IMPORT)
    names = sorted({"DAG", *(call for call in _group_calls(nodes))})
    source.lines.append(f"from airflow.sdk import {', '.join(names)}")
    used = (
        writer.operators
        | writer.context.macros
        | writer.context.imports
        | ({"SendMailNotifier"} if handlers.notifiers else set())
    )
    used = {"macros" if name == "ssis" else name for name in used}  # templates have the module as `ssis`
    # In one block with Airflow's imports: to a linter in a DAGs folder, both are third-party packages.
    for module, known in _PROVIDER_IMPORTS.items():
        if names := [name for name in known if name in used]:
            line = f"from {_PROVIDER}.{module} import {', '.join(names)}"
            # As ruff and isort write it with their default line length.
            wrapped = [f"from {_PROVIDER}.{module} import (", *(f"    {name}," for name in names), ")"]
            source.lines += [line] if len(line) <= _IMPORT_WIDTH else wrapped


def _dag_call(package: Package, dag_id: str, context: WritingContext, callbacks: Callbacks) -> FunctionCall:
    arguments = keywords(dag_id=dag_id)
    if package.file_stem != dag_id:
        arguments += keywords(dag_display_name=sanitize_line(package.file_stem))
    if package.root.description.strip():
        arguments += keywords(description=sanitize(package.root.description))
    arguments += keywords(schedule=None, catchup=False)
    if context.symbols.params.defaults:
        arguments += keywords(params=context.symbols.params.defaults)
    arguments += callbacks.as_default_args()
    arguments += Callbacks(own=callbacks.own).as_arguments()
    if context.macros:
        values = {"ssis": Raw("macros"), "read_message_file": Raw("read_message_file")}
        used = {name: values[name] for name in sorted(context.macros)}
        arguments += keywords(user_defined_macros=used)
    arguments += keywords(tags=["ssis"])
    return FunctionCall("DAG", arguments)


def _used_variables(nodes: Sequence[DagNode]) -> Iterable[str]:
    """Yield the variables on either side of a `>>`; tasks that no dependency names are not assigned to a variable."""
    for node in nodes:
        yield from node.upstream
        yield from node.uses
        if node.upstream:
            yield node.variable
        yield from _used_variables(node.children or ())


def _group_calls(nodes: Iterable[DagNode]) -> Iterable[str]:
    """Yield `TaskGroup` or `task_group` for each task group, whichever creates it."""
    for node in nodes:
        if node.children is not None and node.call is not None:
            yield node.call.name
            yield from _group_calls(node.children)


def _write_nodes(source: Source, nodes: Sequence[DagNode], used: set[str], depth: int) -> None:
    for node in nodes:
        if node.children is not None:
            if node.mapped is not None:
                _write_mapped_group(source, node, node.mapped, used, depth)
            else:
                _write_group(source, node, used, depth)
            source.blank()
            continue
        if node.comment:
            source.comment(node.comment, depth)
        if node.call is not None:
            source.statement(f"{node.variable} = " if node.variable in used else "", node.call, depth=depth)
    if any(node.upstream for node in nodes):
        source.blank()
        for node in nodes:
            if node.upstream:
                source.dependency(node.upstream, node.variable, depth)


def _write_group(source: Source, node: DagNode, used: set[str], depth: int) -> None:
    """Write a group as a `with` statement. If its only node is another group, the same statement opens that too."""
    chain = [node]
    while (children := chain[-1].children) and len(children) == 1 and _is_plain_group(children[0]):
        chain += children
    items = [
        WithItem(
            call=group.call or FunctionCall("TaskGroup"),
            name=group.variable if group.variable in used else "",
            comment=group.comment,
        )
        for group in chain
    ]
    source.with_statement(items, depth)
    _write_nodes(source, chain[-1].children or [], used, depth + 1)


def _is_plain_group(node: DagNode) -> bool:
    return node.children is not None and node.mapped is None


def _write_mapped_group(source: Source, node: DagNode, mapped: MappedGroup, used: set[str], depth: int) -> None:
    """Write a mapped task group as a function, and the statement that expands it."""
    if not source.lines[-1].endswith(":"):  # the formatter removes an empty line at the beginning of a block
        source.blank()
    if node.comment:
        source.comment(node.comment, depth)
    source.statement("@", node.call, depth=depth)
    source.function(mapped.function, mapped.parameters, depth)
    _write_nodes(source, node.children or [], used, depth + 1)
    source.blank()
    assigned = f"{node.variable} = " if node.variable in used else ""
    source.statement(
        assigned, FunctionCall(f"{mapped.function}.expand_kwargs", keywords(kwargs=mapped.rows)), depth=depth
    )


def _in_package_order(mails: Sequence[MailRecord], package: Package) -> tuple[MailRecord, ...]:
    """Return a record of every mail, in the order of the package, including those that are not in the DAG."""
    known = {(mail.where, mail.event): mail for mail in mails}
    ordered = []
    for task, handler in package.walk_mail_tasks():
        where, event = task.where, "" if handler is None else handler.event_name
        disabled_because = task.disabled_because or (where if task.disabled else "")
        ordered.append(
            known.get((where, event)) or MailRecord(where=where, event=event, disabled_because=disabled_because)
        )
    return tuple(ordered)
