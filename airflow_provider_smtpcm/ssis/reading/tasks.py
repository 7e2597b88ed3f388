"""Reads tasks: Send Mail, Execute SQL and Expression tasks, and which variables all others set and read.

A Script task and a script component list their variables. A component of a data flow names a variable in a property.
Other tasks name the variables that get their output. For a task that SSIS does not ship, all data is searched for names
of variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from airflow_provider_smtpcm.ssis.expressions import find_variables, parse
from airflow_provider_smtpcm.ssis.findings import ask_for_connection_manager
from airflow_provider_smtpcm.ssis.model import (
    DatabaseConnection,
    Executable,
    ExpressionTask,
    FileConnection,
    MessageSourceType,
    OtherTask,
    ResultSetType,
    Severity,
    SmtpConnection,
    SqlParameter,
    SqlResult,
    SqlSourceType,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.reading.context import CommonFields, ReadContext
from airflow_provider_smtpcm.ssis.reading.scripts import find_updated, read_assignments
from airflow_provider_smtpcm.ssis.reading.xml import LOCKED_VARIABLE, Element, find_object_data, is_true, parse_integer


def read_task(element: Element, kind: str, context: ReadContext, common: CommonFields) -> Executable:
    """Return a task that sends no mail.

    Args:
        element: the task.
        kind: its CreationName.
        context: the connection managers and the configurations.
        common: the fields that all executables have.
    """
    if _is_sql_kind(kind):
        data = find_object_data(element, "SqlTaskData") or Element(tag="SqlTaskData")
        return SqlTask(**common, kind=kind, **_read_sql(data, common["path"], context))
    if _is_expression_kind(kind):
        return _read_expression_task(element, kind, context, common)
    object_data = element.find("ObjectData") or Element(tag="ObjectData")
    return read_other_task(object_data.children, kind, common, reads_scripts=context.sends_mail)


# --- Send Mail tasks

_MESSAGE_SOURCES = {
    "directinput": MessageSourceType.DIRECT_INPUT,
    "fileconnection": MessageSourceType.FILE_CONNECTION,
    "variable": MessageSourceType.VARIABLE,
    "0": MessageSourceType.DIRECT_INPUT,
    "1": MessageSourceType.FILE_CONNECTION,
    "2": MessageSourceType.VARIABLE,
}
# If one of these properties has an expression, the task was configured, even if all of its values are empty.
_MAIL_EXPRESSIONS = {
    "SmtpConnection",
    "FromLine",
    "ToLine",
    "CCLine",
    "BCCLine",
    "Subject",
    "MessageSource",
    "FileAttachments",
}


class MailFields(TypedDict):
    """The fields of a `SendMailTask` from its ObjectData."""

    connection: SmtpConnection | None
    connection_reference: str
    from_line: str
    to_line: str
    cc_line: str
    bcc_line: str
    subject: str
    message_source_type: MessageSourceType
    message_source: str
    message_file: FileConnection | None
    priority: str
    file_attachments: str
    has_unreadable_data: bool
    is_unconfigured: bool


def read_mail(element: Element, path: tuple[str, ...], context: ReadContext, common: CommonFields) -> MailFields:
    """Return the properties of a Send Mail task.

    Findings report properties that cannot be read or were never filled in, and missing connection managers.

    Args:
        element: the task.
        path: its path.
        context: resolves references, and collects the findings.
        common: the fields that all executables have.
    """
    data = _find_data(element)
    expressions, disabled = common["expressions"], common["disabled"]
    if data is None:
        context.add_finding(
            "unreadable-mail",
            Severity.NOTE if disabled else Severity.ERROR,
            path,
            "The task's own properties are missing or encrypted; only its expressions could be read.",
            "Save the package with ProtectionLevel DontSaveSensitive and import it again.",
        )

    def read(attribute: str, property_name: str, default: str = "") -> str:
        value = data.attributes.get(attribute, default) if data is not None else default
        return context.overrides.task_property(path, property_name, value)

    reference = read("SMTPServer", "SmtpConnection").strip()
    connection = context.find_connection_manager(reference)
    source_type = _read_source_type(read("MessageSourceType", "MessageSourceType"), path, context)
    source = read("MessageSource", "MessageSource")
    file = None
    if source_type is MessageSourceType.FILE_CONNECTION:
        file = context.find_connection_manager(source)
        if not isinstance(file, FileConnection) and "MessageSource" not in expressions:
            context.add_finding(
                "dangling-file-connection",
                Severity.NOTE if disabled else Severity.DECISION,
                path,
                "The text comes from a file, but neither the package nor its project has a File connection manager "
                f"{source!r}.",
                "Write the path of the file in the DAG.",
            )
    attachments = () if data is None else data.find_all("Attachments")
    files = "|".join(name for attachment in attachments if (name := attachment.attributes.get("FileName", "")).strip())
    fields = MailFields(
        connection=connection if isinstance(connection, SmtpConnection) else None,
        connection_reference=reference,
        from_line=read("From", "FromLine"),
        to_line=read("To", "ToLine"),
        cc_line=read("CC", "CCLine"),
        bcc_line=read("BCC", "BCCLine"),
        subject=read("Subject", "Subject"),
        message_source_type=source_type,
        message_source=source,
        message_file=file if isinstance(file, FileConnection) else None,
        priority=read("Priority", "Priority", "Normal"),
        file_attachments=context.overrides.task_property(path, "FileAttachments", files),
        has_unreadable_data=data is None,
        is_unconfigured=False,
    )
    if data is not None and _is_unconfigured(fields, expressions):
        context.add_finding(
            "unconfigured-mail",
            Severity.NOTE if disabled else Severity.DECISION,
            path,
            "The Send Mail task was never configured: it has no connection manager, addresses, subject or text. SSIS "
            "fails here.",
            "Delete its task from the DAG, or complete it.",
        )
        return {**fields, "is_unconfigured": True}
    if not isinstance(connection, SmtpConnection) and data is not None and "SmtpConnection" not in expressions:
        _report_missing_connection(reference, path, context, disabled=disabled)
    return fields


def _find_data(element: Element) -> Element | None:
    """Return the `SendMailTaskData`; None if it is missing or encrypted.

    The ObjectData of a task that was dropped on the designer and never opened can be empty.
    """
    object_data = element.find("ObjectData")
    if object_data is not None and not object_data.children and not object_data.text.strip():
        return Element(tag="SendMailTaskData")
    return find_object_data(element, "SendMailTaskData")


def _is_unconfigured(fields: MailFields, expressions: Mapping[str, str]) -> bool:
    values = (
        fields["connection_reference"],
        fields["from_line"],
        fields["to_line"],
        fields["cc_line"],
        fields["bcc_line"],
        fields["subject"],
        fields["message_source"],
        fields["file_attachments"],
    )
    return not any(value.strip() for value in values) and _MAIL_EXPRESSIONS.isdisjoint(expressions)


def _read_source_type(value: str, path: tuple[str, ...], context: ReadContext) -> MessageSourceType:
    source_type = _MESSAGE_SOURCES.get(value.strip().lower() or "directinput")
    if source_type is None:
        context.add_finding(
            "unknown-message-source-type",
            Severity.DECISION,
            path,
            f"MessageSourceType is {value!r}, which SSIS does not define; DirectInput was used.",
            "Check where the text of the mail should come from.",
        )
    return source_type or MessageSourceType.DIRECT_INPUT


def _report_missing_connection(reference: str, path: tuple[str, ...], context: ReadContext, *, disabled: bool) -> None:
    candidates = context.package_connections.smtp or context.project_connections.smtp
    where = "package" if context.package_connections.smtp else "project"
    if len(candidates) == 1:
        name = candidates[0].name
        remedy = f"The {where} has one SMTP connection manager, {name!r}; use it if it is the intended one."
    elif candidates:
        names = ", ".join(repr(candidate.name) for candidate in candidates[:10])
        remedy = f"Choose one of the {where}'s SMTP connection managers: {names}."
    else:
        remedy = (
            "Import the package together with its project, which may contain the connection manager, or set "
            "smtpcm_conn_id in the DAG."
        )
    severity = Severity.NOTE if disabled else Severity.DECISION
    others = context.package_connections.others
    other = others.get(reference) or others.get(reference.upper())
    if not reference:
        text = "The task has no SMTP connection manager; SSIS fails here."
        context.add_finding("no-connection-manager", severity, path, text, remedy)
    elif other or context.find_connection_manager(reference):
        text = f"The task refers to {other or reference!r}, which is not an SMTP connection manager; SSIS fails here."
        context.add_finding("connection-manager-not-smtp", severity, path, text, remedy)
    else:
        text = (
            f"The task refers to the SMTP connection manager {reference}, which is in neither the package nor its "
            "project."
        )
        question = ask_for_connection_manager(reference, candidates[0].name if len(candidates) == 1 else "")
        context.add_finding("dangling-connection-manager", severity, path, text, remedy, question=question)


# --- Execute SQL tasks and Expression tasks

# SSIS writes the name; a configuration may set the number of the enumeration SqlStatementSourceType or ResultSetType.
_SOURCE_TYPES = {
    "directinput": SqlSourceType.DIRECT_INPUT,
    "fileconnection": SqlSourceType.FILE_CONNECTION,
    "variable": SqlSourceType.VARIABLE,
    "1": SqlSourceType.DIRECT_INPUT,
    "2": SqlSourceType.FILE_CONNECTION,
    "3": SqlSourceType.VARIABLE,
}
_RESULT_SETS = {
    "resultsettype_none": ResultSetType.NONE,
    "resultsettype_singlerow": ResultSetType.SINGLE_ROW,
    "resultsettype_rowset": ResultSetType.FULL,
    "resultsettype_xml": ResultSetType.XML,
    "1": ResultSetType.NONE,
    "2": ResultSetType.SINGLE_ROW,
    "3": ResultSetType.FULL,
    "4": ResultSetType.XML,
}
_DIRECTIONS = {"input": "Input", "output": "Output", "returnvalue": "ReturnValue"}


class _SqlFields(TypedDict):
    """The fields of a `SqlTask` from its ObjectData."""

    connection: DatabaseConnection | None
    connection_reference: str
    source_type: SqlSourceType
    statement: str
    statement_file: FileConnection | None
    result_set: ResultSetType
    results: tuple[SqlResult, ...]
    parameters: tuple[SqlParameter, ...]
    is_stored_procedure: bool
    timeout: int


def _is_sql_kind(kind: str) -> bool:
    """Whether a CreationName is that of the Execute SQL task; maintenance tasks have the same kind of data."""
    return "executesqltask" in kind.lower() or kind.upper() == "STOCK:SQLTASK"


def _is_expression_kind(kind: str) -> bool:
    """Whether a CreationName is that of the Expression task."""
    return kind.lower().endswith((".expressiontask", ":expressiontask"))


def _read_expression_task(element: Element, kind: str, context: ReadContext, common: CommonFields) -> ExpressionTask:
    """Return an Expression task."""
    data = find_object_data(element, "ExpressionTask")
    expression = data.attributes.get("Expression", "") if data is not None else ""
    expression = context.overrides.task_property(common["path"], "Expression", expression)
    return ExpressionTask(**common, kind=kind, expression=expression)


def _read_sql(data: Element, path: tuple[str, ...], context: ReadContext) -> _SqlFields:
    def read(attribute: str, property_name: str = "") -> str:
        return context.overrides.task_property(path, property_name or attribute, data.attributes.get(attribute, ""))

    reference = read("Connection").strip()
    connection = context.find_connection_manager(reference)
    source_type = _SOURCE_TYPES.get(
        read("SqlStmtSourceType", "SqlStatementSourceType").strip().lower(), SqlSourceType.DIRECT_INPUT
    )
    statement = read("SqlStatementSource")
    file = context.find_connection_manager(statement) if source_type is SqlSourceType.FILE_CONNECTION else None
    return _SqlFields(
        connection=connection if isinstance(connection, DatabaseConnection) else None,
        connection_reference=reference,
        source_type=source_type,
        statement=statement,
        statement_file=file if isinstance(file, FileConnection) else None,
        result_set=_RESULT_SETS.get(read("ResultType", "ResultSetType").strip().lower(), ResultSetType.NONE),
        results=tuple(_read_results(data)),
        parameters=tuple(_read_parameters(data)),
        is_stored_procedure=is_true(read("IsStoredProc", "IsStoredProcedure")),
        timeout=parse_integer(read("TimeOut")) or 0,
    )


def _read_results(data: Element) -> list[SqlResult]:
    return [
        SqlResult(name=binding.attributes.get("ResultName", "").strip(), variable=variable)
        for binding in data.find_all("ResultBinding")
        if (variable := binding.attributes.get("DtsVariableName", "").strip())
    ]


def _read_parameters(data: Element) -> list[SqlParameter]:
    parameters = []
    for binding in data.find_all("ParameterBinding"):
        attributes = binding.attributes
        size = parse_integer(attributes.get("ParameterSize"))
        parameters.append(
            SqlParameter(
                name=attributes.get("ParameterName", "").strip(),
                variable=attributes.get("DtsVariableName", "").strip(),
                direction=_DIRECTIONS.get(attributes.get("ParameterDirection", "").strip().lower(), "Input"),
                data_type=parse_integer(attributes.get("DataType")) or 0,
                size=-1 if size is None else size,
            )
        )
    return parameters


# --- Other tasks: the variables that their data names

# The attributes with the type and the name of an output; the name is a variable's if the type is `Variable`.
_OUTPUTS = {
    "WebServiceTaskData": (("OutputType", "OutputLocation"),),
    "WMIDRTaskData": (("DestinationType", "Destination"),),
    "XMLTaskData": (("DestinationType", "Destination"), ("DiffGramDestinationType", "DiffGramDestination")),
}
# The same for inputs.
_INPUTS = {
    "WMIDRTaskData": (("WQLQuerySourceType", "WQLQuerySource"),),
    "WMIEWTaskData": (("WQLQuerySourceType", "WQLQuerySource"),),
    "XMLTaskData": (
        ("SourceType", "Source"),
        ("SecondOperandType", "SecondOperand"),
        ("XPathStringSourceType", "XPathStringSource"),
    ),
}
# Tasks that set no variable.
_WITHOUT_OUTPUT = {"ASDdlData", "ASProcessingData", "BulkInsertTaskData", "FileSystemData", "FtpData", "WMIEWTaskData"}
# Properties of data flow components, and attributes of other vendors' tasks, that name a variable to read.
_INPUT_WORDS = (
    "readonly",
    "sqlcommand",
    "openrowset",
    "filename",
    "xmldata",
    "state",
    "source",
    "input",
    "query",
    "path",
)
_QUALIFIED_NAME = re.compile(r"\s*(?!System::)[^\W\d]\w*::[^\s:\[\]@\"][^:\[\]@\"]*")


# Properties of a Script task whose expressions do not change what it does.
_COSMETIC = {"Description", "Disable"}


@dataclass(slots=True)
class _Names:
    """The variables of a task, as the package names them, without repetitions."""

    sets: dict[str, None] = field(default_factory=dict)
    reads: dict[str, None] = field(default_factory=dict)
    updates: dict[str, None] = field(default_factory=dict)


def read_other_task(data: Iterable[Element], kind: str, common: CommonFields, *, reads_scripts: bool) -> OtherTask:
    """Return a task of any other type, with the variables that its data names.

    Args:
        data: the elements in its ObjectData.
        kind: its CreationName.
        common: the fields that all executables have.
        reads_scripts: whether to look for scripts that only set variables.
    """
    names = _Names()
    assignments: tuple[tuple[str, str], ...] | None = None
    child_package = ""
    child_parameters: tuple[tuple[str, str], ...] = ()
    for element in data:
        if element.tag == "ExecutePackageTask":
            child_package, child_parameters = _read_child_package(element)
            _add(names.reads, (variable for _, variable in child_parameters))
        else:
            _read_names(element, names)
        if reads_scripts and element.tag == "ScriptProject" and _COSMETIC.issuperset(common["expressions"]):
            assignments = _read_script(element)
    if assignments is not None:
        names = _Names()
        _add(names.sets, (name for name, _ in assignments))
        _add(names.reads, (name for _, value in assignments for name in find_variables(parse(value))))
    return OtherTask(
        **common,
        kind=kind,
        sets=tuple(names.sets),
        reads=tuple(name for name in names.reads if assignments is not None or name not in names.sets),
        updates=tuple(names.updates),
        assignments=assignments,
        child_package=child_package,
        child_parameters=child_parameters,
    )


def _read_script(element: Element) -> tuple[tuple[str, str], ...] | None:
    """Return the variables that a Script task sets, with their values; None if it does anything else."""
    return read_assignments(
        [item.text for item in element.find_all("ProjectItem")],
        language=element.attributes.get("Language", ""),
        entry_point=element.attributes.get("EntryPoint", ""),
        read_only=_split_names(_read_attribute_or_child(element, "ReadOnlyVariables")),
        read_write=_split_names(_read_attribute_or_child(element, "ReadWriteVariables")),
    )


def _split_names(text: str) -> list[str]:
    """Return the names in a list of variables, which commas separate."""
    return [name for part in text.split(",") if (name := part.strip())]


def _read_names(element: Element, names: _Names) -> None:
    attributes = element.attributes
    if element.tag == "ScriptProject":
        written = _split_names(_read_attribute_or_child(element, "ReadWriteVariables"))
        written += [child.text for child in element.find_all(LOCKED_VARIABLE)]
        _add(names.sets, written)
        code = "\n".join(item.text for item in element.find_all("ProjectItem"))
        _add(names.updates, find_updated(code, attributes.get("Language", ""), written))
        _add(names.reads, _split_names(_read_attribute_or_child(element, "ReadOnlyVariables")))
    elif element.tag == "pipeline":
        for child in element.children:
            name, variables = child.attributes.get("name", ""), _split_names(child.text)
            _add(names.reads if _is_input(name) else names.sets, variables)
            _add(names.updates, variables if name == "ReadWriteVariables" else ())
    elif element.tag == "ExecuteProcessData":
        _add(names.sets, (attributes.get(f"Standard{stream}Variable", "") for stream in ("Output", "Error")))
        _add(names.reads, (attributes.get("StandardInputVariable", ""),))
    elif element.tag == "CDCControlTask":
        _add(names.sets, (attributes.get("StateVariable", ""),))
        _add(names.updates, (attributes.get("StateVariable", ""),))
    elif element.tag in _OUTPUTS or element.tag in _WITHOUT_OUTPUT:
        _add(names.sets, _read_typed_names(element, _OUTPUTS))
        _add(names.reads, _read_typed_names(element, _INPUTS))
        # `TaskIsSourceVariable="True"`: `TaskSourcePath` is the name of a variable.
        paths = [value for name, value in attributes.items() if "Path" in name and _QUALIFIED_NAME.fullmatch(value)]
        _add(names.reads, paths)
    else:
        _search_names(element, names)


def _read_attribute_or_child(element: Element, name: str) -> str:
    child = element.find(name)
    return element.attributes.get(name) or (child.text if child is not None else "")


def _read_typed_names(element: Element, pairs: dict[str, tuple[tuple[str, str], ...]]) -> Iterator[str]:
    for type_name, name in pairs.get(element.tag, ()):
        if element.attributes.get(type_name, "").strip().lower() == "variable":
            yield element.attributes.get(name, "")


def _search_names(element: Element, names: _Names) -> None:
    """Add each attribute or text that is the qualified name of a variable: as read if it is an input, else as set.

    It is an input if the name of the attribute or the element says so.
    """
    for name, value in (*element.attributes.items(), (element.tag, element.text)):
        if _QUALIFIED_NAME.fullmatch(value):
            # Many tasks write `<Body Type="8" Value="User::Body" />`.
            target = names.reads if _is_input(element.tag if name == "Value" else name) else names.sets
            _add(target, (value,))
    for child in element.children:
        _search_names(child, names)


def _is_input(name: str) -> bool:
    return any(word in name.lower() for word in _INPUT_WORDS)


def _read_child_package(element: Element) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the package that an Execute Package task names, and its pairs of parameter and variable."""

    def read(owner: Element, tag: str) -> str:
        child = owner.find(tag)
        return child.text.strip() if child is not None else ""

    parameters = []
    for assignment in element.find_all("ParameterAssignment"):
        name, value = read(assignment, "ParameterName"), read(assignment, "BindedVariableOrParameterName")
        if name and value:
            parameters.append((name, value))
    return read(element, "PackageName"), tuple(parameters)


def _add(target: dict[str, None], names: Iterable[str]) -> None:
    target.update(dict.fromkeys(name for text in names if (name := text.strip())))
